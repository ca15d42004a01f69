"""Rows of a common pattern are completed by kernel regressions, where these gain."""

import copy

import numpy as np
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.corrections.pattern_regression import (
    KERNELS,
    KernelRegression,
    PatternSettings,
)
from admc_sklearn._cells.network.tilt import with_mean_moved
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.settings import Settings
from admc_sklearn._shared.contract import Rows
from tests.conftest import hide


def curved(n, seed):
    """Three columns that are smooth functions of three others."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(-2, 2, (3, n))
    return np.column_stack([a, b, c, a * b, a**2 - c, np.sin(b + c)])


def without_patterns(imputer):
    plain = copy.deepcopy(imputer)
    plain.model_.patterns = None
    return plain


@pytest.fixture(scope="module")
def halves():
    """An imputer of two modalities, each lost in a quarter of the rows."""
    X = curved(900, 0)
    X[::4, 3:] = np.nan
    X[1::4, :3] = np.nan
    # The network is hardly trained: the regressions have something to add.
    imputer = ADMCImputer(
        modalities={"left": [0, 1, 2], "right": [3, 4, 5]},
        max_epochs=2,
        self_masking=False,
        random_state=0,
    )
    imputer._settings = Settings(cells=CellSettings(donors=None))
    return imputer.fit(X)


def lost(n, seed):
    """Unseen rows, and the same without their second half."""
    X = curved(n, seed)
    incomplete = X.copy()
    incomplete[:, 3:] = np.nan
    return X, incomplete


@pytest.mark.parametrize("kernel", KERNELS)
def test_errors_are_those_of_rows_left_out(kernel):
    rng = np.random.default_rng(0)
    points, targets = (
        torch.tensor(rng.normal(size=(30, 2))),
        torch.tensor(rng.normal(size=(30, 1))),
    )
    settings = PatternSettings(kernels=(kernel,), ridges=(0.3,))
    model = KernelRegression(points, targets, settings)
    errors = []
    for i in range(30):
        rest = torch.arange(30) != i
        gram = model.weights(0, points[rest], points[rest])
        gram = gram + 0.3 * torch.eye(29, dtype=gram.dtype)
        # The mean of all targets is taken off before any row is left out.
        known = targets[rest] - targets.mean(0)
        found = model.weights(0, points[i, None], points[rest]) @ torch.linalg.solve(
            gram, known
        )
        errors.append(float(found - (targets[i] - targets.mean(0))) ** 2)
    expected = float(model._errors_left_out(points, targets, (0.3,)))
    assert expected == pytest.approx(np.mean(errors), rel=1e-9)


def test_each_column_takes_the_kernel_that_suits_it():
    rng = np.random.default_rng(1)
    points = torch.tensor(rng.uniform(-2, 2, (400, 2)))
    smooth = points[:, :1] * points[:, 1:]
    cusp = points.abs().sum(1, keepdim=True)
    noise = 1e-3 * torch.tensor(rng.normal(size=(400, 2)))
    model = KernelRegression(points, torch.cat([smooth, cusp], 1) + noise)
    names = [list(KERNELS)[k] for k in model.choice.tolist()]
    assert names[0] == "Matern"
    new = torch.tensor(rng.uniform(-2, 2, (200, 2)))
    error = model(new) - torch.stack([new[:, 0] * new[:, 1], new.abs().sum(1)], 1)
    assert float(error[:, 0].square().mean()) < 1e-4
    assert float(error[:, 1].square().mean()) < 1e-2


def test_lost_modalities_gain_and_narrow(halves):
    X, incomplete = lost(500, 1)
    patterns = halves.model_.patterns
    right = next(p for p in patterns.patterns if not p.observed[3])
    assert right.weight[3:].min() > 0.5
    assert not right.weight[:3].any()

    def error(imputer):
        return np.square(imputer.transform(incomplete) - X)[:, 3:].mean()

    assert error(halves) < 0.5 * error(without_patterns(halves))
    low, high = halves.predict_quantiles(incomplete, [0.1, 0.9])
    wide = without_patterns(halves).predict_quantiles(incomplete, [0.1, 0.9])
    assert (high - low)[:, 3:].mean() < 0.9 * (wide[1] - wide[0])[:, 3:].mean()
    inside = (low <= X) & (X <= high)
    assert 0.7 < inside[:, 3:].mean() < 0.98


def test_rows_of_other_patterns_are_left_alone(halves):
    X = hide(curved(100, 2), 0.4, 2)
    X[np.isnan(X)[:, :3].all(1) | np.isnan(X)[:, 3:].all(1)] = np.nan
    plain = without_patterns(halves)
    np.testing.assert_array_equal(halves.transform(X), plain.transform(X))
    for own, other in zip(halves.sample(X, 2), plain.sample(X, 2), strict=True):
        np.testing.assert_array_equal(own, other)


def test_draws_have_the_mean_and_the_spread_of_the_posterior(halves):
    _, incomplete = lost(100, 3)
    n_draws = 200
    draws = np.stack(halves.sample(incomplete, n_draws))[:, :, 3:]
    mean = halves.transform(incomplete)[:, 3:]
    noise = draws.std(0) / np.sqrt(n_draws)
    assert np.mean((draws.mean(0) - mean) ** 2) < 1.3 * np.mean((noise + 0.01) ** 2)
    low, high = halves.predict_quantiles(incomplete, [0.1, 0.9])
    inside = (draws >= low[:, 3:]) & (draws <= high[:, 3:])
    assert inside.mean() == pytest.approx(0.8, abs=0.05)


def test_a_draw_depends_on_its_row_alone(halves):
    _, incomplete = lost(40, 4)
    whole = halves.sample(incomplete, 2)
    part = halves.sample(incomplete[10:20], 2)
    for own, other in zip(whole, part, strict=True):
        np.testing.assert_allclose(own[10:20], other, atol=1e-3)


def test_a_column_that_is_often_lost_alone_has_a_pattern():
    X = curved(600, 5)
    X[::4, 3] = np.nan
    imputer = ADMCImputer(max_epochs=1, self_masking=False, random_state=0)
    imputer._settings = Settings(cells=CellSettings(donors=None, landmarks=None))
    model = imputer.fit(X).model_
    (pattern,) = model.patterns.patterns
    assert pattern.observed.tolist() == [True, True, True, False, True, True]


def test_a_pattern_that_no_row_completes_is_no_crash():
    """Every row lacks one of three parts, as in a planned design."""
    X = np.random.default_rng(11).normal(size=(300, 6))
    for k in range(3):
        X[k::3, 2 * k : 2 * k + 2] = np.nan
    imputer = ADMCImputer(max_epochs=1, self_masking=False, random_state=0).fit(X)
    assert imputer.model_.patterns is None
    assert np.isfinite(imputer.transform(X)).all()


def test_nothing_is_regressed_where_patterns_are_rare_or_nothing_depends():
    rare = hide(curved(400, 6), 0.5, 6)
    options = {"max_epochs": 1, "self_masking": False, "random_state": 0}
    assert ADMCImputer(**options).fit(rare).model_.patterns is None
    independent = np.random.default_rng(7).normal(size=(400, 4))
    independent[::4, 3] = np.nan
    assert ADMCImputer(**options).fit(independent).model_.patterns is None


def test_a_narrowed_normal_has_the_precision_that_is_asked_for():
    """Means end where they are moved to; variances are divided."""
    X = np.random.default_rng(10).normal(size=(2000, 3))
    imputer = ADMCImputer(max_epochs=0, self_masking=False, random_state=0).fit(X)
    model, incomplete = imputer.model_, X[:50].copy()
    incomplete[:, 0] = np.nan
    cells = imputer._codec.read(incomplete)
    batch = model.coordinates(Rows(cells.values, cells.observed))
    with torch.no_grad():
        (plain,) = model.posteriors(batch)
    shift = torch.full_like(plain.mean(), 0.2)
    own = with_mean_moved(plain, shift)
    narrow = with_mean_moved(plain, shift, precision=3 * torch.ones_like(shift))

    def variance(found):
        share = torch.softmax(found.logits, -1)
        center = found.atoms.center[:, None]
        mean = (share * center).sum(-1, keepdim=True)
        return (share * (center - mean).square()).sum(-1)

    cells = plain.cells.filled
    ratio = (variance(own) / variance(narrow))[cells]
    assert ratio.numpy() == pytest.approx(4.0, rel=0.05)
    assert (own.mean() - narrow.mean())[cells].numpy() == pytest.approx(0, abs=0.02)


def test_values_carried_to_their_own_distribution_stay(halves):
    _, incomplete = lost(50, 9)
    model = halves.model_
    cells = halves._codec.read(incomplete)
    batch = model.coordinates(Rows(cells.values, cells.observed))
    with torch.no_grad():
        posteriors = model.posteriors(Rows(batch.values, batch.observed))
        for posterior in posteriors:
            values = posterior.quantile(torch.rand(posterior.logits.shape[:2]))
            noise, copies = torch.rand_like(values), torch.zeros_like(values) > 0
            again = posterior.carried_from(posterior, values, noise, copies)
            moved = (again - values).abs()[posterior.cells.filled]
            assert float(moved.quantile(0.95)) < 1e-2
