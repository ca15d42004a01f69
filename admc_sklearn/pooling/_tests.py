"""Tests and other figures that are pooled over draws, beside estimates.

Formula by formula as the R packages mice and mitml compute them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import chi2
from scipy.stats import f as f_distribution
from scipy.stats import t as student_t

from ._rubin import _read_analyses, _stack, pool_estimates


@dataclass(frozen=True)
class PooledTest:
    """A test of several parameters, pooled over draws.

    Attributes
    ----------
    statistic : float
        F statistic.
    df1, df2 : float
        Its degrees of freedom.
    p_value : float
    riv : float
        Average relative increase in variance due to missing values.
    n_draws : int
    """

    statistic: float
    df1: float
    df2: float
    p_value: float
    riv: float
    n_draws: int


def _test(statistic, k, df, riv, n_draws):
    p_value = f_distribution.sf(statistic, k, df)
    if np.isinf(df):  # where scipy's F has none
        p_value = chi2.sf(k * statistic, k)
    parts = map(float, (statistic, k, df, p_value, riv))
    return PooledTest(*parts, n_draws)


def pool_wald_test(
    estimates: ArrayLike | pd.DataFrame | Sequence[Any],
    covariances: ArrayLike | Sequence[pd.DataFrame] | None = None,
    *,
    parameters: Sequence[Any] | None = None,
    null: ArrayLike | float = 0.0,
    dfcom: float | None = None,
) -> PooledTest:
    """Test several parameters together: the statistic D1 [1]_ [2]_.

    Parameters
    ----------
    estimates : array of shape (n_draws, p), data frame, or list of Series
        Estimates of each draw; without ``covariances`` whole analyses, as in
        `pool_estimates`.
    covariances : array of shape (n_draws, p, p), or list of data frames, default=None
        Their covariance matrices.
    parameters : sequence of names or positions, default=None
        Those that are tested; None tests all.
    null : float or array of shape (k,), default=0.0
        Values of the tested parameters under the hypothesis.
    dfcom : float, default=None
        Degrees of freedom of the analysis of complete data, by which the test is
        adjusted [2]_. None takes the smallest value that the analyses have, or a large
        sample.

    Returns
    -------
    PooledTest

    Raises
    ------
    TypeError
        If there are no variances, in ``covariances`` or in an analysis.
    ValueError
        If there are fewer than two draws, shapes disagree, a parameter is unknown, the
        mean covariance matrix is singular, or ``dfcom`` is not positive.

    References
    ----------
    .. [1] Li, Raghunathan and Rubin (1991), JASA 86, 1065-1073.
    .. [2] Reiter (2007), Biometrika 94, 502-508.
    """
    estimates, covariances, dfcom = _read_analyses(estimates, covariances, dfcom)
    q, names = _stack(estimates, "estimates")
    u, _ = _stack(covariances, "covariances", names)
    if q.ndim != 2 or u.shape != (*q.shape, *q.shape[1:]):
        raise ValueError(
            "estimates must have shape (n_draws, p) and covariances (n_draws, p, p), "
            f"got {q.shape} and {u.shape}."
        )
    m = _check_count(len(q))
    if parameters is not None:
        at = _positions(parameters, names, q.shape[1])
        q, u = q[:, at], u[:, at][:, :, at]
    k = q.shape[1]
    null = np.asarray(null, dtype=np.float64)
    if null.shape not in ((), (k,)):
        raise ValueError(f"null must be a number or {k} numbers, got {null.tolist()}.")
    _check_positive(dfcom, "dfcom")
    center = q.mean(0) - null
    try:
        inverse = np.linalg.inv(u.mean(0))
    except np.linalg.LinAlgError:
        raise ValueError("covariances: their mean is singular.") from None
    # Differences from one draw: exactly 0 where the draws agree.
    between = np.atleast_2d(np.cov((q - q[0]).T))
    r = (1 + 1 / m) * np.trace(between @ inverse) / k
    statistic = center @ inverse @ center / (k * (1 + r))
    df = _large_df(k * (m - 1), k, r) if dfcom is None else _reiter(k, m, r, dfcom)
    return _test(statistic, k, df, r, m)


def _positions(parameters, names, p):
    """Positions of parameters by name or number."""
    known = list(range(p)) if names is None else list(names)
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise ValueError(f"parameters {unknown} are not among {known}.")
    return [known.index(name) for name in parameters]


def _check_count(m):
    if m < 2:
        raise ValueError(f"at least two draws are needed, got {m}.")
    return m


def _check_positive(value, what):
    if value is not None and not value > 0:
        raise ValueError(f"{what} must be positive, got {value}.")


def _large_df(t, k, r):
    """Denominator's degrees of freedom in a large sample."""
    if r == 0:
        return np.inf
    if t > 4:
        return 4 + (t - 4) * (1 + (1 - 2 / t) / r) ** 2
    return t * (1 + 1 / k) * (1 + 1 / r) ** 2 / 2


