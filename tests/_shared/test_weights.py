"""A row of weight 2 teaches every part what a row that is there twice teaches it."""

import numpy as np
import pytest
import torch

from admc_sklearn._blocks.anchor import fit_moments
from admc_sklearn._blocks.encoders import LinearEncoder
from admc_sklearn._cells.anchor.choose_coordinates import HiddenCellError
from admc_sklearn._cells.anchor.column_anchor import fit_anchor
from admc_sklearn._cells.anchor.factor_model import fit_factors
from admc_sklearn._cells.anchor.gaussian import fit_gaussian
from admc_sklearn._cells.anchor.level_scores import Coordinates, score_levels
from admc_sklearn._cells.anchor.median_distances import MedianDistances
from admc_sklearn._cells.anchor.power_transform import PowerTransform
from admc_sklearn._cells.bootstrap import _effective
from admc_sklearn._cells.corrections.donors import Donors, _chances
from admc_sklearn._cells.corrections.forests import _compact
from admc_sklearn._cells.corrections.landmark_fit import Regression
from admc_sklearn._cells.corrections.landmark_regression import LandmarkRegression
from admc_sklearn._cells.corrections.pair_regression import fit_tilt
from admc_sklearn._cells.corrections.pattern_regression import (
    KernelRegression,
    PatternSettings,
)
from admc_sklearn._cells.network.atoms import column_atoms
from admc_sklearn._cells.network.held_out_cells import Validation
from admc_sklearn._cells.network.network import build_network
from admc_sklearn._cells.network.trainer import Absorbed, CellTrainer
from admc_sklearn._cells.settings import SIZES
from admc_sklearn._shared.contract import Rows
from admc_sklearn._shared.held_out import weigh_steps
from admc_sklearn._shared.training import TrainingPlan
from admc_sklearn._table.standardiser import Standardiser
from tests.conftest import FIRST_SEED

# Sums in another order differ by rounding alone.
EXACT = {"rtol": 1e-8, "atol": 1e-8}
SINGLE = {"rtol": 2e-4, "atol": 2e-4}
N = 90


def table(n_columns=4, seed=0):
    """Skew, dependent rows with gaps, their mask, their weights and each row's copies.

    All of them are tensors in float64; weights are 1, 2 and 3.
    """
    rng = np.random.default_rng(FIRST_SEED + seed)
    x = rng.normal(size=(N, 2)) @ rng.normal(size=(2, n_columns))
    x = np.exp(0.4 * (x + 0.5 * rng.normal(size=x.shape)))
    observed = rng.random(x.shape) > 0.25
    weight = rng.integers(1, 4, N)
    copies = torch.tensor(np.repeat(np.arange(N), weight))
    x = (x - x.mean(0)) / x.std(0)
    return *map(torch.tensor, (x, observed, weight.astype(float))), copies


def same(found, expected, **tolerance):
    torch.testing.assert_close(found, expected, **(tolerance or EXACT))


