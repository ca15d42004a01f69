"""Rows that miss the same cells, and patterns of modalities that are lost."""

from __future__ import annotations

import itertools

import numpy as np
import torch

# Most columns whose patterns are distinct numbers in float64.
MAX_KEY_BITS = 52
# Patterns of more than four modalities, of which not all are tried.
N_PATTERNS = 16


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


def choose_patterns(available, fixed, generator):
    """Patterns to train and to measure on, (P, M) bool: all of them where few.

    Parameters
    ----------
    available : bool tensor of shape (n, M)
    fixed : bool array of shape (M,)
        Modalities that are always available.
    generator : numpy.random.Generator
    """
    m = available.shape[1]
    free = np.flatnonzero(~fixed)
    if len(free) <= 4:
        keep = [
            set(c) for k in range(len(free)) for c in itertools.combinations(free, k)
        ]
    else:
        keep = [set(free) - {j} for j in generator.permutation(free)[: N_PATTERNS // 2]]
        while len(keep) < N_PATTERNS:
            rate = generator.uniform(0.2, 0.8)
            keep.append(set(free[generator.random(len(free)) < rate]))
    chosen = np.zeros((len(keep), m), dtype=bool)
    for row, kept in zip(chosen, keep, strict=True):
        row[list(kept)] = True
    chosen |= fixed
    chosen = chosen[chosen.any(axis=1) & ~chosen.all(axis=1)]
    return torch.tensor(np.unique(chosen, axis=0), device=available.device)
