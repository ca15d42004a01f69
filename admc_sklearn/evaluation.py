"""Which imputer is best for my data: scores, a scorer for grid searches, a comparison.

Known cells are hidden and compared with what an imputer puts there. The answer for a
table, in five lines:

>>> from sklearn.datasets import load_breast_cancer
>>> from sklearn.impute import KNNImputer, SimpleImputer
>>> imputers = {"mean": SimpleImputer(), "neighbours": KNNImputer()}
>>> X = load_breast_cancer().data
>>> results = compare_imputers(imputers, X, random_state=0)
>>> results.groupby("imputer")["rmse"].mean().sort_values().index.to_list()
['neighbours', 'mean']
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from itertools import product
from numbers import Integral, Real

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from scipy.stats import studentized_range
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length, check_random_state

from ._comparison import Downstream, complete, measure_all, rows_of, steps_before
from ._containers import as_table, is_frame
from ._markers import accepts_null, placeholder
from ._metrics import score_cells
from ._progress import tqdm
from ._results import FIGURES, KEY, ResultFile, describe, fingerprint
from .missingness import MECHANISMS, ampute, without_codes

METRICS = ("rmse", "mae", "accuracy")
# Where more is better.
_GAINS = {"accuracy", "score"}


def imputation_scores(X_true, X_incomplete, X_completed, *, X_reference=None):
    """Errors of the cells that are missing in one table and known in another.

    Parameters
    ----------
    X_true : array-like or data frame of shape (n_samples, n_features)
        A pandas or polars frame, or an array; NaN, None and null are unknown. Its
        dtypes decide what a column holds: truth values, text and categories are
        categorical; dates and durations count as numbers.
    X_incomplete : array-like or data frame of shape (n_samples, n_features)
        The table that the imputer got.
    X_completed : array-like or data frame of shape (n_samples, n_features)
        What it returned: a frame, or an array even where the others are frames. Columns
        of frames are matched by name, of arrays by position.
    X_reference : array-like or data frame, default=None
        The table whose observed cells give the unit of each numeric column, such as
        the training rows. None takes ``X_incomplete``.

    Returns
    -------
    scores : dict of str to float
        Over all hidden cells together, nan where there are none of the kind:

        - ``rmse``, ``mae``: root mean squared and mean absolute error of the numeric
          cells, each column standardised by the mean and standard deviation of its
          observed cells. Where these do not vary the known cells of ``X_true`` stand
          in; a column that is constant there too keeps its own unit.
        - ``accuracy``: share of the categorical cells with the right level.

    Raises
    ------
    ValueError
        If shapes or names differ, ``X_completed`` still has missing values, a cell is
        infinite, or a column holds something else than in ``X_true``.

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
    metric="rmse", *, rate=0.3, mechanism="mcar", modalities=None, random_state=0
):
    """Make a scorer with which a grid search tunes an imputer, without a predictor.

    Parameters
    ----------
    metric : {"rmse", "mae", "accuracy"}, default="rmse"
        As in `imputation_scores`. The scorer returns the accuracy, or the negated
        error: more is better.
    rate, mechanism, modalities
        Which of the known cells are hidden: see `ampute`.
    random_state : int, RandomState instance or None, default=0
        Drawn from once: every candidate gets the same hidden cells, whatever it is.

    Returns
    -------
    scorer : callable
        ``scorer(imputer, X, y=None)``, for the ``scoring`` of `GridSearchCV`,
        `HalvingGridSearchCV` or `cross_val_score`. It hides known cells of the rows
        that the search holds out, lets the fitted imputer complete them, and compares.
        Cells that are really missing never count. It can be pickled.

    Raises
    ------
    ValueError
        If the metric is unknown. The scorer raises it where no hidden cell is of the
        metric's kind, where the completed table is in other units, and where
        `imputation_scores` does.

    See Also
    --------
    compare_imputers : Different imputers side by side, with times and failures.

    Notes
    -----
    The imputer may be the last step of a pipeline. Its completion is brought back by
    the `inverse_transform` of the steps before, so that candidates that scale in
    different ways can be compared. Where these have none, errors are those in the table
    that the imputer gets: standardised, hence the same for steps that shift and scale.

    For a mixed table, search by several: ``scoring={"rmse": make_imputation_scorer(),
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
    if not isinstance(random_state, Integral):
        random_state = _draw_seed(random_state)
    # Not the masks of a table that was itself amputed by this seed.
    random_state = zlib.crc32(f"scorer {int(random_state)}".encode())
    return _ImputationScorer(metric, rate, mechanism, modalities, int(random_state))


class _ImputationScorer:
    """What `make_imputation_scorer` makes."""

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
            # A copy: an imputer may work in place.
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


def compare_imputers(
    imputers,
    X,
    *,
    mechanisms=("mcar",),
    rates=(0.3,),
    cv=3,
    y=None,
    estimator=None,
    modalities=None,
    scoring=None,
    n_jobs=None,
    path=None,
    verbose=0,
    random_state=None,
):
    """Compare imputers on unseen rows of a table.

    Known cells are removed from X. Each imputer is fitted to the incomplete training
    rows and completes the incomplete test rows; the completed cells are compared with
    what was removed. All imputers get the same tables.

    Parameters
    ----------
    imputers : dict of str to estimator
        Cloned. Each gets X as it is; one that cannot take it, because of text, say,
        has an error in the result. A pipeline may have steps before the imputer, its
        last one: these are undone by their `inverse_transform`.
    X : array-like or data frame of shape (n_samples, n_features)
        A pandas or polars frame, or an array. Cells that are really missing stay so
        and never count; they are NaN, None or null here, whatever an imputer's
        ``missing_values``.
    mechanisms : str or sequence of str, default=("mcar",)
        See `ampute`.
    rates : float or sequence of float, default=(0.3,)
        Shares, in (0, 1), of the known cells to remove, in training and test rows.
    cv : int, splitter or iterable of (train, test), default=3
        An int shuffles the rows, stratified by y where the estimator is a classifier.
    y : array-like of shape (n_samples,), default=None
        Labels; imputers do not get them.
    estimator : estimator, default=None
        Fitted, with y, to the training rows that the imputer completed, and scored on
        the test rows that it completed. It gets an array of floats: categorical
        columns are one-hot encoded, by the levels of the training rows, dates count.
    modalities : dict, default=None
        Columns of each modality, for ``mechanisms="modality"``: see `ampute`.
    scoring : str, callable or None, default=None
        The estimator's score; None takes its own `score`.
    n_jobs : int, default=None
        Processes; they share the cores. Times are longer then, and only comparable
        within one call.
    path : str or path-like, default=None
        A CSV or parquet file to which each result is added as soon as it is there,
        by several processes too, with a lock on a file ``<path>.lock`` meanwhile.
        A result found there is not computed again if it has no error, and if X, y, the
        rows, the seed and all parameters, but not their code, were the same. What was
        not the same stays in the file beside the new result, with another
        ``fingerprint``. Imputers with parameters that cannot be pickled always run.
    verbose : int, default=0
        1 shows a progress bar.
    random_state : int, RandomState instance or None, default=None
        Seeds which cells are removed and how rows are split, not the imputers. An int
        is needed with ``path``.

    Returns
    -------
    results : pandas.DataFrame
        One row for each split, mechanism, rate and imputer:

        - ``imputer``, ``mechanism``, ``rate``, ``split``: which one;
        - ``rmse``, ``mae``, ``accuracy``: see `imputation_scores`; the units are those
          of the observed training cells;
        - ``fit_time``, ``transform_time``: seconds, the latter for the test rows;
        - ``score``: of the estimator;
        - ``rank``: of the imputer in this split, 1 for the lowest ``rmse`` (the highest
          ``accuracy`` where no column is numeric), ties averaged, failures last;
        - ``error``: what failed, and where; missing if nothing did.

        Figures that are not there are nan.

    Raises
    ------
    ValueError, TypeError
        If an argument is none of those above. What an imputer or the estimator raises
        is recorded, as are wrong shapes, missing values that are left, and tables that
        come back in other units.

    Warns
    -----
    UserWarning
        If ``path`` has results of the same runs, but with another configuration.

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
    _check_imputers(imputers)
    mechanisms = [mechanisms] if isinstance(mechanisms, str) else list(mechanisms)
    rates = [float(r) for r in ([rates] if isinstance(rates, Real) else rates)]
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
        # By what it is, not by its place: other rates beside it do not change it.
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


