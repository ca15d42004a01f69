"""Exact relations: columns that one other column determines, to rounding.

Two kinds are looked for, in the columns' own units, between all pairs of columns:

    lines   f(y) = a + b f'(x), rounded as y is, f and f' the identity or the logarithm:
            units, copies, opposites, ratios, powers
    maps    y = g(x) for every value x that recurs: a city's country, a level's code

Where x is observed, a missing y is not estimated but computed: a model of the joint
distribution has a positive error even where the relation is exact. The module does not
import torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linprog

# Relations are found in so many rows; most pairs of columns are ruled out in fewer.
MAX_ROWS, SCREENED_ROWS = 20_000, 2000
# The products that screen lines take so many operations at most.
MAX_SCREENING = 4e9
# With more columns only lines without logarithms are looked for, in order to bound
# the time.
MAX_PAIRED = 500
# A line has to hold in so many rows and for so many values; a rounded line has to hold
# in more rows, since it holds in some by chance.
MIN_ROWS, MIN_VALUES, MIN_ROUNDED_ROWS = 10, 4, 30
# A line that holds in so many rows is followed beyond the range of its target.
MIN_ROWS_BEYOND = 100
# Residuals up to so many standard deviations are rounding errors of computing, in
# double and in single precision.
EXACT, SINGLE = 1e-6, 1e-4
# Steps of rounding wider than so many standard deviations hide every line.
MAX_STEP = 0.35
MAX_DECIMALS = 10
FEW = 32
# A column has so many sources at most: more would be redundant.
MAX_SOURCES = 4
# A map needs so many rows that repeat a value of x and could have contradicted it, and
# an agreement that has by chance a negative log-probability of so many nats, plus the
# logarithm of the number of pairs of columns.
MIN_REPEATS, MIN_NATS = 15, 14.0


@dataclass(frozen=True)
class Line:
    """Column ``target`` as a line in ``source``, either of them as logarithm.

    ``decimals`` is None where the target is not rounded; ``limits`` bound the values of
    the line.
    """

    source: int
    target: int
    logs: tuple[bool, bool]
    center: float
    intercept: float
    slope: float
    decimals: int | None = None
    limits: tuple[float, float] = (-np.inf, np.inf)

    @property
    def is_affine(self):
        """Whether the line carries means over."""
        return not any(self.logs)

    def __call__(self, x):
        """Values of the target, NaN where there is none."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            x = np.log(x) if self.logs[0] else x
            y = self.intercept + self.slope * (x - self.center)
            y = np.exp(y) if self.logs[1] else y
        y = np.where(np.isfinite(y), y, np.nan)
        y = y if self.decimals is None else np.round(y, self.decimals)
        return y.clip(*self.limits)


@dataclass(frozen=True)
class Map:
    """Column ``target`` by the value of ``source``; ``keys`` are sorted."""

    source: int
    target: int
    keys: np.ndarray
    values: np.ndarray

    is_affine = False

    def __call__(self, x):
        """Values of the target, NaN where there is none."""
        index = np.searchsorted(self.keys, x).clip(max=len(self.keys) - 1)
        return np.where(self.keys[index] == x, self.values[index], np.nan)


class Relations:
    """Columns of a table that are determined by one other column.

    Attributes
    ----------
    rules_ : list of Line and Map
        The more exact ones first.
    """

    def fit(self, X, observed, is_level):
        """Find the relations.

        Parameters
        ----------
        X : float array of shape (n, d)
            In the columns' own units, codes of levels.
        observed : bool array of shape (n, d)
        is_level : bool array of shape (d,)

        Returns
        -------
        self
        """
        step = 1 + (len(X) - 1) // MAX_ROWS if len(X) else 1
        X, observed = X[::step].astype(np.float64), observed[::step]
        lines = _find_lines(X, observed, ~is_level)
        known = {(line.source, line.target) for line in lines}
        maps = []
        if X.shape[1] <= MAX_PAIRED:
            maps = _find_maps(X, observed, is_level, known)
        self.rules_ = lines + maps
        return self

    def determine(self, X, known):
        """Write determined values into X and mark them in ``known``, in place.

        Shapes: (n, d) twice; the values of cells that are not known are overwritten.
        """
        self._spread(X, known, self.rules_)

    def reconcile(self, X, known, *, drawn):
        """Make the other cells agree with each other, in place.

        The first of columns that determine each other, in the order of the table, keeps
        its completion. Means are carried over by straight lines alone, draws by
        every relation.
        """
        rules = self.rules_
        if not drawn:  # the mean of rounded values is not rounded
            rules = [replace(r, decimals=None) for r in rules if r.is_affine]
        known = known.copy()
        for j in sorted({rule.source for rule in rules}):
            if not known[:, j].all():
                known[:, j] = True
                self._spread(X, known, rules)

    @staticmethod
    def _spread(X, known, rules):
        changed = True
        while changed:
            changed = False
            for rule in rules:
                rows = np.flatnonzero(known[:, rule.source] & ~known[:, rule.target])
                values = rule(X[rows, rule.source].astype(np.float64))
                found = ~np.isnan(values)
                rows = rows[found]
                X[rows, rule.target] = values[found]
                known[rows, rule.target] = True
                changed |= bool(len(rows))


