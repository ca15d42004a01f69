"""Rubin's rules: one inference from the analyses of several completed data sets.

Each draw of the missing values is analysed as if it had been observed; the analyses
are then combined as in Rubin (1987, Multiple Imputation for Nonresponse in Surveys,
chapter 3), with the degrees of freedom of Barnard and Rubin (1999, Biometrika 86,
948-955), formula by formula as `pool` of the R package mice (3.19) computes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import t as student_t

from .._table.types import NumberOrArray

_Draw = TypeVar("_Draw")


@dataclass(frozen=True, eq=False, repr=False)
class PooledEstimates:
    """Estimates that are pooled over draws by Rubin's rules.

    `pool_estimates` and `pool_over_draws` return it. The first eight attributes are
    arrays of shape (p,), one value for each parameter, or numbers where each draw gave
    a number.

    Attributes
    ----------
    estimate : float or ndarray of shape (p,)
        Mean of the estimates of the draws.
    variance : float or ndarray of shape (p,)
        Total variance of ``estimate``.
    within : float or ndarray of shape (p,)
        Mean of the variances of the draws.
    between : float or ndarray of shape (p,)
        Variance of the estimates between the draws.
    df : float or ndarray of shape (p,)
        Degrees of freedom of the t distribution.
    riv : float or ndarray of shape (p,)
        Relative increase in variance due to missing values.
    lambda_ : float or ndarray of shape (p,)
        Share of the total variance that is due to missing values.
    fmi : float or ndarray of shape (p,)
        Fraction of missing information.
    n_draws : int
        Number of draws.
    dfcom : float
        Degrees of freedom of the analysis of complete data.
    confidence_level : float
        Nominal coverage of the confidence intervals.
    covariance : ndarray of shape (p, p) or None
        Total covariance, if the draws gave covariance matrices.
    names : pandas.Index or None
        Names of the parameters, if the draws gave names.
    """

    estimate: NumberOrArray
    variance: NumberOrArray
    within: NumberOrArray
    between: NumberOrArray
    df: NumberOrArray
    riv: NumberOrArray
    lambda_: NumberOrArray
    fmi: NumberOrArray
    n_draws: int
    dfcom: float
    confidence_level: float
    covariance: np.ndarray | None
    names: pd.Index | None

    @property
    def standard_error(self) -> NumberOrArray:
        """Square root of the total variance."""
        return np.sqrt(self.variance)

    @property
    def statistic(self) -> NumberOrArray:
        """Statistic t of the hypothesis that the parameter is 0."""
        return _ratio(self.estimate, self.standard_error)

    @property
    def p_value(self) -> NumberOrArray:
        """Two-sided p-value of the hypothesis that the parameter is 0."""
        return 2 * student_t.sf(np.abs(self.statistic), self.df)

    @property
    def monte_carlo_error(self) -> NumberOrArray:
        """Standard deviation of ``estimate`` over other sets of as many draws."""
        return np.sqrt(self.between / self.n_draws)

    def n_draws_needed(self, variation: float = 0.05) -> int:
        """Draws that make standard errors repeat (von Hippel, 2020, formula 2).

        Parameters
        ----------
        variation : float, default=0.05
            Coefficient of variation of standard errors over other sets of draws.

        Returns
        -------
        int
            Of the parameter that needs most.
        """
        if not variation > 0:
            raise ValueError(f"variation must be positive, got {variation}.")
        most = float(np.max(self.fmi))
        return max(2, math.ceil(1 + 0.5 * (most / variation) ** 2))

    @property
    def conf_int(self) -> np.ndarray:
        """Lower and upper limit of the confidence interval, of shape (p, 2) or (2,)."""
        quantile = student_t.ppf((1 + self.confidence_level) / 2, self.df)
        half = quantile * self.standard_error
        return np.stack([self.estimate - half, self.estimate + half], axis=-1)

    def to_frame(self) -> pd.DataFrame:
        """Table of all quantities, with one row for each parameter."""
        inference = ("estimate", "standard_error", "statistic", "df", "p_value")
        parts = ("fmi", "riv", "lambda_", "within", "between", "variance")
        table = {name: getattr(self, name) for name in inference}
        table["lower"], table["upper"] = self.conf_int.T
        table |= {name: getattr(self, name) for name in parts}
        index = range(np.size(self.estimate)) if self.names is None else self.names
        return pd.DataFrame(table, index=index)

    def __repr__(self) -> str:
        head = f"Pooled over {self.n_draws} draws, {100 * self.confidence_level:g} % "
        table = self.to_frame().loc[:, :"fmi"]
        body = table.to_string(float_format="{:.4g}".format, max_rows=20)
        return f"{head}confidence limits, dfcom={self.dfcom:g}\n{body}"


def pool_estimates(
    estimates: ArrayLike | pd.DataFrame | Sequence[Any],
    variances: ArrayLike
    | pd.DataFrame
    | Sequence[pd.Series | pd.DataFrame]
    | None = None,
    *,
    dfcom: float | None = None,
    confidence_level: float = 0.95,
) -> PooledEstimates:
    """Combine the estimates from several completed data sets by Rubin's rules.

    Parameters
    ----------
    estimates : array of shape (n_draws,) or (n_draws, p), or list of Series
        Estimates of each draw. The index of a Series, or the columns of a data frame of
        shape (n_draws, p), are the names of the parameters. Without ``variances`` it is
        a list of whole analyses, each as ``fit`` of `pool_over_draws` returns it: the
        results of statsmodels go in as they are.
    variances : array of the same shape, or (n_draws, p, p), default=None
        Squared standard errors of the estimates, or their covariance matrices. They are
        matched to the estimates by name if both have names.
    dfcom : float, default=None
        Degrees of freedom that the analysis would have with complete data, such as
        n - p for a regression. None takes the smallest value that the analyses have,
        or infinity, which suits a large sample, if one has none.
    confidence_level : float, default=0.95
        Nominal coverage of the confidence intervals, in (0, 1).

    Returns
    -------
    pooled : PooledEstimates
        The pooled inference. Where the draws agree it is the analysis of complete data,
        and ``df`` is ``dfcom``. (At that point mice returns the limit,
        ``dfcom * (dfcom + 1) / (dfcom + 3)``.)

    Raises
    ------
    TypeError
        If there are no variances, in ``variances`` or in an analysis.
    ValueError
        If there are fewer than two draws, shapes or names disagree, or values are out
        of range or not finite. It is also raised if estimates differ without any
        variance within the draws, unless ``dfcom`` is infinite, because no degrees of
        freedom are left.

    Examples
    --------
    >>> pooled = pool_estimates([-1.5457, -1.428], [0.9723**2, 1.041**2], dfcom=23)
    >>> print(f"{pooled.estimate:.5f}, {pooled.df:.5f} df, {pooled.fmi:.5f} missing")
    -1.48685, 20.97025 df, 0.09273 missing
    """
    estimates, variances, dfcom = _read_analyses(estimates, variances, dfcom)
    q, names = _stack(estimates, "estimates")
    u, variance_names = _stack(variances, "variances", names)
    dfcom = np.inf if dfcom is None else float(dfcom)
    if not dfcom > 0:
        raise ValueError(f"dfcom must be positive, got {dfcom}.")
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level must be in (0, 1), got {confidence_level}.")
    u, covariances = _check_draws(q, u)
    n_draws = len(q)
    # Differences from one draw: exactly 0 where the draws agree.
    deviations = q - q[0]
    deviations -= deviations.mean(axis=0)
    within = u.mean(axis=0)
    between = (deviations**2).sum(axis=0) / (n_draws - 1)
    lost = (1 + 1 / n_draws) * between
    lambda_ = _ratio(lost, within + lost)
    df = _degrees_of_freedom(lambda_, n_draws, dfcom)
    if covariances is not None:
        spread = (1 + 1 / n_draws) / (n_draws - 1) * deviations.T @ deviations
        covariances = covariances.mean(axis=0) + spread  # (p, p)
    return PooledEstimates(
        estimate=q.mean(axis=0),
        variance=within + lost,
        within=within,
        between=between,
        df=df,
        riv=_ratio(lost, within),
        lambda_=lambda_,
        # (riv + 2 / (df + 3)) / (riv + 1), in a form that stays finite if riv does not.
        fmi=lambda_ + (1 - lambda_) * 2 / (df + 3),
        n_draws=n_draws,
        dfcom=dfcom,
        confidence_level=confidence_level,
        covariance=covariances,
        names=variance_names if names is None else names,
    )


def pool_over_draws(
    draws: Iterable[_Draw],
    fit: Callable[[_Draw], Any],
    *,
    dfcom: float | None = None,
    confidence_level: float = 0.95,
) -> PooledEstimates:
    """Analyse every completed data set and combine the analyses by Rubin's rules.

    Parameters
    ----------
    draws : iterable of completed data sets
        Completed data sets, as `ADMCImputer.sample` returns them.
    fit : callable
        Function that analyses one completed data set. ``fit(draw)`` returns
        ``(estimates, variances)``, ``(estimates, variances, dfcom)``, or a result like
        the results of statsmodels, with the attributes ``params``, ``cov_params()`` or
        ``bse``, and optionally ``df_resid``, which is used as ``dfcom``.
    dfcom : float, default=None
        Degrees of freedom with complete data, as in `pool_estimates`.
    confidence_level : float, default=0.95
        Nominal coverage of the confidence intervals, in (0, 1).

    Returns
    -------
    pooled : PooledEstimates
        The pooled inference, as in `pool_estimates`.

    Raises
    ------
    TypeError
        If ``fit`` returns something else.
    ValueError
        If the analyses cannot be pooled: see `pool_estimates`.
    """
    analyses = [fit(draw) for draw in draws]
    return pool_estimates(analyses, dfcom=dfcom, confidence_level=confidence_level)


def _read_analyses(estimates, variances, dfcom):
    """Estimates, variances and complete-data degrees of freedom of all draws."""
    if variances is not None:
        return estimates, variances, dfcom
    analyses = [_read_analysis(analysis) for analysis in estimates]
    estimates, variances, found = ([a[part] for a in analyses] for part in range(3))
    if dfcom is None and found and None not in found:
        dfcom = min(found)
    return estimates, variances, dfcom


def _read_analysis(result):
    """Estimates, variances and complete-data degrees of freedom of one analysis."""
    if isinstance(result, tuple) and len(result) in (2, 3):
        return (*result, None)[:3]
    if hasattr(result, "params"):
        df = getattr(result, "df_resid", None)
        if hasattr(result, "cov_params"):
            return result.params, result.cov_params(), df
        if hasattr(result, "bse"):
            return result.params, np.square(result.bse), df
    shown = repr(result).strip().split("\n")[0]
    raise TypeError(
        "an analysis must be (estimates, variances), or a result with params and "
        f"cov_params() or bse, got {shown}."
    )


def _stack(values, what, names=None):
    """Draws as one float array and, if they have them, the names of parameters."""
    if isinstance(values, pd.DataFrame):
        values = [row for _, row in values.iterrows()]
    values = list(values)
    shapes = sorted({np.shape(value) for value in values})
    if len(shapes) > 1:
        raise ValueError(f"{what} must have one shape in every draw, got {shapes}.")
    if not values or not all(isinstance(v, (pd.Series, pd.DataFrame)) for v in values):
        return np.array(values, dtype=np.float64), None
    if names is None:
        names = values[0].index
        if values[0].ndim > 1:
            raise ValueError(
                f"{what} must have one dimension in every draw, got a frame: stack it."
            )
    for k, value in enumerate(values):
        for axis in value.axes:
            if set(axis) != set(names):
                raise ValueError(
                    f"{what} must name the parameters {list(names)} in every draw, got "
                    f"{list(axis)} in draw {k}."
                )
        order = dict.fromkeys(("index", "columns")[: value.ndim], names)
        values[k] = value.reindex(**order).to_numpy(dtype=np.float64)
    return np.array(values), names


def _check_draws(estimates, variances):
    """Variances like the estimates, and the covariances or None, once validated."""
    n_draws, shape = len(estimates), estimates.shape
    if n_draws < 2:
        raise ValueError(f"estimates must hold at least two draws, got {n_draws}.")
    if len(shape) > 2 or variances.shape not in (shape, (*shape, *shape[1:])):
        raise ValueError(
            "estimates must have shape (n_draws,) or (n_draws, p) and variances the "
            f"same or (n_draws, p, p), got {shape} and {variances.shape}."
        )
    for what, values in (("estimates", estimates), ("variances", variances)):
        if not np.isfinite(values).all():
            k = np.argwhere(~np.isfinite(values))[0][0]
            raise ValueError(f"{what} must be finite, got {values[k]} in draw {k}.")
    covariances = None
    if variances.ndim == 3:
        covariances, variances = variances, np.diagonal(variances, axis1=1, axis2=2)
    if (variances < 0).any():
        raise ValueError(f"variances must not be negative, got {variances.min()}.")
    return variances, covariances


def _degrees_of_freedom(lambda_, n_draws, dfcom):
    """Degrees of freedom of Barnard and Rubin (1999), or `dfcom` if nothing is lost."""
    # The harmonic sum of two, in reciprocals: an infinite one drops out.
    by_rows = _ratio((1 + 2 / (dfcom + 1)) / dfcom, 1 - lambda_)
    df = _ratio(1, lambda_**2 / (n_draws - 1) + by_rows)
    if (df == 0).any():
        raise ValueError(
            "variances must not be 0 in every draw where the estimates differ, unless "
            f"dfcom is infinite, got dfcom={dfcom:g}."
        )
    # A share below rounding: the draws agree.
    return np.where(lambda_ <= np.finfo(np.float64).eps, dfcom, df)[()]


def _ratio(part, whole):
    """Quotient that is 0 where the part is, and infinite where only the whole is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(part == 0, 0.0, np.divide(part, whole))[()]
