"""ADMCImputer with modalities, as its users meet it."""

import copy
import itertools
import pickle
import time
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from admc_sklearn._blocks.model import _posteriors, _updated, _without
from admc_sklearn._shared.contract import Rows
from tests.conftest import lightly, quick

SIZES = (6, 8, 7)
# A row alone and the row in a batch differ by float32 products.
TOLERANCE = 2e-3


def views(n, sizes=SIZES, seed=0, noise=0.2):
    """Several curved views of the same three numbers, and their columns."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3))
    maps = np.random.default_rng(99)
    parts = [np.tanh(z @ maps.normal(size=(3, d))) for d in sizes]
    X = np.concatenate(parts, axis=1)
    ends = np.cumsum(sizes).tolist()
    modalities = {
        f"m{k}": slice(end - d, end)
        for k, (end, d) in enumerate(zip(ends, sizes, strict=True))
    }
    return X + noise * rng.normal(size=X.shape), modalities


def lose(X, modalities, rate, seed=0):
    """A copy of X in which rows lose whole modalities, each by itself."""
    rng = np.random.default_rng(seed)
    X = X.copy()
    for columns in modalities.values():
        X[rng.random(len(X)) < rate, columns] = np.nan
    return X


def rmse(completed, X, incomplete):
    missing = np.isnan(incomplete)
    return np.sqrt(np.mean(((completed - X) / X.std(axis=0))[missing] ** 2))


@pytest.fixture(scope="module")
def table():
    return views(150)


@pytest.fixture(scope="module")
def fitted(table):
    X, modalities = table
    return quick(modalities=modalities, max_epochs=3).fit(lose(X, modalities, 0.3))


@pytest.fixture(scope="module")
def anchored(table):
    """Without a trained network: quicker, and smooth in its input."""
    X, modalities = table
    return quick(modalities=modalities, max_epochs=0).fit(X)


def products(n, seed):
    """Three views of signs: the last of the product, which no sum of curves tells."""
    rng = np.random.default_rng(seed)
    s = np.where(rng.random((n, 2)) < 0.5, -1.0, 1.0)
    parts = (s[:, :1], s[:, 1:], s[:, :1] * s[:, 1:])
    X = np.column_stack([part + 0.2 * rng.normal(size=(n, 5)) for part in parts])
    return X, {name: slice(5 * k, 5 * k + 5) for k, name in enumerate("abc")}


@pytest.fixture(scope="module")
def trained():
    """An imputer whose network has left the anchor behind."""
    X, modalities = products(300, 0)
    options = {"max_epochs": 8, "learning_rate": 5e-3, "batch_size": 32}
    return quick(modalities=modalities, **options).fit(X)


# Every pattern, one fit


def every_pattern(X, modalities):
    """Each subset of the modalities in one row each, the empty one too."""
    names = list(modalities)
    out = X[: 2 ** len(names)].copy()
    for number, row in enumerate(out):
        for k, name in enumerate(names):
            if not number >> k & 1:
                row[modalities[name]] = np.nan
    return out


@pytest.mark.parametrize("strategy", ["mean", "median", "sample"])
def test_one_fit_completes_every_pattern(table, fitted, strategy):
    X = every_pattern(*table)
    before = X.copy()
    imputer = copy.deepcopy(fitted).set_params(strategy=strategy)
    completed = imputer.transform(X)
    np.testing.assert_array_equal(X, before)
    assert completed.shape == X.shape
    assert completed.dtype == X.dtype
    assert np.isfinite(completed).all()
    seen = ~np.isnan(X)
    np.testing.assert_array_equal(completed[seen], X[seen])
    np.testing.assert_array_equal(imputer.transform(X), completed)
    np.testing.assert_array_equal(imputer.transform(table[0]), table[0])


def test_same_seed_same_imputer_and_global_generators_left_alone(table, fitted):
    X, modalities = table
    incomplete = lose(X, modalities, 0.3)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    twin = quick(modalities=modalities, max_epochs=3).fit(incomplete)
    assert torch.equal(torch.get_rng_state(), before)
    probe = lose(X, modalities, 0.5, 1)
    np.testing.assert_array_equal(twin.transform(probe), fitted.transform(probe))
    np.testing.assert_array_equal(twin.sample(probe, 2), fitted.sample(probe, 2))
    other = clone(twin).set_params(random_state=1).fit(incomplete)
    assert not np.array_equal(other.sample(probe, 1), twin.sample(probe, 1))


def test_large_blocks_beside_cells_leave_the_global_generator_alone():
    """The low-rank decomposition of blocks over 512 by 512 takes torch's own noise."""
    X, modalities = views(640, (520, 6))
    X = np.column_stack([X[:, :520], X[:, 0] + X[:, -1]])
    X[::10, :520] = np.nan
    X[::4, -1] = np.nan
    torch.manual_seed(1)
    before = torch.get_rng_state()
    imputer = quick(modalities={"a": modalities["m0"]}, max_epochs=0)
    imputer.fit(X, groups=np.zeros(640))  # one group: nothing is cross-fitted
    assert torch.equal(torch.get_rng_state(), before)
    assert np.isfinite(imputer.transform(X[:12])).all()


