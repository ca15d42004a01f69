"""Rows that are fitted to: a fair sample, and all levels and ranges."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from admc_sklearn import ADMCImputer
from admc_sklearn.distributed._rows_of_fit import Gathered, RowFinder


def gather(table, n_sample_rows, size, imputer=None, key=(), order=None):
    imputer = imputer or ADMCImputer()
    own = pa.schema([f for f in table.schema if f.name not in key])
    named = pa.schema([table.schema.field(name) for name in key])
    finder = RowFinder(own, named, imputer, n_sample_rows, len(table), 0)
    gathered = Gathered(n_sample_rows)
    parts = [table.slice(k, size) for k in range(0, len(table), size)]
    for k in range(len(parts)) if order is None else order:
        gathered.add(*finder.find(parts[k]))
    return gathered.table()


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    n = 20_000
    level = np.where(np.arange(n) == 12_345, "rare", rng.choice(["x", "y"], n))
    frame = pd.DataFrame(
        {
            "id": np.arange(n),
            "number": np.arange(n, dtype=float),
            "whole": np.where(np.arange(n) == 777, 0.5, rng.integers(0, 9, n)),
            "level": pd.Categorical(level),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(n), unit="h"),
            "gap": np.where(np.arange(n) == 4321, np.nan, 1.0),
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)


def test_levels_ranges_fractions_and_gaps_are_those_of_all_rows(table):
    found = gather(table, 200, 3000).to_pandas()
    every = table.to_pandas()
    assert 200 <= len(found) < 230
    assert set(found.level) == {"x", "y", "rare"}
    for name in ("number", "day", "whole"):
        assert found[name].min() == every[name].min()
        assert found[name].max() == every[name].max()
    assert (found.whole == 0.5).any()
    assert found.gap.isna().any()


def test_with_a_key_the_sample_is_the_same_however_rows_are_divided(table):
    one = gather(table, 500, 20_000, key=["id"])
    other = gather(table, 500, 1234, key=["id"], order=[*range(16, -1, -1)])
    one, other = one.to_pandas(), other.to_pandas()
    assert one.astype({"level": str}).equals(other.astype({"level": str}))


@pytest.mark.parametrize("key", [(), ("id",)])
def test_rows_are_equally_likely(table, key):
    found = gather(table, 4000, 1000, key=key).to_pandas().number.head(4000)
    counts = np.histogram(found, 10, (0, 20_000))[0]
    # Four standard deviations of a binomial.
    assert (np.abs(counts - 400) < 4 * np.sqrt(400 * 0.9)).all()


def test_equal_rows_are_drawn_one_by_one():
    """A sample of few distinct rows has their shares, not some of them whole."""
    rng = np.random.default_rng(1)
    table = pa.table({"a": rng.integers(0, 2, 50_000).astype(float)})
    found = gather(table, 2000, 1000).to_pandas().a
    assert abs(found.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_a_small_dataset_is_taken_whole(table):
    found = gather(table, 50_000, 3000)
    assert len(found) == len(table)
    assert sorted(found.to_pandas().number) == sorted(table.to_pandas().number)


def test_markers_are_no_ends_and_numbers_may_be_levels():
    values = np.arange(1000.0)
    values[5], values[6] = -99, 5000
    table = pa.table({"a": values, "code": np.arange(1000) % 40})
    imputer = ADMCImputer(missing_values=[-99, np.nan], categorical_features=["code"])
    found = gather(table, 10, 100, imputer).to_pandas()
    seen = found.a[found.a != -99]
    assert (seen.min(), seen.max()) == (0, 5000)
    assert set(found.code) == set(range(40))
