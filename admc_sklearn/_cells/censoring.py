"""Training cells that are known to lie within limits: drawn before anything is learnt.

A cell below a detection limit is missing because of its value: whoever leaves it out
learns a distribution without its lower tail. So it is drawn, within its limits, from a
normal model of all columns that knows of the limits (data augmentation; Tanner and
Wong, 1987, doi:10.1080/01621459.1987.10478458; for censored cells as in Hopke, Liu and
Rubin, 2001, doi:10.1111/j.0006-341X.2001.00022.x), and the drawn cells then teach the
anchor and the network like others. Each column is normal after a power transformation
whose power has the highest likelihood, censored cells included.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtr, ndtri

from .._shared.contract import Rows
from .._shared.weights import rooted, weighted_mean

# Sweeps of the sampler, and columns that it looks at beside the limited ones.
N_SWEEPS, MAX_COLUMNS = 100, 100
# Ridge of the columns' correlations, in rows.
RIDGE_ROWS = 1.0
# Values by which a power is chosen.
MAX_FIT_VALUES = 2000
POWERS = np.arange(-1.0, 2.01, 0.25)
MIN_SD = 1e-3


def draw_limited(rows, n_levels, seed):
    """Rows in which limited cells are drawn, and observed.

    Parameters
    ----------
    rows : Rows
        Arrays: standardised numbers, codes of levels; with limits.
    n_levels : int array of shape (d,)
    seed : int

    Returns
    -------
    Rows
        Without limits.
    """
    limited = rows.limited & (n_levels == 0) & rows.observed.any(0)
    if not limited.any():
        return replace(rows, limits=None)
    rng = np.random.default_rng(seed)
    own = np.flatnonzero(limited.any(0))
    x, low, high, powers = [], [], [], {}
    for j in own:
        ends = np.where(limited[:, j, None], rows.limits[:, j], [-np.inf, np.inf])
        powers[j] = Power.fit(rows.values[:, j], rows.observed[:, j], ends)
        seen = np.where(rows.observed[:, j], rows.values[:, j], np.nan)
        x.append(powers[j](seen))
        low.append(powers[j](ends[:, 0]))
        high.append(powers[j](ends[:, 1]))
    beside = _columns_beside(rows, n_levels, own)
    shape = len(rows), beside.shape[1]
    z = np.column_stack([*x, beside])
    low = np.column_stack([*low, np.full(shape, -np.inf)])
    high = np.column_stack([*high, np.full(shape, np.inf)])
    drawn = _sample(z, low, high, rows.weight, rng)
    values, observed = rows.values.copy(), rows.observed.copy()
    for k, j in enumerate(own):
        take = limited[:, j]
        found = powers[j].inverse(drawn[take, k])
        values[take, j] = found.clip(rows.limits[take, j, 0], rows.limits[take, j, 1])
        observed[take, j] = True
    return Rows(values, observed, rows.weight)


class Power:
    """Box and Cox's transformation about an end of a column, or the identity.

    ``(((x - origin) * sign) ** power - 1) / power``, the logarithm for power 0; with
    sign -1 it is turned around, so that it increases too.

    Parameters
    ----------
    sign : int
        1 or -1; 0 for the identity.
    origin, power : float
    """

    def __init__(self, sign=0, origin=0.0, power=1.0):
        self.sign, self.origin, self.power = sign, origin, power

    @classmethod
    def fit(cls, values, observed, limits):
        """Choose by likelihood, limited cells included.

        Shapes: (n,), (n,), (n, 2). Ends that limits give, as 0 of a concentration, may
        be origins, and ends of the observed values.
        """
        limited = ~observed & np.isfinite(limits).any(1)
        step = 1 + (observed.sum() + limited.sum()) // MAX_FIT_VALUES
        every = values[observed].astype(np.float64)
        ends = limits[limited].astype(np.float64)
        trials = [cls()]
        if len(every) < 3 or np.ptp(every) == 0:
            return trials[0]
        floor, top = ends.T
        known = ends[np.isfinite(ends)]
        low, high = known.min(initial=np.inf), known.max(initial=-np.inf)
        # All values and intervals have to lie on one side of an origin.
        if low < every.min() and (floor == low).any() and (top > low).all():
            trials += [cls(1, low, power) for power in POWERS]
        if high > every.max() and (top == high).any() and (floor < high).all():
            trials += [cls(-1, high, power) for power in POWERS]
        x, ends = every[::step], ends[::step]
        return max(trials, key=lambda trial: _log_likelihood(trial, x, ends))

    def __call__(self, x):
        """Transform values, the ends of their range included."""
        if not self.sign:
            return np.asarray(x, dtype=np.float64)
        distance = ((np.asarray(x, np.float64) - self.origin) * self.sign).clip(0)
        with np.errstate(divide="ignore"):
            if self.power == 0:
                return self.sign * np.log(distance)
            return self.sign * (distance**self.power - 1) / self.power

    def inverse(self, z):
        """Values of transformed ones."""
        if not self.sign:
            return z
        z = z * self.sign
        if self.power == 0:
            distance = np.exp(z)
        else:
            base = (1 + self.power * z).clip(1e-12)
            distance = base ** (1 / self.power)
        return self.origin + self.sign * distance

    def log_slope(self, x):
        """Log of the derivative at values."""
        if not self.sign:
            return np.zeros_like(x)
        return (self.power - 1) * np.log((x - self.origin) * self.sign)


def _log_likelihood(power, x, limits):
    """Largest log-likelihood of values (m,) and intervals (k, 2), over mean and sd."""
    z, slope = power(x), power.log_slope(x).sum()
    a, b = power(limits[:, 0]), power(limits[:, 1])
    scale = max(z.std(), MIN_SD)

    def negative(parameters):
        mean, sd = z.mean() + scale * parameters[0], scale * np.exp(parameters[1])
        u = (z - mean) / sd
        inside = _log_mass((a - mean) / sd, (b - mean) / sd)
        return 0.5 * (u @ u) + len(z) * np.log(sd) - inside.sum()

    found = minimize(
        negative, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-3}
    )
    return slope - found.fun


def _log_mass(a, b):
    """Log of the standard normal's mass between ends."""
    flip = a > 0
    lower, upper = np.where(flip, -b, a), np.where(flip, -a, b)
    top, rest = log_ndtr(upper), log_ndtr(lower)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = top + np.log(-np.expm1(np.minimum(rest - top, -1e-12)))
    return np.maximum(np.nan_to_num(found, nan=-700.0, neginf=-700.0), -700.0)