def _find_lines(X, observed, is_number):
    """Lines between numeric columns, the most exact first."""
    logs, column, parts, seen, limit = [], [], [], [], []
    rounding = {}
    for j in np.flatnonzero(is_number):
        y = X[observed[:, j], j]
        if len(y) < MIN_ROWS or (not _varies(y[:FEW]) and not _varies(y[:1000])):
            continue
        rounding[j] = _rounding(y)
        bends = y.min() > 0 and X.shape[1] <= MAX_PAIRED
        for is_log in (False, True) if bends else (False,):
            v = np.log(y) if is_log else y
            spread = _spread(v)
            if not 0 < spread < np.inf:
                continue
            full = np.zeros(len(X))
            full[observed[:, j]] = (v - v.mean()) / spread
            tolerance, step, _ = rounding[j]
            # A logarithm is steepest at the smallest value.
            slope = (1 / y.min() if is_log else 1.0) / spread
            limit.append(1e-5 + (tolerance + step / 2) * slope)
            logs.append(is_log)
            column.append(j)
            parts.append(full)
            seen.append(observed[:, j])
    if len(set(column)) < 2:
        return []
    column = np.array(column)
    pairs = _near_lines(np.array(parts), np.array(seen), column, np.array(limit))
    found = []
    for s, t in pairs:
        rows = seen[s] & seen[t]
        j, k = column[s], column[t]
        fitted = _fit_line(
            X[rows, j], X[rows, k], (logs[s], logs[t]), rounding[k], (int(j), int(k))
        )
        if fitted is not None:
            error, line = fitted
            if rows.sum() < MIN_ROWS_BEYOND:
                own = X[seen[t], k]
                line = replace(line, limits=(float(own.min()), float(own.max())))
            found.append((error, line))
    found.sort(key=lambda entry: entry[0])
    best = {}
    for _, line in found:
        best.setdefault((line.source, line.target), line)
    return list(best.values())


def _varies(values):
    return len(np.unique(values)) >= MIN_VALUES


