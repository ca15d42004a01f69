"""The benchmark of missing modalities runs, and its protocol does what it says."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_predict

from benchmarks import _appended, _lost_blocks, _mice, ablation, modalities
from benchmarks._baselines import (
    BASELINES,
    Counterparts,
    KernelRidge,
    MaskedAutoencoder,
    PerPattern,
    PublishedDiffusion,
)
from benchmarks._blocks import hide, load_blocks, lose, rmse, subsets


def features(n, seed):
    """Three views of two hidden numbers, and a label that they decide."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 2))
    views = {
        name: 3 + hidden @ rng.normal(size=(2, d)) + 0.3 * rng.normal(size=(n, d))
        for name, d in {"text": 5, "audio": 4, "video": 3}.items()
    }
    views["video"] = np.column_stack([views["video"], np.ones(n)])
    return {**views, "label": (hidden[:, 0] > 0).astype(int)}


@pytest.fixture
def own(tmp_path):
    """A file of one's own features, with groups and rows of neither split."""
    split = np.array(["train"] * 120 + ["dev"] * 10 + ["test"] * 50)
    arrays = features(180, 0)
    arrays["audio"][3, 1] = np.nan
    path = tmp_path / "own.npz"
    np.savez(path, **arrays, split=split, group=np.arange(180) // 4)
    return path


@pytest.fixture
def blocks(own):
    return load_blocks(str(own), None)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["modalities", *map(str, arguments)])
    modalities.main()


def test_blocks_are_complete_and_standardised_by_the_training_rows(blocks):
    assert blocks.X.shape == (169, 12)
    np.testing.assert_allclose(blocks.X[blocks.train].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(blocks.X[blocks.train].std(axis=0), 1)
    assert {name: len(part) for name, part in blocks.columns.items()} == {
        "text": 5,
        "audio": 4,
        "video": 3,
    }
    weak = blocks.only(["video", "text"])
    np.testing.assert_array_equal(
        weak.X[:, weak.columns["text"]], blocks.X[:, blocks.columns["text"]]
    )


def test_constant_columns_can_stay(own):
    assert load_blocks(str(own), None, drop_constant=False).X.shape == (169, 13)


def test_patterns(blocks):
    assert subsets("abc") == [("a",), ("b",), ("c",), *map(tuple, ("ab", "ac", "bc"))]
    incomplete = hide(blocks.X, blocks.columns, ["audio"])
    kept = ~np.isnan(incomplete).any(axis=0)
    np.testing.assert_array_equal(np.flatnonzero(kept), blocks.columns["audio"])
    lost = np.isnan(lose(blocks.X, blocks.columns, 0.7, np.random.default_rng(0)))
    assert not lost.all(axis=1).any()
    assert 0.5 < lost.mean() < 0.7
    for part in blocks.columns.values():
        assert (lost[:, part] == lost[:, part[:1]]).all()


@pytest.mark.parametrize("rate", [0, 0.4])
def test_baselines_complete_by_what_is_observed(blocks, rate):
    train = lose(blocks.X[blocks.train], blocks.columns, rate, np.random.default_rng(0))
    test = blocks.X[~blocks.train]
    incomplete = hide(test, blocks.columns, ["text"])
    for name in ("knn", "ridge", "kernel", "autoencoder"):
        completed = BASELINES[name](0, blocks.columns).fit(train).transform(incomplete)
        seen = ~np.isnan(incomplete)
        np.testing.assert_array_equal(completed[seen], test[seen])
        assert rmse(test, incomplete, completed) < 0.7, name


def test_a_pattern_has_one_regression(blocks):
    X = blocks.X[blocks.train]
    imputer = PerPattern(LinearRegression()).fit(X)
    incomplete = hide(X, blocks.columns, ["text", "video"])
    seen = ~np.isnan(incomplete).any(axis=0)
    expected = LinearRegression().fit(X[:, seen], X[:, ~seen]).predict(X[:, seen])
    np.testing.assert_allclose(imputer.transform(incomplete)[:, ~seen], expected)


def test_kernel_ridge_knows_its_leave_one_out_error():
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, size=(40, 1))
    y = np.sin(2 * X) + 0.1 * rng.normal(size=X.shape)
    y -= y.mean()
    model = KernelRidge().fit(X, y)
    errors = []
    for ridge in model.ridges:
        kernel = np.exp(-(((X - X.T) / model.width_) ** 2) / 2)
        predicted = [
            kernel[i, others]
            @ np.linalg.solve(
                kernel[np.ix_(others, others)] + ridge * np.eye(39), y[others]
            )
            for i in range(40)
            for others in [np.delete(np.arange(40), i)]
        ]
        errors.append(np.mean((np.array(predicted) - y) ** 2))
    assert model.ridge_ == model.ridges[int(np.argmin(errors))]
    linear = cross_val_predict(LinearRegression(), X, y)
    assert min(errors) < 0.5 * np.mean((linear - y) ** 2)


