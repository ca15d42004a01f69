"""The file of results under several processes, one of which is killed."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest

from admc_sklearn.evaluation._result_file import FIGURES, ResultFile
from tests.conftest import ROOT

N_ROWS = 25
# The package imports torch, for seconds, which the file of results has no use for.
WRITER = """
import sys, types
for name in ("admc_sklearn", "admc_sklearn.evaluation", "admc_sklearn._table"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [f"{sys.argv[4]}/{name.replace('.', '/')}"]
from admc_sklearn.evaluation._result_file import FIGURES, ResultFile
path, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = ResultFile(path)
print("ready", flush=True)
sys.stdin.readline()
for split in range(n):
    row = {"imputer": name, "mechanism": "mcar", "rate": 0.3, "split": split}
    row |= dict.fromkeys(FIGURES, 1.0) | {"error": None, "fingerprint": "f"}
    store.append(row)
    print(split, flush=True)
"""


def start(path, name, n):
    """Start a process that adds n rows once it gets a line."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(n), str(ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_two_processes_lose_no_result_when_one_is_killed(tmp_path, suffix):
    path = tmp_path / f"results{suffix}"
    writers = {name: start(path, name, n) for name, n in [("a", N_ROWS), ("b", 10**6)]}
    for writer in writers.values():
        assert writer.stdout.readline().strip() == "ready"
    for writer in writers.values():
        writer.stdin.write("\n")
        writer.stdin.flush()
    written = {"a": [], "b": [writers["b"].stdout.readline() for _ in range(10)]}
    time.sleep(0.01)
    writers["b"].kill()
    written["b"] += writers["b"].stdout.readlines()
    writers["b"].wait(30)
    written["a"] = writers["a"].stdout.readlines()
    assert writers["a"].wait(60) == 0
    assert len(written["a"]) == N_ROWS
    rows = ResultFile(path).rows
    rows = rows[rows["fingerprint"].notna()]
    for name, splits in written.items():
        found = set(rows.loc[rows["imputer"] == name, "split"].astype(int))
        assert {int(s) for s in splits if s.strip()} <= found
    assert set(rows["imputer"]) <= {"a", "b"}  # one header


def test_a_result_that_another_process_added_is_kept(tmp_path):
    path = tmp_path / "results.parquet"
    stores = [ResultFile(path), ResultFile(path)]
    for split in range(4):
        row = {"imputer": "a", "mechanism": "mcar", "rate": 0.3, "split": split}
        row |= dict.fromkeys(FIGURES, 1.0) | {"error": None, "fingerprint": "f"}
        stores[split % 2].append(row)
    assert pd.read_parquet(path)["split"].tolist() == [0, 1, 2, 3]
