"""The choice of coordinates and ridge, and the warp itself."""

import numpy as np
import pytest
import torch
from scipy import stats

from admc_sklearn._cells.anchor.choose_coordinates import (
    CoordinateSettings,
    HiddenCellError,
    choose_coordinates,
)
from admc_sklearn._cells.anchor.column_anchor import fit_anchor
from admc_sklearn._cells.anchor.level_scores import Coordinates
from admc_sklearn._cells.anchor.power_transform import PowerTransform


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
    # Errors are flat about the best ridge: a step of the grid, three times as much or
    # a third, is chance.
    assert strong >= 10
    assert weak <= 3
    assert strong >= 10 * weak


class Judge(HiddenCellError):
    """Whose errors are known: by ridge, for two columns."""

    def __init__(self, errors):
        self.n_counted, self.settings = None, CoordinateSettings()
        self.errors = torch.tensor(errors, dtype=torch.float64)

    def of(self, warp, ridges):
        return self.errors


def test_the_weakest_ridge_is_the_smallest_that_is_as_good_as_the_best():
    errors = [[9.0, 9.0], [5.01, 5.0], [5.0, 5.0], [5.0, 5.01], [7.0, 7.0]]
    best, ridge, weakest = Judge(errors).best(None, (0.1, 1.0, 3.0, 10.0, 30.0))
    assert ridge == 3.0
    assert weakest == 1.0  # a thousandth worse is as good
    assert best.tolist() == [5.0, 5.0]
    errors[1] = [5.1, 5.1]  # two hundredths are not
    assert Judge(errors).best(None, (0.1, 1.0, 3.0, 10.0, 30.0))[2] == 3.0


def test_columns_of_several_coordinates_count_as_one():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(1500, 4)))
    column = torch.tensor([0, 1, 1, 1])
    generator = torch.Generator().manual_seed(0)
    seen = torch.ones(1500, 4, dtype=torch.bool)
    judge = HiddenCellError(x, seen, column, generator)
    # They are hidden together, and the errors of a column add up to that of one number.
    assert torch.equal(judge.hidden[:, 1], judge.hidden[:, 3])
    errors = judge.of(PowerTransform.identity(4), [100.0])[0]
    assert float(errors[1:].sum() / errors[0]) == pytest.approx(1.0, abs=0.4)


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
    latent = rng.normal(size=(900, 1)) + 0.05 * rng.normal(size=(900, 3))
    observed = rng.random(latent.shape) < 0.8
    bent, _ = choose(np.exp(0.5 * latent * [1, 2, 3]), observed)
    assert not bent.is_identity
    plain, _ = choose(latent, observed)
    assert plain.is_identity


def test_the_warp_is_yeo_and_johnsons():
    x = np.linspace(-3, 3, 41)
    for power in (-1.5, 0.0, 0.5, 1.0, 2.0, 3.0):
        got = PowerTransform([power], [0.0], [1.0], [0.0], [1.0])(
            torch.tensor(x)[:, None]
        )
        expected = stats.yeojohnson(x, lmbda=power)
        np.testing.assert_allclose(got[:, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("power", [-2.0, -0.5, 0.0, 0.7, 1.0, 2.0, 4.0])
def test_the_inverse_comes_back(power):
    warp = PowerTransform([power], [-0.2], [0.6], [0.3], [1.7])
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    torch.testing.assert_close(warp.inverse(warp(x)), x, rtol=1e-3, atol=1e-3)


def test_the_inverse_of_what_no_value_has_is_finite():
    warp = PowerTransform([-2.0], [0.0], [1.0], [0.0], [1.0])
    assert torch.isfinite(warp.inverse(torch.tensor([[50.0], [-50.0]]))).all()


def test_columns_of_several_warps():
    X = np.random.default_rng(0).lognormal(size=(500, 2))
    warp = PowerTransform.fit(X, np.ones(X.shape, dtype=bool), ends=True)
    choice = torch.tensor([1, 0])
    half = PowerTransform.of_columns([PowerTransform.identity(2), warp], choice)
    x = torch.tensor(X)
    torch.testing.assert_close(half(x)[:, 0], warp(x)[:, 0])
    torch.testing.assert_close(half(x)[:, 1], x[:, 1])


def test_a_lognormal_column_becomes_normal():
    X = np.random.default_rng(0).lognormal(size=(2000, 1))
    X = (X - X.mean()) / X.std()
    warp = PowerTransform.fit(X, np.ones(X.shape, dtype=bool), ends=True)
    warped = warp(torch.tensor(X))[:, 0].numpy()
    assert stats.skew(X[:, 0]) > 3
    # Powers are a quarter apart, and about 0 a power p leaves a skewness of 3 p; the
    # standard error of 2000 values is added five times.
    assert abs(stats.skew(warped)) < 3 / 8 + 5 * (6 / 2000) ** 0.5
    # Standardised by the same values.
    assert warped.mean() == pytest.approx(0, abs=1e-3)
    assert warped.std() == pytest.approx(1, abs=1e-3)
