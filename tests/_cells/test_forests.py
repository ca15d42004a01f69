"""Forests on rows that the anchor completes: their leaves, their share, their gain."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.corrections import forests
from admc_sklearn._cells.corrections.forests import (
    Forests,
    ForestSettings,
    Samples,
    _compact,
    pooled,
)
from admc_sklearn._cells.network.posterior import LevelPosterior, PackedCells
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.settings import Settings
from admc_sklearn._shared.contract import Rows
from tests.conftest import hide


def stepped(n, seed):
    """The third column is high where the first one lies in one of two intervals."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    is_high = (X[:, 0] > 0.4) | ((X[:, 0] > -0.9) & (X[:, 0] < -0.3))
    X[:, 2] = np.where(is_high, 2.0, -2.0) + 0.3 * X[:, 2]
    return X


def without_forests(imputer):
    plain = copy.deepcopy(imputer)
    plain.model_.forests = None
    return plain


@pytest.fixture(scope="module")
def steps():
    """An imputer of a table in which a tree sees more than a network in two epochs."""
    frame = pd.DataFrame(hide(stepped(400, 0), 0.2, 0), columns=list("abcd"))
    side = np.where(stepped(400, 0)[:, 2] > 0, "up", "down")
    frame["side"] = pd.Categorical(side)
    frame.loc[::5, "side"] = None
    imputer = ADMCImputer(max_epochs=2, self_masking=False, random_state=0)
    settings = CellSettings(landmarks=None, donors=None, patterns=None)
    imputer._settings = Settings(cells=settings)
    return imputer.fit(frame)


def lost(n, seed):
    """Unseen rows, and the same without the third column and the level."""
    frame = pd.DataFrame(stepped(n, seed), columns=list("abcd"))
    frame["side"] = pd.Categorical(np.where(frame["c"] > 0, "up", "down"))
    gone = pd.Categorical([None] * n, categories=["down", "up"])
    return frame, frame.assign(c=np.nan, side=gone)


def test_rows_reach_the_leaves_of_scikit_learn():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5)).astype(np.float32)
    X[:, 4] = X[:, 4].round()  # thresholds between values that recur
    y = rng.integers(0, 6, 300)
    forest = ExtraTreesRegressor(7, min_samples_leaf=3, random_state=0).fit(X, y)
    expected = forest.apply(X)
    trees = [e.tree_ for e in forest.estimators_]
    own = [_compact(t, leaf, y) for t, leaf in zip(trees, expected.T, strict=True)]
    found = Forests(_blank(), ForestSettings())
    found._store([own], 1, len(own), torch.device("cpu"))
    first = found.root[0]
    row = torch.arange(len(X))
    found = [found._leaves(torch.tensor(X), row, r.expand(len(X))) for r in first]
    found = torch.stack(found, 1) - first
    np.testing.assert_array_equal(found.numpy(), expected)
    # What a leaf holds is the share of each outcome among its training cells.
    leaf = int(found[0, 0])
    start, size = int(own[0].start[leaf]), int(own[0].size[leaf])
    entries = slice(start, start + size)
    held = y[expected[:, 0] == leaf]
    outcomes, counts = np.unique(held, return_counts=True)
    np.testing.assert_array_equal(own[0].outcome[entries], outcomes)
    np.testing.assert_allclose(own[0].mass[entries], counts / len(held), rtol=1e-6)


def _blank():
    class Network:
        low = torch.zeros(1)

    return Network()


