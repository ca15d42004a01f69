"""Random tables until the time is up: none may break a law of imputing.

    python -m benchmarks.fuzz --minutes 20 [--seed 0] [--jobs 1] [--tables N]
    python -m benchmarks.fuzz --only 123

Every table is made from a number of its own, from --seed on (see `benchmarks._tables`):
1 to 400 rows, 1 to 14 columns of all kinds, 2 to 97 % missing in all patterns. The
laws are those of `benchmarks._laws`. A table that breaks one, or that the imputer
cannot complete, is named with the command that tries it again; then the next one
follows. The last line has the figures, and the exit status says whether any failed.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import multiprocessing
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from benchmarks._laws import check_laws
from benchmarks._tables import random_recipe

AGAIN = "python -m benchmarks.fuzz --only"


def main(arguments=None):
    """Try tables, print failures and figures; the number of failures."""
    options = _options().parse_args(arguments)
    if options.only is not None:
        recipe, choice = random_recipe(options.only)
        print(recipe, choice, sep="\n")
        check_laws(recipe, choice)
        print(f"Table {options.only}: every law holds.")
        return 0
    started = time.monotonic()
    deadline = started + 60 * options.minutes
    seeds = itertools.count(options.seed)
    if options.tables is not None:
        seeds = itertools.islice(seeds, options.tables)
    n_tables, failures, longest = 0, [], (0.0, options.seed)
    for seed, seconds, report in _tried(seeds, deadline, options.jobs):
        n_tables += 1
        longest = max(longest, (seconds, seed))
        if report is not None:
            failures.append(seed)
            print(f"Table {seed} fails; again: {AGAIN} {seed}\n{report}", flush=True)
    print(
        f"{n_tables} tables from {options.seed} on, {len(failures)} failures, "
        f"{time.monotonic() - started:.0f} s; the longest took {longest[0]:.1f} s "
        f"(table {longest[1]})"
    )
    return len(failures)


def try_table(seed):
    """Try the table with a number: the number, seconds, and what failed or None."""
    torch.set_num_threads(1)
    started, report = time.monotonic(), None
    recipe, options = random_recipe(seed)
    try:
        check_laws(recipe, options)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        report = f"  {type(error).__name__}: {error} ({where})\n  {recipe}\n  {options}"
    return seed, time.monotonic() - started, report


def _tried(seeds, deadline, n_jobs):
    """Yield what `try_table` finds, until the deadline, in so many processes."""
    if n_jobs == 1:
        for seed in seeds:
            if time.monotonic() > deadline:
                return
            yield try_table(seed)
        return
    waiting, pool = collections.deque(), _pool(n_jobs)
    for seed in itertools.chain(seeds, itertools.repeat(None)):
        is_over = seed is None or time.monotonic() > deadline
        if not is_over:
            waiting.append((seed, pool.submit(try_table, seed)))
        if waiting and (is_over or len(waiting) > 2 * n_jobs):
            number, answer = waiting.popleft()
            try:
                yield answer.result()
            except BrokenProcessPool:  # one of those that ran at the time did it
                yield number, 0.0, "  The process died, at this table or one beside it."
                waiting, pool = collections.deque(), _pool(n_jobs)
        if is_over and not waiting:
            pool.shutdown()
            return


def _pool(n_jobs):
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_jobs, mp_context=context)


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0, help="number of the first table")
    parser.add_argument("--tables", type=int, help="so many at most")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", type=int, help="try the table with this number alone")
    return parser


if __name__ == "__main__":
    sys.exit(main() > 0)