def _near_lines(parts, seen, column, limit):
    """Pairs of features whose residual, on some rows, is as small as rounding.

    Shape of ``parts``, standardised, 0 where not ``seen``: (m, n).
    """
    size = int(min(SCREENED_ROWS, max(100, MAX_SCREENING / 10 / len(parts) ** 2)))
    x = parts[:, :: 1 + (parts.shape[1] - 1) // size]
    o = seen[:, :: 1 + (seen.shape[1] - 1) // size].astype(np.float64)
    count = np.maximum(o @ o.T, 1.0)
    mean = x @ o.T / count  # of row's feature where column's is seen
    square = x**2 @ o.T / count - mean**2
    cross = x @ x.T / count - mean * mean.T
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.where(square > 1e-12, square.T - cross**2 / square, np.inf)
    fits = np.sqrt(np.maximum(left, 0.0)) <= limit
    fits &= (column[:, None] != column) & (count >= MIN_ROWS)
    pairs = []
    for t in range(len(parts)):
        sources = np.flatnonzero(fits[:, t])
        sources = sources[np.argsort(left[sources, t], kind="stable")]
        pairs += [(s, t) for s in sources[:MAX_SOURCES]]
    return pairs


def _spread(y):
    """Find the standard deviation of numbers as large or small as they may be."""
    size = np.abs(y).max() or 1.0
    return (y / size).std() * size


def _rounding(y):
    """Tolerance of computing, step and number of decimals of a column's values.

    The step is 0, or the decimals None, where lines are not to be sought by them.
    """
    spread, size = _spread(y), np.abs(y).max()
    tolerance = EXACT * spread
    decimals = np.arange(-3, MAX_DECIMALS)
    with np.errstate(over="ignore"):
        if (y.astype(np.float32) == y).all():
            single = 4 * np.finfo(np.float32).eps * size
            tolerance = max(tolerance, min(single, SINGLE * spread))
        # Values with as many digits as double precision are not rounded.
        decimals = decimals[size * 10.0**decimals <= 1e12]
    for part in (y[:FEW], y):  # most columns show by a few values that they are not
        scaled = part[:, None] * 10.0**decimals
        off = np.abs(scaled - np.rint(scaled)) > 1e-9 * np.abs(scaled)
        is_rounded = ~off.any(0)
        if not is_rounded.any():
            return tolerance, 0.0, None
        decimals = decimals[is_rounded.argmax() :]
    coarsest = int(decimals[0])
    step = 10.0**-coarsest
    return tolerance, step if step <= MAX_STEP * spread else 0.0, coarsest


def _fit_line(x, y, logs, rounding, pair):
    """Residual, in steps of rounding, and line; None where it does not hold."""
    tolerance, step, decimals = rounding
    if len(x) < MIN_ROWS or len(np.unique(x)) < MIN_VALUES or (x <= 0).any() & logs[0]:
        return None
    u, v = np.log(x) if logs[0] else x, np.log(y) if logs[1] else y
    center = u.mean()
    u = u - center
    size = np.abs(u).max()
    slope = (u / size @ (v - v.mean())) / (u / size @ (u / size)) / size
    line = Line(*pair, logs, float(center), float(v.mean()), float(slope))
    residual = np.abs(y - line(x)).max()
    if residual <= tolerance:
        return 0.0, replace(line, decimals=decimals)
    if step == 0 or len(x) < MIN_ROUNDED_ROWS or not residual <= step:
        return None
    if not logs[1] and residual > step / 2:
        line = _centered(line, u, v)
        residual = np.abs(y - line(x)).max()
    if residual > 0.5005 * step + tolerance:
        return None
    return step / _spread(y), replace(line, decimals=decimals)


def _centered(line, u, v):
    """Find the line with the smallest largest residual, by linear programming.

    Rounding errors have limits: least squares may miss a line that keeps within them.
    """
    u, v = (part[:: 1 + len(u) // SCREENED_ROWS] for part in (u, v))
    a = np.stack([np.ones_like(u), u / np.abs(u).max()], 1)
    r = v - line.intercept - line.slope * u
    size = np.abs(r).max()
    bound = -np.ones((len(u), 1))
    found = linprog(
        [0.0, 0.0, 1.0],
        np.block([[a, bound], [-a, bound]]),
        np.concatenate([r, -r]) / size,
        bounds=(None, None),
    )
    if not found.success:
        return line
    shift, turn, _ = found.x * size
    return replace(
        line,
        intercept=float(line.intercept + shift),
        slope=float(line.slope + turn / np.abs(u).max()),
    )


def _find_maps(X, observed, is_level, known):
    """Find maps between columns, but for pairs that are known already."""
    d = X.shape[1]
    found = []
    nats = {}
    least = MIN_NATS + 2 * np.log(max(1, d))
    codes = np.full(X.shape, -1, dtype=np.int32)
    for j in range(d):
        _, codes[observed[:, j], j], counts = np.unique(
            X[observed[:, j], j], return_inverse=True, return_counts=True
        )
        nats[j] = -np.log(counts / max(1, counts.sum()))
    for s in range(d):
        rows = np.flatnonzero(observed[:, s])
        n_values = len(nats[s])
        # Where numbers hardly recur, most values of new rows have no key.
        most = len(rows) if is_level[s] else len(rows) / 2
        if n_values < 2 or n_values > min(most, len(rows) - MIN_REPEATS):
            continue
        rows = rows[np.argsort(codes[rows, s], kind="stable")]
        targets = _unrefuted(codes, rows, s)
        for t in targets:
            if t == s or (s, t) in known or len(nats[t]) < 2:
                continue
            both = rows[observed[rows, t]]
            source, target = codes[both, s], codes[both, t]
            again = source[1:] == source[:-1]
            if (target[1:] != target[:-1])[again].any():
                continue
            # The first row of a value defines the map, the others could contradict it.
            worth = nats[t][target[1:][again]].sum()
            if again.sum() < MIN_REPEATS or worth < least:
                continue
            first = both[np.concatenate([[True], ~again])]
            found.append(Map(s, int(t), X[first, s], X[first, t]))
    return found


def _unrefuted(codes, rows, s):
    """Columns in which no two neighbouring rows of one value contradict each other."""
    left = np.arange(codes.shape[1])
    for size in (SCREENED_ROWS // 64, SCREENED_ROWS // 16, SCREENED_ROWS // 4):
        start = max(0, len(rows) - size) // 2
        part = codes[rows[start : start + size]]
        same = part[1:, s] == part[:-1, s]
        upper, lower = part[1:, left], part[:-1, left]
        wrong = (upper != lower) & (upper >= 0) & (lower >= 0)
        left = left[~wrong[same].any(0)]
    return left