def test_pooling_is_geometric_and_leaves_alone_what_no_leaf_knows():
    cells = PackedCells.from_mask(torch.ones(2, 1, dtype=torch.bool), torch.tensor([0]))
    logits = torch.tensor([[[0.2, 0.8], [0.5, 0.5]]]).log()
    posterior = LevelPosterior(cells, logits, torch.tensor([[0.5, 0.5]]))
    mass = torch.tensor([[[0.9, 0.1], [0.0, 0.0]]])
    half = torch.tensor([[0.5]])
    found = pooled(posterior, mass, half, own_share=0.0).probabilities()[0]
    expected = np.sqrt([0.2 * 0.9, 0.8 * 0.1])
    np.testing.assert_allclose(found[0], expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(found[1], [0.5, 0.5], rtol=1e-6)
    same = pooled(posterior, mass, 0 * half).probabilities()
    np.testing.assert_allclose(same, posterior.probabilities(), rtol=1e-5)


def test_independent_columns_cost_next_to_nothing():
    """Nothing is to be learnt there; the column's mean is the best."""
    rng = np.random.default_rng(3)
    X, unseen = rng.normal(size=(300, 8)), rng.normal(size=(2000, 8))
    imputer = ADMCImputer(max_epochs=1, self_masking=False, random_state=0)
    imputer.fit(hide(X, 0.3, 0))
    assert (imputer.model_.forests.weight > 0).all()
    incomplete = hide(unseen, 0.3, 1)
    lost = np.isnan(incomplete)
    error = np.sqrt(np.square(imputer.transform(incomplete) - unseen)[lost].mean())
    assert error < 1.015 * unseen[lost].std()


def test_rows_are_completed_by_anchors_that_do_not_know_them(monkeypatch):
    """Those that do know them find hidden values even of columns that are noise."""
    X = np.random.default_rng(4).normal(size=(60, 12))
    imputer = ADMCImputer(max_epochs=1, self_masking=False, random_state=0).fit(X)
    model, cells = imputer.model_, imputer._codec.read(X)
    rows = model.coordinates(Rows(cells.values, cells.observed))

    def correlation():
        settings = ForestSettings()
        samples = Samples(model.network, rows, 0.1, 0, settings)
        hidden = samples._hidden
        found, truth = samples._points[:, :12][hidden], samples._truth[hidden]
        return np.corrcoef(found, truth)[0, 1]

    honest = correlation()
    known = lambda fold, network, *others: network.prior  # noqa: E731
    monkeypatch.setattr(forests, "_prior_without", known)
    assert correlation() > 0.25
    assert abs(honest) < 0.1


def test_what_trees_see_lowers_the_errors_of_numbers_and_levels(steps):
    frame, incomplete = lost(400, 1)
    assert (steps.model_.forests.weight[[2, 4]] > 0).all()

    def errors(imputer):
        completed = imputer.transform(incomplete)
        squared = np.square(completed[:, 2].astype(float) - frame["c"])
        return squared.mean(), (completed[:, 4] == frame["side"]).mean()

    error, accuracy = errors(steps)
    plain_error, plain_accuracy = errors(without_forests(steps))
    assert error < 0.7 * plain_error
    assert accuracy > max(0.9, plain_accuracy)


def test_draws_have_the_shares_and_means_of_the_posterior(steps):
    frame, incomplete = lost(120, 2)
    n_draws = 300
    # One cell of a row: draws of two follow from each other, as the network has it.
    draws = steps.sample(incomplete.assign(c=frame["c"] / 10), n_draws)
    share = np.mean([draw["side"].eq("up") for draw in draws], axis=0)
    proba = steps.predict_proba(incomplete.assign(c=frame["c"] / 10), "side")[:, 1]
    noise = proba * (1 - proba) / n_draws
    assert noise.mean() > 0.02 / n_draws  # it is not all sure
    assert np.mean((share - proba) ** 2) < 1.4 * noise.mean()
    known = incomplete.assign(side=frame["side"])
    draws = steps.sample(known, n_draws)
    numbers = np.stack([draw["c"].to_numpy(float) for draw in draws])
    mean = steps.transform(known)[:, 2].astype(float)
    noise = numbers.var(0) / n_draws
    assert np.mean((numbers.mean(0) - mean) ** 2) < 1.4 * noise.mean() + 1e-4


def test_carried_levels_stay_as_often_as_they_can():
    n = 40_000
    share = torch.tensor([[0.4, 0.3, 0.3]])
    cells = PackedCells.from_mask(torch.ones(n, 1, dtype=torch.bool), torch.tensor([0]))
    before, after = (
        LevelPosterior(cells, torch.tensor(p).log().expand(1, n, 3), share)
        for p in ([0.6, 0.3, 0.1], [0.2, 0.35, 0.45])
    )
    generator = torch.Generator().manual_seed(0)
    drawn, noise = torch.rand(2, 1, n, generator=generator)
    values = before.quantile(drawn)
    carried = after.carried_from(before, values, noise, torch.zeros(1, n))
    found = torch.bincount(carried[0].long(), minlength=3) / n
    np.testing.assert_allclose(found, [0.2, 0.35, 0.45], atol=0.01)
    assert float((carried == values).float().mean()) == pytest.approx(0.6, abs=0.01)


def test_rows_without_a_value_have_the_frequencies(steps):
    _, incomplete = lost(3, 3)
    nothing = incomplete.assign(a=np.nan, b=np.nan, d=np.nan)
    plain = without_forests(steps)
    np.testing.assert_allclose(
        steps.predict_proba(nothing, "side"), plain.predict_proba(nothing, "side")
    )


def test_large_tables_and_lack_of_time_have_no_forests():
    X = hide(stepped(200, 4), 0.2, 4)
    imputer = ADMCImputer(max_epochs=1, self_masking=False, random_state=0)
    few = CellSettings(forests=ForestSettings(max_rows=100))
    imputer._settings = Settings(cells=few)
    assert imputer.fit(X).model_.forests is None
    imputer = ADMCImputer(max_epochs=1, max_time=1e-6, random_state=0).fit(X)
    assert imputer.model_.forests is None
    assert math.isfinite(float(np.sum(imputer.transform(X))))
