"""The recipes for other engines, each where that engine is installed."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from admc_sklearn import ADMCImputer
from tests.conftest import ROOT, quick

COLUMNS = ["a", "b", "sum", "text", "whole"]


@pytest.fixture(scope="module")
def recipes():
    """Module of the recipes, which workers can import as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples" / "cluster"))
        yield importlib.import_module("recipes")
        del sys.modules["recipes"]


@pytest.fixture(scope="module")
def plain(frame):
    """Columns that all engines have, whole numbers as floats with gaps."""
    return frame[COLUMNS].astype({"whole": float}).head(200)


@pytest.fixture(scope="module")
def path(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "imputer.safetensors"
    quick(max_epochs=0).fit(plain).save(path)
    return str(path)


@pytest.fixture
def expected(plain, path):
    return ADMCImputer.load(path).set_output(transform="pandas").transform(plain)


def assert_alike(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        one, other = found[name].tolist(), expected[name].tolist()
        if name == "text":
            assert one == other
        else:
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_streams_of_frames(recipes, plain, path, expected):
    parts = [plain.iloc[:0], plain.iloc[:7], plain.iloc[7:100], plain.iloc[100:]]
    found = [*recipes.complete_frames(iter(parts), path)]
    assert [len(part) for part in found] == [0, 7, 93, 100]
    assert_alike(pd.concat(found[1:]), expected)


def test_dask(recipes, plain, path, expected):
    dask = pytest.importorskip("dask.dataframe", reason="Dask is not installed")
    table = dask.from_pandas(plain, npartitions=3)
    completed = recipes.complete_in_dask(table, path)
    assert_alike(completed.compute(scheduler="synchronous"), expected)


SPARK = """
import sys
import pandas as pd
from pyspark.sql import SparkSession
import recipes

frame = pd.read_pickle(sys.argv[1])
session = SparkSession.builder.master("local[1]")
session = session.config("spark.ui.enabled", "false").getOrCreate()
session.sparkContext.addPyFile(recipes.__file__)
cells = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
table = session.createDataFrame(cells, schema=list(frame))
rows = recipes.complete_in_spark(table, sys.argv[2]).collect()
pd.DataFrame(rows, columns=list(frame)).to_pickle(sys.argv[1])
session.stop()
"""


@pytest.mark.slow
def test_spark(recipes, plain, path, expected, tmp_path):
    """In a process of its own: Spark's gateway outlives its session."""
    pytest.importorskip("pyspark", reason="Spark is not installed")
    file = tmp_path / "frame.pickle"
    plain.to_pickle(file)
    folders = os.pathsep.join([str(ROOT), os.path.dirname(recipes.__file__)])
    subprocess.run(
        [sys.executable, "-c", SPARK, str(file), path],
        env={**os.environ, "PYTHONPATH": folders, "PYSPARK_PYTHON": sys.executable},
        check=True,
        timeout=300,
    )
    assert_alike(pd.read_pickle(file), expected)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compare_imputers_on_ray(ray_data, recipes, plain):
    from sklearn.impute import SimpleImputer

    imputers = {
        "mean": SimpleImputer(),
        "median": SimpleImputer(strategy="median"),
    }
    X = plain[["a", "b", "sum"]].to_numpy()
    found = recipes.compare_on_ray(imputers, X, cv=2, random_state=0)
    assert len(found) == 4
    assert found.error.isna().all()
