"""Fit to a directory of Parquet files and complete it: one command, no cluster.

    python -m admc_sklearn.distributed IN_DIR OUT_DIR

The imputer is saved in OUT_DIR. Where it is there already it is taken, and files that
are there are left: a run that was broken off goes on.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from .._imputer import ADMCImputer
from . import complete_parquet
from ._datasets import check_ray, names_of

SAVED = "imputer.safetensors"


def main(arguments=None):
    """Run the command; the report of `complete_parquet`."""
    options = _parser().parse_args(arguments)
    check_ray()
    import ray

    from ._files import BATCH_ROWS, peak_mb, source_of
    from ._fit import Effort, fit_dataset

    if not ray.is_initialized():
        ray.init(
            address=options.address,
            num_cpus=None if options.address else options.workers,
            include_dashboard=None if options.address else False,
            log_to_driver=False,
            logging_level="warning",
        )
    ray.data.DataContext.get_current().enable_progress_bars = False
    target = Path(options.target)
    target.mkdir(parents=True, exist_ok=True)
    saved, key = target / SAVED, names_of(options.key)
    started = time.monotonic()
    if saved.exists():
        imputer = ADMCImputer.load(saved)
        print(f"{saved} is there and taken; remove it to fit anew.")
    else:
        imputer = ADMCImputer(random_state=options.seed, max_epochs=options.epochs)
        skip = options.on_error == "skip"
        effort = Effort(options.train_workers, options.anchor_passes)
        files = source_of(options.source, key, skip)
        fit_dataset(imputer, files, options.sample_rows, BATCH_ROWS, {}, effort)
        part = saved.with_suffix(".part")
        imputer.save(part)
        os.replace(part, saved)
        spent = time.monotonic() - started
        print(f"fitted in {spent:.1f} s, peak memory {peak_mb():.0f} MB: {saved}")
    imputer.set_params(strategy=options.strategy)
    started = time.monotonic()
    report = complete_parquet(
        imputer,
        options.source,
        target,
        n_draws=options.draws,
        key=key,
        on_error=options.on_error,
        n_workers=options.workers,
    )
    _print(report, time.monotonic() - started)
    return report


def _print(report, spent):
    done, n_rows = report.seconds.notna() & report.fault.isna(), report.n_rows.sum()
    print(
        f"completed {n_rows:,} rows of {done.sum()} files in {spent:.1f} s, "
        f"{n_rows / spent:,.0f} rows a second, peak memory of a worker "
        f"{report.peak_mb.max():.0f} MB"
    )
    if kept := (report.seconds.isna()).sum():
        print(f"{kept} files were there and are left as they are")
    for fault in report.fault.dropna():
        print(f"left out: {fault}")


def _parser():
    parser = argparse.ArgumentParser("python -m admc_sklearn.distributed")
    parser.add_argument("source", help="directory of Parquet files")
    parser.add_argument("target", help="directory to write to")
    parser.add_argument("--key", nargs="*", help="columns that name a row")
    parser.add_argument("--sample-rows", type=int, default=100_000)
    parser.add_argument("--train-workers", type=int, default=0)
    parser.add_argument("--anchor-passes", type=int, default=0)
    parser.add_argument("--strategy", default="mean")
    parser.add_argument("--draws", type=int, help="draws of every row")
    parser.add_argument("--on-error", choices=["raise", "skip"], default="raise")
    parser.add_argument("--workers", type=int, help="as many as there are CPUs")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--address", help="of a cluster of Ray; a new one on this host")
    return parser


if __name__ == "__main__":
    main()
