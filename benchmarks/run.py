"""The protocol of the field over ten tables, into one CSV that grows.

    python -m benchmarks.run --data DIR --out benchmarks/report
    python -m benchmarks.report benchmarks/report

70/30 split; 30 % of the known cells hidden in both parts; z-scores by the observed
training cells. Every imputer is fitted once a cell, a table under a mechanism, and
completes the unseen and the training rows. RMSE is that of the mean, MAE that of the
median where an imputer has both (one completion serves for both elsewhere), accuracy
that of the levels. Seconds are wall time of `fit` and of one `transform`, all imputers
in one process, with the same number of threads; the CPU's seconds of both together are
beside them, since other work on the machine lengthens the wall time.

Without --data, tables are downloaded by scikit-learn. A run that was interrupted goes
on where it was; a cell that failed is in the CSV with its error, and tried again.
With --cell-time a cell that takes longer has failed; every cell then has a process of
its own, and imports are outside its figures but not outside its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import time
import warnings
from importlib import metadata
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks._child import call_within
from benchmarks._peers import IMPUTERS, is_available
from benchmarks._protocol import mixed_errors, split_frame
from benchmarks._sources import TABLES, load_table

MECHANISMS = ("mcar", "mar", "mnar")
PARTS = ("unseen", "training")
RATE = 0.3
PACKAGES = ("numpy", "pandas", "torch", "scikit-learn", "admc_sklearn")
CELL = ["table", "mechanism", "seed", "imputer"]
FIGURES = ["rmse", "mae", "accuracy", "fit_s", "transform_s", "cpu_s"]
# What may differ between files but not within one: `max_time` only where it matters.
LIMITED = "admc"
SETTINGS = ["rate", "row_cap", "max_time", "n_threads", "source"]
COLUMNS = [
    *CELL, "part", *FIGURES, "epochs", "n_table", "n_rows", "n_columns",
    "hidden_fraction", *SETTINGS, "processor", "python", *PACKAGES, "error",
]  # fmt: skip


class Results:
    """A CSV with a row for each part of each cell, only ever added to.

    Parameters
    ----------
    path : Path
    settings : dict
        Values of `SETTINGS`, the same for all rows.

    Raises
    ------
    ValueError
        If the file holds results of other settings: a page is about one of them.
    """

    def __init__(self, path, settings):
        self.path, self.settings = path, settings
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(",".join(COLUMNS) + "\n")
        # A line that a crash cut short.
        text = path.read_text()
        path.write_text(text[: text.rfind("\n") + 1])
        rows = read_results(path)
        for name, value in settings.items():
            told = rows[rows["imputer"] == LIMITED] if name == "max_time" else rows
            others = set(told[name].astype(str)) - {str(value)}
            if others:
                raise ValueError(
                    f"{path.name} holds results with {name} {sorted(others)}, not "
                    f"{value}: choose another --out."
                )
        good = rows[rows["error"].isna()]
        counts = good.groupby(CELL)["part"].nunique()
        self.finished = set(counts.index[counts == len(PARTS)])

    def append(self, rows):
        """Add rows, all at once."""
        frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
        text = frame.to_csv(header=False, index=False, lineterminator="\n")
        with self.path.open("a") as file:
            file.write(text)


def read_results(path):
    """Read a results file: a frame with `COLUMNS`; settings are text."""
    return pd.read_csv(path, dtype=dict.fromkeys([*SETTINGS, "error"], str))


def environment():
    """Versions and processor, by column."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions | {"python": platform.python_version(), "processor": _processor()}


def _processor():
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def sample_rows(frame, cap, seed):
    """Take rows at random, where there are more than the cap."""
    if not cap or len(frame) <= cap:
        return frame
    return frame.iloc[np.random.default_rng(seed).permutation(len(frame))[:cap]]


def measure(imputer, split):
    """Fit once and complete both parts: a list of two dicts of figures."""
    _, fit_s, fit_cpu_s = _timed(imputer.fit, split.train_incomplete)
    epochs = getattr(imputer, "n_epochs_", np.nan)
    records = []
    for part, tables in _tables(split).items():
        record = {"part": part, "fit_s": fit_s, "epochs": epochs}
        record |= _scores(imputer, *tables)
        record["cpu_s"] += fit_cpu_s
        records.append(record)
    return records