@pytest.mark.parametrize("strategy", ["mean", "sample"])
def test_row_order_and_splitting_do_not_matter(trained, strategy):
    X = lose(*products(30, 1), 0.4, 2)
    X = X[~np.isnan(X).all(axis=1)]  # equal rows have draws of their own
    imputer = copy.deepcopy(trained).set_params(strategy=strategy)
    whole = imputer.transform(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(imputer.transform(X[order]), whole[order], atol=1e-3)
    alone = np.vstack([imputer.transform(row[None]) for row in X])
    np.testing.assert_allclose(alone, whole, atol=TOLERANCE)


@pytest.mark.usefixtures("light_fits")
def test_draws_of_blocks_beside_drawn_cells_do_not_depend_on_companions():
    """The last bit of a drawn cell chose other noise for the blocks of its row."""
    X, _ = views(150, (6, 7))
    extra = X[:, :5] @ np.ones((5, 4)) + np.random.default_rng(1).normal(size=(150, 4))
    X = np.column_stack([extra, X])
    blocks = {"a": slice(4, 10), "b": slice(10, 17)}
    imputer = quick(modalities=blocks).fit(X)
    X = X[:40].copy()
    X[:, 1:3] = np.nan
    X[:, blocks["b"]] = np.nan
    whole = imputer.sample(X, 1)[0]
    alone = np.vstack([imputer.sample(row[None], 1)[0] for row in X])
    assert np.abs(whole - alone).max() < 0.02


def test_equal_rows_have_draws_of_their_own_and_seeds_change_them(table, fitted):
    X, modalities = table
    row = X[:1].copy()
    row[:, modalities["m1"]] = np.nan
    draws = fitted.sample(np.repeat(row, 50, axis=0), 2)
    # Those that reach the ends of the observed range are equal.
    assert len(np.unique(draws[:, :, 6])) > 85
    other = fitted.sample(row, 1, random_state=5)
    assert not np.array_equal(other[0], draws[0, :1])


def test_n_steps_changes_draws_of_a_trained_network_alone(table, anchored, trained):
    def draws(imputer, X, n_steps):
        return copy.deepcopy(imputer).set_params(n_steps=n_steps).sample(X, 1)

    X = lose(*table, 0.5, 3)[:20]
    # Without a network every number of steps gives the anchor's own posterior.
    np.testing.assert_allclose(draws(anchored, X, 1), draws(anchored, X, 16), atol=1e-4)
    X = lose(*products(30, 1), 0.4, 2)
    assert np.abs(draws(trained, X, 1) - draws(trained, X, 16)).max() > 0.1


# What is missing, and where


def test_rows_without_anything_are_the_mean(table, anchored):
    X, _ = table
    completed = anchored.transform(np.full((2, X.shape[1]), np.nan))
    np.testing.assert_allclose(completed, np.tile(X.mean(0), (2, 1)), atol=1e-5)


def test_cells_of_a_partly_missing_block_help(table):
    X, modalities = table
    imputer = quick(modalities=modalities, max_epochs=0).fit(X[:110])
    test = X[110:]
    incomplete = test.copy()
    incomplete[:, modalities["m0"]] = np.nan
    incomplete[:, 11:14] = np.nan  # a part of m1
    incomplete[:, modalities["m2"]] = np.nan
    ignored = incomplete.copy()
    ignored[:, modalities["m1"]] = np.nan
    part = np.zeros(X.shape[1], dtype=bool)
    part[11:14] = True
    scale = test.std(axis=0)[part]

    def error(X):
        wrong = imputer.transform(X)[:, part] - test[:, part]
        return np.sqrt(np.mean((wrong / scale) ** 2))

    assert error(incomplete) < 0.8 * error(ignored)
    # Two cells of eight are too few for the block to count as there, but they tell.
    few = ignored.copy()
    few[:, 6:8] = test[:, 6:8]
    assert error(few) < 0.95 * error(ignored)
    low, high = imputer.predict_quantiles(incomplete, (0.1, 0.9))
    wide = imputer.predict_quantiles(ignored, (0.1, 0.9))
    assert (high - low)[:, part].mean() < 0.9 * (wide[1] - wide[0])[:, part].mean()


def test_draws_of_a_partly_missing_block_know_its_own_cells(table, anchored):
    X, modalities = table
    ignored = X.copy()
    for columns in modalities.values():
        ignored[:, columns] = np.nan
    part = ignored.copy()
    part[:, 6:11] = X[:, 6:11]
    rest = slice(11, 14)
    draws = [anchored.sample(rows, 4)[..., rest] for rows in (part, ignored)]
    errors = [(some.mean(axis=0) - X[:, rest]).std() for some in draws]
    assert errors[0] < 0.8 * errors[1]
    # And they differ as they err: the mean of four does by the root of 5/4 more.
    spreads = [some.std(axis=0, ddof=1).mean() for some in draws]
    assert 0.5 < spreads[0] / errors[0] < 1.5
    assert 0.5 < spreads[1] / errors[1] < 1.5


def test_draws_of_blocks_have_the_noise_that_latents_leave(table, anchored):
    X, modalities = table
    rows = X.copy()
    rows[:, modalities["m1"]] = np.nan
    noisy = copy.deepcopy(anchored)
    spread = []
    for noise in (1e-4, 4.0):
        noisy.model_.blocks.encoders[1].noise_[:] = noise
        # Within the observed range, which cuts most of what is so far out.
        model, cells = noisy.model_, noisy._codec.read(rows)
        table = Rows(cells.values, cells.observed)
        spread.append(model.draw(table, 1, 4, 0)[0][:, 6:14])
    # With the same seed it is all that changes.
    assert np.std(spread[1] - spread[0]) == pytest.approx(1.99, abs=0.15)


def test_partly_missing_blocks_in_fit(table):
    X, modalities = table
    rng = np.random.default_rng(0)
    incomplete = lose(X, modalities, 0.2)
    incomplete[rng.random(X.shape) < 0.01] = np.nan
    imputer = quick(modalities=modalities, max_epochs=1).fit(incomplete)
    assert len(imputer.model_.partition.blocks) == 3
    completed = imputer.transform(incomplete)
    assert np.isfinite(completed).all()
    assert rmse(completed, X, incomplete) < 0.9
    assert np.isfinite(imputer.sample(incomplete, 1)).all()


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
def test_training_rows_that_lose_modalities(table, rate):
    X, modalities = table
    incomplete = lose(X, modalities, rate, 4)
    imputer = quick(modalities=modalities, max_epochs=0).fit(incomplete)
    fresh, _ = views(100, seed=7)
    probe = fresh.copy()
    probe[:, modalities["m1"]] = np.nan
    assert rmse(imputer.transform(probe), fresh, probe) < 0.85


def test_a_modality_absent_in_every_training_row(table):
    X, modalities = table
    incomplete = X.copy()
    incomplete[:, modalities["m1"]] = np.nan
    incomplete[::3, modalities["m0"]] = np.nan
    with pytest.warns(UserWarning, match="Columns without"):
        imputer = quick(modalities=modalities).fit(incomplete)
    completed = imputer.transform(incomplete)
    assert (completed[:, modalities["m1"]] == 0).all()
    assert np.isfinite(completed).all()
    np.testing.assert_array_equal(imputer.transform(X), X)


def test_an_empty_column_of_a_modality_is_dropped_with_its_name(table):
    X, modalities = table
    frame = pd.DataFrame(lose(X, modalities, 0.3)).rename(columns="c{}".format)
    frame["c7"] = np.nan
    imputer = quick(modalities=modalities, keep_empty_features=False)
    with pytest.warns(UserWarning, match="'c7'"):
        imputer.fit(frame)
    names = [name for name in frame if name != "c7"]
    assert list(imputer.get_feature_names_out()) == names
    completed = imputer.transform(frame)
    assert completed.shape == (len(X), len(names))
    np.testing.assert_array_equal(
        completed[frame[names].notna()], frame[names].to_numpy()[frame[names].notna()]
    )
    assert np.isfinite(completed).all()


def test_a_modality_seen_in_one_row_alone(table):
    """A fold without that row raised a LinAlgError."""
    X, modalities = table
    X = X.copy()
    X[1:, modalities["m0"]] = np.nan
    imputer = quick(modalities=modalities).fit(X)
    completed = imputer.transform(X)
    np.testing.assert_array_equal(completed[:, :6], np.tile(X[:1, :6], (len(X), 1)))


def test_a_modality_seen_in_one_group_alone(table):
    X, modalities = table
    X = X.copy()
    X[25:, modalities["m0"]] = np.nan
    groups = np.arange(len(X)) // 25
    imputer = quick(modalities=modalities).fit(X, groups=groups)
    assert np.isfinite(imputer.transform(X)).all()


def test_modalities_never_seen_together(table):
    X, modalities = table
    X = X.copy()
    X[:70, :6] = np.nan
    X[70:, 6:] = np.nan
    completed = quick(modalities=modalities).fit_transform(X)
    assert np.isfinite(completed).all()


def test_a_constant_block_returns_its_constants(table):
    """All its kernels were 0 and the fit raised a LinAlgError."""
    X, modalities = table
    X = X.copy()
    X[:, :6] = np.arange(6) + 0.1
    incomplete = lose(X, modalities, 0.3)
    imputer = quick(modalities=modalities).fit(incomplete)
    for completed in (imputer.transform(incomplete), imputer.sample(incomplete, 1)[0]):
        np.testing.assert_array_equal(completed[:, :6], X[:, :6])
    everywhere = np.ones_like(X)
    everywhere[::3, :6] = np.nan
    assert (quick(modalities=modalities).fit_transform(everywhere) == 1).all()


def test_integer_columns_stay_whole(table):
    X, modalities = table
    X = np.rint(10 * X)
    frame = pd.DataFrame(lose(X, modalities, 0.3)).rename(columns="c{}".format)
    frame = frame.astype("Int64")
    imputer = quick(modalities=modalities).set_output(transform="pandas")
    completed = imputer.fit(frame).transform(frame)
    assert (completed.dtypes == "Int64").all()
    assert not completed.isna().any(axis=None)
    marked = np.nan_to_num(frame.to_numpy(float), nan=-999).astype(int)
    filled = quick(modalities=modalities, missing_values=-999).fit_transform(marked)
    np.testing.assert_array_equal(filled, np.rint(filled))


# Shapes


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_a_handful_of_rows(n):
    X, modalities = views(40)
    imputer = quick(modalities=modalities).fit(X[:n])
    completed = imputer.transform(lose(X, modalities, 0.5))
    assert np.isfinite(completed).all()
    assert np.isfinite(imputer.sample(lose(X, modalities, 0.5), 2)).all()


def test_blocks_of_two_thousand_columns_and_fewer_rows():
    X, modalities = views(60, (2000, 30))
    imputer = quick(modalities=modalities).fit(X[:50])
    probe = X[50:].copy()
    probe[:, modalities["m0"]] = np.nan
    assert rmse(imputer.transform(probe), X[50:], probe) < 0.95


def test_twelve_modalities():
    X, modalities = views(60, (5,) * 12)
    imputer = quick(modalities=modalities, max_epochs=1).fit(X)
    incomplete = lose(X, modalities, 0.5)
    completed = imputer.transform(incomplete)
    assert rmse(completed, X, incomplete) < 0.7


def test_a_single_block():
    X, modalities = views(80, (9,))
    X[::3] = np.nan
    X[1, 2] = np.nan
    imputer = quick(modalities=modalities).fit(X)
    completed = imputer.transform(X)
    mean = np.nanmean(X, axis=0)
    np.testing.assert_allclose(completed[::3], np.tile(mean, (27, 1)), atol=0.02)
    assert np.isfinite(imputer.sample(X, 2)).all()


def test_duplicate_rows():
    X, modalities = views(6)
    X = np.repeat(X, 15, axis=0)
    incomplete = lose(X, modalities, 0.3)
    completed = quick(modalities=modalities).fit_transform(incomplete)
    known = ~np.isnan(incomplete).all(axis=1)
    assert rmse(completed[known], X[known], incomplete[known]) < 0.25


def test_float32_stays_and_agrees(table, anchored):
    X, modalities = table
    narrow = X.astype(np.float32)
    imputer = quick(modalities=modalities, max_epochs=0).fit(narrow)
    probe = lose(X[:20], modalities, 0.5)
    completed = imputer.transform(probe.astype(np.float32))
    assert completed.dtype == np.float32
    np.testing.assert_allclose(completed, anchored.transform(probe), atol=1e-3)


def test_a_change_of_units_changes_the_imputation_alike(table, anchored):
    X, modalities = table
    rng = np.random.default_rng(0)
    unit, shift = np.exp(3 * rng.normal(size=X.shape[1])), rng.normal(size=X.shape[1])
    probe = lose(X[:30], modalities, 0.5)
    other = quick(modalities=modalities, max_epochs=0).fit(X * unit + shift)
    np.testing.assert_allclose(
        (other.transform(probe * unit + shift) - shift) / unit,
        anchored.transform(probe),
        atol=2e-3,
    )


# Beside other columns, and in the tools of others


@pytest.fixture(scope="module")
def mixed():
    """Two blocks beside a category, whole numbers, a date, a truth value, a number."""
    X, _ = views(160, (6, 7))
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(X).rename(columns="c{}".format)
    frame.insert(3, "kind", pd.Categorical(np.where(X[:, 0] > 0, "up", "down")))
    frame["count"] = pd.array(np.rint(5 * X[:, 2] + 9), dtype="Int64")
    frame["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(
        np.rint(20 * X[:, 8]), unit="D"
    )
    frame["flag"] = pd.array(X[:, 9] > 0, dtype="boolean")
    frame["lab"] = X[:, 4] + X[:, 10] + 0.1 * rng.normal(size=160)
    incomplete = frame.mask(rng.random(frame.shape) < 0.15)
    blocks = {
        "a": [f"c{j}" for j in range(6)],
        "b": [f"c{j}" for j in range(6, 13)],
        "extra": ["count", "lab"],
    }
    for name in "ab":
        own = blocks[name]
        lost = rng.random(160) < 0.3
        incomplete[own] = frame[own]
        incomplete.loc[lost, own] = np.nan
    return frame, incomplete.astype(frame.dtypes), blocks


@pytest.fixture(scope="module")
def mixed_imputer(mixed):
    _, incomplete, blocks = mixed
    with lightly():
        return quick(modalities=blocks, max_epochs=4).fit(incomplete)


def test_blocks_beside_every_kind_of_column(mixed, mixed_imputer):
    frame, incomplete, _ = mixed
    imputer = copy.deepcopy(mixed_imputer)
    assert [len(own) for own in imputer.model_.partition.blocks] == [6, 7]
    assert set(imputer.history_["part"]) == {"cells", "modalities"}
    imputer.set_output(transform="pandas")
    for strategy in ("mean", "sample"):
        completed = imputer.set_params(strategy=strategy).transform(incomplete)
        assert completed.dtypes.equals(frame.dtypes)
        assert list(completed) == list(frame)
        assert not completed.isna().any(axis=None)
        pd.testing.assert_frame_equal(
            completed.where(incomplete.notna()).astype(frame.dtypes), incomplete
        )
    pd.testing.assert_frame_equal(imputer.transform(frame), frame)
    # Blocks tell of the cells: what "kind" is follows from a column of block a.
    imputer.set_params(strategy="mean")
    probe = frame.assign(kind=pd.Categorical([None] * 160, categories=["down", "up"]))
    assert (imputer.transform(probe)["kind"] == frame["kind"]).mean() > 0.75
    # And cells of the blocks: with all else missing, better than the mean.
    probe = frame.copy()
    probe[[f"c{j}" for j in range(6)]] = np.nan
    got = imputer.transform(probe)["c4"] - frame["c4"]
    assert got.std() < 0.8 * frame["c4"].std()


def test_cells_inform_blocks_and_blocks_inform_cells():
    """Nothing else tells of either: without the other they are the mean."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(250, 2))
    turns = np.array([[1.0, 0.0, 1.0, -1.0, 2.0, 1.0], [0.0, 1.0, 1.0, 1.0, 1.0, -2.0]])
    X = np.hstack([z @ turns, z]) + 0.1 * rng.normal(size=(250, 8))
    block, cells = slice(0, 6), slice(6, 8)
    imputer = quick(modalities={"a": block}, max_epochs=0).fit(X[:150])
    assert len(imputer.model_.partition.cells) == 2
    for lost in (block, cells):
        probe = X[150:].copy()
        probe[:, lost] = np.nan
        assert rmse(imputer.transform(probe), X[150:], probe) < 0.5
        draws = imputer.sample(probe, 1)[0]
        assert rmse(draws, X[150:], probe) < 0.7


def test_dependence_is_of_the_row_on_the_column():
    """Of six numbers the other modality repeats one: they tell it, it tells a sixth."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(150, 6))
    b = a[:, :1] + 0.2 * rng.normal(size=(150, 5))
    modalities = {"a": slice(0, 6), "b": slice(6, 11)}
    found = quick(modalities=modalities, max_epochs=0).fit(np.hstack([a, b]))
    assert found.dependence_.loc["b", "a"] > 0.8
    assert found.dependence_.loc["a", "b"] < 0.4


def test_probabilities_and_quantiles_beside_blocks(mixed, mixed_imputer):
    frame, incomplete, _ = mixed
    proba = mixed_imputer.predict_proba(incomplete, "kind")
    assert proba.shape == (160, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
    known = incomplete["kind"].notna().to_numpy()
    codes = incomplete["kind"].cat.codes.to_numpy()
    assert (proba[known, codes[known]] == 1).all()
    assert (proba[~known].max(axis=1) < 1).all()
    with pytest.raises(ValueError, match="not categorical"):
        mixed_imputer.predict_proba(incomplete, "c1")
    levels = mixed_imputer.predict_quantiles(incomplete, (0.1, 0.5, 0.9))
    numeric = ["c1", "c9", "lab"]
    for low, high in itertools.pairwise(levels):
        assert (low[numeric] <= high[numeric]).all(axis=None)
        seen = incomplete["c1"].notna()
        assert (low["c1"][seen] == frame["c1"][seen]).all()
    assert (levels[0]["c1"] < levels[2]["c1"])[incomplete["c1"].isna()].mean() > 0.9


def test_polars_frames_come_back_as_polars(mixed, mixed_imputer):
    _, incomplete, blocks = mixed
    columns = [*blocks["a"], *blocks["b"], "lab"]
    frame = pl.DataFrame({c: incomplete[c].to_numpy() for c in columns})
    frame = frame.fill_nan(None)
    imputer = quick(modalities={k: blocks[k] for k in "ab"}, max_epochs=0)
    drawn = imputer.fit(frame).sample(frame, 2)
    assert isinstance(drawn[0], pl.DataFrame)
    imputer.set_output(transform="polars")
    completed = imputer.transform(frame)
    assert completed.schema == frame.schema
    assert completed.null_count().sum_horizontal().item() == 0
    plain = quick(modalities={"a": slice(0, 6), "b": slice(6, 13)}, max_epochs=0)
    same = plain.fit_transform(incomplete[columns].to_numpy(float))
    np.testing.assert_array_equal(completed.to_numpy(), same)


def test_set_output_indicator_and_names(table):
    X, modalities = table
    frame = pd.DataFrame(lose(X, modalities, 0.3)).rename(columns="c{}".format)
    frame.index = frame.index[::-1] + 5
    imputer = quick(modalities=modalities, add_indicator=True, max_epochs=0)
    completed = imputer.set_output(transform="pandas").fit_transform(frame)
    assert completed.index.equals(frame.index)
    flags = [f"missingindicator_{c}" for c in frame]
    assert list(completed) == [*frame, *flags]
    np.testing.assert_array_equal(completed[flags].to_numpy(bool), frame.isna())


def test_pickle_clone_and_joblib(table, fitted, tmp_path):
    X, modalities = table
    X = lose(X[:20], modalities, 0.5, 3)
    expected = fitted.transform(X)
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    for twin in (
        pickle.loads(pickle.dumps(fitted)),
        joblib.load(tmp_path / "fitted.joblib"),
        copy.deepcopy(fitted),
    ):
        np.testing.assert_array_equal(twin.transform(X), expected)
        np.testing.assert_array_equal(twin.sample(X, 2), fitted.sample(X, 2))
    assert not hasattr(clone(fitted), "model_")


def test_a_pickle_does_not_grow_with_what_was_completed(table, anchored):
    X, modalities = table
    twin = copy.deepcopy(anchored)
    before = len(pickle.dumps(twin))
    twin.transform(every_pattern(X, modalities))
    assert len(twin.model_.blocks.anchor._kept) > 5
    assert len(pickle.dumps(twin)) == before


def test_grid_search_in_a_pipeline(table):
    X, modalities = table
    y = X[:, 0] + X[:, 7] > 0
    model = make_pipeline(
        quick(modalities=modalities, max_epochs=0), LogisticRegression()
    )
    grid = {"admcimputer__strategy": ["mean", "sample"]}
    incomplete = lose(X, modalities, 0.3)[:70]
    search = GridSearchCV(model, grid, cv=2).fit(incomplete, y[:70])
    assert search.best_score_ > 0.8


def test_groups_are_used_and_checked(table):
    X, modalities = table
    X = lose(X, modalities, 0.3)
    with pytest.raises(ValueError, match="one label for each"):
        quick(modalities=modalities).fit(X, groups=np.arange(7))
    groups = np.array([f"video {k // 30}" for k in range(len(X))])
    by_group = quick(modalities=modalities, max_epochs=0).fit(X, groups=groups)
    plain = quick(modalities=modalities, max_epochs=0).fit(X)
    probe = X[:10]
    assert np.isfinite(by_group.transform(probe)).all()
    assert not np.array_equal(by_group.transform(probe), plain.transform(probe))
    one = quick(modalities=modalities).fit(X, groups=np.zeros(len(X)))
    assert np.isfinite(one.transform(probe)).all()


@pytest.mark.parametrize(
    ("modalities", "error", "message"),
    [
        ({"a": ["nope"]}, ValueError, r"modalities\['a'\].*no column 'nope'"),
        ({"a": [0, 1], "b": [1, 2]}, ValueError, "belongs to 'a', 'b'"),
        ({"a": []}, ValueError, r"modalities\['a'\].*must have columns"),
        ({"a": [99]}, ValueError, r"modalities\['a'\].*no column 99"),
        ([["a"]], ValueError, "'modalities' parameter"),
    ],
)
def test_errors_of_modalities_surface_from_fit(table, modalities, error, message):
    with pytest.raises(error, match=message):
        quick(modalities=modalities).fit(table[0])


def test_history_and_the_epoch_that_is_kept(table, fitted):
    assert list(fitted.history_["epoch"]) == [0, 1, 2, 3]
    assert (fitted.history_["part"] == "modalities").all()
    best = fitted.history_["valid_rmse"].idxmin()
    assert fitted.n_epochs_ == fitted.history_["epoch"][best]
    assert fitted.history_.drop(columns="part").iloc[1:].notna().all(axis=None)
    assert 0.2 < fitted.history_["valid_rmse"][0] < 1


def test_max_time_ends_the_training(table, monkeypatch):
    # The time of this process: on a busy machine steps take longer.
    monkeypatch.setattr(time, "monotonic", time.process_time)
    X, modalities = table
    imputer = quick(modalities=modalities, max_epochs=100_000, max_time=2)
    imputer.set_params(n_iter_no_change=100_000).fit(X)
    assert imputer.history_["epoch"].iloc[-1] < 10_000
    assert imputer.history_["seconds"].iloc[-1] < 2


# How good it is


def test_means_and_variances_given_one_mode():
    """One view tells which of two clusters a row is in, and the other its place."""
    rng = np.random.default_rng(0)
    side = np.where(rng.random(500) < 0.5, 1.0, -1.0)
    a = 3 * side[:, None] + 0.3 * rng.normal(size=(500, 5))
    b = 4 * side[:, None] + rng.normal(size=(500, 6))
    X = np.column_stack([a, b])
    modalities = {"a": slice(0, 5), "b": slice(5, 11)}
    imputer = quick(modalities=modalities, max_epochs=0).fit(X)
    row = np.full((200, 11), np.nan)
    row[:, :5] = 3.0
    draws = imputer.sample(row, 5)[:, :, 5:].reshape(-1, 6)
    np.testing.assert_allclose(draws.mean(axis=0), 4, atol=0.25)
    np.testing.assert_allclose(draws.std(axis=0), 1, atol=0.15)
    low, high = imputer.predict_quantiles(row[:1], (0.1, 0.9))[:, 0, 5:]
    np.testing.assert_allclose(high - low, 2 * stats.norm.ppf(0.9), atol=0.4)
    np.testing.assert_allclose(imputer.transform(row[:1])[0, 5:], 4, atol=0.25)


def test_better_than_ridge_and_mean_on_curved_views():
    rng = np.random.default_rng(0)
    z = rng.uniform(-2, 2, size=(700, 2))
    maps = rng.normal(size=(2, 6)), rng.uniform(0, 6, 6)
    a = np.column_stack([z, z[:, 0] + z[:, 1], z[:, 0] - z[:, 1], z[:, 0]])
    b = np.sin(1.5 * z @ maps[0] + maps[1])
    X = np.column_stack([a, b])
    X = X + 0.1 * rng.normal(size=X.shape)
    modalities = {"a": slice(0, 5), "b": slice(5, 11)}
    train, test = X[:500], X[500:]
    probe = test.copy()
    probe[:, modalities["b"]] = np.nan
    ours = quick(modalities=modalities, max_epochs=3).fit(train).transform(probe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = IterativeImputer(max_iter=5).fit(train).transform(probe)
    assert rmse(ours, test, probe) < 0.6 * rmse(theirs, test, probe)
    assert rmse(ours, test, probe) < 0.5


def test_where_nothing_can_be_learnt_it_is_the_mean():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 16))
    modalities = {"a": slice(0, 8), "b": slice(8, 16)}
    imputer = quick(modalities=modalities, max_epochs=3).fit(X[:300])
    probe = X[300:].copy()
    probe[:100, :8] = np.nan
    probe[100:, 8:] = np.nan
    filled = np.where(np.isnan(probe), X[:300].mean(axis=0), probe)
    ours = rmse(imputer.transform(probe), X[300:], probe)
    assert ours < 1.01 * rmse(filled, X[300:], probe)


def test_training_goes_beyond_the_anchor_and_keeps_the_best_epoch(trained):
    history = trained.history_.set_index("epoch")["valid_rmse"]
    assert trained.n_epochs_ > 0
    assert history[trained.n_epochs_] == history.min() < 0.95 * history[0]
    X, modalities = products(300, 1)
    probe = X.copy()
    probe[:, modalities["c"]] = np.nan
    with_network = rmse(trained.transform(probe), X, probe)
    without = copy.deepcopy(trained)
    without.model_.blocks.denoiser = None
    assert with_network < 0.9 * rmse(without.transform(probe), X, probe)


def test_an_encoder_of_ones_own(table):
    X, modalities = table
    own = modalities["m0"]
    pca = PCA(5).fit(X[:, own])
    imputer = quick(modalities=modalities, encoders={"m0": pca}, max_epochs=1).fit(X)
    lacking = X[:20].copy()
    lacking[:, own] = np.nan
    completed = imputer.transform(lacking)[:, own]
    # What is completed lies where the encoder can reach.
    back = pca.inverse_transform(pca.transform(completed))
    inside = (completed > X[:, own].min(0)) & (completed < X[:, own].max(0))
    np.testing.assert_allclose(np.where(inside, back - completed, 0), 0, atol=1e-4)
    assert rmse(completed, X[:20, own], np.full_like(completed, np.nan)) < 0.9
    draws = imputer.sample(lacking, 2)
    assert np.isfinite(draws).all()
    assert not np.array_equal(draws[0], draws[1])


def test_encoders_of_unknown_or_narrow_modalities_are_errors(table):
    X, modalities = table
    pca = PCA(2)
    with pytest.raises(ValueError, match=r"encoders name .*smell"):
        quick(modalities=modalities, encoders={"smell": pca}).fit(X)
    narrow = {"one": [0], "rest": list(range(1, 6))}
    with pytest.raises(ValueError, match="'one' must have several columns"):
        quick(modalities=narrow, encoders={"one": pca}).fit(X)


def test_dependence_and_attention_name_the_modalities(table, fitted):
    shares, (X, modalities) = fitted.dependence_, table
    assert list(shares.index) == list(shares.columns)
    assert list(shares.index)[: len(modalities)] == list(modalities)
    assert np.diag(shares).tolist() == [1.0] * len(shares)
    known = shares.to_numpy()[np.isfinite(shares)]
    assert ((known >= 0) & (known <= 1)).all()
    weights = fitted.attention(X[:7])
    assert list(weights.index) == list(shares.index)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)


