"""Comparison of imputers on a table of one's own.

Observed cells are hidden and compared with their completions. Five lines find the best
imputer of a table:

>>> from sklearn.datasets import load_breast_cancer
>>> from sklearn.impute import KNNImputer, SimpleImputer
>>> imputers = {"mean": SimpleImputer(), "neighbours": KNNImputer()}
>>> X = load_breast_cancer().data
>>> results = compare_imputers(imputers, X, random_state=0)
>>> results.groupby("imputer")["rmse"].mean().sort_values().index.to_list()
['neighbours', 'mean']
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from numbers import Integral
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length

from .._shared.caller_warnings import warn_caller
from .._shared.progress import tqdm
from .._table.containers import as_table
from .._table.types import Estimator, Mechanism, Modalities, RandomState, Table
from ..missingness._ampute import MECHANISMS
from ._ranking import _ranks
from ._result_file import FIGURES, KEY, ResultFile, describe, fingerprint
from ._runs import Downstream, in_parallel, measure
from ._scorer import _draw_seed


def compare_imputers(
    imputers: Mapping[str, Estimator],
    X: Table,
    *,
    mechanisms: Mechanism | Sequence[Mechanism] = ("mcar",),
    rates: float | Sequence[float] = (0.3,),
    cv: int | Iterable[tuple[ArrayLike, ArrayLike]] | Any = 3,
    y: ArrayLike | None = None,
    estimator: Estimator | None = None,
    modalities: Modalities | None = None,
    scoring: str | Callable[..., float] | None = None,
    n_jobs: int | None = None,
    path: str | PathLike[str] | None = None,
    verbose: int = 0,
    random_state: RandomState = None,
) -> pd.DataFrame:
    """Compare imputers on unseen rows of a table.

    Known cells are removed from X. Each imputer is fitted to the incomplete training
    rows and completes the incomplete test rows; the completed cells are compared with
    the removed ones. All imputers get the same tables.

    Parameters
    ----------
    imputers : dict of str to estimator
        Imputers by name; they are cloned. Each gets X as it is. An imputer that cannot
        use X, for example because of text, has an error in the result. A pipeline may
        have steps before the imputer, which must be its last step: these are undone by
        their `inverse_transform`.
    X : array-like or data frame of shape (n_samples, n_features)
        Table on which the imputers are compared: a pandas or polars frame, or an array.
        Cells that are really missing stay missing and never count. They are NaN, None
        or null here, whatever the ``missing_values`` of an imputer.
    mechanisms : str or sequence of str, default=("mcar",)
        Mechanisms by which cells are removed: see `ampute`.
    rates : float or sequence of float, default=(0.3,)
        Shares of the known cells to remove, in (0, 1), in training and test rows.
    cv : int, splitter or iterable of (train, test), default=3
        Splits into training and test rows. An int is their number; the rows are then
        shuffled, and stratified by y if the estimator is a classifier.
    y : array-like of shape (n_samples,), default=None
        Labels for the estimator. Imputers do not get them.
    estimator : estimator, default=None
        Model that is fitted, with y, to the completed training rows, and scored on the
        completed test rows. It gets an array of floats: dates are numbers, and
        categorical columns are one-hot encoded by the levels of the training rows.
    modalities : dict, default=None
        Columns of each modality, for ``mechanisms="modality"``: see `ampute`.
    scoring : str, callable or None, default=None
        Score of the estimator. None takes the estimator's own `score`.
    n_jobs : int, default=None
        Number of processes. They share the cores, so that times are longer than in one
        process, and comparable only within one call.
    path : str or path-like, default=None
        CSV or parquet file to which each result is added when it is there. Several
        processes may add to one file; a file ``<path>.lock`` is locked meanwhile.
        A result in the file is not computed again if it has no error and if X, y, the
        rows, the seed and all parameters were the same; changes of code are not
        noticed. Results of another configuration stay in the file, with another
        ``fingerprint``. Imputers with parameters that cannot be pickled always run.
    verbose : int, default=0
        How much is printed. 1 shows a progress bar.
    random_state : int, RandomState instance or None, default=None
        Seed of the removed cells and of the splits, not of the imputers. An int is
        needed with ``path``.

    Returns
    -------
    results : pandas.DataFrame
        One row for each split, mechanism, rate and imputer, with these columns:

        - ``imputer``, ``mechanism``, ``rate``, ``split``: they identify the run;
        - ``rmse``, ``mae``, ``accuracy``: see `imputation_scores`; the units are those
          of the observed training cells;
        - ``fit_time``, ``transform_time``: seconds, the latter for the test rows;
        - ``score``: the score of the estimator;
        - ``rank``: the imputer's rank in this split, 1 for the lowest ``rmse`` (the
          highest ``accuracy`` if no column is numeric), ties averaged, failures last;
        - ``error``: the step that failed and its error; missing if nothing failed.

        Figures that do not exist are nan.

    Raises
    ------
    ValueError, TypeError
        If an argument is none of those above. Errors of an imputer or of the estimator
        are not raised but recorded, and so are wrong shapes, missing values that are
        left, and tables that come back in other units.

    Warns
    -----
    UserWarning
        If ``path`` has results of the same runs with another configuration.

    See Also
    --------
    ranking : Mean ranks, and the difference that chance alone would explain.
    admc_sklearn.ImputationDisplay.from_comparison : The result as a picture.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.impute import KNNImputer, SimpleImputer
    >>> from sklearn.linear_model import Ridge
    >>> X, y = load_diabetes(return_X_y=True)
    >>> imputers = {"mean": SimpleImputer(), "neighbours": KNNImputer()}
    >>> results = compare_imputers(
    ...     imputers, X, y=y, estimator=Ridge(), cv=2, random_state=0
    ... )
    >>> results[["imputer", "split", "rank", "error"]]
          imputer  split  rank error
    0        mean      0   2.0  None
    1  neighbours      0   1.0  None
    2        mean      1   2.0  None
    3  neighbours      1   1.0  None
    """
    X = as_table(X)
    check_imputers(imputers)
    mechanisms = [mechanisms] if isinstance(mechanisms, str) else list(mechanisms)
    rates = [float(rate) for rate in np.atleast_1d(rates)]
    _check_masking(mechanisms, rates)
    if path is not None and random_state is None:
        raise ValueError("path needs random_state, an int: else no result fits it.")
    seed = _draw_seed(random_state)
    downstream = _downstream(y, estimator, scoring)
    splits = _splits(cv, X, y, estimator, seed)
    # Imputers take turns, so that a partial result has all of them.
    keys = [
        (name, mechanism, rate, split)
        for split, mechanism, rate, name in product(
            range(len(splits)), mechanisms, rates, imputers
        )
    ]
    runs = []
    for name, mechanism, rate, split in keys:
        masking = {"mechanism": mechanism, "rate": rate, "modalities": modalities}
        # The seed depends on the run, not on its position: other rates beside it do not
        # change it.
        text = f"{seed} {mechanism} {rate!r} {split}"
        masking["random_state"] = zlib.crc32(text.encode())
        runs.append((imputers[name], X, splits[split], masking, downstream))
    figures = _resumed(keys, runs, scoring, path, n_jobs, verbose)
    frame = pd.DataFrame(keys, columns=list(KEY))
    for name in FIGURES:
        frame[name] = [figures[k][name] for k in range(len(keys))]
    frame["rank"] = _ranks(frame)
    errors = [figures[k]["error"] for k in range(len(keys))]
    return frame.assign(error=pd.Series(errors, dtype=object))


def _resumed(keys, runs, scoring, path, n_jobs, verbose):
    """Figures of all runs by position: those in the file, then those measured."""
    figures, marks, store = {}, [], None
    if path is not None:
        store = ResultFile(path)
        marks = _fingerprints(runs, scoring)
        figures, n_others = store.find(keys, marks)
        if n_others:
            warn_caller(
                f"{str(path)!r} has results of another configuration (data, seed or "
                f"parameters) for {n_others} runs: they are computed anew, and the "
                "others stay in the file."
            )
    todo = [k for k in range(len(runs)) if k not in figures]
    bar = tqdm(
        total=len(runs), desc="compare_imputers", unit="run", disable=not verbose
    )
    with bar:
        bar.update(len(figures))
        for position, result in in_parallel(measure, [runs[k] for k in todo], n_jobs):
            k = todo[position]
            figures[k] = result
            if store is not None:
                key = dict(zip(KEY, keys[k], strict=True))
                store.append(key | result | {"fingerprint": marks[k]})
            bar.update()
    return figures


def _fingerprints(runs, scoring):
    """Hash the data and parameters of each run; the code is left out."""
    # Tables are large, and the same in all runs: they are hashed once.
    _, X, _, _, downstream = runs[0]
    shared = [describe(X)]
    if downstream is not None:
        model = _identity(downstream.estimator)
        shared += [describe(downstream.y), model, scoring]
    shared = fingerprint(*shared)
    return [
        fingerprint(shared, _identity(imputer), split, masking)
        for imputer, _, split, masking, _ in runs
    ]


def _identity(estimator):
    """Class and parameters, without attributes of a fit."""
    try:
        estimator = clone(estimator)
    except Exception:  # its runs will fail with this error
        pass
    cls = type(estimator)
    return f"{cls.__module__}.{cls.__qualname__}", estimator.get_params()


def check_imputers(imputers):
    """Check that there are imputers, with names."""
    if not isinstance(imputers, Mapping) or not imputers:
        raise TypeError(f"imputers must be a dict, not empty, got {imputers!r}.")
    for name, imputer in imputers.items():
        if not isinstance(name, str):
            raise TypeError(f"imputers must have names of type str, got {name!r}.")
        for method in ("fit", "transform", "get_params"):
            if isinstance(imputer, type) or not hasattr(imputer, method):
                raise TypeError(f"Imputer {name!r} has no {method}: got {imputer!r}.")


def _check_masking(mechanisms, rates):
    """Check that mechanisms and rates are valid, and distinct."""
    for name, values in (("mechanisms", mechanisms), ("rates", rates)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} must be distinct, one at least, got {values}.")
    for mechanism in mechanisms:
        if mechanism not in MECHANISMS:
            raise ValueError(
                f"mechanisms must be among {MECHANISMS}, got {mechanism!r}."
            )
    if not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"rates must be in (0, 1), got {rates}.")


def _downstream(y, estimator, scoring):
    """Labels, estimator and scorer, or None without an estimator."""
    if estimator is None:
        if scoring is not None:
            raise ValueError("scoring needs an estimator.")
        return None
    if y is None:
        raise ValueError("estimator needs y.")
    return Downstream(np.asarray(y), estimator, check_scoring(estimator, scoring))


def _splits(cv, X, y, estimator, seed):
    """Training and test rows of each split."""
    check_consistent_length(X, y)
    y = None if y is None else np.asarray(y)
    is_count = isinstance(cv, Integral)
    cv = check_cv(cv, y, classifier=estimator is not None and is_classifier(estimator))
    if is_count:
        # Rows of many tables are sorted by class or by date.
        cv = type(cv)(cv.get_n_splits(), shuffle=True, random_state=seed)
    splits = list(cv.split(np.empty((len(X), 0)), y))
    return [tuple(np.arange(len(X))[rows] for rows in split) for split in splits]