def _timed(call, *arguments):
    """Return what it returns, and the seconds of the clock and of the CPUs."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call(*arguments)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def _scores(imputer, truth, incomplete):
    completed, transform_s, cpu_s = _timed(imputer.transform, incomplete)
    record = {"transform_s": transform_s, "cpu_s": cpu_s}
    record |= _checked_errors(truth, incomplete, completed)
    if "strategy" in imputer.get_params():
        median = imputer.set_params(strategy="median").transform(incomplete)
        imputer.set_params(strategy="mean")
        record["mae"] = _checked_errors(truth, incomplete, median)["mae"]
    return record


def _checked_errors(truth, incomplete, completed):
    left = int(completed.isna().to_numpy().sum())
    if left:
        raise ValueError(f"{left} cells are still missing")
    return mixed_errors(truth, incomplete, completed)


def _tables(split):
    """Truth and incomplete rows of both parts."""
    return {
        "unseen": (split.test, split.test_incomplete),
        "training": (split.train, split.train_incomplete),
    }


def _shape(truth, incomplete):
    known = truth.notna().to_numpy()
    hidden = incomplete.isna().to_numpy() & known
    return {
        "n_rows": len(truth),
        "n_columns": truth.shape[1],
        "hidden_fraction": hidden.sum() / known.sum(),
    }


def cell_rows(split, name, seed, options):
    """Rows of one imputer on one split; what it raises is in them."""
    cell = split, name, seed, options
    try:
        if options.cell_time is None:
            rows = _measured(*cell)
        else:
            rows = call_within(options.cell_time, _measured_alone, *cell)
    except Exception as error:  # recorded: others go on
        rows = _failed(error)
    tables = _tables(split)
    return [row | _shape(*tables[row["part"]]) for row in rows]


def _measured(split, name, seed, options):
    imputer = IMPUTERS[name](seed, options.threads, options.max_time)
    return measure(imputer, split)


def _measured_alone(split, name, seed, options):
    """As `_measured`, in a process that knows nothing of the limits of its parent."""
    with _limited(options.threads):
        return _measured(split, name, seed, options)


def _failed(error):
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return [{"part": part, "error": text} for part in PARTS]


def table_rows(table, mechanism, seed, names, options):
    """Yield each imputer's name and rows, on the same hidden cells."""
    try:
        whole = load_table(table, options.data)
        frame = sample_rows(whole, options.rows, seed)
        split = split_frame(frame, seed, mechanism=mechanism, rate=RATE)
    except Exception as error:  # all cells of this table have failed
        yield from ((name, _failed(error)) for name in names)
        return
    for name in names:
        rows = cell_rows(split, name, seed, options)
        yield name, [{"n_table": len(whole)} | row for row in rows]


def run(options):
    """Measure what is not in the file yet."""
    settings = {
        "rate": RATE,
        "row_cap": options.rows or "none",
        "max_time": options.max_time or "none",
        "n_threads": options.threads,
        "source": "files" if options.data else "downloaded",
    }
    results = Results(Path(options.out) / "results.csv", settings)
    shared = settings | environment()
    cells = product(options.seeds, options.tables, options.mechanisms)
    for seed, table, mechanism in cells:
        cell = {"table": table, "mechanism": mechanism, "seed": seed}
        names = [
            name
            for name in options.imputers
            if (table, mechanism, seed, name) not in results.finished
        ]
        if not names:
            continue
        for name, rows in table_rows(table, mechanism, seed, names, options):
            results.append([shared | cell | {"imputer": name} | row for row in rows])
            _say(cell, name, rows)


def _say(cell, name, rows):
    head = "{table:10s} {mechanism:4s} seed {seed} ".format(**cell) + f"{name:10s}"
    for row in rows:
        if row.get("error"):
            print(f"{head} failed: {row['error']}", flush=True)
            return
    figures = ", ".join(
        "{part} rmse {rmse:.4f} mae {mae:.4f} accuracy {accuracy:.4f}".format(**row)
        for row in rows
    )
    seconds = f"fit {rows[0]['fit_s']:.1f} s, transform {rows[0]['transform_s']:.2f} s"
    print(f"{head} {figures}, {seconds}", flush=True)


def parse(arguments=None):
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder that holds tabular/NAME.parquet")
    parser.add_argument("--out", default="benchmarks/report", help="of results.csv")
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument(
        "--mechanisms", nargs="+", default=MECHANISMS, choices=MECHANISMS
    )
    parser.add_argument(
        "--imputers",
        nargs="+",
        default=[name for name in IMPUTERS if name != "anchor" and is_available(name)],
        choices=list(IMPUTERS),
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rows", type=int, help="rows taken of each table at most")
    parser.add_argument("--max-time", type=float, help="seconds for ADMCImputer's fit")
    parser.add_argument("--threads", type=int, default=1, help="of every imputer")
    parser.add_argument(
        "--cell-time", type=float, help="seconds after which a cell is given up"
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measure with the given number of threads."""
    options = parse(arguments)
    with _limited(options.threads):
        run(options)


@contextlib.contextmanager
def _limited(n_threads):
    with threadpool_limits(n_threads), warnings.catch_warnings():
        # Five rounds of trees do not converge; all get the same five.
        warnings.simplefilter("ignore")
        _limit_torch(n_threads)
        yield


def _limit_torch(n_threads):
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(n_threads)


if __name__ == "__main__":
    main()