def ranking(results, metric="rmse", *, alpha=0.05):
    """Rank imputers over all runs, with the critical difference of Nemenyi's test.

    Parameters
    ----------
    results : pandas or polars DataFrame
        As `compare_imputers` returns it. A column ``table`` may tell apart the results
        of several tables.
    metric : {"rmse", "mae", "accuracy", "fit_time", "transform_time", "score"}, \
            default="rmse"
    alpha : float, default=0.05
        Chance of finding any difference where there is none.

    Returns
    -------
    ranks : pandas.DataFrame
        One row for each imputer, its index, best first:

        - ``mean_rank``: over the runs, ties averaged, failures last;
        - ``n_failures``: runs without a value;
        - ``critical_difference``: imputers whose mean ranks differ by less cannot be
          told apart;
        - ``as_good_as_best``: whether it cannot be told apart from the first.

    Raises
    ------
    ValueError
        If a column is lacking, there are fewer than two imputers, one of them has not
        exactly one row in each run, or no run has a value.

    Notes
    -----
    Of k imputers and N runs the critical difference is q sqrt(k (k + 1) / (6 N)), q
    being the quantile of the studentised range of k means, with infinite degrees of
    freedom, divided by sqrt(2) [1]_. The test is made for N independent tables. Splits
    of one table share most of their rows: the difference is then a lower limit, and
    says how far the result depends on the split, not what to expect of other tables.

    References
    ----------
    .. [1] Demsar (2006). "Statistical comparisons of classifiers over multiple data
       sets". Journal of Machine Learning Research 7, 1-30.

    Examples
    --------
    >>> import pandas as pd
    >>> results = pd.DataFrame({"imputer": ["a", "b"] * 8, "mechanism": "mcar",
    ...     "rate": 0.3, "split": sorted(list(range(8)) * 2), "rmse": [0.5, 0.7] * 8})
    >>> ranking(results)["critical_difference"].round(2).to_dict()
    {'a': 0.69, 'b': 0.69}
    """
    if metric not in FIGURES:
        raise ValueError(f"metric must be one of {FIGURES}, got {metric!r}.")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha!r}.")
    frame = nw.from_native(results, eager_only=True).to_dict(as_series=False)
    frame = pd.DataFrame(frame)
    lacking = {*KEY, metric} - set(frame.columns)
    if lacking:
        raise ValueError(f"results lacks the columns {sorted(lacking)}.")
    run = [name for name in ("table", *KEY[1:]) if name in frame.columns]
    if frame.duplicated([*run, "imputer"]).any():
        raise ValueError(f"results has an imputer twice in one of its runs, by {run}.")
    values = frame.pivot(index=run, columns="imputer", values=metric)
    n_imputers = values.shape[1]
    if n_imputers < 2:
        raise ValueError(f"results must have two imputers or more, got {n_imputers}.")
    if len(frame) < values.size:
        raise ValueError("results must have every imputer in each of its runs.")
    values = values[values.notna().any(axis=1)].astype(np.float64)
    if values.empty:
        raise ValueError(f"results holds no value of {metric!r}.")
    ranks = values.rank(axis=1, ascending=metric not in _GAINS, na_option="bottom")
    table = pd.DataFrame({"mean_rank": ranks.mean(), "n_failures": values.isna().sum()})
    table = table.sort_values("mean_rank", kind="stable")
    q = studentized_range.ppf(1 - alpha, n_imputers, np.inf) / np.sqrt(2)
    difference = q * np.sqrt(n_imputers * (n_imputers + 1) / (6 * len(values)))
    table["critical_difference"] = difference
    behind = table["mean_rank"] - table["mean_rank"].iloc[0]
    return table.assign(as_good_as_best=behind < difference)


