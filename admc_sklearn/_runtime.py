"""Devices, seeds and noise that belongs to a row.

Nothing here, and nothing elsewhere in the package, touches the number of threads or a
backend switch; torch's default generators are left as they were (see `seeded`).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SEEDING = threading.Lock()
# How many times as much a GPU computes at once as one core, whose caches are small.
GPU_SHARE = 16


def resolve_device(device):
    """`torch.device` for a name; ``"auto"`` takes CUDA, then MPS, then the CPU.

    Parameters
    ----------
    device : str or torch.device

    Raises
    ------
    ValueError
        If the device is malformed or not available on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r} is not a torch device: {error}") from error
    available = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    usable = available.get(resolved.type, lambda: resolved.type == "cpu")()
    if resolved.type == "cuda" and usable and resolved.index is not None:
        usable = resolved.index < torch.cuda.device_count()
    if not usable:
        raise ValueError(
            f"device={device!r} is not available on this machine; "
            "device='auto' takes the best that is."
        )
    return resolved


def exact_device(device):
    """Device for what needs float64, which MPS has not: the CPU instead."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def slices(n, cost, elements, device, limit=None):
    """Slices of n items whose arrays have about so many elements on the CPU.

    Parameters
    ----------
    n : int
    cost : int
        Elements of one item.
    elements : int
        Of an array that suits a core; on a GPU, where launching costs more than
        memory, arrays are `GPU_SHARE` times as large.
    device : torch.device
    limit : int, optional
        Most items of a slice, on a GPU as many times more.
    """
    share = 1 if device.type == "cpu" else GPU_SHARE
    step = max(1, share * elements // max(1, cost))
    if limit is not None:
        step = min(step, share * limit)
    return [slice(lo, min(lo + step, n)) for lo in range(0, n, step)]


@contextmanager
def seeded(seed, device):
    """Seed torch's default generators of the CPU and a device; restore them after.

    For what takes no generator of its own: initial weights, dropout, low-rank
    decompositions. The generators belong to the process: fits in threads of one
    process wait for each other.

    Parameters
    ----------
    seed : int
    device : torch.device
    """
    with _SEEDING:
        yield from _seeded(seed, device)


def _seeded(seed, device):
    kept = torch.get_rng_state()
    other = {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
    place = (device,) if device.type == "cuda" else ()
    kept_other = other.get_rng_state(*place) if other else None
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif other:
        other.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(kept)
        if other:
            other.set_rng_state(kept_other, *place)


def some_rows(limit, generator, *tables):
    """At most so many rows of tables, the same of each, drawn by a CPU generator."""
    rows = torch.randperm(len(tables[0]), generator=generator)[:limit]
    rows = rows.to(tables[0].device)
    return tuple(table[rows] for table in tables)


def draw_seeds(random_state, n_seeds):
    """Python integers below 2**31 from a `numpy.random.RandomState`."""
    return [int(s) for s in random_state.randint(2**31 - 1, size=n_seeds)]


def _mix(x):
    """Apply the finaliser of splitmix64 (Steele, Lea and Flood, 2014), elementwise."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def row_keys(values, observed, seed):
    """Make a 64-bit key for every row, from its observed values and the seed alone.

    Noise made from the key does not depend on a row's place or on its companions.
    Equal rows are told apart by how many of them came before, so that they get
    independent noise.

    Parameters
    ----------
    values : float array of shape (n, d)
    observed : bool array of shape (n, d)
    seed : int

    Returns
    -------
    uint64 array of shape (n,)
    """
    cells = np.where(observed, values, np.nan).astype(np.float32)
    bits = np.ascontiguousarray(cells).view(np.uint32).astype(np.uint64)
    key = np.full(len(cells), _mix(np.uint64(seed) + _GOLDEN), dtype=np.uint64)
    with np.errstate(over="ignore"):
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
