"""The anchor against closed forms."""

import numpy as np
import pytest
import torch

from admc_sklearn._cells.anchor import factor_model as _factors
from admc_sklearn._cells.anchor import gaussian as _gaussian
from admc_sklearn._cells.anchor.column_anchor import fit_anchor
from admc_sklearn._cells.anchor.factor_model import FactorAnchor, fit_factors
from admc_sklearn._cells.anchor.gaussian import GaussianAnchor, fit_gaussian
from admc_sklearn._cells.anchor.level_scores import Coordinates
from admc_sklearn._shared.patterns import unique_patterns
from tests.conftest import gaussian_table


def conditional(mean, cov, x, observed):
    """Mean and sd of the missing cells of one row, by the textbook."""
    o, u = np.flatnonzero(observed), np.flatnonzero(~observed)
    gain = cov[np.ix_(u, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
    sd = np.sqrt(np.diag(cov[np.ix_(u, u)] - gain @ cov[np.ix_(o, u)]))
    return mean[u] + gain @ (x[o] - mean[o]), sd


def factor_parameters(d=7, k=2, seed=0):
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(d, k))
    noise = rng.uniform(0.2, 1.0, d)
    mean = rng.normal(size=d)
    return mean, loadings, noise


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", ["gaussian", "factor"])
def test_condition_is_the_exact_posterior(kind, shared):
    mean, loadings, noise = factor_parameters()
    cov = loadings @ loadings.T + np.diag(noise)
    tensors = [torch.tensor(a) for a in (mean, loadings, noise)]
    if kind == "gaussian":
        anchor = GaussianAnchor(tensors[0], torch.tensor(cov))
    else:
        anchor = FactorAnchor(*tensors)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 7))
    observed = np.repeat(rng.random((10, 7)) < 0.6, 4, axis=0)
    observed[0] = False  # an all-missing row
    observed[1] = True
    got_mean, got_sd = anchor.condition(
        torch.tensor(x), torch.tensor(observed), shared=shared
    )
    for i in range(len(x)):
        expected_mean, expected_sd = conditional(mean, cov, x[i], observed[i])
        np.testing.assert_allclose(got_mean[i, ~observed[i]], expected_mean, atol=1e-9)
        np.testing.assert_allclose(got_sd[i, ~observed[i]], expected_sd, atol=1e-9)
        np.testing.assert_array_equal(got_mean[i, observed[i]], x[i, observed[i]])
        assert (got_sd[i, observed[i]] == 0).all()


def test_batches_do_not_matter(monkeypatch):
    X, mean, cov = gaussian_table(300, 6, 0)
    rng = np.random.default_rng(0)
    observed = torch.tensor(rng.random(X.shape) < 0.6)
    x = torch.tensor(X)
    anchor = GaussianAnchor(torch.tensor(mean), torch.tensor(cov))
    whole = anchor.condition(x, observed)
    refit = fit_gaussian(x, observed, 1.0)
    monkeypatch.setattr(_gaussian, "_BATCH_ELEMENTS", 36 * 7)
    parts = anchor.condition(x, observed)
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(refit.cov, fit_gaussian(x, observed, 1.0).cov)


@pytest.mark.parametrize("shared", [True, False])
def test_columns_that_are_not_asked_for_only_tell(shared):
    X, mean, cov = gaussian_table(200, 7, 0)
    observed = torch.tensor(np.random.default_rng(0).random(X.shape) < 0.6)
    observed[:3, 4:] = False
    observed[0] = False
    blocks = torch.tensor([[0, 2], [1, 3]])
    observed[:, blocks[:, 1]] = observed[:, blocks[:, 0]]
    x, anchor = torch.tensor(X), GaussianAnchor(torch.tensor(mean), torch.tensor(cov))
    options = {"shared": shared, "blocks": blocks}
    whole = anchor.condition(x, observed, **options)
    some = anchor.condition(x, observed, n_first=4, **options)
    for got, expected in zip(some[:2], whole[:2], strict=True):
        assert got.shape == (200, 4)
        torch.testing.assert_close(got, expected[:, :4])
    torch.testing.assert_close(some[2], whole[2])


