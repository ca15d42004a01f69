"""Rows that are held out to judge by, and what counts as a gain on them."""

from __future__ import annotations

import math

import numpy as np
import torch

from .weights import rooted

# What is added to the network has to gain so many standard errors on held-out rows.
MIN_STANDARD_ERRORS = 1.5
# More would cost time and change nothing.
MAX_HELD_ROWS = 10_000
# Modalities are lost as a whole in so many of them at most, in every pattern.
MAX_LOST_ROWS = 2000
N_FOLDS = 6


def some_rows(limit, generator, *tables):
    """At most so many rows of tables, the same of each, drawn by a CPU generator.

    A table that is None stays None.
    """
    rows = torch.randperm(len(tables[0]), generator=generator)[:limit]
    rows = rows.to(tables[0].device)
    return tuple(table if table is None else table[rows] for table in tables)


def is_gain(gains, n_errors=MIN_STANDARD_ERRORS):
    """Whether gains, (..., n), one a row, are more than so many standard errors, (...).

    Cells of one row go wrong together, the more so where it takes turns with several
    masks: rows are the units, not cells.
    """
    n = gains.shape[-1]
    if n < 2:
        return torch.zeros(gains.shape[:-1], dtype=torch.bool)
    noise = gains.std(-1) * math.sqrt(n)
    return gains.sum(-1) > n_errors * noise


def column_weights(moments, columns):
    """By how much predictions count in each column, (d,), by least squares, in [0, 1].

    The weights of columns with few cells are drawn to the table's: its mean sums are
    added to their own.

    Parameters
    ----------
    moments : float tensor of shape (2, d)
        Sums of predicted changes times errors, and of squared changes.
    columns : bool tensor of shape (d,)
        Columns that are predicted; the weights of others are 0.
    """
    n_columns = columns.sum().clamp_min(1)
    along, square = moments + moments.sum(1, keepdim=True) / n_columns
    weight = (along / square.clamp_min(1e-12)).clamp(0.0, 1.0)
    return torch.where(columns, weight, 0.0)


def errors_of_weights(weight, gains):
    """Count the standard errors that gains of rows, (n,), have to exceed.

    The weights (d,) are fitted to the rows that they are judged on, the more closely
    the more weights there are.
    """
    return 1 + int((weight > 0).sum()) / (2 * len(gains))


def weigh_steps(step, error, columns, n_rows, row_weight=None):
    """By how much steps count in each column, (d,); not at all without a gain.

    Parameters
    ----------
    step, error : float tensors of shape (B, d)
        What a prediction would change, and what is missing to the truth; 0 elsewhere.
    columns : bool tensor of shape (d,)
        Columns that are predicted.
    n_rows : int
        Distinct rows: they are repeated, one copy under the other, B / n_rows times.
    row_weight : float tensor of shape (B,), optional
    """
    step, error = (rooted(part, row_weight) for part in (step, error))
    moments = torch.stack([(step * error).sum(0), step.square().sum(0)])
    weight = column_weights(moments, columns)
    gain = error.square() - (error - weight * step).square()
    gain = gain.sum(1).view(-1, n_rows).sum(0)
    gains = is_gain(gain, errors_of_weights(weight, gain))
    return weight if gains else torch.zeros_like(weight)


def hold_out(n, fraction, groups, generator):
    """Rows held out and rows kept; rows of one group stay together."""
    n_held = min(n // 2, math.ceil(fraction * n), MAX_HELD_ROWS)
    order = torch.randperm(n, generator=generator).numpy()
    if groups is None:
        return order[:n_held], order[n_held:]
    _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    chosen = torch.randperm(len(sizes), generator=generator).numpy()
    n_groups = max(1, np.searchsorted(np.cumsum(sizes[chosen]), n_held, side="right"))
    is_held = np.isin(member[order], chosen[:n_groups]) & (n_held > 0)
    if is_held.all():  # a single group: nothing to hold out
        is_held[:] = False
    return order[is_held], order[~is_held]


def deal_folds(held, kept, groups, generator):
    """Fold of every row, int (n,): 0 is the rows held out, the others share the rest.

    Parameters
    ----------
    held, kept : int arrays
        As `hold_out` returns them; together all rows.
    groups : array of shape (n,), optional
        Rows of one group stay together.
    generator : numpy.random.Generator
    """
    fold = np.zeros(len(held) + len(kept), dtype=int)
    member = (
        np.arange(len(fold))
        if groups is None
        else np.unique(groups, return_inverse=True)[1]
    )
    names, own = np.unique(member[kept], return_inverse=True)
    fold[kept] = 1 + (generator.permutation(len(names)) % (N_FOLDS - 1))[own]
    return fold
