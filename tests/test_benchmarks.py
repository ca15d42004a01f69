"""The benchmarks run, and their protocol does what it says."""

import sys

import numpy as np
import pandas as pd
import pytest

from admc_sklearn import ADMCImputer
from benchmarks import mcar
from benchmarks._protocol import errors, load_numeric, split_mcar

from .conftest import ROOT

DATA = ROOT.parent / "shared" / "data"


def test_split_standardises_by_the_observed_training_cells():
    X = np.random.default_rng(0).normal(5, 3, size=(2000, 4))
    split = split_mcar(X, 0)
    assert len(split.train) == 1400
    assert np.isnan(split.train_incomplete).mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(np.nanmean(split.train_incomplete, 0), 0, atol=1e-9)
    np.testing.assert_allclose(np.nanstd(split.train_incomplete, 0), 1, atol=1e-9)
    seen = ~np.isnan(split.test_incomplete)
    np.testing.assert_array_equal(split.test_incomplete[seen], split.test[seen])


def test_errors_are_taken_over_hidden_cells_only():
    truth = np.array([[1.0, 2.0], [3.0, np.nan]])
    incomplete = np.array([[np.nan, 2.0], [np.nan, np.nan]])
    completed = np.array([[2.0, 99.0], [0.0, 99.0]])
    rmse, mae = errors(truth, incomplete, completed)
    assert rmse == pytest.approx(np.sqrt(5))
    assert mae == pytest.approx(2)


def test_the_command_prints_a_table_and_writes_its_records(
    monkeypatch, capsys, tmp_path
):
    csv = tmp_path / "records.csv"
    arguments = "--tables wine absent --seeds 0 1 --imputers anchor mean --csv".split()
    monkeypatch.setattr(sys, "argv", ["mcar", *arguments, str(csv)])
    mcar.main()
    assert "absent: not found" in capsys.readouterr().out
    records = pd.read_csv(csv).set_index(["imputer", "seed"])
    assert len(records) == 4
    assert (records.loc["anchor", "rmse"] < records.loc["mean", "rmse"]).all()


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"needs the data sets in {DATA.name}/")
def test_a_few_seconds_beat_the_anchor_on_a_real_table():
    split = split_mcar(load_numeric("letter", DATA), 100)
    imputer = ADMCImputer(max_time=25, random_state=0).fit(split.train_incomplete)
    rmse, _ = errors(
        split.test, split.test_incomplete, imputer.transform(split.test_incomplete)
    )
    assert rmse < 0.65  # the anchor has 0.75, nearest neighbours 0.82
