"""The choice of coordinates and ridge, and the warp itself."""

import numpy as np
import pytest
import torch
from scipy import stats

from admc_sklearn._anchor import fit_anchor
from admc_sklearn._coordinates import choose_coordinates
from admc_sklearn._scores import Coordinates
from admc_sklearn._warp import Warp


def choose(X, observed):
    """The choice for an array, standardised first."""
    X = (X - X.mean(0)) / X.std(0)
    generator = torch.Generator().manual_seed(0)
    return choose_coordinates(
        torch.tensor(X, dtype=torch.float32),
        torch.tensor(observed),
        Coordinates(X.shape[1], {}),
        generator,
    )[:2]


def test_the_ridge_follows_the_data():
    """Nothing to learn asks for a strong prior, collinear columns for a weak one."""
    rng = np.random.default_rng(0)
    observed = rng.random((400, 12)) < 0.8
    _, strong = choose(rng.normal(size=(60, 12)), observed[:60])
    collinear = rng.normal(size=(400, 1)) + 0.05 * rng.normal(size=(400, 6))
    _, weak = choose(collinear, observed[:, :6])
    assert strong >= 30
    assert weak <= 1


def test_related_columns_are_freed_of_what_the_ridge_adds():
    """Fifty per cent intervals of 45 sensors held two thirds of the cells."""
    rng = np.random.default_rng(0)
    d, n = 24, 300
    X = rng.normal(size=(n, 3)) @ rng.normal(size=(3, d)) + 0.05 * rng.normal(
        size=(n, d)
    )
    X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
    observed = torch.tensor(rng.random(X.shape) < 0.7)
    generator = torch.Generator().manual_seed(0)
    coordinates = Coordinates(d, {})
    kept = slice(0, 200)
    warp, ridge, _ = choose_coordinates(X[kept], observed[kept], coordinates, generator)
    anchor = fit_anchor(warp(X)[kept], observed[kept], coordinates, ridge, generator)
    anchored = anchor.condition(warp(X)[200:], observed[200:])
    cells = ~observed[200:]
    z = ((warp(X)[200:] - anchored.mean) / anchored.sd)[cells].abs()
    # Rows are the units: of 100 the shares are known to some 3 %.
    assert float((z < 0.674).double().mean()) == pytest.approx(0.5, abs=0.12)
    assert float((z < 1.645).double().mean()) == pytest.approx(0.9, abs=0.08)


def test_columns_that_are_bent_are_warped_and_gaussian_ones_are_not():
    """A length, an area and a volume, say."""
    rng = np.random.default_rng(0)
    latent = rng.multivariate_normal(np.zeros(3), 0.003 * np.eye(3) + 0.997, size=900)
    observed = rng.random(latent.shape) < 0.8
    bent, _ = choose(np.exp(0.5 * latent * [1, 2, 3]), observed)
    assert not bent.is_identity
    plain, _ = choose(latent, observed)
    assert plain.is_identity


def test_the_warp_is_yeo_and_johnsons():
    x = np.linspace(-3, 3, 41)
    for power in (-1.5, 0.0, 0.5, 1.0, 2.0, 3.0):
        got = Warp([power], [0.0], [1.0], [0.0], [1.0])(torch.tensor(x)[:, None])
        expected = stats.yeojohnson(x, lmbda=power)
        np.testing.assert_allclose(got[:, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("power", [-2.0, -0.5, 0.0, 0.7, 1.0, 2.0, 4.0])
def test_the_inverse_comes_back(power):
    warp = Warp([power], [-0.2], [0.6], [0.3], [1.7])
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    torch.testing.assert_close(warp.inverse(warp(x)), x, rtol=1e-3, atol=1e-3)


def test_the_inverse_of_what_no_value_has_is_finite():
    warp = Warp([-2.0], [0.0], [1.0], [0.0], [1.0])
    assert torch.isfinite(warp.inverse(torch.tensor([[50.0], [-50.0]]))).all()


def test_columns_of_several_warps():
    X = np.random.default_rng(0).lognormal(size=(500, 2))
    warp = Warp.fit(X, np.ones(X.shape, dtype=bool), ends=True)
    choice = torch.tensor([1, 0])
    half = Warp.of_columns([Warp.identity(2), warp], choice)
    x = torch.tensor(X)
    torch.testing.assert_close(half(x)[:, 0], warp(x)[:, 0])
    torch.testing.assert_close(half(x)[:, 1], x[:, 1])


def test_a_lognormal_column_becomes_normal():
    X = np.random.default_rng(0).lognormal(size=(2000, 1))
    X = (X - X.mean()) / X.std()
    warp = Warp.fit(X, np.ones(X.shape, dtype=bool), ends=True)
    warped = warp(torch.tensor(X))[:, 0].numpy()
    assert abs(stats.skew(warped)) < 0.2
    assert abs(warped.mean()) < 0.05
    assert warped.std() == pytest.approx(1, abs=0.05)