def test_units_and_grids():
    x, observed, weight, copies = (part.numpy() for part in table())
    x[:, 3] = x[:, 3].round()
    no = np.zeros(4, dtype=bool)
    found = Standardiser().fit(x, ~observed, no, no, weight)
    expected = Standardiser().fit(x[copies], ~observed[copies], no, no)
    np.testing.assert_allclose(found.mean_, expected.mean_)
    np.testing.assert_allclose(found.scale_, expected.scale_)
    for one, other in zip(found.grids_, expected.grids_, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_gaussian_of_incomplete_rows():
    x, observed, weight, copies = table()
    found = fit_gaussian(x, observed, 3.0, weight=weight)
    expected = fit_gaussian(x[copies], observed[copies], 3.0)
    same(found.mean, expected.mean)
    same(found.cov, expected.cov)
    plain = fit_gaussian(x, observed, 3.0)
    assert (found.cov - plain.cov).abs().max() > 0.01


def test_the_factor_model_of_wide_tables():
    x, observed, weight, copies = table(12)
    options = {"max_iter": 15, "tol": 0.0}
    found = fit_factors(x, observed, 1.0, 2, weight=weight, **options)
    expected = fit_factors(x[copies], observed[copies], 1.0, 2, **options)
    same(found.mean, expected.mean, rtol=1e-5, atol=1e-5)
    cov = (anchor.loadings @ anchor.loadings.T for anchor in (found, expected))
    same(*cov, rtol=1e-5, atol=1e-5)
    same(found.noise, expected.noise, rtol=1e-5, atol=1e-5)


def test_the_anchor_and_what_its_ridge_adds():
    x, observed, weight, copies = table()
    coordinates = Coordinates(4, {})
    coordinates.is_relieved = True
    generator = torch.Generator()
    found = fit_anchor(x, observed, coordinates, 30.0, generator, weight=weight)
    repeated = x[copies], observed[copies]
    expected = fit_anchor(*repeated, coordinates, 30.0, generator)
    same(found.gaussian.cov, expected.gaussian.cov)
    assert found.gaussian.excess == pytest.approx(expected.gaussian.excess)


def test_scores_and_frequencies_of_levels():
    x, observed, weight, copies = table()
    x[:, 3] = torch.bucketize(x[:, 3].clone(), torch.tensor([-0.6, 0.0, 0.7]).double())
    n_levels = np.array([0, 0, 0, 4])
    every = np.arange(N), np.arange(len(copies))
    found = score_levels(x, observed, n_levels, every[0], weight=weight)
    expected = score_levels(x[copies], observed[copies], n_levels, every[1])
    same(found.share, expected.share)
    same(found.table.abs(), expected.table.abs())


def test_medians_and_distances_from_them():
    x, observed, weight, copies = table()
    found = MedianDistances(x, observed, 4, weight)
    expected = MedianDistances(x[copies], observed[copies], 4)
    same(found.center, expected.center)
    same(found.shift, expected.shift)
    same(found.scale, expected.scale)


@pytest.mark.parametrize("ends", [False, True])
def test_powers(ends):
    x, observed, weight, copies = (part.numpy() for part in table())
    found = PowerTransform.fit(x, observed, ends=ends, weight=weight)
    expected = PowerTransform.fit(x[copies], observed[copies], ends=ends)
    assert (found.power != 1).any()
    for name in PowerTransform.fields:
        same(getattr(found, name), getattr(expected, name), **SINGLE)


def test_errors_of_hidden_cells_count_by_row():
    x, observed, weight, _ = table()
    judge = HiddenCellError(
        x, observed, torch.arange(4), torch.Generator(), row_weight=weight
    )
    warp = PowerTransform.identity(4)
    anchor = fit_gaussian(x, observed, 3.0)
    every = torch.ones(N, dtype=torch.bool)
    found = judge._error(warp, anchor, judge.values, every)
    by_row, judge.row_weight = judge.row_weight, None
    errors = [judge._error(warp, anchor, judge.values, row) for row in every.diag()]
    same(found, (by_row[:, None] * torch.stack(errors)).sum(0))


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_atoms(digits):
    x, _, weight, copies = (part.numpy() for part in table())
    values = x[:, 0].round(digits)
    found = column_atoms(values, weight=weight)
    expected = column_atoms(values[copies])
    for name, part in expected.items():
        np.testing.assert_allclose(found[name], part)


def _network(x, observed, has_mean_head=True):
    anchor = fit_anchor(x, observed, Coordinates(4, {}), 10.0, torch.Generator())
    rows = Rows(x.float().numpy(), observed.numpy())
    generator = torch.Generator().manual_seed(0)
    return build_network(
        rows,
        PowerTransform.identity(4),
        anchor,
        SIZES["small"],
        generator,
        has_mean_head,
    )


def test_the_loss_of_a_step():
    x, observed, weight, copies = table()
    network, x = _network(x, observed), x.float()
    plan = TrainingPlan(1, 64, 1e-3, 0.1, 5, 0.0, np.inf, False)
    trainer = CellTrainer(network, Rows(x, observed, weight.float()), plan, 0)
    batch = trainer.absorb(torch.arange(N))
    parts = (batch.values, batch.outcome, batch.kept, batch.targets, batch.anchored)
    moments = network.anchored(x[copies], batch.kept[copies])
    repeated = Absorbed(*(part[copies] for part in parts[:4]), moments)
    same(trainer.loss(batch), trainer.loss(repeated), **SINGLE)


def test_errors_of_held_out_rows():
    x, observed, _, _ = table()
    network, x = _network(x, observed, has_mean_head=False), x.float()
    is_heavy = torch.arange(N) % 3 == 0
    weight = torch.where(is_heavy, 2.0, 0.5)
    validation = Validation(
        network, x, observed, torch.Generator(), torch.arange(4), weight
    )
    found, total, count = validation.measure(), np.zeros(2), 0.0
    hidden, validation.weight = validation.hidden, None
    is_heavy = is_heavy.repeat(len(hidden) // N)[:, None]
    for part, own in ((is_heavy, 2.0), (~is_heavy, 0.5)):
        validation.hidden = hidden & part
        n = own * int(validation.hidden.sum())
        rmse, nats = validation.measure()
        total, count = total + n * np.array([rmse**2, nats]), count + n
    assert found[0] == pytest.approx(np.sqrt(total[0] / count), rel=1e-5)
    assert found[1] == pytest.approx(total[1] / count, rel=1e-5)


def test_steps_are_weighed_by_errors_of_rows():
    rng = np.random.default_rng(FIRST_SEED)
    step = torch.tensor(rng.normal(size=(400, 2)))
    # The step is right in the second half of the rows alone.
    is_right = (torch.arange(400) >= 200)[:, None]
    error = torch.where(is_right, step, -step) + 0.1
    columns = torch.ones(2, dtype=torch.bool)
    weight = torch.where(is_right[:, 0], 1.9, 0.1).double()
    right = weigh_steps(step, error, columns, 400, weight)
    wrong = weigh_steps(step, error, columns, 400, 2 - weight)
    assert (right > 0.7).all()
    assert not wrong.any()


def test_landmark_regression():
    x, observed, weight, copies = table()
    network = _network(x, observed)
    points = x.float()
    landmarks = LandmarkRegression(network, points[:30], N)
    truth = points[:, 2].square()
    distances = landmarks.distances(points)
    among = landmarks.distances(landmarks.points.T)
    solutions = []
    for rows, own in ((torch.arange(N), weight.float()), (copies, None)):
        regression = Regression(landmarks, 2, among)
        features = regression.features(points[rows], distances[rows])
        regression.feed(features, truth[rows], own)
        solution = regression.solve([0.4])
        features = regression.features(points, distances)
        solutions.append(features @ solution + regression.mean_weights @ solution)
    same(*solutions, **SINGLE)


def test_regressions_of_patterns():
    x, _, weight, copies = table()
    settings = PatternSettings(kernels=("Laplace",), ridges=(0.2,))
    points, targets = x[:, :2], x[:, 2:]
    found = KernelRegression(points, targets, settings, weight)
    expected = KernelRegression(points, targets, settings)
    expected.solve(points[copies], targets[copies])  # of one width
    same(found(points), expected(points))
    plain = KernelRegression(points, targets, settings)
    assert (found(points) - plain(points)).abs().max() > 0.01


def test_rows_left_out_of_a_regression_count_by_weight():
    x, _, weight, _ = table()
    settings = PatternSettings(kernels=("Laplace",), ridges=(0.2,))
    points, targets = x[:, :2], x[:, 2:3]
    model = KernelRegression(points, targets, settings, weight)
    centered = targets - (weight[:, None] * targets).sum(0) / weight.sum()
    errors = []
    for i in range(N):
        rest = torch.arange(N) != i
        kernel = model.weights(0, points[rest], points[rest])
        kernel = kernel + torch.diag(0.2 / weight[rest])
        solution = torch.linalg.solve(kernel, centered[rest])
        found = model.weights(0, points[i, None], points[rest]) @ solution
        errors.append(float(weight[i]) * float(found - centered[i]) ** 2)
    found = float(model._errors_left_out(points, targets, (0.2,), weight))
    assert found == pytest.approx(np.mean(errors), rel=1e-8)


def test_leaves_of_forests():
    rng = np.random.default_rng(FIRST_SEED)
    weight = rng.integers(1, 4, N)
    leaf, outcome = rng.integers(1, 3, N), rng.integers(0, 5, N)

    class Tree:  # a root and two leaves
        node_count, max_depth = 3, 1
        children_left = np.array([1, -1, -1])
        children_right = np.array([2, -1, -1])
        threshold, feature = np.zeros(3), np.zeros(3, dtype=int)

    found = _compact(Tree, leaf, outcome, weight.astype(float))
    copies = np.repeat(np.arange(N), weight)
    expected = _compact(Tree, leaf[copies], outcome[copies])
    for name in ("start", "size", "outcome", "mass"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name))


class Columns:
    """The part of a network that donors need."""

    n_columns = 4
    numeric, categorical = torch.tensor([0, 1, 2]), torch.tensor([3])

    @staticmethod
    def index(values):
        return values.round().long() + 10


def test_a_donor_of_weight_three_is_as_likely_as_three():
    x, observed, weight, _ = table()
    x = x.float()
    x[:, 3] = (x[:, 3] > 0).float()
    weight[:] = 1.0
    weight[7] = 3.0
    plain = Donors(Columns, x, observed)
    donors = Donors(Columns, x, observed, row_weight=weight.float())
    donors.level_chance, donors.chance = plain.level_chance, plain.chance
    candidates, z = donors.find(Rows(x, observed))
    _, expected = plain.find(Rows(x, observed))
    more = torch.where(candidates == 7, np.log(3.0), 0.0)
    assert more.any()
    same(z - expected, more.expand_as(z), atol=1e-5, rtol=1e-5)
    few = Rows(x[:3], observed[:3], 2 * weight[:3].float())
    donors.add(Columns, few)
    same(donors.log_weight.exp()[-3:], torch.full((3,), 2.0))
    assert len(donors.log_weight) == len(donors.values) == N + 3


def test_chances_of_donors():
    x, observed, weight, copies = table()
    x = x.float()
    x[:, 3] = (x[:, 3] > 0).float()
    found = Donors(Columns, x, observed, row_weight=weight.float())
    expected = Donors(Columns, x[copies], observed[copies])
    # Levels and grids are alike; units of distance are those of the distinct rows.
    same(found.level_chance, expected.level_chance, **SINGLE)
    expected.scale[:] = found.scale
    cells = expected._scaled(x[copies])[:, :3], observed[copies][:, :3]
    grid, chance = _chances(*cells, expected.settings, None)
    same(found.grid, grid, **SINGLE)
    same(found.chance, chance, **SINGLE)


def test_slopes_of_self_masking():
    rng = np.random.default_rng(FIRST_SEED)
    case, control = rng.dirichlet(np.ones(5), (2, N))
    weight = rng.integers(1, 4, N)
    copies = np.repeat(np.arange(N), weight)
    values = np.linspace(-1, 1, 5)[:, None]
    found = fit_tilt(case, control, values, precision=1.0, pair_weight=0.25 * weight)
    repeated = case[copies], control[copies]
    expected = fit_tilt(*repeated, values, precision=1.0, pair_weight=0.25)
    np.testing.assert_allclose(found, expected)


def test_what_weighted_rows_leave_open_is_kishs_sample_size():
    observed = torch.ones(100, 2, dtype=torch.bool)
    observed[50:, 1] = False
    weight = torch.ones(100)
    same(_effective(observed, weight)[:, 0], torch.tensor([100.0, 50.0]))
    weight[:50], weight[50:] = 1.8, 0.2
    # (50 * 1.8 + 50 * 0.2)^2 / (50 * 3.24 + 50 * 0.04) = 10000 / 164
    same(
        _effective(observed, weight)[:, 0], torch.tensor([10_000 / 164, 50.0]), **SINGLE
    )


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_components_of_blocks(rate):
    x, _, weight, copies = (part.numpy() for part in table(8))
    observed = np.random.default_rng(FIRST_SEED).random(x.shape) >= rate
    rng = np.random.default_rng
    found = LinearEncoder().fit(x, observed, rng(0), weight=weight)
    expected = LinearEncoder().fit(x[copies], observed[copies], rng(0))
    np.testing.assert_allclose(found.mean_, expected.mean_, atol=1e-8)
    np.testing.assert_allclose(found.variance_, expected.variance_, rtol=1e-6)
    np.testing.assert_allclose(found.noise_, expected.noise_, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_moments_of_blocks(rate):
    x, _, weight, copies = table(6)
    available = torch.rand(N, 3, generator=torch.Generator().manual_seed(0)) >= rate
    owner = torch.tensor([0, 0, 1, 1, 2, 2])
    found = fit_moments(x, x.square(), available, owner, owner, weight=weight)
    repeated = x[copies], x[copies].square(), available[copies]
    expected = fit_moments(*repeated, owner, owner)
    same(found.mean, expected.mean)
    same(found.moments, expected.moments)
    assert found.n_rows == expected.n_rows