def _ranks(frame):
    """Ranks within each split, mechanism and rate."""
    by_error = frame["rmse"].notna().any()
    values = frame["rmse"] if by_error else -frame["accuracy"]
    groups = values.groupby([frame[name] for name in KEY[1:]])
    return groups.rank(na_option="bottom")


def _resumed(keys, runs, scoring, path, n_jobs, verbose):
    """Figures of all runs by position: those in the file, then those measured."""
    figures, marks, store = {}, [], None
    if path is not None:
        store = ResultFile(path)
        marks = _fingerprints(runs, scoring)
        figures, n_others = store.find(keys, marks)
        if n_others:
            warnings.warn(
                f"{str(path)!r} has results of another configuration (data, seed or "
                f"parameters) for {n_others} runs: they are computed anew, and the "
                "others stay in the file.",
                UserWarning,
                stacklevel=3,
            )
    todo = [k for k in range(len(runs)) if k not in figures]
    bar = tqdm(
        total=len(runs), desc="compare_imputers", unit="run", disable=not verbose
    )
    with bar:
        bar.update(len(figures))
        for place, result in measure_all([runs[k] for k in todo], n_jobs):
            k = todo[place]
            figures[k] = result
            if store is not None:
                key = dict(zip(KEY, keys[k], strict=True))
                store.append(key | result | {"fingerprint": marks[k]})
            bar.update()
    return figures


def _fingerprints(runs, scoring):
    """Hash what each run depends on, but for the code."""
    # Tables are large, and the same in all runs.
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
    """Class and parameters, without what was learnt."""
    try:
        estimator = clone(estimator)
    except Exception:  # its runs will say so
        pass
    kind = type(estimator)
    return f"{kind.__module__}.{kind.__qualname__}", estimator.get_params()


def _check_imputers(imputers):
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
    """Check that there is something to hide, and each of it once."""
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


def _draw_seed(random_state):
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
