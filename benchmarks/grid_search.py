"""A grid search over imputers in one and in two processes, and with a cache.

    python -m benchmarks.grid_search [--n-jobs 1 2] [--repeats 3] [--device auto]

breast_cancer with 20 % of its cells missing completely at random; a pipeline of
StandardScaler, imputer and LogisticRegression; four imputers, four folds, 16 fits.
Every search has a fresh process, whose imports do not count; those of its workers do,
as they do for whoever searches. Seconds of the CPUs are those of the process and its
workers. Threads are what torch and the BLAS libraries may use where a candidate is
scored. Numbers of jobs take turns, and the least seconds of the repeats count: two
threads of torch that wait for each other suffer far more from other work on the machine
than two processes do.

With ``memory=`` the same search is followed by one over the classifier's penalty, which
needs the same fits of scaler and imputer: those that had to be made are counted in the
cache. Set no OMP_NUM_THREADS: it would limit the search in one process as well.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.datasets import load_breast_cancer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from admc_sklearn import ADMCImputer
from admc_sklearn.missingness import ampute
from benchmarks._child import call_within

N_FOLDS = 4
RATE = 0.2
PENALTIES = [0.01, 1.0]
LIMIT = 3600.0
SEARCHED = (
    "n_jobs={n_jobs}: {wall_s:.1f} s of the clock ({ratio:.2f} of the first), "
    "{cpu_s:.1f} s of CPU, {processes} process(es); threads in each: torch "
    "{torch_threads}, BLAS {blas_threads}; accuracies differ by {difference:.1g}"
)
CACHED = (
    "n_jobs={n_jobs}, memory=: {wall_s:.1f} s, {made} fits of scaler and imputer made "
    "of {asked} asked for"
)


def accuracy_and_threads(model, X, y):
    """Score a candidate, and count the threads that it may use where it is scored."""
    pools = threadpool_info()
    return {
        "accuracy": model.score(X, y),
        "torch": torch.get_num_threads(),
        "blas": max((p["num_threads"] for p in pools), default=1),
        "process": os.getpid(),
    }


def search_over_imputers(n_jobs, imputer, memory=None, **grid):
    """`GridSearchCV` over four imputers, `imputer` the last of them."""
    pipeline = Pipeline(
        [
            ("scale", StandardScaler()),
            ("impute", SimpleImputer()),
            ("classify", LogisticRegression(max_iter=1000)),
        ],
        memory=memory,
    )
    round_robin = IterativeImputer(max_iter=10, random_state=0)
    imputers = [SimpleImputer(), KNNImputer(), round_robin, imputer]
    return GridSearchCV(
        pipeline,
        {"impute": imputers, **grid},
        scoring=accuracy_and_threads,
        refit=False,
        cv=N_FOLDS,
        n_jobs=n_jobs,
    )


def measure(n_jobs, epochs, device):
    """Search once: a dict of seconds, threads, processes and accuracies."""
    X, y = incomplete_table()
    search = search_over_imputers(n_jobs, _ours(epochs, device))
    started, cpu = time.perf_counter(), _cpu_seconds()
    _fit(search, X, y)
    wall = time.perf_counter() - started
    # Children count once they have ended.
    get_reusable_executor().shutdown(wait=True)
    return {"wall_s": wall, "cpu_s": _cpu_seconds() - cpu} | figures(search)


def measure_cache(n_jobs, epochs, device):
    """Search twice with one cache: seconds and fits of each, and all accuracies."""
    X, y = incomplete_table()
    records = []
    with tempfile.TemporaryDirectory() as folder:
        memory = joblib.Memory(folder, verbose=0)
        n_before = 0
        for grid in ({}, {"classify__C": PENALTIES}):
            search = search_over_imputers(
                n_jobs, _ours(epochs, device), memory=memory, **grid
            )
            started = time.perf_counter()
            _fit(search, X, y)
            wall, n_after = time.perf_counter() - started, n_cached(folder)
            n_asked = 2 * N_FOLDS * len(search.cv_results_["params"])
            records.append(
                {"wall_s": wall, "asked": n_asked, "made": n_after - n_before}
                | figures(search)
            )
            n_before = n_after
        get_reusable_executor().shutdown(wait=True)
    return records


def incomplete_table():
    """breast_cancer with holes, and its labels."""
    X, y = load_breast_cancer(return_X_y=True)
    return ampute(X, rate=RATE, random_state=0), y


def n_cached(folder):
    """How many results a joblib cache holds."""
    return len(list(Path(folder).rglob("output.pkl")))


def figures(search):
    """Threads, processes and accuracies of a search, over candidates and folds."""
    results = search.cv_results_
    folds = {
        name: np.stack([results[f"split{k}_test_{name}"] for k in range(search.cv)])
        for name in ("accuracy", "torch", "blas", "process")
    }
    return {
        "torch_threads": int(folds["torch"].max()),
        "blas_threads": int(folds["blas"].max()),
        "processes": len(np.unique(folds["process"])),
        "accuracies": folds["accuracy"].mean(axis=0),
    }


def _ours(epochs, device):
    return ADMCImputer(max_epochs=epochs, device=device, random_state=0)


def _fit(search, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ten rounds of IterativeImputer are few
        search.fit(X, y)


def _cpu_seconds():
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main(arguments=None):
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-jobs", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="of each search")
    parser.add_argument("--epochs", type=int, default=20, help="of ADMCImputer")
    parser.add_argument("--device", default="cpu", help="of ADMCImputer")
    options = parser.parse_args(arguments)
    how = options.epochs, options.device
    # By its name: workers of the fresh processes do not know this one's __main__.
    from benchmarks import grid_search as this

    print(f"{joblib.cpu_count()} cores, device {options.device}")
    records = {n_jobs: [] for n_jobs in options.n_jobs}
    for _ in range(options.repeats):
        for n_jobs, done in records.items():
            done.append(call_within(LIMIT, this.measure, n_jobs, *how))
    best = {n: min(done, key=_wall_seconds) for n, done in records.items()}
    first = best[options.n_jobs[0]]
    for n_jobs, record in best.items():
        print(SEARCHED.format(n_jobs=n_jobs, **record, **_against(record, first)))
        walls = [f"{one['wall_s']:.1f}" for one in records[n_jobs]]
        print(f"  repeats: {', '.join(walls)} s")
    for n_jobs in options.n_jobs:
        for record in call_within(LIMIT, this.measure_cache, n_jobs, *how):
            print(CACHED.format(n_jobs=n_jobs, **record))


def _wall_seconds(record):
    return record["wall_s"]


def _against(record, first):
    difference = np.abs(record["accuracies"] - first["accuracies"]).max()
    return {"ratio": record["wall_s"] / first["wall_s"], "difference": difference}


if __name__ == "__main__":
    main()
