"""Weights of rows: a row of weight 2 counts as one that is there twice.

None stands for equal weights: then nothing is multiplied. Tables are arrays or tensors
whose first axis is that of the rows; weights are of shape (n,), with a mean near 1, so
that they count rows.
"""

from __future__ import annotations

import numpy as np


def some_weights(weight, rows):
    """Weights of some rows."""
    return None if weight is None else weight[rows]


def total_weight(weight, table):
    """How many rows the rows of a table stand for."""
    return len(table) if weight is None else float(weight.sum())


def weighted(table, weight):
    """Multiply every row of a table by its weight."""
    if weight is None:
        return table
    return table * weight.reshape(-1, *[1] * (table.ndim - 1))


def rooted(table, weight):
    """Multiply every row of a table by the root of its weight, for sums of squares."""
    return table if weight is None else weighted(table, weight**0.5)


def weighted_mean(table, weight):
    """Mean over the rows of a table."""
    if weight is None:
        return table.mean(0)
    return weighted(table, weight).sum(0) / weight.sum()


def weighted_counts(values, weight=None):
    """Distinct values, sorted, and how often each occurs; shapes (n,) in."""
    if weight is None:
        return np.unique(values, return_counts=True)
    distinct, position = np.unique(values, return_inverse=True)
    return distinct, np.bincount(position, weights=weight)


def mean_and_sd(values, weight=None):
    """Means and standard deviations over the rows of values (n, ...)."""
    if weight is None:
        return values.mean(axis=0), values.std(axis=0)
    center = np.average(values, axis=0, weights=weight)
    square = np.average((values - center) ** 2, axis=0, weights=weight)
    return center, np.sqrt(square)
