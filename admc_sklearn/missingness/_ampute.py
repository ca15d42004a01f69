"""Removes known cells from a table by a stated mechanism, to test an imputer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit
from sklearn.utils import check_random_state

from .._shared.caller_warnings import warn_caller
from .._table.column_selection import resolve_modalities
from .._table.remove_cells import Table as CellTable
from .._table.types import FrameT, Mechanism, Modalities, RandomState, Rates, Table

MECHANISMS = ("mcar", "mar", "mnar", "modality")
# Share of the columns that "mar" leaves complete, as in the field's protocol.
COMPLETE_SHARE = 0.3
# Bounds that keep every probability and its complement above the smallest float.
_MAX_OFFSET, _MAX_INTERCEPT = 10.0, 40.0
# Half a standard error: a rate missed in expectation by more is worth a warning.
_TOLERANCE = 0.5


@overload
def ampute(
    X: FrameT,
    *,
    mechanism: Mechanism = ...,
    rate: Rates = ...,
    modalities: Modalities | None = ...,
    allow_empty_rows: bool = ...,
    allow_empty_columns: bool = ...,
    random_state: RandomState = ...,
) -> FrameT: ...


@overload
def ampute(
    X: ArrayLike,
    *,
    mechanism: Mechanism = ...,
    rate: Rates = ...,
    modalities: Modalities | None = ...,
    allow_empty_rows: bool = ...,
    allow_empty_columns: bool = ...,
    random_state: RandomState = ...,
) -> np.ndarray: ...


def ampute(
    X: Table,
    *,
    mechanism: Mechanism = "mcar",
    rate: Rates = 0.3,
    modalities: Modalities | None = None,
    allow_empty_rows: bool = False,
    allow_empty_columns: bool = False,
    random_state: RandomState = None,
) -> Any:
    """Remove known cells from a table by a stated mechanism.

    Cells that are already missing stay missing. The input is not changed.

    Parameters
    ----------
    X : array-like or data frame of shape (n_samples, n_features)
        Table from which cells are removed: an array, or a frame that narwhals reads
        (pandas, polars, pyarrow). NaN, None and null are missing.
    mechanism : {"mcar", "mar", "mnar", "modality"}, default="mcar"
        What the probability that a cell is removed depends on.

        - "mcar": it depends on nothing.
        - "mar": it depends on a random 30 % of the columns (at least one), which stay
          complete; columns with ``rate`` 0 are the first of these. Cells of the other
          columns are removed by a logistic model with normal weights, whose logits have
          a standard deviation of 1 [1]_ [2]_.
        - "mnar": it depends on the cell's own value (self-masking [1]_), by a logistic
          model of slope 1 or -1, at random, on the standardised column.
        - "modality": it depends on nothing, but the columns of a modality are removed
          together.

        In these models a category counts as a standard normal number that is drawn for
        it, a date as its time, and a missing value as the mean of its column.
    rate : float, array of shape (n_features,) or dict, default=0.3
        Share of the known cells of a column that are removed, in [0, 1]. With "mar" it
        applies to the columns that do not stay complete. A dict holds rates by the
        columns' names, or by the indices of an array's columns; columns without a rate
        lose nothing. With "modality" there is one rate for each modality: first the
        modalities of ``modalities``, in order, then the columns that are left out.
    modalities : dict, default=None
        Columns of each modality, by its name, for "modality" only. The columns are a
        name, an index, a list of these, a slice, a boolean mask, or a callable that
        takes X and returns one of these. A column that is left out is a modality of its
        own.
    allow_empty_rows : bool, default=False
        Whether a row may lose all its known cells. If not, the removals are drawn given
        that every row keeps a known cell, and the rate is still met as far as possible.
    allow_empty_columns : bool, default=False
        Whether a column may lose all its known cells. If not, such a column keeps one.
    random_state : int, RandomState instance or None, default=None
        Seed of the removals. With the same seed, numeric tables of different types lose
        the same cells.

    Returns
    -------
    X_incomplete : same type as X, of shape (n_samples, n_features)
        Copy of X without the removed cells. Arrays of integers and booleans become
        float64, arrays of strings object. A pandas column that loses a cell becomes
        float or "boolean" where its dtype cannot hold missing values.

    Raises
    ------
    ValueError
        If the mechanism, a rate or a column is unknown or out of range, if two
        modalities share a column, or if "mar" is used with a single column.
    TypeError
        If ``modalities`` is no dict, or columns are neither names nor indices.

    Warns
    -----
    UserWarning
        If the rate cannot be met while every row keeps a known cell.

    References
    ----------
    .. [1] Muzellec et al. (2020). "Missing data imputation using optimal transport".
    .. [2] Zhang et al. (2024). "DiffPuter", arXiv:2405.20690.

    Examples
    --------
    >>> import numpy as np
    >>> from admc_sklearn.missingness import ampute
    >>> ampute(np.arange(6.0).reshape(3, 2), rate=0.4, random_state=0)
    array([[ 0.,  1.],
           [ 2., nan],
           [ 4., nan]])
    """
    if mechanism not in MECHANISMS:
        raise ValueError(f"mechanism must be one of {MECHANISMS}; got {mechanism!r}.")
    table = CellTable(X)
    rng = check_random_state(random_state)
    # What is lost as one: a modality, or a column, which is then a modality alone.
    together = modalities if mechanism == "modality" else None
    columns_of = resolve_modalities(together, table.native, table.names)
    rates = _rates(rate, list(columns_of))
    known = np.column_stack(
        [table.known[:, columns].any(axis=1) for columns in columns_of.values()]
    )
    offsets = np.zeros(known.shape)  # logits less their intercepts
    if mechanism == "mar":
        rates, offsets = _missing_at_random(_standardised(table, rng), rates, rng)
    elif mechanism == "mnar":
        offsets = _standardised(table, rng) * rng.choice([-1.0, 1.0], known.shape[1])
    at_risk, safe = known & (rates > 0), known & (rates == 0)
    guarded = at_risk.any(axis=1) & ~safe.any(axis=1) & (not allow_empty_rows)
    logits, excess = _add_intercepts(offsets, at_risk, guarded, rates)
    if np.any(np.abs(excess) * np.sqrt(at_risk.sum(axis=0)) > _TOLERANCE):
        warn_caller(
            f"rate={rate!r} cannot be met while every row keeps a known cell: some "
            f"shares differ by {np.abs(excess).max():.3f}. Set "
            "allow_empty_rows=True to meet it."
        )
    lost = _draw_lost(logits, at_risk, guarded, rng)
    if not allow_empty_columns:
        _restore_emptied_columns(lost, logits, table.known, columns_of, rng)
    removed = np.zeros(table.known.shape, dtype=bool)
    for k, columns in enumerate(columns_of.values()):
        removed[:, columns] = lost[:, [k]] & table.known[:, columns]
    return table.without(removed)


def _missing_at_random(values, rates, rng):
    """Rates, 0 at the complete columns, (d,), and offsets by these, (n, d)."""
    d = len(rates)
    if d < 2:
        raise ValueError(f'mechanism="mar" needs at least two columns; got {d}.')
    # Constant columns come last: nothing can depend on them.
    order = rng.permutation(d)
    order = order[np.lexsort((np.ptp(values[:, order], axis=0) == 0, rates[order] > 0))]
    n_complete = max(1, int(COMPLETE_SHARE * d), np.sum(rates == 0))
    complete = order[:n_complete]
    offsets = values[:, complete] @ rng.normal(size=(n_complete, d))
    spread = offsets.std(axis=0)
    is_complete = np.isin(np.arange(d), complete)
    offsets = offsets / np.where(spread > 0, spread, 1.0)
    return np.where(is_complete, 0.0, rates), offsets


def _standardised(table, rng):
    """Columns as standardised numbers, 0 at missing cells, (n, d)."""
    out = np.zeros(table.known.shape)
    for j, rows in enumerate(table.known.T):
        if rows.any():
            values = table.columns[j][rows]
            # Categories may be numbers, whose order means nothing.
            values = values.astype(str) if j in table.categorical else values
            out[rows, j] = _standardise(values, rng)
    return out


def _standardise(values, rng):
    """Numbers of mean 0 and standard deviation 1; each category is a random one."""
    if values.dtype == object:
        values = pd.Series(values).infer_objects().to_numpy()
    if values.dtype.kind in "mM":
        values = values.astype(np.int64)
    elif values.dtype.kind not in "iufb":
        codes, categories = pd.factorize(values)
        values = rng.normal(size=len(categories))[codes]
    # Infinities become huge, and sums of squares of huge or tiny numbers overflow.
    values = np.nan_to_num(values.astype(np.float64))
    values /= np.abs(values).max() or 1.0
    spread = values.std()
    if spread <= 8 * np.finfo(np.float64).eps:  # rounding of a constant
        return np.zeros(len(values))
    return (values - values.mean()) / spread


def _add_intercepts(offsets, at_risk, guarded, rates):
    """Add the intercepts at which each modality's expected share lost is its rate.

    Rows are independent Bernoulli draws over the modalities at risk, (n, k), the
    guarded rows, (n,), conditioned on not losing all. This is an exponential family in
    the intercepts, so they minimise a convex function: the log-partition less its
    linear term. Returns logits, (n, k), and by how much the shares miss the rates,
    (k,), which is nothing unless these are out of reach.
    """
    offsets = np.clip(offsets, -_MAX_OFFSET, _MAX_OFFSET)
    n, n_at_risk = len(offsets), at_risk.sum(axis=0)

    def objective(intercepts):
        logits = offsets + intercepts
        log_lost, log_survival = _log_probabilities(logits, at_risk, guarded)
        value = np.sum(logits - log_lost, where=at_risk) + log_survival.sum()
        kept = expit(-logits) / np.exp(log_survival)[:, None]
        excess = np.sum(1 - kept - rates, axis=0, where=at_risk)
        return (value - intercepts @ (n_at_risk * rates)) / n, excess / n

    with np.errstate(divide="ignore"):
        start = logit(rates).clip(-_MAX_INTERCEPT, _MAX_INTERCEPT)
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_MAX_INTERCEPT, _MAX_INTERCEPT)] * len(rates),
        options={"ftol": 1e-13, "gtol": 1e-6, "maxiter": 300},
    )
    return offsets + found.x, found.jac * n / np.maximum(n_at_risk, 1)


def _log_probabilities(logits, at_risk, guarded):
    """Log-probability of each loss, (n, k), and of a row not losing all, (n,).

    The first is 0 where nothing is at risk, the second where nothing is guarded.
    """
    log_lost = np.where(at_risk, log_expit(logits), 0.0)
    log_survival = np.zeros(len(logits))
    log_survival[guarded] = np.log(-np.expm1(log_lost[guarded].sum(axis=1)))
    return log_lost, log_survival


def _draw_lost(logits, at_risk, guarded, rng):
    """Draw the losses, (n, k), in turn, given that a guarded row keeps one."""
    log_lost, _ = _log_probabilities(logits, at_risk, guarded)
    # Log-probability of losing this modality and all that follow it, 0 after the last.
    log_rest = np.zeros((len(logits), logits.shape[1] + 1))
    log_rest[:, :-1] = log_lost[:, ::-1].cumsum(axis=1)[:, ::-1]
    draws = rng.uniform(size=logits.shape)
    lost = np.zeros(logits.shape, dtype=bool)
    pending = guarded  # guarded rows that have kept nothing yet
    for j, risk in enumerate(at_risk.T):
        chance = np.exp(log_lost[:, j])
        tied = pending & risk
        chance[tied] *= np.expm1(log_rest[tied, j + 1]) / np.expm1(log_rest[tied, j])
        lost[:, j] = risk & (draws[:, j] < chance)
        pending = pending & ~(risk & ~lost[:, j])
    return lost


def _restore_emptied_columns(lost, logits, known, columns_of, rng):
    """Take back one loss of each column without a known cell left, in place."""
    for k, columns in enumerate(columns_of.values()):
        for j in columns:
            rows = np.flatnonzero(known[:, j])
            if len(rows) and lost[rows, k].all():
                # By the Gumbel trick a row drawn by its odds of being kept.
                luck = rng.gumbel(size=len(rows)) - logits[rows, k]
                lost[rows[luck.argmax()], k] = False


def _rates(rate, names):
    """Rates of the modalities as an array of shape (k,)."""
    if isinstance(rate, Mapping):
        if unknown := [name for name in rate if name not in names]:
            raise ValueError(f"rate names {unknown}, which are not among {names}.")
        rate = [rate.get(name, 0.0) for name in names]
    rates = np.asarray(rate, dtype=np.float64)
    if rates.ndim and rates.shape != (len(names),):
        raise ValueError(f"rate must be one number or {len(names)}; got {rate!r}.")
    if not np.all((rates >= 0) & (rates <= 1)):
        raise ValueError(f"rate must lie in [0, 1]; got {rate!r}.")
    return np.broadcast_to(rates, len(names))