def test_no_iteration_begins_after_the_deadline():
    X, _, _ = gaussian_table(200, 6, 0)
    observed = torch.tensor(np.random.default_rng(0).random(X.shape) < 0.6)
    x = torch.tensor(X)
    for fit, sizes in ((fit_gaussian, (1.0,)), (fit_factors, (1.0, 2))):
        found = []
        for options in ({"deadline": 0.0}, {"max_iter": 1}):
            found.append(fit(x, observed, *sizes, **options).state_dict())
        torch.testing.assert_close(*found)


def test_em_on_complete_rows_is_the_posterior_mode():
    X, _, _ = gaussian_table(50, 4, 0)
    X = (X - X.mean(0)) / X.std(0)
    x = torch.tensor(X)
    anchor = fit_gaussian(x, torch.ones(X.shape, dtype=torch.bool), ridge=5.0)
    mode = (X.T @ X + 5.0 * np.eye(4)) / (50 + 5.0)
    np.testing.assert_allclose(anchor.cov, mode, atol=1e-6)


def test_em_increases_the_likelihood_of_incomplete_rows():
    """The observed-data log-posterior must rise with every iteration."""
    X, _, _ = gaussian_table(200, 5, 3)
    X = (X - X.mean(0)) / X.std(0)
    observed = np.random.default_rng(0).random(X.shape) < 0.6
    heights = []
    for n_iter in range(1, 12):
        anchor = fit_gaussian(
            torch.tensor(X), torch.tensor(observed), 1.0, max_iter=n_iter, tol=0.0
        )
        mean, cov = anchor.mean.numpy(), anchor.cov.numpy()
        height = -0.5 * (np.linalg.slogdet(cov)[1] + np.trace(np.linalg.inv(cov)))
        height -= 0.5 * 0.01 * mean @ np.linalg.solve(cov, mean)
        for row, o in zip(X, observed, strict=True):
            block = cov[np.ix_(o, o)]
            residual = row[o] - mean[o]
            height -= 0.5 * np.linalg.slogdet(block)[1]
            height -= 0.5 * residual @ np.linalg.solve(block, residual)
        heights.append(height)
    assert (np.diff(heights) > -1e-6).all(), heights
    assert heights[-1] > heights[0] + 1


# Of 6000 rows 36 % know both columns of a pair: five standard errors of a correlation.
PAIRS_ERROR = 5 / (0.36 * 6000) ** 0.5


def test_em_recovers_the_covariance_from_incomplete_rows():
    X, mean, cov = gaussian_table(6000, 5, 0)
    scale = np.sqrt(np.diag(cov))
    x = torch.tensor((X - mean) / scale)
    observed = torch.tensor(np.random.default_rng(1).random(X.shape) < 0.6)
    anchor = fit_gaussian(x, observed, 0.1, tol=1e-6)
    expected = cov / np.outer(scale, scale)
    np.testing.assert_allclose(anchor.cov, expected, atol=PAIRS_ERROR)
    np.testing.assert_allclose(anchor.mean, 0, atol=PAIRS_ERROR)


def test_factor_em_recovers_the_covariance_from_incomplete_rows():
    _, loadings, noise = factor_parameters(d=12, k=2)
    cov = loadings @ loadings.T + np.diag(noise)
    scale = np.sqrt(np.diag(cov))
    rng = np.random.default_rng(2)
    shared, own = rng.normal(size=(6000, 2)), rng.normal(size=(6000, 12))
    X = (shared @ loadings.T + np.sqrt(noise) * own) / scale
    observed = torch.tensor(rng.random(X.shape) < 0.6)
    anchor = fit_factors(torch.tensor(X), observed, 1.0, 2, max_iter=200, tol=1e-6)
    got = anchor.loadings @ anchor.loadings.T + torch.diag(anchor.noise)
    expected = cov / np.outer(scale, scale)
    np.testing.assert_allclose(got, expected, atol=PAIRS_ERROR)


