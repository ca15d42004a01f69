"""Thirteen patterns of missing cells: what each hides, ranks, and the picture."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import pareto, patterns
from benchmarks._missing_patterns import PATTERNS, error, hide


def table(n=240, d=6):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + rng.normal(size=(n, d))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_hides_a_share_of_the_cells(pattern):
    shares = []
    for seed in range(10):
        X = table()
        incomplete, truth, lost = hide(X, pattern, np.random.default_rng(seed))
        assert (np.isnan(incomplete) == lost).all()
        np.testing.assert_array_equal(incomplete[~lost], truth[~lost])
        assert ((~lost).sum(0) >= 10).all()
        seen = np.nanstd(incomplete, axis=0)
        np.testing.assert_allclose(seen, 1)
        shares.append(lost.mean())
    assert 0.15 < np.mean(shares) < 0.55


def lost_by(pattern, seed=0):
    X = table(1000)
    X = (X - X.mean(0)) / X.std(0)
    return X, PATTERNS[pattern](X, np.random.default_rng(seed))


def test_what_the_patterns_say():
    X, lost = lost_by("polarisation")
    assert lost.mean() == pytest.approx(0.5, abs=0.01)
    assert np.abs(X[lost]).max() < np.abs(X[~lost]).max()
    X, lost = lost_by("soft_polarisation")
    assert np.abs(X[lost]).mean() < 0.7 * np.abs(X[~lost]).mean()
    X, lost = lost_by("censoring")
    for own, gone in zip(X.T, lost.T, strict=True):
        assert own[gone].min() > own[~gone].max() or own[gone].max() < own[~gone].min()
    _, lost = lost_by("panel")
    assert (np.diff(lost.astype(int), axis=1) >= 0).all()
    assert not lost[:, 0].any()
    _, lost = lost_by("two_phase")
    assert len(np.unique(lost[:, lost.any(0)], axis=0)) == 2
    for complete in ("neighbours", "blocks", "mar"):
        _, lost = lost_by(complete)
        assert (~lost.any(0)).sum() >= 1
    X, lost = lost_by("sequential")
    assert (lost.sum(1) == 2).all()  # a row shows 70 % of its six columns


def test_the_error_of_the_mean_is_one():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(5000, 3)) * [1, 5, 0.3]
    lost = rng.random(truth.shape) < 0.3
    center = np.array([truth[lost[:, j], j].mean() for j in range(3)])
    assert error(np.broadcast_to(center, truth.shape), truth, lost) == pytest.approx(1)
    assert error(truth, truth, lost) == 0
    assert np.isnan(error(truth, np.ones_like(truth), lost))


def test_soft_impute_completes_a_matrix_of_low_rank():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 8))
    lost = rng.random(truth.shape) < 0.3
    X = np.where(lost, np.nan, truth)
    found = patterns.SoftImpute(0).fit(X).transform(X)
    np.testing.assert_array_equal(found[~lost], truth[~lost])
    assert np.sqrt(np.mean((found - truth)[lost] ** 2)) < 0.2 * truth.std()


def test_runs_are_resumed_and_ranked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(patterns, "TABLES", ["iris"])
    monkeypatch.setattr(patterns, "find_spec", lambda name: None)
    words = ["--out", str(tmp_path), "--patterns", "mcar", "two_phase"]
    patterns.main([*words, "--imputers", "mean", "knn"])
    first = pd.read_csv(tmp_path / "patterns.csv")
    assert len(first) == 4
    patterns.main([*words, "--imputers", "mean", "knn", "ridge"])
    second = pd.read_csv(tmp_path / "patterns.csv")
    assert len(second) == 6
    pd.testing.assert_frame_equal(second[:4], first)
    ranks, errors = patterns.summarise(second)
    assert ranks.loc["all"].sum() == pytest.approx(1 + 2 + 3)
    assert errors.loc["mcar", "ridge"] < errors.loc["mcar", "mean"]
    capsys.readouterr()
    patterns.main(["--out", str(tmp_path), "--summary"])
    assert "best mean rank in 0 of 2" in capsys.readouterr().out


def test_a_failure_ranks_last():
    keys = {"table": "a", "pattern": "mcar", "seed": 0}
    records = [
        {**keys, "imputer": "admc", "error": 0.9},
        {**keys, "imputer": "anchor", "error": 0.1},  # no competitor
        {**keys, "imputer": "knn", "error": np.nan},
        {**keys, "imputer": "mean", "error": 1.0},
        {**keys, "imputer": "knn", "error": 0.5, "table": "b"},
        {**keys, "imputer": "mean", "error": 1.0, "table": "b"},
        {**keys, "imputer": "admc", "error": 0.4, "table": "b"},
    ]
    ranks, _ = patterns.summarise(pd.DataFrame(records))
    assert ranks.loc["mcar"].to_dict() == {"admc": 1, "knn": 2.5, "mean": 2.5}


def test_the_picture_joins_what_nobody_beats(tmp_path):
    records = []
    for name, rmse, seconds in (
        ("mean", 1.0, 0.1),
        ("knn", 0.8, 0.2),
        ("trees", 0.5, 2.0),
        ("admc", 0.4, 1.0),
    ):
        for scale in (1, 2):
            record = {"table": f"t{scale}", "n": 150, "imputer": name}
            record |= {"rmse": scale * rmse, "fit_s": seconds / 2}
            records.append(record | {"transform_s": seconds / 2, "draw_s": np.nan})
    found = pareto.points(pd.DataFrame(records)).set_index("imputer")
    assert found["error"].to_dict() == pytest.approx(
        {"admc": 0.4, "knn": 0.8, "mean": 1.0, "trees": 0.5}
    )
    assert found.loc["admc", "s"] == pytest.approx(1)
    pareto.draw(found.reset_index(), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5000
