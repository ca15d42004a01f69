"""Fit of an imputer to a dataset."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sklearn.utils import check_random_state

from .._shared.noise import draw_seeds
from .._table.validation import all_or_nothing
from ._arrow import features_of, frame_of, hashes_of
from ._rows_of_fit import Gathered, RowFinder
from ._shards import Encoded, Shards


def fit_dataset(imputer, source, n_sample_rows, batch_size, options, effort):
    """Fit an imputer to a `Source`; see `distributed.fit`."""
    imputer._validate_params()
    rows = find_rows(imputer, source, n_sample_rows, batch_size, options)
    return fit_rows(imputer, rows, source, effort)


def fit_rows(imputer, rows, source, effort):
    """Fit an imputer to what `find_rows` found, and by so much effort to all rows."""

    def shards_of(codec):
        encoded = Encoded(codec, rows.schema)
        return Shards(source.dataset, encoded, hashes_of(rows), effort)

    is_sharded = effort.train_workers or effort.anchor_passes
    with all_or_nothing(imputer) as draft:
        draft._fit(frame_of(rows), shards_of=shards_of if is_sharded else None)
    return imputer


@dataclass(frozen=True)
class Effort:
    """How much of a dataset is used beyond its sample; see `distributed.fit`."""

    train_workers: int = 0
    anchor_passes: int = 0
    storage_path: Any = None


@dataclass(frozen=True)
class Source:
    """A dataset to fit, and what is known of it beforehand.

    Parameters
    ----------
    dataset : ray.data.Dataset
    schema : pyarrow.Schema
    key : list of str
    n_rows : int
    """

    dataset: Any
    schema: pa.Schema
    key: list[str]
    n_rows: int


def find_rows(imputer, source, n_sample_rows, batch_size, options):
    """Rows of a `Source` that the imputer is fitted to, a `pyarrow.Table`."""
    columns = features_of(source.schema, source.key)
    if not source.n_rows or not columns:
        raise ValueError("The dataset has no rows or no columns to fit.")
    # A seed of the caller's is drawn from, as every fit does.
    (seed,) = draw_seeds(check_random_state(imputer.random_state), 1)
    finder = RowFinder(
        pa.schema([source.schema.field(name) for name in columns]),
        pa.schema([source.schema.field(name) for name in source.key]),
        imputer,
        n_sample_rows,
        source.n_rows,
        seed,
    )
    parts = source.dataset.map_batches(
        finder.__call__, batch_size=batch_size, batch_format="pyarrow", **options
    )
    gathered = Gathered(n_sample_rows)
    for batch in parts.iter_batches(batch_size=None, batch_format="pyarrow"):
        for part in batch.column("part"):
            gathered.add(*pickle.loads(part.as_py()))
    return gathered.table()