def _reiter(k, m, r, dfcom):
    """Denominator's degrees of freedom in a small sample (Reiter, 2007)."""
    t = k * (m - 1)
    if t <= 4 or not np.isfinite(dfcom):  # the adjustment has no meaning there
        return _large_df(t, k, r)
    a = r * t / (t - 2)
    v = dfcom * (dfcom + 1) / (dfcom + 3)
    c0, c1, c2 = 1 / (t - 4), v - 2 * (1 + a), v - 4 * (1 + a)
    z = 1 / c2 + c0 * (a**2 * c1 / ((1 + a) ** 2 * c2))
    z += c0 * (8 * a**2 * c1 / ((1 + a) * c2**2) + 4 * a**2 / ((1 + a) * c2))
    z += c0 * (4 * a**2 / (c2 * c1) + 16 * a**2 * c1 / c2**3)
    z += c0 * (8 * a**2 / c2**2)
    return 4 + 1 / z


def pool_chi2(statistics: ArrayLike, df: float) -> PooledTest:
    """Combine the chi-squared statistics of the draws: the statistic D2 [1]_.

    Less exact than `pool_wald_test`, it needs nothing but the statistics.

    Parameters
    ----------
    statistics : array of shape (n_draws,)
        Chi-squared statistics, of Wald or likelihood ratio tests.
    df : float
        Their degrees of freedom.

    Returns
    -------
    PooledTest

    Raises
    ------
    ValueError
        If there are fewer than two statistics, one is negative or not finite, or
        ``df`` is not positive.

    References
    ----------
    .. [1] Li, Meng, Raghunathan and Rubin (1991), Statistica Sinica 1, 65-92.
    """
    d = np.asarray(statistics, dtype=np.float64)
    if d.ndim != 1 or not np.isfinite(d).all() or (d < 0).any():
        raise ValueError(
            f"statistics must be numbers of at least 0, one a draw; got {statistics!r}."
        )
    m = _check_count(len(d))
    _check_positive(df, "df")
    r = (1 + 1 / m) * (np.sqrt(d) - np.sqrt(d[0])).var(ddof=1)
    statistic = (d.mean() / df - (m + 1) / (m - 1) * r) / (1 + r)
    df2 = np.inf if r == 0 else df ** (-3 / m) * (m - 1) * (1 + 1 / r) ** 2
    return _test(statistic, df, df2, r, m)