def _columns_beside(rows, n_levels, own):
    """Make numbers of the other columns, NaN where missing; of many the closest."""
    parts = []
    for j in range(rows.values.shape[1]):
        if j in own:
            continue
        seen, x = rows.observed[:, j], rows.values[:, j].astype(np.float64)
        if n_levels[j]:
            codes = range(1, min(n_levels[j], 20))
            parts += [np.where(seen, x == code, np.nan) for code in codes]
        else:
            parts.append(np.where(seen, x, np.nan))
    if not parts:
        return np.empty((len(rows), 0))
    found = np.column_stack(parts)
    with np.errstate(invalid="ignore"):
        spread = np.nanstd(np.where(np.isnan(found).all(0), 0.0, found), axis=0)
    found = found[:, spread > 0]
    if found.shape[1] <= MAX_COLUMNS:
        return found
    z = np.nan_to_num((found - np.nanmean(found, 0)) / np.nanstd(found, 0))
    close = 0.0
    for j in own:
        seen = rows.observed[:, j]
        target = rows.values[seen, j] - rows.values[seen, j].mean()
        close = np.maximum(close, np.abs(target @ z[seen]))
    return found[:, np.sort(np.argsort(-close, kind="stable")[:MAX_COLUMNS])]


def _sample(z, low, high, weight, rng):
    """Last state of a Gibbs sampler of missing cells under a normal model.

    Shapes: (n, p) three times, where NaN is missing, and lies within its limits; of
    ``weight`` (n,), or None.
    """
    n, p = z.shape
    missing = np.isnan(z)
    center, scale = np.nanmean(z, 0), np.nanstd(z, 0).clip(MIN_SD)
    z, low, high = ((part - center) / scale for part in (z, low, high))
    z = np.where(missing, np.clip(0.0, low, high), z)
    order = np.flatnonzero(missing.any(0))
    lost = [np.flatnonzero(missing[:, j]) for j in order]
    for _ in range(N_SWEEPS):
        mean = weighted_mean(z, weight)
        away = rooted(z - mean, weight)
        cov = away.T @ away / (n + RIDGE_ROWS)
        cov[np.diag_indices(p)] += np.diag(cov) * RIDGE_ROWS / n + MIN_SD**2
        precision = np.linalg.inv(cov)
        for j, take in zip(order, lost, strict=True):
            sd = precision[j, j] ** -0.5
            away = z[take] - mean
            own = away[:, j] - away @ precision[j] * sd**2
            z[take, j] = _truncated(
                mean[j] + own, sd, low[take, j], high[take, j], rng.random(len(take))
            )
    return z * scale + center


def _truncated(mean, sd, low, high, u):
    """Draw from normals cut to intervals, by uniform noise; all of shape (k,)."""
    a, b = (low - mean) / sd, (high - mean) / sd
    flip = a > 0  # on the side where the digits are
    a, b, u = np.where(flip, -b, a), np.where(flip, -a, b), np.where(flip, 1 - u, u)
    found = ndtri(ndtr(a) + u * (ndtr(b) - ndtr(a)))
    found = np.where(np.isfinite(found), found, b).clip(a, b)
    return mean + sd * np.where(flip, -found, found)