def test_networks_repeat_themselves(blocks):
    X = blocks.X[blocks.train]
    incomplete = hide(X, blocks.columns, ["audio"])
    for imputer in (
        MaskedAutoencoder(blocks.columns, n_epochs=2),
        PublishedDiffusion(n_epochs=2, n_steps=50, n_spliced=5),
    ):
        first = imputer.fit(X).transform(incomplete)
        np.testing.assert_array_equal(first, imputer.transform(incomplete))
        np.testing.assert_array_equal(first, imputer.fit(X).transform(incomplete))
        assert np.isfinite(first).all()


def test_the_published_path_draws_from_the_data_where_nothing_is_observed():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1)) * [[1.0, 0.5]]
    imputer = PublishedDiffusion(n_epochs=300, width=64, n_steps=200).fit(X)
    draws = imputer.transform(np.full((1000, 2), np.nan))
    np.testing.assert_allclose(draws.std(axis=0), X.std(axis=0), rtol=0.25)


def test_counterparts_do_not_see_their_own_modality(blocks):
    X = blocks.X[blocks.train]
    append = Counterparts(BASELINES["ridge"](0, blocks.columns), blocks.columns).fit(X)
    both = append.transform(X)
    assert both.shape == (len(X), 2 * X.shape[1])
    np.testing.assert_array_equal(both[:, : X.shape[1]], X)
    changed = X.copy()
    changed[:, blocks.columns["text"]] += 1
    text = X.shape[1] + blocks.columns["text"]
    np.testing.assert_array_equal(append.transform(changed)[:, text], both[:, text])


def test_groups_stay_together(blocks):
    for train, test in _appended.folds(blocks, 0):
        assert not set(blocks.group[train]) & set(blocks.group[test])


def test_rows_whose_features_know_their_labels_are_left_out(blocks):
    own = _appended.parts("own", blocks)
    assert list(own) == ["all"]
    assert len(own["all"].X) == len(blocks.X)
    held_out = _appended.parts("own", blocks, "test")["all"]
    assert len(held_out.X) == len(held_out.group) == 50
    assert not held_out.train.any()


def test_the_command_measures_every_subset(monkeypatch, capsys, own, tmp_path):
    csv = tmp_path / "records.csv"
    run(monkeypatch, "--sets", own, "absent", "--imputers", "mean", "ridge")
    printed = capsys.readouterr().out
    assert "absent: not found" in printed
    assert "accuracy on complete rows" in printed
    assert "mean over 6 subsets" in printed
    run(monkeypatch, "--sets", own, "--imputers", "mean", "ridge", "--csv", csv)
    records = pd.read_csv(csv).set_index("imputer")
    assert len(records) == 18
    assert records.loc["mean", "rmse"].mean() == pytest.approx(1, abs=0.15)
    assert records.loc["ridge", "rmse"].max() < 0.8
    assert (records["accuracy"] > 0.6).all()


def test_the_command_measures_random_loss_and_counterparts(monkeypatch, own, tmp_path):
    csv = tmp_path / "records.csv"
    common = ["--sets", own, "--imputers", "mean", "ridge", "--csv", csv]
    run(monkeypatch, *common, "--loss")
    loss = pd.read_csv(csv).pivot(index="rate", columns="imputer", values="rmse")
    assert (loss["ridge"] < loss["mean"]).all()
    run(monkeypatch, *common, "--features", "--seeds", 0, 1, "--folds", 3)
    records = pd.read_csv(csv)
    assert len(records) == 4
    np.testing.assert_allclose(records["gain"], records["appended"] - records["plain"])


def test_latency_is_that_of_single_rows(blocks):
    found = modalities.measure_latency(blocks, BASELINES["mean"](0, None), 12, 30)
    assert 0 < found["median_ms"] <= found["p95_ms"]
    assert found["rows_s"] > 0


def test_a_variant_of_the_ablation_lacks_its_part_alone():
    X = np.random.default_rng(0).normal(size=(200, 12))
    X[:, 6:] = np.square(X[:, :6]) + 0.1 * X[:, 6:]
    options = {"modalities": {"a": range(6), "b": range(6, 12)}, "max_epochs": 1}
    found = {}
    for name in ablation.VARIANTS:
        imputer = ablation.imputer_of(name, **options).fit(X)
        model = imputer.model_.blocks
        conditional = model.anchor.conditional(torch.tensor([True, False]))
        found[name] = {
            "attention": len(model.denoiser.attention) > 0,
            "kernels": any(features.curved for features in model.features.maps),
            "anchor": bool(conditional.slopes.any()),
            "training": bool(imputer.history_["epoch"].max() > 0),
        }
    whole = dict.fromkeys(["attention", "kernels", "anchor", "training"], True)
    assert found == {
        "as it is": whole,
        "without attention": whole | {"attention": False},
        "without kernel features": whole | {"kernels": False},
        "without anchor": whole | {"anchor": False},
        "anchor alone": whole | {"training": False},
    }