def pool_likelihood_ratio(
    draws: Iterable[Any],
    fit: Callable[[Any], Any],
    fit_null: Callable[[Any], Any],
    log_likelihood: Callable[[np.ndarray, Any], float] | None = None,
    log_likelihood_null: Callable[[np.ndarray, Any], float] | None = None,
    *,
    df: int,
) -> PooledTest:
    """Compare two nested models by likelihood ratios: the statistic D3 [1]_.

    Parameters
    ----------
    draws : iterable of completed data sets
    fit, fit_null : callable
        Functions that fit the model, and the model without what is tested, to a
        completed data set and return all its parameters, shape (p,), or a result with
        ``params``, as statsmodels has it.
    log_likelihood : callable, default=None
        Function ``log_likelihood(parameters, draw)``. None takes that of the results,
        ``result.model.loglike``; statsmodels' linear regression profiles the variance
        out of it.
    log_likelihood_null : callable, default=None
        That of the other model; None takes the same function.
    df : int
        Number of parameters that are tested.

    Returns
    -------
    PooledTest

    Raises
    ------
    TypeError
        If there is no log-likelihood, neither as a function nor of the results.
    ValueError
        If there are fewer than two draws, or ``df`` is not positive.

    References
    ----------
    .. [1] Meng and Rubin (1992), Biometrika 79, 103-111.
    """
    draws = list(draws)
    m = _check_count(len(draws))
    _check_positive(df, "df")
    pairs = [(fit, log_likelihood), (fit_null, log_likelihood_null or log_likelihood)]
    own, pooled = [], []
    for function, likelihood in pairs:
        results = [function(draw) for draw in draws]
        found = [np.asarray(getattr(r, "params", r), np.float64) for r in results]
        center = np.mean(found, axis=0)
        each = [*map(_likelihood, results, draws, [likelihood] * m)]
        own.append(np.mean([one(p) for one, p in zip(each, found, strict=True)]))
        pooled.append(np.mean([one(center) for one in each]))
    d_own, d_pooled = (2 * (part[0] - part[1]) for part in (own, pooled))
    r = (m + 1) / (df * (m - 1)) * (d_own - d_pooled)
    statistic = d_pooled / (df * (1 + r))
    return _test(statistic, df, _large_df(df * (m - 1), df, r), r, m)


def _likelihood(result, draw, log_likelihood):
    """Log-likelihood of one draw, a function of the parameters alone."""
    if log_likelihood is not None:
        return lambda parameters: log_likelihood(parameters, draw)
    own = getattr(getattr(result, "model", None), "loglike", None)
    if own is None:
        raise TypeError(
            "log_likelihood must be given, because what fit returns has no "
            "model.loglike."
        )
    return own


def _pool_fisher(z, n):
    """Pooled atanh of correlations, and its 95 % limits by the normal distribution."""
    z = np.asarray(z, dtype=np.float64)
    if not n > 3:
        raise ValueError(f"n must be more than 3, got {n}.")
    pooled = pool_estimates(z, np.full(len(z), 1 / (n - 3)))
    half = 1.96 * pooled.standard_error
    return pooled, np.array([pooled.estimate - half, pooled.estimate + half])


def pool_correlation(correlations: ArrayLike, n: int) -> pd.Series:
    """Pool the correlations of two variables by Fisher's z.

    Parameters
    ----------
    correlations : array of shape (n_draws,)
    n : int
        Rows of each draw.

    Returns
    -------
    Series
        ``estimate``, the limits ``lower`` and ``upper`` of its 95 % interval, and the
        fraction of missing information, ``fmi``.

    Raises
    ------
    ValueError
        If a correlation is not between -1 and 1, there are fewer than two of them, or
        fewer than four rows.
    """
    r = np.asarray(correlations, dtype=np.float64)
    if not (np.abs(r) < 1).all():
        raise ValueError(
            f"correlations must lie between -1 and 1, got {correlations!r}."
        )
    pooled, limits = _pool_fisher(np.arctanh(r), n)
    lower, upper = np.tanh(limits)
    found = {"estimate": np.tanh(pooled.estimate), "lower": lower, "upper": upper}
    return pd.Series(found | {"fmi": pooled.fmi})


def pool_r_squared(r_squared: ArrayLike, n: int) -> pd.Series:
    """Pool the shares of variance that a regression explains (Harel, 2009).

    As ``pool.r.squared`` of mice does: by Fisher's z of the roots.

    Parameters
    ----------
    r_squared : array of shape (n_draws,)
        R squared, or adjusted R squared.
    n : int
        Rows of each draw.

    Returns
    -------
    Series
        ``estimate``, ``lower``, ``upper`` and ``fmi`` as of `pool_correlation`.

    Raises
    ------
    ValueError
        If one is not in [0, 1), there are fewer than two, or fewer than four rows.
    """
    share = np.asarray(r_squared, dtype=np.float64)
    if not ((share >= 0) & (share < 1)).all():
        raise ValueError(f"r_squared must lie in [0, 1), got {r_squared!r}.")
    found = pool_correlation(np.sqrt(share), n)
    found[["estimate", "lower", "upper"]] **= 2
    return found


