"""Seeds, and noise that belongs to a row.

What is drawn for a row depends on the row and the seed, not on its companions.
"""

from __future__ import annotations

import numpy as np
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def numpy_generator(generator):
    """Make a `numpy.random.Generator` that a torch generator on the CPU seeds."""
    return np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))


def draw_seeds(random_state, n_seeds):
    """Python integers below 2**31 from a `numpy.random.RandomState`."""
    return [int(s) for s in random_state.randint(2**31 - 1, size=n_seeds)]


def _mix(x):
    """Apply the finaliser of splitmix64 (Steele, Lea and Flood, 2014), elementwise."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def seeds_of(seed, names):
    """Make a seed for every row, from a seed of all and from what names the row.

    Rows of different names have independent noise, also where their cells are equal
    and wherever in whichever table they stand.

    Parameters
    ----------
    seed : int
    names : uint64 array of shape (n,)
        Hashes.

    Returns
    -------
    uint64 array of shape (n,)
    """
    with np.errstate(over="ignore"):
        return _mix(names ^ _mix(np.asarray(seed, dtype=np.uint64) + _GOLDEN))


def row_keys(values, observed, seed):
    """Make a 64-bit key for every row, from its observed values and the seed alone.

    Noise made from the key does not depend on a row's place or on its companions.
    Equal rows are told apart by how many of them came before, so that they get
    independent noise.

    Parameters
    ----------
    values : float array of shape (n, d)
    observed : bool array of shape (n, d)
    seed : int, or uint64 array of shape (n,)
        Of all rows, or of each, see `seeds_of`.

    Returns
    -------
    uint64 array of shape (n,)
    """
    cells = np.where(observed, values, np.nan).astype(np.float32)
    bits = np.ascontiguousarray(cells).view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        start = _mix(np.asarray(seed, dtype=np.uint64) + _GOLDEN)
        key = np.broadcast_to(start, len(cells))
        for column in bits.T:
            key = _mix(key * _GOLDEN + column)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    position = np.arange(len(key))
    start = np.maximum.accumulate(np.where(first, position, 0))
    repeat = np.empty(len(key), dtype=np.uint64)
    repeat[order] = (position - start).astype(np.uint64)
    with np.errstate(over="ignore"):
        return _mix(key + repeat * _GOLDEN)


def row_uniforms(keys, n_columns, stream):
    """Uniform noise on (0, 1) for every cell of the keyed rows.

    Parameters
    ----------
    keys : uint64 array of shape (n,)
    n_columns : int
    stream : int
        Different streams are independent.

    Returns
    -------
    float64 array of shape (n, n_columns)
    """
    with np.errstate(over="ignore"):
        offsets = np.arange(n_columns, dtype=np.uint64) + np.uint64(stream) * np.uint64(
            n_columns
        )
        bits = _mix(_mix(keys)[:, None] + (offsets + np.uint64(1)) * _GOLDEN)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
