"""Small tables beside their peers: what is measured, resumed and summed up."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import small


class Exact:
    """Knows the truth, and draws it with noise of one standard deviation."""

    def __init__(self, truth):
        self.truth = truth

    def fit(self, X):
        return self

    def transform(self, X):
        return np.where(np.isnan(X), self.truth, X)

    def sample(self, X, n_draws):
        noise = np.random.default_rng(0).normal(size=(n_draws, *X.shape))
        return np.where(np.isnan(X), self.truth + noise, X)


def split():
    X = np.random.default_rng(0).normal(size=(400, 3))
    return small.cut(np.column_stack([X, np.ones(400)]), 0, "mcar")


def test_figures_of_an_imputer_that_knows_the_truth():
    part = split()
    assert part.train.shape == (280, 3)  # the constant column is left out
    record = small.measure(Exact(part.test), part)
    assert record["rmse"] == record["mae"] == 0
    # Of 20 draws with unit noise around the truth.
    expected = 2 / np.sqrt(2 * np.pi) - 1 / np.sqrt(np.pi)
    assert record["crps"] == pytest.approx(expected, abs=0.03)
    assert record["rmse_draws"] == pytest.approx(1 / np.sqrt(20), abs=0.05)
    assert record["cover95%"] > 0.99


def test_what_is_there_is_not_measured_again(tmp_path, capsys):
    words = ["--data", str(tmp_path), "--out", str(tmp_path), "--tables", "iris"]
    words += ["--rows", "100", "--imputers", "mean", "knn"]
    small.main(words)
    first = pd.read_csv(tmp_path / "small.csv")
    assert first["imputer"].tolist() == ["mean", "knn"]
    assert first["error"].isna().all()
    assert list(first) == small.COLUMNS
    small.main([*words, "ridge"])
    second = pd.read_csv(tmp_path / "small.csv")
    assert second["imputer"].tolist() == ["mean", "knn", "ridge"]
    pd.testing.assert_frame_equal(second[:2], first)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        small.main(["--out", str(tmp_path / "none")])
    assert "measure first" in capsys.readouterr().err


def test_the_summary_counts_wins_and_gains():
    keys = {"table": "a", "mechanism": "mcar", "seed": 0, "n": 150}
    records = [
        {**keys, "imputer": "admc", "rmse": 0.9, "energy": 0.5, "cover80%": 0.8},
        {**keys, "imputer": "trees", "rmse": 1.0},
        {**keys, "imputer": "mice_pmm", "rmse": 1.2, "energy": 0.4},
        {**keys, "imputer": "anchor", "rmse": 0.1, "energy": 0.1},  # no peer
    ]
    frame = pd.DataFrame(records).reindex(columns=small.COLUMNS)
    found = small.summarise(frame).loc[150]
    assert found["rmse"] == "1 of 1"
    assert found["gain, rmse"] == pytest.approx(10)
    assert found["energy"] == "0 of 1"
    assert found["gain, energy"] == pytest.approx(-25)
    assert found["cover80%"] == 0.8