def pool_predictions(
    draws: Iterable[Any],
    fit: Callable[[Any], Any],
    rows: ArrayLike | pd.DataFrame,
    *,
    variance: float | Callable[[Any, Any], ArrayLike] | None = None,
    dfcom: float | None = None,
    confidence_level: float = 0.95,
) -> pd.DataFrame:
    """Predictions of a model that is fitted to each draw, and their intervals.

    Parameters
    ----------
    draws : iterable of completed data sets
    fit : callable
        Function that fits a model to a completed data set and returns it, with
        ``predict(rows)`` or, as statsmodels' results, ``get_prediction(rows)``.
    rows : array or frame of shape (n, p)
        Complete rows to predict.
    variance : float or callable, default=None
        Variance of each prediction within a draw, or a function of the model and the
        rows that returns it, (n,). None takes the standard errors of
        ``get_prediction``. A model that has only ``predict``, as those of scikit-learn,
        counts as certain, 0: its intervals then show no more than what the missing
        cells add, and are far too narrow for the prediction itself.
    dfcom : float, default=None
        As in `pool_estimates`, ``df_resid`` of the models included; it is used where
        there are variances.
    confidence_level : float, default=0.95

    Returns
    -------
    DataFrame of shape (n, 5)
        ``estimate``, ``standard_error``, ``lower``, ``upper`` and ``fmi``, with the
        index of ``rows``. The intervals are those of a t distribution around the
        estimate; those of probabilities can leave [0, 1].

    Raises
    ------
    ValueError
        If predictions are not one number for each row, or there are fewer than two
        draws.
    """
    means: list[np.ndarray] = []
    variances: list[np.ndarray] = []
    degrees: list[Any] = []
    for draw in draws:
        model = fit(draw)
        degrees.append(getattr(model, "df_resid", None))
        if hasattr(model, "get_prediction") and variance is None:
            found = model.get_prediction(rows)
            # Results of discrete models have shorter names.
            mean = (
                found.predicted_mean if hasattr(found, "se_mean") else found.predicted
            )
            error = found.se_mean if hasattr(found, "se_mean") else found.se
            means.append(_predicted(mean, rows))
            variances.append(np.square(np.asarray(error, np.float64)))
            continue
        means.append(_predicted(model.predict(rows), rows))
        own = variance(model, rows) if callable(variance) else variance or 0.0
        variances.append(np.broadcast_to(np.asarray(own, np.float64), means[-1].shape))
    if dfcom is None and degrees and None not in degrees:
        dfcom = min(degrees)
    is_certain = not np.any(variances)
    pooled = pool_estimates(
        means,
        variances,
        dfcom=None if is_certain else dfcom,
        confidence_level=confidence_level,
    )
    half = student_t.ppf((1 + confidence_level) / 2, pooled.df) * pooled.standard_error
    return pd.DataFrame(
        {
            "estimate": pooled.estimate,
            "standard_error": pooled.standard_error,
            "lower": pooled.estimate - half,
            "upper": pooled.estimate + half,
            "fmi": pooled.fmi,
        },
        index=getattr(rows, "index", None),
    )


def _predicted(values, rows):
    """Predictions of one draw as numbers, one for each row."""
    values = np.asarray(values)
    if values.shape != (len(rows),) or values.dtype.kind not in "biuf":
        raise ValueError(
            "a model must predict one number for each row, got an array of shape "
            f"{values.shape} and dtype {values.dtype}; for probabilities of a "
            "classifier, let fit return an object whose predict gives those of one "
            "class."
        )
    return values.astype(np.float64)
