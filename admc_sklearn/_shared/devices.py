"""Devices, threads, seeds and noise that belongs to a row.

An operator of torch that several OpenMP threads share ends when the last of them has
run, and the others wait for it actively: beside other work on the machine that takes
ten times as long as one thread does, and in a forked child it never ends. So an
operator has one thread here (see `one_thread`), and it is independent pieces of work
that are dealt to threads (see `in_threads`): always the same pieces, so that results do
not depend on the number of threads.

The limit holds for the calling thread alone and for the duration of a call. Nothing in
the package touches a backend switch or a default generator of torch or NumPy: all that
is random comes from generators of our own.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController

_CPU = torch.device("cpu")
# How many threads `in_threads` may use, in a thread that is inside `one_thread`.
_CALLER = threading.local()
# Threads at most, each with arrays of its own.
MAX_THREADS = 8
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
        raise ValueError(
            f"device={device!r} is not a torch device ({error})."
        ) from error
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


@functools.cache
def _openmp():
    """Control of the OpenMP libraries: their limits are those of the calling thread."""
    return ThreadpoolController().select(user_api="openmp")


@functools.cache
def _limit_mkl():
    """MKL's setter of the calling thread's limit; it returns the one before, 0: none.

    A `torch.set_num_threads` of the user gives MKL a number of threads of its own,
    which OpenMP's limit does not lower.
    """
    try:
        return ctypes.CDLL(torch._C.__file__).MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):  # a build of torch without MKL
        return lambda n_threads: 0


@contextmanager
def one_thread():
    """Let the operators of torch run on the calling thread alone; also a decorator.

    Other threads keep the number that they have, and so does the caller after the
    call, however it ends.
    """
    if getattr(_CALLER, "n_threads", None) is not None:
        yield
        return
    try:
        # This comes first, since torch sets a thread's number when it first needs it.
        _CALLER.n_threads = torch.get_num_threads()
        with _openmp().limit(limits=1):
            before = _limit_mkl()(1)
            try:
                yield
            finally:
                _limit_mkl()(before)
    finally:
        pool = getattr(_CALLER, "pool", None)
        _CALLER.pool = _CALLER.n_threads = None
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _begin_worker():
    """Limit a thread that does nothing but work for `in_threads`."""
    torch.get_num_threads()
    _openmp().limit(limits=1)
    _limit_mkl()(1)
    _CALLER.n_threads = 1


def in_threads(function, items, device=_CPU):
    """Call a function of every item, in as many threads as torch had for the caller.

    Outside `one_thread` and within another call there is one. The threads end with
    `one_thread`: none are there for a forked child to miss.

    Parameters
    ----------
    function : callable
        Of one item; it must not change what another call reads.
    items : iterable
        Worth a millisecond each, at least.
    device : torch.device
        Where it is not the CPU, which waits for it, one thread is enough.

    Returns
    -------
    list
        The results, in the order of the items.
    """
    items = list(items)
    n_threads = min(MAX_THREADS, getattr(_CALLER, "n_threads", None) or 1)
    if device.type != "cpu" or min(len(items), n_threads) < 2:
        return [function(item) for item in items]
    if getattr(_CALLER, "pool", None) is None:
        _CALLER.pool = ThreadPoolExecutor(n_threads, initializer=_begin_worker)
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def call(item):
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return function(item)

    return list(_CALLER.pool.map(call, items))