@pytest.mark.parametrize("d", [40, 150])
def test_more_columns_than_rows(d):
    rng = np.random.default_rng(0)
    x = torch.tensor(2 * rng.normal(size=(20, 1)) + rng.normal(size=(20, d)))
    observed = torch.tensor(rng.random((20, d)) < 0.7)
    generator = torch.Generator().manual_seed(0)
    anchor = fit_anchor(x, observed, Coordinates(d, {}), 10.0, generator)
    anchored = anchor.condition(x, observed)
    mean, sd = anchored.mean, anchored.sd
    assert torch.isfinite(mean).all()
    assert torch.isfinite(sd).all()
    error = (mean - x)[~observed].square().mean()
    assert error < x[~observed].square().mean()


@pytest.mark.parametrize("n_columns", [0, 1, 7, 52, 53])
def test_patterns_are_told_apart_by_a_number(n_columns):
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(300, n_columns, generator=generator) < 0.7
    observed = torch.cat([observed, observed[:50]])
    patterns, inverse = unique_patterns(observed)
    assert torch.equal(patterns[inverse], observed)
    expected = {tuple(row) for row in observed.tolist()}
    assert len(patterns) == len(expected)
    assert {tuple(row) for row in patterns.tolist()} == expected


@pytest.mark.parametrize("n_first", [None, 4])
def test_what_the_ridge_added_to_variances_is_taken_off(n_first):
    """The variance is that of the errors of the same means, without the ridge."""
    X, mean, cov = gaussian_table(30, 7, 0)
    ridge = 0.2
    observed = np.random.default_rng(1).random(X.shape) < 0.6
    observed[0] = False
    anchor = GaussianAnchor(torch.tensor(mean), torch.tensor(cov + ridge * np.eye(7)))
    anchor.excess = ridge
    _, sd = anchor.condition(torch.tensor(X), torch.tensor(observed), n_first=n_first)
    for i, seen in enumerate(observed):
        o, u = np.flatnonzero(seen), np.flatnonzero(~seen)
        own = cov[np.ix_(o, o)]
        line = cov[np.ix_(u, o)] @ np.linalg.inv(own + ridge * np.eye(len(o)))
        error = cov[np.ix_(u, u)] + line @ own @ line.T
        error -= line @ cov[np.ix_(o, u)] + cov[np.ix_(u, o)] @ line.T
        asked = u < (n_first or 7)
        np.testing.assert_allclose(
            sd[i, u[asked]], np.sqrt(np.diag(error))[asked], atol=1e-9
        )


@pytest.mark.parametrize("fit", [fit_gaussian, fit_factors])
def test_extrapolated_em_needs_fewer_iterations(fit, monkeypatch):
    """It comes as close to the end in 12 iterations as plain EM does in 20."""
    X, _, _ = gaussian_table(200, 8, 3)
    X = torch.tensor((X - X.mean(0)) / X.std(0))
    observed = torch.tensor(np.random.default_rng(0).random(X.shape) < 0.6)
    sizes = (1.0,) if fit is fit_gaussian else (1.0, 2)

    def marginal(n_iter, tol=0.0):
        anchor = fit(X, observed, *sizes, max_iter=n_iter, tol=tol)
        return anchor.marginal(torch.arange(8)[None])[1]

    end = marginal(3000, 1e-12)
    quick = marginal(12)
    module = _gaussian if fit is fit_gaussian else _factors
    monkeypatch.setattr(module, "extrapolated", lambda *course: course[-1])
    plain = marginal(20)
    assert (quick - end).abs().max() < (plain - end).abs().max()
    torch.testing.assert_close(marginal(3000, 1e-12), end, atol=1e-4, rtol=0)