def test_blocks_of_tables_are_lost_by_one_fit_and_by_one_a_block(monkeypatch, tmp_path):
    csv = tmp_path / "records.csv"
    names = ["admc", "without landmarks", "ridge", "mlp"]
    own = ["--tables", "wine", "absent", "--imputers", *names]
    sizes = ["--blocks", 2, "--n-rows", 60, 0, "--max-time", 1, "--csv", csv]
    picture = tmp_path / "rows.png"
    run(monkeypatch, *own, *sizes, "--picture", picture)
    assert picture.stat().st_size > 1000
    records = pd.read_csv(csv)
    assert records["rows"].tolist() == [60] * 4 + [125] * 4
    assert records["rmse"].between(0.5, 1.2).all()
    assert records["energy"].between(0.5, 2.5).all()


def test_classes_are_told_from_completed_rows():
    """As well as from complete ones where the lost block repeats the other."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    a = labels[:, None] + rng.normal(scale=0.3, size=(900, 2))
    X = np.hstack([a, a])
    blocks = _lost_blocks.split_blocks(X, 2, 0, 0.5, 0, labels)
    found = _lost_blocks.measure(
        blocks, lambda: _lost_blocks.Regression(lambda seed: LinearRegression(), 0)
    )
    whole = blocks.classifier.score(blocks.test, blocks.labels)
    assert found["accuracy"] == pytest.approx(whole, abs=0.01)
    assert found["accuracy"] > 0.8
    names = _lost_blocks.load_labelled("wine", None)[1]
    assert names is None  # a bundled table's classes are not read


@pytest.mark.skipif(not _mice.has_mice(), reason="R's mice is not installed")
def test_draws_of_mice_are_of_the_lost_block():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(150, 2))
    blocks = _lost_blocks.split_blocks(
        np.hstack([a, 2 * a + 0.1 * rng.normal(size=a.shape)]), 2, 0, 0.5, 0
    )
    peer = _lost_blocks.Mice(0).fit(blocks)
    error = peer.complete(blocks, "block1") - blocks.test[:, 2:]
    assert np.sqrt(np.square(error).mean()) < 0.6  # one without the other has 1
    assert peer.draw(blocks, "block1", 10).std(axis=0).mean() < 0.6


def test_training_rows_lose_one_block_at_the_share_and_test_rows_none():
    X = np.random.default_rng(0).normal(size=(2000, 7))
    X[:, 3] = 1.0  # it does not vary
    found = _lost_blocks.split_blocks(X, 3, 1000, 0.6, 0)
    assert [len(own) for own in found.columns.values()] == [2, 2, 2]
    lost = np.isnan(found.train)
    assert set(lost.sum(axis=1)) == {0, 2}
    assert lost.any(axis=1).mean() == pytest.approx(0.6, abs=0.05)
    assert not np.isnan(found.test).any()
    assert np.isnan(found.without("block1")).mean() == pytest.approx(1 / 3)


def test_draws_of_a_regression_have_its_residuals():
    """Both of their sizes, and their correlation."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3000, 2))
    noise = rng.normal(size=(3000, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    blocks = _lost_blocks.split_blocks(np.hstack([a, a + noise]), 2, 0, 0.5, 0)
    peer = _lost_blocks.Regression(lambda seed: LinearRegression(), 0).fit(blocks)
    left = peer.draw(blocks, "block1", 400) - peer.complete(blocks, "block1")[:400]
    found = np.cov(left.reshape(-1, 2).T)
    np.testing.assert_allclose(
        found, 0.5 * np.array([[1.0, 0.8], [0.8, 1.0]]), atol=0.07
    )


def test_a_table_with_classes_is_a_set_of_blocks(tmp_path):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(200, 6))).add_prefix("x")
    X.loc[:9, "x0"] = np.nan
    (tmp_path / "tabular").mkdir()
    X.assign(target=np.where(X["x5"] > 0, "a", "b")).to_parquet(
        tmp_path / "tabular" / "own.parquet"
    )
    blocks = _lost_blocks.table_blocks("own", tmp_path, 2)
    assert blocks.train.sum() == 133
    assert len(blocks.X) == 190
    assert [len(own) for own in blocks.columns.values()] == [3, 3]
    np.testing.assert_allclose(blocks.X[blocks.train].std(axis=0), 1)
    assert (
        (blocks.X[:, 5] > blocks.X[blocks.y == "b", 5].max()) | (blocks.y == "b")
    ).all()
    assert _lost_blocks.table_blocks("absent", tmp_path, 2) is None
