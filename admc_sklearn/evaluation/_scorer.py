"""Errors of completed cells as figures and as a scorer for scikit-learn."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from .._table.containers import as_table, is_frame
from .._table.missing_markers import accepts_null, placeholder
from .._table.remove_cells import without_codes
from .._table.types import (
    Mechanism,
    Metric,
    Modalities,
    RandomState,
    Rates,
    Table,
)
from ..missingness import ampute
from ._errors import score_cells
from ._runs import complete, rows_of, steps_before

METRICS = ("rmse", "mae", "accuracy")


def imputation_scores(
    X_true: Table,
    X_incomplete: Table,
    X_completed: Table,
    *,
    X_reference: Table | None = None,
) -> dict[str, float]:
    """Errors of the cells that are missing in one table and known in another.

    Parameters
    ----------
    X_true : array-like or data frame of shape (n_samples, n_features)
        Table with the true values: a pandas or polars frame, or an array. NaN, None and
        null are unknown. Columns of truth values, text or categories are categorical by
        their dtype; dates and durations count as numbers.
    X_incomplete : array-like or data frame of shape (n_samples, n_features)
        Table that the imputer got.
    X_completed : array-like or data frame of shape (n_samples, n_features)
        Table that the imputer returned. It may be an array even if the others are
        frames. Columns of frames are matched by name, columns of arrays by position.
    X_reference : array-like or data frame, default=None
        Table whose observed cells give the mean and the scale of each numeric column,
        such as the training rows. None takes ``X_incomplete``.

    Returns
    -------
    scores : dict of str to float
        Scores over all hidden cells together; nan where there is no hidden cell of the
        kind:

        - ``rmse``, ``mae``: root mean squared and mean absolute error of the numeric
          cells, where each column is standardised by the mean and standard deviation of
          its observed cells. If these do not vary, the known cells of ``X_true`` are
          used instead; a column that is constant there too keeps its own unit.
        - ``accuracy``: share of the categorical cells with the right level.

    Raises
    ------
    ValueError
        If shapes or names differ, if ``X_completed`` still has missing values, if a
        cell is infinite, or if a column holds another kind of values than in
        ``X_true``.

    Examples
    --------
    >>> import numpy as np
    >>> X_true = np.array([[1.0, 5.0], [3.0, 6.0], [9.0, 7.0]])
    >>> X_incomplete = np.array([[1.0, 5.0], [3.0, 6.0], [np.nan, 7.0]])
    >>> X_completed = np.array([[1.0, 5.0], [3.0, 6.0], [8.0, 7.0]])
    >>> imputation_scores(X_true, X_incomplete, X_completed)
    {'rmse': 1.0, 'mae': 1.0, 'accuracy': nan}
    """
    return score_cells(X_true, X_incomplete, X_completed, X_reference)


def make_imputation_scorer(
    metric: Metric = "rmse",
    *,
    rate: Rates = 0.3,
    mechanism: Mechanism = "mcar",
    modalities: Modalities | None = None,
    random_state: RandomState = 0,
) -> Callable[..., float]:
    """Make a scorer with which a grid search tunes an imputer, without a predictor.

    Parameters
    ----------
    metric : {"rmse", "mae", "accuracy"}, default="rmse"
        Metric of `imputation_scores`. The scorer returns the accuracy, or the negated
        error, so that more is better.
    rate : float, array of shape (n_features,) or dict, default=0.3
        Share of the known cells that are hidden: see `ampute`.
    mechanism : {"mcar", "mar", "mnar", "modality"}, default="mcar"
        Mechanism by which cells are hidden: see `ampute`.
    modalities : dict, default=None
        Columns of each modality, for ``mechanism="modality"``: see `ampute`.
    random_state : int, RandomState instance or None, default=0
        Seed of the hidden cells. It is used once, so that every candidate gets the same
        hidden cells, also with None.

    Returns
    -------
    scorer : callable
        Function ``scorer(imputer, X, y=None)``, for the ``scoring`` of `GridSearchCV`,
        `HalvingGridSearchCV` or `cross_val_score`. It hides known cells of the rows
        that the search holds out, completes them by the fitted imputer, and compares.
        Cells that are really missing never count. The scorer can be pickled.

    Raises
    ------
    ValueError
        If the metric is unknown. The scorer raises it if no hidden cell is of the
        metric's kind, if the completed table is in other units, and wherever
        `imputation_scores` raises it.

    See Also
    --------
    compare_imputers : Different imputers side by side, with times and failures.

    Notes
    -----
    The imputer may be the last step of a pipeline. Its completion is transformed back
    by the `inverse_transform` of the steps before it, so that candidates that scale in
    different ways can be compared. If these steps have no `inverse_transform`, errors
    are computed in the table that the imputer gets. They are standardised, hence the
    same for all steps that shift and scale.

    For a mixed table, use several scorers: ``scoring={"rmse": make_imputation_scorer(),
    "accuracy": make_imputation_scorer("accuracy")}, refit="rmse"``.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.impute import KNNImputer
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> imputer = make_pipeline(StandardScaler(), KNNImputer())
    >>> grid = {"knnimputer__n_neighbors": [1, 10]}
    >>> search = GridSearchCV(imputer, grid, scoring=make_imputation_scorer(), cv=3)
    >>> search.fit(load_wine().data).best_params_
    {'knnimputer__n_neighbors': 10}
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {METRICS}, got {metric!r}.")
    if isinstance(random_state, Integral):
        seed = int(random_state)
    else:
        seed = _draw_seed(random_state)
    # A table may have been amputed by this seed itself: the masks have to differ.
    seed = zlib.crc32(f"scorer {seed}".encode())
    return _ImputationScorer(metric, rate, mechanism, modalities, seed)


class _ImputationScorer:
    """Scorer that `make_imputation_scorer` returns."""

    def __init__(self, metric, rate, mechanism, modalities, random_state):
        self.metric = metric
        self.rate = rate
        self.mechanism = mechanism
        self.modalities = modalities
        self.random_state = random_state

    def __repr__(self):
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items())
        return f"make_imputation_scorer({options})"

    def __call__(self, estimator, X, y=None):
        """Score a fitted imputer on rows X; y is ignored."""
        X = as_table(X)
        before = steps_before(estimator)
        markers = np.nan if before else getattr(estimator, "missing_values", np.nan)
        X = without_codes(X, markers)
        X_incomplete = ampute(
            X,
            mechanism=self.mechanism,
            rate=self.rate,
            modalities=self.modalities,
            random_state=self.random_state,
        )
        if before is None or hasattr(before, "inverse_transform"):
            # Rows are copied, since an imputer may work in place.
            given = rows_of(X_incomplete, np.arange(len(X_incomplete)))
            if not is_frame(given) and not accepts_null(markers):
                given[pd.isna(given)] = placeholder(markers)
            completed = complete(estimator, given)
        else:
            X, given = before.transform(X), before.transform(X_incomplete)
            completed = estimator[-1].transform(given)
            X_incomplete = before.transform(X_incomplete)
        scores = score_cells(X, X_incomplete, completed, check_observed=True)
        score = scores[self.metric]
        if np.isnan(score):
            kind = "categorical" if self.metric == "accuracy" else "numeric"
            raise ValueError(
                f"metric={self.metric!r} needs hidden {kind} cells, and there are none."
            )
        return score if self.metric == "accuracy" else -score


def _draw_seed(random_state):
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
