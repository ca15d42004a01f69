"""Rows of one group inform each other: means of the group's other rows as columns.

For a column x of row i in group g the further column is the best linear prediction of
the group's effect in a two-level model x_i = mu + u_g + e_i, from the other rows of the
group in which x is observed:

    (sum of x - mu over the n_g others) / (n_g + ratio),    ratio = var(e) / var(u)

with variances by the analysis of variance (Searle, Casella and McCulloch, 1992,
Variance Components, chapter 3). It leaves out the row itself, so that a hidden cell of
a training row is not told by it. This is an approximation of a two-level model: what
missing cells of one group have in common beyond that is not drawn jointly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._shared.weights import some_weights, weighted

# Columns of levels have one column for each level but the first, of at most so many.
MAX_LEVELS = 6
# Groups of one row say nothing of variances between them.
MIN_GROUPS = 3


@dataclass(frozen=True)
class GroupMeans:
    """Which columns have group effects, and how far these are shrunken.

    Parameters
    ----------
    columns : list of int
        Positions among the modelled columns.
    levels : list of int
        Level of whose indicator the mean is taken; -1 for numbers.
    center, scale, ratio : float arrays of shape (q,)
    """

    columns: list
    levels: list
    center: np.ndarray
    scale: np.ndarray
    ratio: np.ndarray

    @classmethod
    def fit(cls, values, observed, n_levels, groups, weight=None):
        """Find the columns whose means differ between groups.

        Parameters
        ----------
        values, observed : arrays of shape (n, d)
            Standardised numbers and codes of levels, and where they are known.
        n_levels : int array of shape (d,)
        groups : int array of shape (n,)
            From 0 on.
        weight : float array of shape (n,), optional
            Of the rows, with a mean near 1.
        """
        columns, levels, known = [], [], []
        for j, count in enumerate(n_levels):
            if count > MAX_LEVELS:
                continue
            for level in range(1, count) if count else (-1,):
                seen = observed[:, j]
                x = _part(values[:, j], level)[seen]
                found = _variances(x, groups[seen], some_weights(weight, seen))
                if found is None:
                    continue
                center, within, between = found
                # The predictions of groups of the usual size have about unit variance.
                columns.append(j)
                levels.append(level)
                known.append((center, np.sqrt(between), within / between))
        center, scale, ratio = np.array(known, dtype=np.float64).reshape(-1, 3).T
        return cls(columns, levels, center, scale, ratio)

    def __call__(self, values, observed, groups):
        """Columns of predicted group effects, float32 (n, q), and where they are known.

        They are known where another row of the group has the cell.
        """
        out = np.zeros((len(values), len(self.columns)), dtype=np.float32)
        seen = np.zeros(out.shape, dtype=bool)
        for k, (j, level) in enumerate(zip(self.columns, self.levels, strict=True)):
            own = observed[:, j]
            x = np.where(own, _part(values[:, j], level) - self.center[k], 0.0)
            count = np.bincount(groups, own)[groups] - own
            total = np.bincount(groups, x)[groups] - x
            out[:, k] = total / (count + self.ratio[k]) / self.scale[k]
            seen[:, k] = count > 0
        return out, seen


def padded(table, n_more, value=0):
    """Append rows of one value to a table of columns, (d, ...)."""
    if not n_more:
        return table
    more = np.full((n_more, *table.shape[1:]), value, dtype=table.dtype)
    return np.concatenate([table, more])


def _part(values, level):
    """Numbers of a column, or the indicator of a level."""
    x = values.astype(np.float64)
    return x if level < 0 else (x == level).astype(np.float64)


def _variances(x, groups, weight):
    """Mean, and variances within and between groups; None without any between."""
    count = np.bincount(groups, weight)
    total = np.bincount(groups, weighted(x, weight))[count > 0]
    count = count[count > 0]
    n, k = count.sum(), len(count)
    if k < MIN_GROUPS or n - k < MIN_GROUPS:
        return None
    center = total.sum() / n
    means = total / count
    between = (count * (means - center) ** 2).sum() / (k - 1)
    within = (weighted(x**2, weight).sum() - (count * means**2).sum()) / (n - k)
    size = (n - (count**2).sum() / n) / (k - 1)
    effect = (between - within) / size
    # Two standard errors of a ratio of mean squares that groups do not change.
    least = 1 + 2 * np.sqrt(2 / (k - 1) + 2 / (n - k))
    if within <= 0 or effect <= 0 or between < least * within:
        return None
    return center, within, effect
