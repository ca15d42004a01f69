"""Weights of rows: a row of weight 2 counts as one that is there twice.

None stands for equal weights: then nothing is multiplied. Tables are arrays or tensors
whose first axis is that of the rows; weights are of shape (n,), with a mean near 1, so
that they count rows.
"""

from __future__ import annotations


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