def test_attention_without_blocks_is_an_error():
    imputer = quick(max_epochs=0).fit(np.arange(30.0).reshape(10, 3))
    with pytest.raises(AttributeError, match="block"):
        imputer.attention(np.zeros((1, 3)))


def test_warm_start_goes_on_from_the_weights_it_finds(table):
    X, modalities = table
    imputer = quick(modalities=modalities, warm_start=True, max_epochs=2).fit(X)
    first = imputer.model_.blocks.denoiser.heads[0].weight.detach().clone()
    again = imputer.set_params(max_epochs=0).fit(X)
    second = again.model_.blocks.denoiser.heads[0].weight
    assert torch.equal(first, second)
    cold = quick(modalities=modalities, max_epochs=0).fit(X)
    assert not cold.model_.blocks.denoiser.heads[0].weight.any()
    assert np.isfinite(again.transform(lose(X, modalities, 0.5))).all()


def test_spread_of_a_partly_known_block_is_that_of_its_latents():
    """Variances are the diagonal of root times root', not of root' times root."""
    X, modalities = views(400)
    imputer = quick(modalities=modalities, max_epochs=0).fit(X)
    rows = X[:30].copy()
    rows[:, 0:3] = np.nan
    cells = imputer._codec.read(rows)
    model = imputer.model_
    rows = model.block_rows(Rows(cells.values, cells.observed), None)
    table, seen = rows.values, rows.observed
    ((k, _, spread),) = _posteriors(model.blocks, table, seen, True)
    encoder, columns = model.blocks.encoders[k], model.blocks.columns[k]
    available = [torch.as_tensor(part) for part in model.blocks.encode(table, seen)]
    given_others = _without(model.blocks, *available, np.arange(30), k)
    _, root = _updated(encoder, given_others, table[:, columns], seen[:, columns])
    covariance = root @ root.transpose(0, 2, 1)
    expected = encoder.variance_of(np.diagonal(covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(spread, expected, rtol=1e-5)
    crosswise = encoder.variance_of(np.square(root).sum(axis=1))
    assert not np.allclose(crosswise, expected, rtol=0.02)
