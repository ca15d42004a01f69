"""Rows that miss the same cells."""

from __future__ import annotations

import torch

# Most columns whose patterns are distinct numbers in float64.
MAX_KEY_BITS = 52


def unique_patterns(observed):
    """Distinct rows of a mask and, for each row, the index of its pattern.

    Parameters
    ----------
    observed : bool tensor of shape (n_rows, n_columns)

    Returns
    -------
    patterns : bool tensor of shape (n_patterns, n_columns)
    inverse : int tensor of shape (n_rows,)
    """
    if observed.shape[1] > MAX_KEY_BITS:
        return torch.unique(observed, dim=0, return_inverse=True)
    # A number for every pattern: sorting rows takes ten times as long.
    places = torch.arange(observed.shape[1], device=observed.device)
    bits = (1 << places).double()
    keys, inverse = torch.unique(observed.double() @ bits, return_inverse=True)
    return (keys[:, None] / bits).floor() % 2 == 1, inverse


def rows_by_pattern(observed):
    """Distinct rows of a mask, and the indices of the rows that have each: a list.

    Shape: (n_rows, n_columns), bool tensor.
    """
    patterns, inverse = unique_patterns(observed)
    order = torch.argsort(inverse, stable=True)
    counts = torch.bincount(inverse, minlength=len(patterns)).tolist()
    return list(zip(patterns, order.split(counts), strict=True))
