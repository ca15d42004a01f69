"""What a second thread gains on a quiet machine, and what it costs on a busy one.

    python -m benchmarks.contention [--rows N] [--columns D] [--epochs E] [--repeats R]

A fit, a transform of 1000 rows and one of a single row, with one thread and with two,
alone and beside busy loops, one a core. They are started here, keep a core each and end
by themselves. Every measurement has a process of its own, and all take turns, so that
other work on the machine falls on each alike; the median of the turns is printed, with
the seconds of two threads over those of one.

On a busy machine the ratio should stay below 1.5: an operator that two threads share
takes ten times as long where one of them has to wait for a core.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import torch

from admc_sklearn import ADMCImputer
from benchmarks._child import call_within
from benchmarks._markdown import markdown_table

RATE, N_FACTORS, N_NEW, N_SINGLE = 0.3, 3, 1000, 30
THREADS = (1, 2)
# Of one measurement, and of the busy loops beside it.
LIMIT = 1200.0
LOOP = "import time, sys; end = time.monotonic() + float(sys.argv[1])\n"
LOOP += "while time.monotonic() < end: pass"


def made_up(n, d):
    """Rows of a few factors and noise with cells missing at random, (n, d)."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, N_FACTORS)) @ rng.normal(size=(N_FACTORS, d))
    X += 0.5 * rng.normal(size=(n, d))
    X[rng.random((n, d)) < RATE] = np.nan
    return X


def seconds(n_threads, n_rows, n_columns, n_epochs):
    """Seconds of a fit, of 1000 rows and of a single one: a dict."""
    torch.set_num_threads(n_threads)
    X = made_up(n_rows + N_NEW, n_columns)
    imputer = ADMCImputer(max_epochs=n_epochs, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imputer.fit(X[:50])  # what is loaded at the first call
        found = {"fit": _timed(imputer.fit, X[N_NEW:])}
    imputer.transform(X[:2])
    found["1000 rows"] = _timed(imputer.transform, X[:N_NEW])
    single = [_timed(imputer.transform, X[k : k + 1]) for k in range(N_SINGLE)]
    found["one row"] = float(np.median(single))
    return found


def _timed(function, X):
    start = time.perf_counter()
    function(X)
    return time.perf_counter() - start


@contextlib.contextmanager
def busy(n_loops):
    """So many loops that keep a core each while the body runs, but not for ever."""
    command = [sys.executable, "-c", LOOP, str(LIMIT)]
    loops = [subprocess.Popen(command) for _ in range(n_loops)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def compare(shape, n_epochs, n_repeats):
    """Measure all cases in turn: a frame of seconds by case and number of threads."""
    records = []
    cases = list(itertools.product(("quiet", "busy"), THREADS))
    for turn in range(n_repeats):
        # Every other turn begins at the other end.
        for machine, n_threads in cases if turn % 2 == 0 else cases[::-1]:
            n_loops = os.cpu_count() if machine == "busy" else 0
            with busy(n_loops):
                found = call_within(LIMIT, seconds, n_threads, *shape, n_epochs)
            for what, value in found.items():
                records.append((machine, what, n_threads, value))
    columns = ["machine", "what", "threads", "seconds"]
    return pd.DataFrame(records, columns=columns)


def summarise(frame):
    """Medians of each case, and the ratio of two threads to one."""
    keys = ["machine", "what", "threads"]
    table = frame.groupby(keys, sort=False)["seconds"].median().unstack("threads")
    one, two = THREADS
    out = pd.DataFrame(
        {f"{n} thread(s), s": table[n].map("{:.3f}".format) for n in THREADS}
    )
    out["ratio"] = (table[two] / table[one]).map("{:.2f}".format)
    return out.reset_index()


def main(arguments=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=ADMCImputer().max_epochs)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{os.cpu_count()} cores{load} at the start; torch {torch.__version__}")
    shape = options.rows, options.columns
    print(
        f"{shape[0]} x {shape[1]}, {RATE:.0%} missing, {options.epochs} epochs at most"
    )
    print(markdown_table(summarise(compare(shape, options.epochs, options.repeats))))


if __name__ == "__main__":
    main()
