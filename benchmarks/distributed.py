"""The imputer over a directory of Parquet files: seconds, memory and equality.

    python -m benchmarks.distributed --rows 2e6 --workers 1 2

Makes files of 20 columns (16 numbers of five factors, a category, text, a whole number,
a date; 20 % missing), and for each number of workers, in a session of Ray of its own:
finds the rows to fit to, fits to them, trains the network on shards, passes over all
rows for the anchor, and completes all files, by means and by draws. It prints the
seconds of each step, its rows a second and its peak of memory, summed over all
processes; whether what came out is equal for all numbers of workers and to one call of
`transform`; and the pieces that the guide reckons with. ``--train 0`` leaves the
training out.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from admc_sklearn import ADMCImputer
from admc_sklearn.distributed import complete_parquet
from admc_sklearn.distributed._arrow import frame_of
from admc_sklearn.distributed._files import (
    BATCH_ROWS,
    read_file,
    source_of,
)
from admc_sklearn.distributed._fit import Effort, find_rows, fit_rows

N_FILES, MAX_FILE_ROWS = 8, 500_000


def make_files(folder, n_rows):
    """Write files that hold so many rows together."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(5, 16))
    size = min(MAX_FILE_ROWS, -(-n_rows // N_FILES))
    for number, start in enumerate(range(0, n_rows, size)):
        n = min(size, n_rows - start)
        factors = rng.normal(size=(n, 5))
        numbers = np.exp(0.3 * (factors @ loadings)) + 0.3 * rng.normal(size=(n, 16))
        frame = pd.DataFrame(numbers).add_prefix("x")
        levels = np.array(["none", "some", "many"])
        frame["level"] = pd.Categorical(levels[np.digitize(factors[:, 0], [-0.5, 1])])
        frame["text"] = np.where(factors[:, 1] > 0, "above", "below")
        frame["count"] = pd.array(rng.poisson(np.exp(factors[:, 2])), dtype="Int64")
        days = pd.to_timedelta((100 * factors[:, 3]).round(), unit="D")
        frame["day"] = pd.Timestamp("2020-01-01") + days
        frame = frame.mask(rng.random(frame.shape) < 0.2)
        frame.to_parquet(folder / f"part{number:04}.parquet", index=False)


def descendants(pid):
    """Ids of a process and all below it."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            own, rest = path.read_text().rsplit(")", 1)
        except OSError:
            continue
        children.setdefault(int(rest.split()[1]), []).append(int(own.split()[0]))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def memory_mb(pids):
    """Proportional set size of processes, in MB: shared pages count once."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:"
        )
    return total / 1e3


class Steps:
    """Seconds and peak memory of steps; a thread looks twice a second."""

    def __init__(self, n_rows, n_workers):
        self.n_rows, self.n_workers, self.records = n_rows, n_workers, []

    @contextmanager
    def __call__(self, name):
        """Measure a step."""
        peak, over = [0.0], threading.Event()

        def look():
            while not over.wait(0.5):
                peak[0] = max(peak[0], memory_mb(descendants(os.getpid())))

        thread = threading.Thread(target=look)
        started = time.perf_counter()
        thread.start()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            over.set()
            thread.join()
        record = {
            "workers": self.n_workers,
            "step": name,
            "seconds": seconds,
            "rows/s": self.n_rows / seconds,
            "peak MB": peak[0],
        }
        self.records.append(record)
        print(
            f"{self.n_workers} workers, {name:22} {seconds:8.1f} s "
            f"{record['rows/s']:12,.0f} rows/s {peak[0]:8.0f} MB",
            flush=True,
        )


def digest(folder):
    """Hash of the cells of all files of a folder, but for float32 products."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.parquet")):
        frame = pd.read_parquet(path)
        numbers = frame.select_dtypes("number").to_numpy(dtype=float)
        found.update(np.float16(numbers.sum(axis=0) / len(frame)).tobytes())
        others = frame.select_dtypes(exclude="number").astype(str)
        hashes = pd.util.hash_pandas_object(others, index=False).to_numpy()
        found.update(hashes.tobytes())
    return found.hexdigest()[:12]


def measure(source, target, n_rows, n_workers, options):
    """Run all steps with a number of workers: the records, the imputer, the digests."""
    import ray

    ray.init(
        num_cpus=n_workers,
        include_dashboard=False,
        object_store_memory=options.store_mb * 1_000_000,
        log_to_driver=False,
        logging_level="error",
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.disable(logging.INFO)  # Ray Data's own
    steps = Steps(n_rows, n_workers)
    try:
        whole = source_of(source, [], skip=False)
        imputer = ADMCImputer(random_state=0, max_epochs=options.epochs)
        with steps("find rows to fit"):
            rows = find_rows(imputer, whole, options.sample_rows, BATCH_ROWS, {})
        with steps("fit to the sample"):
            fit_rows(imputer, rows, whole, Effort())
        trained = ADMCImputer(random_state=0, max_epochs=options.train)
        if options.train:
            with steps("train on shards"):
                fit_rows(trained, rows, whole, Effort(train_workers=n_workers))
            print(f"{n_workers} workers, an epoch: {epoch_seconds(trained):.1f} s")
            with steps("anchor alone"):
                trained = ADMCImputer(random_state=0, max_epochs=0)
                fit_rows(trained, rows, whole, Effort())
            with steps("anchor, all rows once"):
                fit_rows(trained, rows, whole, Effort(anchor_passes=1))
        digests = []
        for strategy in options.strategies:
            out = target / f"{n_workers}{strategy}"
            imputer.set_params(strategy=strategy)
            with steps(f"complete, {strategy}"):
                complete_parquet(imputer, source, out, n_workers=n_workers)
            if len(options.workers) > 1:
                digests.append(digest(out))
    finally:
        ray.shutdown()
    return steps.records, imputer.set_params(strategy="mean"), digests


def epoch_seconds(imputer):
    """Seconds of an epoch after the first, which waits for workers to start."""
    seconds = imputer.history_.seconds.to_numpy()
    return (seconds[-1] - seconds[1]) / max(1, len(seconds) - 2)


def difference(imputer, source, target):
    """Largest difference, in standard deviations, from one call of `transform`."""
    path = sorted(source.rglob("*.parquet"))[0]
    table = next(read_file(path, 50_000))
    done = pq.read_table(target / path.name).slice(0, len(table))
    once, done = imputer._transform(frame_of(table)), frame_of(done)
    worst = 0.0
    for name in once:
        one, other = once[name].to_numpy(), done[name].to_numpy()
        if one.dtype.kind == "f":
            worst = max(worst, float(np.abs(one - other).max() / one.std()))
        else:
            worst = max(worst, float((one != other).mean()))
    return worst


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=2e6)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sample-rows", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--train", type=int, default=5, help="epochs on shards")
    parser.add_argument("--store-mb", type=int, default=500)
    parser.add_argument("--strategies", nargs="+", default=["mean", "sample"])
    parser.add_argument("--folder", help="for the files, which take 300 bytes a row")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    source, n_rows = folder / "in", int(options.rows)
    source.mkdir()
    try:
        make_files(source, n_rows)
        size = sum(path.stat().st_size for path in source.iterdir())
        print(f"{n_rows:,} rows x 20, {size / n_rows:.0f} bytes a row in Parquet")
        found = [
            measure(source, folder, n_rows, n_workers, options)
            for n_workers in options.workers
        ]
        if len(found) > 1:
            digests = {tuple(each[2]) for each in found}
            print("equal for all numbers of workers:", len(digests) == 1)
        imputer = found[0][1]
        if "mean" in options.strategies:
            worst = difference(imputer, source, folder / f"{options.workers[0]}mean")
            print(f"largest difference from one call of transform: {worst:.1e}")
        print(f"an epoch on the sample, one process: {epoch_seconds(imputer):.1f} s")
        n_weights = sum(p.numel() for p in imputer.model_.network.parameters())
        print(f"weights to average in a step: {4 * n_weights / 1e6:.1f} MB")
        if len(found) > 1:
            first, last = (pd.DataFrame(each[0]) for each in (found[0], found[-1]))
            gains = (first["seconds"] / last["seconds"]).round(2).tolist()
            print("times as fast:", dict(zip(first["step"], gains, strict=True)))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
