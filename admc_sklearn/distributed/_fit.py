"""Fit of an imputer to a dataset."""

from __future__ import annotations

import pickle

import pyarrow as pa
from sklearn.utils import check_random_state

from .._shared.noise import draw_seeds
from .._table.validation import all_or_nothing
from ._arrow import features_of, frame_of
from ._datasets import schema_of
from ._rows_of_fit import Gathered, RowFinder


def fit_dataset(imputer, dataset, n_sample_rows, key, batch_size, options):
    """Fit an imputer; see `distributed.fit`."""
    imputer._validate_params()
    rows = find_rows(imputer, dataset, n_sample_rows, key, batch_size, options)
    with all_or_nothing(imputer) as draft:
        draft._fit(frame_of(rows), None)
    return imputer


def find_rows(imputer, dataset, n_sample_rows, key, batch_size, options):
    """Rows of a dataset that the imputer is fitted to, a `pyarrow.Table`."""
    schema = schema_of(dataset)
    columns = features_of(schema, key)
    n_rows = dataset.count()
    if not n_rows or not columns:
        raise ValueError("The dataset has no rows or no columns to fit.")
    # A seed of the caller's is drawn from, as every fit does.
    (seed,) = draw_seeds(check_random_state(imputer.random_state), 1)
    finder = RowFinder(
        pa.schema([schema.field(name) for name in columns]),
        pa.schema([schema.field(name) for name in key]),
        imputer,
        n_sample_rows,
        n_rows,
        seed,
    )
    parts = dataset.map_batches(
        finder.__call__, batch_size=batch_size, batch_format="pyarrow", **options
    )
    gathered = Gathered(n_sample_rows)
    for batch in parts.iter_batches(batch_size=None, batch_format="pyarrow"):
        for part in batch.column("part"):
            gathered.add(*pickle.loads(part.as_py()))
    return gathered.table()
