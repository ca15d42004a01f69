"""Completions and draws against distributions that are known."""

import copy

import numpy as np
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.network import network as _network
from admc_sklearn._cells.network.masked_diffusion import reverse
from tests.conftest import gaussian_table, hide, quick, rings


@pytest.fixture(scope="module")
def gaussian():
    """An untrained imputer, hence the anchor, and the truth that it learnt."""
    X, mean, cov = gaussian_table(8000, 4, 0)
    return ADMCImputer(max_epochs=0, random_state=0, n_steps=4).fit(X), mean, cov


def test_the_mean_is_the_conditional_mean(gaussian):
    imputer, mean, cov = gaussian
    rng = np.random.default_rng(5)
    X = mean + rng.normal(size=(500, 4)) @ np.linalg.cholesky(cov).T
    X[:, [1, 3]] = np.nan
    o, u = [0, 2], [1, 3]
    gain = cov[np.ix_(u, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
    expected = mean[u] + (X[:, o] - mean[o]) @ gain.T
    scale = np.sqrt(np.diag(cov))[u]
    got = imputer.transform(X)[:, u]
    assert np.sqrt(np.mean(((got - expected) / scale) ** 2)) < 0.03


@pytest.mark.parametrize("observed", [[], [0], [0, 2]])
def test_draws_recover_mean_and_covariance(gaussian, observed):
    imputer, mean, cov = gaussian
    missing = [j for j in range(4) if j not in observed]
    row = mean + 0.5 * np.sqrt(np.diag(cov))
    X = np.tile(row, (6000, 1))
    X[:, missing] = np.nan
    draws = imputer.sample(X, 1, random_state=1)[0][:, missing]
    expected_mean, expected_cov = mean[missing], cov[np.ix_(missing, missing)]
    if observed:
        gain = cov[np.ix_(missing, observed)] @ np.linalg.inv(
            cov[np.ix_(observed, observed)]
        )
        expected_mean = expected_mean + gain @ (row - mean)[observed]
        expected_cov = expected_cov - gain @ cov[np.ix_(observed, missing)]
    scale = np.sqrt(np.diag(expected_cov))
    np.testing.assert_allclose((draws.mean(0) - expected_mean) / scale, 0, atol=0.08)
    got = np.cov(draws.T).reshape(expected_cov.shape)
    np.testing.assert_allclose(
        got / np.outer(scale, scale), expected_cov / np.outer(scale, scale), atol=0.08
    )


def test_one_round_forgets_how_cells_depend_on_each_other(gaussian):
    """The reason for rounds: with one, cells are drawn apart."""
    imputer, _, cov = gaussian
    X = np.full((4000, 4), np.nan)
    scale = np.sqrt(np.diag(cov))
    strongest = np.abs(cov / np.outer(scale, scale) - np.eye(4)).max()
    assert strongest > 0.5
    apart = imputer.set_params(n_steps=1).sample(X, 1)[0]
    joint = imputer.set_params(n_steps=4).sample(X, 1)[0]
    assert np.abs(np.corrcoef(apart.T) - np.eye(4)).max() < 0.1
    assert np.abs(np.corrcoef(joint.T) - np.eye(4)).max() > 0.4


class Recorder:
    """A posterior that notes what is known whenever it is asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, values, observed, targets):
        self.calls.append((values.clone(), observed.clone(), targets.clone()))
        self.cells = self
        self.targets = targets
        return [self]

    def gather(self, table):
        return table

    def quantile(self, level):
        return level

    def scatter_into(self, table, entries):
        table[self.targets] = entries[self.targets]


def test_as_many_rounds_as_missing_cells_is_the_chain_rule():
    """Each cell is drawn alone, given all that is observed or was drawn before."""
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    observed = torch.tensor([[True, False, False, False]])
    rounds = torch.tensor([[-1, 2, 0, 1]])
    noise = torch.tensor([[0.0, 0.1, 0.2, 0.3]])
    recorder = Recorder()
    drawn = reverse(recorder, values, observed, rounds, noise)
    assert [call[2].nonzero()[0, 1].item() for call in recorder.calls] == [2, 3, 1]
    assert recorder.calls[1][1].tolist() == [[True, False, True, False]]
    assert recorder.calls[2][0][0, [2, 3]].tolist() == pytest.approx([0.2, 0.3])
    assert drawn[0].tolist() == pytest.approx([1.0, 0.1, 0.2, 0.3])
    assert values.tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_a_row_takes_part_in_its_own_rounds_alone():
    values, observed = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    observed[0, :2] = True
    rounds = torch.tensor([[-1, -1, 0], [1, 0, 2]])
    noise = torch.arange(6.0).view(2, 3)
    recorder = Recorder()
    drawn = reverse(recorder, values, observed, rounds, noise)
    assert [len(call[0]) for call in recorder.calls] == [2, 1, 1]
    assert drawn.tolist() == [[0.0, 0.0, 2.0], [3.0, 4.0, 5.0]]


def test_median_and_mean_minimise_their_own_error():
    """Of skewed columns, where the two are far apart."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(4000, 1))
    complete = np.exp(0.3 * level + rng.normal(size=(4000, 3)))
    imputer = ADMCImputer(max_epochs=10, random_state=0).fit(complete[:3000])
    complete = complete[3000:]
    X = hide(complete, 0.3, 3)
    missing = np.isnan(X)
    errors = {}
    for strategy in ("mean", "median"):
        imputer.set_params(strategy=strategy)
        error = (imputer.transform(X) - complete)[missing]
        errors[strategy] = np.abs(error).mean(), np.sqrt((error**2).mean())
    assert errors["median"][0] < errors["mean"][0]
    assert errors["mean"][1] < errors["median"][1]


def test_draws_lie_on_the_ring_where_means_do_not(ring_imputer):
    """A two-sided posterior: given x alone, y is at the top or at the bottom."""
    X = rings(1000, 7)
    X[:, 1:] = np.nan
    drawn = ring_imputer.sample(X, 1)[0]
    radius = np.hypot(drawn[:, 0], drawn[:, 1])
    assert np.quantile(np.abs(radius - 1), 0.75) < 0.2
    filled = ring_imputer.transform(X)
    assert np.median(np.hypot(filled[:, 0], filled[:, 1])) < 0.85
    # The sign that is drawn agrees between the two columns that depend on it.
    clear = np.abs(drawn[:, 0] * drawn[:, 1]) > 0.25
    agree = np.sign(drawn[:, 2]) == np.sign(drawn[:, 0] * drawn[:, 1])
    assert agree[clear].mean() > 0.85  # apart they would agree in half


def test_batches_do_not_matter(ring_imputer, monkeypatch):
    X = hide(rings(300, 8), 0.5, 0)
    expected = ring_imputer.transform(X)
    draws = ring_imputer.sample(X, 2)
    monkeypatch.setattr(_network, "BATCH_ELEMENTS", 64 * 3 * 7)
    np.testing.assert_allclose(ring_imputer.transform(X), expected, atol=1e-3)
    assert np.mean(np.abs(ring_imputer.sample(X, 2) - draws) < 1e-3) > 0.99


@pytest.fixture(scope="module")
def bent():
    """An imputer of three columns that are strongly warped."""
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(50, 1)) + 0.05 * rng.normal(size=(50, 3))
    return quick().fit(np.exp(latent * [1, 2, 3]))


@pytest.mark.parametrize("strategy", ["mean", "median", "sample"])
@pytest.mark.parametrize("far", [-1e9, -1e7, 1e7, 1e30])
def test_values_far_outside_a_warped_range_leave_no_nan(bent, strategy, far):
    assert not bent.model_.network.warp.is_identity
    imputer = copy.deepcopy(bent).set_params(strategy=strategy)
    completed = imputer.transform([[np.nan, far, np.nan], [np.nan, np.nan, far]])
    assert np.isfinite(completed).all()
    assert completed[0, 1] == completed[1, 2] == far
