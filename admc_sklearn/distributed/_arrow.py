"""Batches of Arrow and frames: one schema for all batches of a dataset.

Whether a column of a batch is all null, an index or a fraction is a matter of the rows
that happen to be in it. Every batch is brought to the dataset's schema before it is
completed, and to that of the completed dataset after.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa


@dataclass(frozen=True)
class Layout:
    """Columns of a dataset, before and after they are completed.

    Attributes
    ----------
    given : pyarrow.Schema
        Of the columns that the imputer takes, in its order.
    completed : pyarrow.Schema
        Of the columns that it returns.
    key : pyarrow.Schema
        Of the columns that name a row.
    """

    given: pa.Schema
    completed: pa.Schema
    key: pa.Schema

    @classmethod
    def of(cls, imputer, schema, key):
        """Find the layout of a dataset of this schema, for a fitted imputer.

        Raises
        ------
        ValueError
            If a column is absent, or the imputer does not know one.
        """
        columns = features_of(schema, key)
        known = getattr(imputer, "feature_names_in_", None)
        if known is not None:
            columns = _matched(columns, list(known))
        elif len(columns) != imputer.n_features_in_:
            raise ValueError(
                f"The dataset has {len(columns)} columns to complete, and fit saw "
                f"{imputer.n_features_in_}."
            )
        # Columns without a type of their own have the one that they had in fit.
        given = pa.schema([schema.field(name) for name in columns])
        blank = pa.table([pa.nulls(1, f.type) for f in given], names=columns)
        with names_allowed():
            probe = table_of(imputer._transform(frame_of(blank)))
        fields = [
            f
            if not pa.types.is_null(f.type) or f.name not in probe.column_names
            else probe.schema.field(f.name)
            for f in given
        ]
        of_name = {f.name: f for f in fields}
        completed = [of_name.get(f.name, f) for f in probe.schema]
        return cls(
            pa.schema(fields),
            pa.schema(completed, schema.metadata),
            pa.schema([schema.field(name) for name in key]),
        )


@contextmanager
def names_allowed():
    """Leave out the warning that an imputer of an array is given names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X has feature names")
        yield


def features_of(schema, key):
    """Names of the columns that do not name rows; ValueError for an unknown key."""
    for name in key:
        if name not in schema.names:
            raise ValueError(f"key: the dataset has no column {name!r}.")
    return [name for name in schema.names if name not in key]


def _matched(columns, known):
    """Columns in the order of fit; ValueError where one is absent or new."""
    if absent := [name for name in known if name not in columns]:
        raise ValueError(f"The dataset has no column {absent[0]!r}, which fit saw.")
    if new := [name for name in columns if name not in known]:
        raise ValueError(
            f"Column {new[0]!r} of the dataset was not in fit: drop it, or name it in "
            "key to keep it."
        )
    return known


def cast(table, schema):
    """Columns of a schema out of a table, in their types.

    Raises
    ------
    ValueError
        If a column is absent, or has values that its type cannot hold.
    """
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            raise ValueError(f"A batch has no column {field.name!r}.")
        column = table.column(field.name)
        try:
            columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(
                f"Column {field.name!r} is {field.type} in the dataset's schema and "
                f"{column.type} in a batch, which does not fit: {error}."
            ) from error
    return pa.table(columns, schema=schema)


def frame_of(table):
    """Frame of pandas that shares the memory of a table, of Arrow's dtypes."""
    arrays = map(pd.arrays.ArrowExtensionArray, table.columns)
    return pd.DataFrame(dict(zip(table.column_names, arrays, strict=True)))


def table_of(frame):
    """Table of a frame, of whichever dtypes."""
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()


def hashes_of(table):
    """Hash of each row of a table, the same in every process, uint64 (n,)."""
    hashes = pd.util.hash_pandas_object(frame_of(table), index=False)
    return hashes.to_numpy(dtype=np.uint64)
