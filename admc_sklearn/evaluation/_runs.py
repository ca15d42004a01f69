"""One run of a comparison: hide, fit, complete, score; and many of them at once."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed, effective_n_jobs, parallel_config
from joblib.parallel import get_active_backend
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from .._table.column_kinds import objects
from .._table.containers import is_frame
from ..missingness import ampute
from ._errors import Columns, score_cells
from ._result_file import FIGURES

MAX_MESSAGE = 300


@dataclass(frozen=True)
class Downstream:
    """The model that uses completed tables: its labels (n,), itself, its scorer."""

    y: np.ndarray
    estimator: object
    scorer: object


def steps_before(imputer):
    """Fitted steps of a pipeline before the imputer, its last; None without any."""
    if isinstance(imputer, Pipeline) and len(imputer.steps) > 1:
        return imputer[:-1]
    return None


def complete(imputer, X):
    """Complete X by a fitted imputer, in X's own units.

    The steps of a pipeline before its imputer are undone by their `inverse_transform`.
    """
    completed, before = imputer.transform(X), steps_before(imputer)
    if before is None:
        return completed
    if not hasattr(before, "inverse_transform"):
        raise TypeError(
            "The steps before the last, the imputer, have no inverse_transform: the "
            "completed table is not in the units of X."
        )
    return before.inverse_transform(completed)


def measure(imputer, X, split, masking, downstream=None):
    """Figures of one imputer on one split, with the error that stopped it, or None.

    Parameters
    ----------
    imputer : estimator
        Cloned.
    X : frame or array of shape (n, d)
    split : tuple of two int arrays
        Training and test rows.
    masking : dict
        Arguments of `ampute`.
    downstream : Downstream or None

    Returns
    -------
    dict of `FIGURES`, nan where there are none, and ``error``
    """
    # An error of the mechanism is raised: it is not a failure of the imputer.
    X_incomplete = ampute(X, **masking)
    train, test = (rows_of(X_incomplete, rows) for rows in split)
    figures = dict.fromkeys(FIGURES, np.nan) | {"error": None}
    stage = "clone"
    try:
        imputer = clone(imputer)
        stage, started = "fit", perf_counter()
        # Rows are copied, since an imputer may work in place.
        imputer.fit(rows_of(X_incomplete, split[0]))
        figures["fit_time"] = perf_counter() - started
        stage, started = "transform", perf_counter()
        completed = complete(imputer, rows_of(X_incomplete, split[1]))
        figures["transform_time"] = perf_counter() - started
        stage, X_true = "transform", rows_of(X, split[1])
        figures |= score_cells(X_true, test, completed, train, check_observed=True)
        if downstream is not None:
            stage = "estimator"
            figures["score"] = _downstream_score(
                X, split, complete(imputer, train), completed, downstream
            )
    except Exception as error:
        figures["error"] = failure(stage, error)
    return figures


def failure(stage, error):
    """Name the step that failed and its error, in one line."""
    message = " ".join(f"{stage}: {type(error).__name__}: {error}".split())
    return message[:MAX_MESSAGE]


def _downstream_score(X, split, train, test, downstream):
    train, test = _designs(X, train, test)
    estimator = clone(downstream.estimator).fit(train, downstream.y[split[0]])
    return float(downstream.scorer(estimator, test, downstream.y[split[1]]))


def _designs(X, train, test):
    """Completed tables as floats: dates as steps of time, a 0-1 column for each level.

    The levels are those of the completed training rows; others have no column.
    """
    like = Columns(X, "X")
    tables = [Columns(table, "X_completed").like(like) for table in (train, test)]
    blocks = [[], []]
    for j in range(like.shape[1]):
        if like.kind(j) == "category":
            levels = pd.Index(pd.unique(objects(tables[0].values[j])), dtype=object)
        else:
            reader = like.reader(j)
        for table, block in zip(tables, blocks, strict=True):
            if like.kind(j) == "category":
                codes = levels.get_indexer(objects(table.values[j]))
                block.append(codes[:, None] == np.arange(len(levels)))
            else:
                block.append(table.numbers(j, slice(None), reader)[:, None])
    return [np.hstack(block).astype(np.float64) for block in blocks]


def rows_of(X, rows):
    """Copy of the given rows of a frame or an array."""
    return X.iloc[rows] if is_frame(X) and hasattr(X, "iloc") else X[rows]


def in_parallel(function, runs, n_jobs):
    """Call a function for each of several runs, lists of its arguments, in parallel.

    Returns
    -------
    iterable of (position, result)
        As they finish, or all at the end where the backend of joblib that the caller
        has chosen, such as Ray's, cannot return one by one.
    """
    n_workers = min(effective_n_jobs(n_jobs), len(runs))
    if n_workers < 2:
        return ((k, function(*run)) for k, run in enumerate(runs))
    backend = get_active_backend()[0]
    yields = getattr(backend, "supports_return_generator", False)
    how = "generator_unordered" if yields else "list"
    with _limited_threads(n_workers):
        return Parallel(n_jobs=n_workers, return_as=how)(
            delayed(_numbered)(function, k, run) for k, run in enumerate(runs)
        )


def _numbered(function, k, run):
    return k, function(*run)


def _limited_threads(n_workers):
    """Context in which worker processes share the cores, and do not fight for them.

    joblib sets the variables that OpenMP, BLAS and torch read when a worker starts.
    This process is left as it is, as are backends without processes of their own.
    """
    if not get_active_backend()[0].supports_inner_max_num_threads:
        return nullcontext()
    n_threads = max(1, cpu_count() // n_workers)
    stated = os.environ.get("OMP_NUM_THREADS", "")
    if stated.isdigit() and int(stated):
        n_threads = min(n_threads, int(stated))
    return parallel_config("loky", inner_max_num_threads=n_threads)
