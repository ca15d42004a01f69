"""What the pattern of missing cells says: a test, and how columns inform each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import chi2

from .._table.remove_cells import Table as CellTable
from .._table.types import Table

# Expectation-maximisation ends where nothing moves by more, in standard deviations.
TOLERANCE, MAX_STEPS = 1e-7, 2000


@dataclass(frozen=True)
class McarTest:
    """Little's test that cells are missing completely at random.

    Attributes
    ----------
    statistic : float
    df : int
        Degrees of freedom of its chi-squared distribution.
    p_value : float
        Small where cells are not missing completely at random.
    n_patterns : int
        Patterns of missing cells, the complete one included.
    """

    statistic: float
    df: int
    p_value: float
    n_patterns: int


def mcar_test(X: Table) -> McarTest:
    """Test whether cells are missing completely at random (Little, 1988).

    It compares the means of the rows of each pattern of missing cells with those that a
    normal distribution, fitted to all rows, expects. A large p-value does not prove
    anything: cells that hide themselves may leave the means alone. Nor does a small one
    say which mechanism is at work; imputation that uses the other columns is right
    under "missing at random" too.

    Parameters
    ----------
    X : array-like or data frame of shape (n_samples, n_features)
        Incomplete table of numbers.

    Returns
    -------
    McarTest

    Raises
    ------
    ValueError
        If a column is not numeric, has no observed cell or is constant, if columns are
        collinear, or if there is a single pattern: then nothing can be tested.

    References
    ----------
    Little (1988), "A test of missing completely at random for multivariate data with
    missing values", JASA 83, 1198-1202.

    Examples
    --------
    >>> import numpy as np
    >>> from admc_sklearn.missingness import ampute, mcar_test
    >>> X = np.random.default_rng(0).normal(size=(300, 3))
    >>> bool(mcar_test(ampute(X, random_state=0)).p_value > 0.05)
    True
    """
    values, names = _numbers(X)
    seen = ~np.isnan(values)
    values, seen = values[seen.any(axis=1)], seen[seen.any(axis=1)]
    spread = np.nanstd(values, axis=0) if len(values) else np.zeros(len(names))
    for name, count, own in zip(names, seen.sum(axis=0), spread, strict=True):
        if not count or not own > 0:
            what = "is constant" if count else "has no observed cell"
            raise ValueError(f"Column {name!r} {what}: leave it out of the test.")
    x = (values - np.nanmean(values, axis=0)) / spread
    patterns, member = np.unique(seen, axis=0, return_inverse=True)
    if len(patterns) == 1:
        raise ValueError("All rows lack the same cells: there is nothing to compare.")
    groups = [(p, x[member.ravel() == k]) for k, p in enumerate(patterns)]
    mean, cov = _fit_normal(groups, x.shape[1])
    statistic = 0.0
    for pattern, rows in groups:
        shift = rows[:, pattern].mean(axis=0) - mean[pattern]
        part = cov[np.ix_(pattern, pattern)]
        if np.linalg.cond(part) > 1e12:
            own = [name for name, p in zip(names, pattern, strict=True) if p]
            raise ValueError(
                f"Columns among {own} are collinear: leave one of them out of the test."
            )
        statistic += len(rows) * shift @ np.linalg.solve(part, shift)
    df = int(patterns.sum()) - x.shape[1]
    p_value = float(chi2.sf(statistic, df)) if df > 0 else np.nan
    return McarTest(float(statistic), df, p_value, len(patterns))


def _numbers(X):
    """Table as float64, NaN where a cell is missing, and the names of its columns."""
    table = CellTable(X)
    out = np.full(table.known.shape, np.nan)
    for j, (column, rows) in enumerate(zip(table.columns, table.known.T, strict=True)):
        own = pd.Series(column[rows]).infer_objects()
        if j in table.categorical or not pd.api.types.is_numeric_dtype(own.dtype):
            raise ValueError(
                f"Column {table.names[j]!r} holds no numbers: leave it out, or code it."
            )
        out[rows, j] = own.to_numpy(np.float64)
    return out, table.names


def _fit_normal(groups, d):
    """Mean and covariance by maximum likelihood: expectation-maximisation."""
    n = sum(len(rows) for _, rows in groups)
    mean, cov = np.zeros(d), np.eye(d)
    for _ in range(MAX_STEPS):
        total, second = np.zeros(d), np.zeros((d, d))
        for pattern, rows in groups:
            filled = np.where(pattern, rows, 0.0)
            left = np.zeros((d, d))
            if not pattern.all():
                lost = ~pattern
                own = cov[np.ix_(pattern, pattern)]
                slopes = np.linalg.lstsq(own, cov[np.ix_(pattern, lost)], rcond=None)[0]
                filled[:, lost] = (
                    mean[lost] + (rows[:, pattern] - mean[pattern]) @ slopes
                )
                inner = cov[np.ix_(lost, lost)] - cov[np.ix_(lost, pattern)] @ slopes
                left[np.ix_(lost, lost)] = len(rows) * inner
            total += filled.sum(axis=0)
            second += filled.T @ filled + left
        center = total / n
        spread = second / n - np.outer(center, center)
        change = max(np.abs(center - mean).max(), np.abs(spread - cov).max())
        mean, cov = center, (spread + spread.T) / 2
        if change < TOLERANCE:
            break
    return mean, cov


def flux(X: Table) -> pd.DataFrame:
    """How well columns can be imputed, and how well they serve to impute others.

    As ``flux`` of mice: a column of high outflux is a good predictor; one of low influx
    and outflux takes no part in either [1]_.

    Parameters
    ----------
    X : array-like or data frame of shape (n_samples, n_features)

    Returns
    -------
    DataFrame of shape (n_features, 6)
        ``pobs``: share of observed cells. ``influx``: pairs of a missing cell of this
        column and an observed one of another, over all observed cells. ``outflux``:
        pairs of an observed cell of this column and a missing one of another, over all
        missing cells. ``ainb`` and ``aout``: averages over the other columns of the
        share of rows in which these are observed where this is missing, and missing
        where this is observed. ``fico``: share of incomplete rows where this column is
        observed.

    References
    ----------
    .. [1] van Buuren (2018), Flexible Imputation of Missing Data, section 4.1.3.
    """
    table = CellTable(X)
    seen = table.known.astype(np.float64)
    lost = 1 - seen
    rr, rm, mr, mm = seen.T @ seen, seen.T @ lost, lost.T @ seen, lost.T @ lost
    others = max(1, seen.shape[1] - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "pobs": seen.mean(axis=0),
            "influx": mr.sum(axis=1) / (mr + rr).sum(axis=1),
            "outflux": rm.sum(axis=1) / (rm + mm).sum(axis=1),
            "ainb": np.nansum(mr / (mr + mm), axis=1) / others,
            "aout": np.nansum(rm / (rm + rr), axis=1) / others,
            "fico": (seen * lost.any(axis=1)[:, None]).sum(axis=0) / seen.sum(axis=0),
        }
    return pd.DataFrame(found, index=[str(name) for name in table.names])
