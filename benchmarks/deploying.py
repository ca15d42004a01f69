"""What an imputer costs where it is deployed: bytes, loading, a row, what it needs.

    python -m benchmarks.deploying [--data DIR --table california]

Fits to the training rows of a table, 30 % of its cells hidden, keeps the imputer as a
pickle, by `save` and as an ONNX graph, both with and without training rows, and prints
for each the bytes, the seconds of loading, the RMSE of unseen rows, the milliseconds of
one row and of a thousand, on one thread, and how far completions are at most from those
of the imputer, in standard deviations; then the megabytes of the packages that each
needs.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import pickle
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from admc_sklearn import ADMCImputer
from benchmarks._protocol import load_numeric, split_mcar

REPEATS = 100


class Graph:
    """An exported graph with the imputer's `transform`."""

    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)

    def transform(self, X):
        """Complete rows."""
        return self.session.run(None, {"X": np.asarray(X, np.float32)})[0]


def unpickle(path):
    """Load a pickle."""
    with open(path, "rb") as file:
        return pickle.load(file)


def measure(load, path, split, expected):
    """Bytes, seconds of loading, error, milliseconds, largest difference: a dict."""
    started = time.perf_counter()
    imputer = load(path)
    record = {"MB": path.stat().st_size / 1e6, "load s": time.perf_counter() - started}
    hidden = split.test_incomplete
    found = imputer.transform(hidden)
    record["RMSE"] = np.sqrt(np.mean((found - split.test)[np.isnan(hidden)] ** 2))
    record["difference"] = np.abs(found - expected).max()
    many = hidden[np.arange(1000) % len(hidden)]
    for name, rows, repeats in (
        ("row ms", many[:1], REPEATS),
        ("1000 rows s", many, 5),
    ):
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            imputer.transform(rows)
            times.append(time.perf_counter() - started)
        record[name] = np.median(times) * (1000 if name == "row ms" else 1)
    return record


def megabytes(package):
    """Megabytes of a package with all that it requires."""
    seen, queue = set(), [package]
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop().lower())
        if name in seen:
            continue
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add(name)
        for required in found.requires or []:
            if "extra ==" not in required:
                queue.append(re.match(r"[\w.-]+", required).group())
    total = 0
    for name in seen:
        for file in importlib.metadata.distribution(name).files or []:
            path = file.locate()
            total += path.stat().st_size if path.is_file() else 0
    return total / 1e6


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder that holds tabular/NAME.parquet")
    parser.add_argument("--table", default="breast_cancer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    X = load_numeric(options.table, options.data)
    split = split_mcar(X[~np.isnan(X).any(1)], 0)
    imputer = ADMCImputer(random_state=0).fit(split.train_incomplete)
    records = {}
    plain = copy.copy(imputer)
    plain.model_ = imputer.model_.without_rows()
    expected = {
        include_rows: one.transform(split.test_incomplete)
        for include_rows, one in ((True, imputer), (False, plain))
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(pickle.dumps(imputer))
        records["pickle"] = measure(unpickle, path, split, expected[True])
        for include_rows, suffix in ((True, ""), (False, " without rows")):
            known = split, expected[include_rows]
            imputer.save(path, include_rows=include_rows)
            records[f"save{suffix}"] = measure(ADMCImputer.load, path, *known)
            started = time.perf_counter()
            imputer.export_onnx(path, include_rows=include_rows)
            print(f"exported{suffix} in {time.perf_counter() - started:.0f} s")
            records[f"ONNX{suffix}"] = measure(Graph, path, *known)
    print(options.table, split.train.shape)
    print(pd.DataFrame(records).T.to_string(float_format="{:.3g}".format))
    for name in ("admc_sklearn", "onnxruntime"):
        print(f"{name} with all that it requires: {megabytes(name):.0f} MB")


if __name__ == "__main__":
    main()
