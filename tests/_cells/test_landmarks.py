"""Landmarks add what holds among neighbouring rows, and nothing else."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.corrections.landmark_fit import (
    PredictedCells,
    Regression,
    _weights,
)
from admc_sklearn._cells.corrections.landmark_regression import (
    CompletedRows,
    LandmarkRegression,
    LandmarkSettings,
)
from admc_sklearn._cells.model import CellModel
from admc_sklearn._cells.network.posterior import NumericPosterior, PackedCells
from admc_sklearn._cells.network.tilt import with_mean_moved
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.settings import Settings
from admc_sklearn._shared.contract import Rows
from tests.conftest import gaussian_table, hide, quick

TRAINED_SHARE = 0.4


def steps(n, seed):
    """A table whose third column jumps between cells of a chequered board."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(0, 4, (n, 3))
    X[:, 2] = (X[:, 0].astype(int) + X[:, 1].astype(int)) % 2 + 0.1 * X[:, 2]
    return X


@pytest.fixture(scope="module")
def board():
    X, new = steps(1500, 0), steps(800, 1)
    incomplete, new_incomplete = X.copy(), new.copy()
    incomplete[::5, 2] = np.nan
    new_incomplete[:, 2] = np.nan
    imputer = ADMCImputer(max_epochs=2, random_state=0, self_masking=False)
    # Donors, mean head, forests and patterns would complete the board as well.
    alone = CellSettings(mean_head=False, donors=None, forests=None, patterns=None)
    imputer._settings = Settings(cells=alone)
    imputer.fit(incomplete)
    return imputer, new, new_incomplete


def without_landmarks(imputer):
    plain = copy.deepcopy(imputer)
    plain.model_.landmarks = None
    return plain


def error(imputer, new, incomplete, power=2):
    return np.mean(np.abs(imputer.transform(incomplete) - new)[:, 2] ** power)


def test_landmarks_complete_what_the_network_has_not_learnt(board):
    imputer, new, incomplete = board
    plain = without_landmarks(imputer)
    assert imputer.model_.landmarks.weight[2] > 0.7
    assert error(imputer, new, incomplete) < 0.6 * error(plain, new, incomplete)
    imputer, plain = (
        copy.copy(i).set_params(strategy="median") for i in (imputer, plain)
    )
    assert error(imputer, new, incomplete, 1) < 0.7 * error(plain, new, incomplete, 1)


def test_completions_stay_in_the_observed_range_and_batches_agree(board):
    imputer, _, incomplete = board
    completed = imputer.transform(incomplete)
    observed = ~np.isnan(incomplete)
    np.testing.assert_array_equal(completed[observed], incomplete[observed])
    seen = steps(1500, 0)[:, 2]
    assert seen.min() <= completed[:, 2].min()
    assert completed[:, 2].max() <= seen.max()
    one_by_one = np.vstack([imputer.transform(row[None]) for row in incomplete[:5]])
    np.testing.assert_allclose(one_by_one, completed[:5], atol=1e-4)


def test_quantiles_move_with_the_mean(board):
    imputer, new, incomplete = board
    low, high = imputer.predict_quantiles(incomplete, (0.1, 0.9))[:, :, 2]
    assert (low <= high).all()
    assert np.mean((low <= new[:, 2]) & (new[:, 2] <= high)) > 0.75


def test_pickles_hold_landmarks(board):
    imputer, _, incomplete = board
    again = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(
        again.transform(incomplete[:20]), imputer.transform(incomplete[:20])
    )


def test_gaussian_tables_gain_nothing_and_lose_nothing():
    """The anchor is the truth there, and landmarks must not spoil it."""
    X, _, _ = gaussian_table(1500, 5, 0)
    new, _, _ = gaussian_table(1500, 5, 0)
    incomplete = hide(X, 0.3, 0)
    test = hide(new, 0.3, 1)
    imputer = quick(max_epochs=1)
    imputer._settings = Settings(cells=CellSettings(forests=None))
    imputer.fit(incomplete)
    lost = np.isnan(test)
    errors = [
        np.sqrt(np.mean(((i.transform(test) - new) / new.std(0))[lost] ** 2))
        for i in (imputer, without_landmarks(imputer))
    ]
    assert errors[0] < 1.01 * errors[1]


def test_without_held_out_cells_there_are_none():
    X, _, _ = gaussian_table(12, 3, 0)
    imputer = quick()
    imputer._settings = Settings(cells=CellSettings(forests=None))
    assert imputer.fit(hide(X, 0.2, 0)).model_.landmarks is None


def test_forests_take_their_place():
    X, _, _ = gaussian_table(200, 4, 0)
    model = quick().fit(hide(X, 0.2, 0)).model_
    assert model.landmarks is None


def test_training_goes_on_without_the_old_landmarks(board):
    X = steps(1500, 2)
    X[::3, 2] = np.nan
    imputer = quick(max_epochs=1, warm_start=True)
    imputer._settings = Settings(cells=CellSettings(forests=None))
    first = imputer.fit(X).model_.landmarks
    assert isinstance(first, LandmarkRegression)
    again = imputer.fit(X).model_.landmarks
    assert isinstance(again, LandmarkRegression)
    assert again is not first


@pytest.fixture(scope="module")
def small():
    """A network, landmarks at coordinates of its rows, and the rows."""
    X, _, _ = gaussian_table(300, 4, 0)
    network = quick(max_epochs=0).fit(hide(X, 0.2, 0)).model_.network
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    return network, LandmarkRegression(network, rows, len(rows)), rows


def test_a_cell_is_not_predicted_from_itself(small):
    _, landmarks, rows = small
    truth = rows[:, 0] + rows[:, 1].sign()
    among = landmarks.distances(landmarks.points.T)
    regression = Regression(landmarks, 2, among)
    weights = landmarks.attend(rows, landmarks.distances(rows), 2)
    for part in (slice(200), slice(200, None)):
        distances = landmarks.distances(rows[part])
        regression.feed(regression.features(rows[part], distances), truth[part])
    landmarks.solution[2] = regression.solve([0.1])[:, 0]
    other = rows.clone()
    other[:, 2] += 3.0
    missing = torch.zeros(rows.shape, dtype=torch.bool)
    missing[:, 2] = True
    predicted = [landmarks.predict(r, missing) for r in (rows, other)]
    torch.testing.assert_close(*predicted, atol=1e-3, rtol=1e-3)
    assert (predicted[0][~missing] == 0).all()
    # The regression fits the dependence on the other coordinates.
    assert (truth - predicted[0][:, 2]).var() < 0.3 * truth.var()
    # Fed in parts it is kernel ridge regression on the whole.
    jitter = landmarks.settings.jitter
    weights, truth = weights.double(), truth.double()
    kernel = weights + jitter * torch.eye(len(rows), dtype=torch.float64)
    solution = torch.linalg.solve(weights.T @ weights + 0.1 * kernel, weights.T @ truth)
    found = weights @ regression.solve([0.1])[:, 0].double()
    torch.testing.assert_close(found, weights @ solution, atol=1e-3, rtol=1e-3)


def test_rows_that_nearly_repeat_each_other_are_no_trouble(small):
    network, _, rows = small
    generator = torch.Generator().manual_seed(5)
    row = torch.randint(60, (20_000,), generator=generator)
    truth = rows[row, 0] + rows[row, 1].sign()
    rows = rows[row] + 1e-4 * torch.randn(20_000, 4, generator=generator)
    landmarks = LandmarkRegression(network, rows[:800], len(rows))
    regression = Regression(landmarks, 2, landmarks.distances(landmarks.points.T))
    for part in range(0, len(rows), 3000):
        part = slice(part, part + 3000)
        features = regression.features(rows[part], landmarks.distances(rows[part]))
        regression.feed(features, truth[part])
    weights = landmarks.attend(rows, landmarks.distances(rows), 2)
    for solution in regression.solve(landmarks.settings.ridges).T:
        error = weights @ solution - truth
        assert error.square().mean() < 0.01 * truth.var()


def test_the_best_ridge_is_chosen_on_cells_that_were_not_fed(small):
    _, landmarks, rows = small
    generator = torch.Generator().manual_seed(3)
    among = landmarks.distances(landmarks.points.T)
    ridges = landmarks.settings.ridges
    smooth = rows[:, 0] + 10.0  # far from zero: the mean weights count too
    noise = torch.randn(len(rows), generator=generator)
    found = []
    for truth in (smooth, smooth + 3 * noise):
        regression = Regression(landmarks, 2, among)
        features = regression.features(rows, landmarks.distances(rows))
        regression.feed(features[:200], truth[:200])
        weights = features[200:] + regression.mean_weights
        solutions = [regression.solve([ridge])[:, 0] for ridge in ridges]
        errors = [(weights @ s - truth[200:]).square().mean() for s in solutions]
        best, predicted = regression.best_ridge(features[200:], truth[200:])
        assert best == ridges[int(np.argmin(errors))]
        expected = weights @ solutions[int(np.argmin(errors))]
        torch.testing.assert_close(predicted, expected, atol=1e-3, rtol=1e-3)
        found.append(best)
    assert found[0] < found[1]


def predicted_cells(small, predicted, truth, columns=range(4)):
    """Half of the cells of some columns, which the network completes by 0."""
    network, _, rows = small
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(rows.shape, generator=generator) < 0.5
    for j in {*range(4)} - {*columns}:
        hidden[:, j] = False
    completed = CompletedRows(network, rows, ~hidden, [])
    completed.limit += 0.5
    return PredictedCells(completed, predicted, truth, hidden)


def test_predictions_count_by_how_much_they_save_squared_error(small):
    rows = small[2]
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(rows.shape, generator=generator)
    # Predictions are worth all, a half, nothing; the last column is not regressed.
    predicted = torch.stack([rows[:, 0], (rows + noise)[:, 1], *noise.T[2:]], 1)
    alone = []
    for j, worth in enumerate((1.0, 0.5, 0.0)):
        cells = predicted_cells(small, predicted, rows, [j])
        weight = _weights(cells, cells, [j], TRAINED_SHARE)
        assert weight[j] == pytest.approx(worth, abs=0.15)
        assert weight.sum() == weight[j]
        alone.append(float(weight[j]))
    # Together columns are drawn to what is good for the table.
    cells = predicted_cells(small, predicted, rows, [0, 1, 2])
    weight = _weights(cells, cells, [0, 1, 2], TRAINED_SHARE)
    assert alone[0] - 0.1 > weight[0] > weight[1] > weight[2] > alone[2] + 0.1
    assert weight[3] == 0


def test_cells_that_the_network_was_trained_on_count_for_less_but_count(small):
    rows = small[2]
    good, opposite = (
        predicted_cells(small, predicted, rows, [0]) for predicted in (rows, -rows)
    )
    none = predicted_cells(small, rows, rows, [])
    # Without a single held-out cell they alone decide.
    assert _weights(none, good, [0], TRAINED_SHARE)[0] == 1.0
    assert _weights(none, opposite, [0], TRAINED_SHARE)[0] == 0.0
    # As many of each, which contradict each other: without those the weight is 1, by
    # equal shares it is 0.
    assert 0.2 < _weights(good, opposite, [0], TRAINED_SHARE)[0] < 0.8
    assert _weights(opposite, good, [0], TRAINED_SHARE)[0] == 0.0


def test_the_gain_is_the_squared_error_that_is_saved(small):
    rows = small[2]
    cells = predicted_cells(small, rows, rows)
    moved = rows.clamp(-0.5, 0.5)  # no further than the limit allows
    saved = (rows.square() - (rows - moved).square()) * cells.hidden
    torch.testing.assert_close(cells.gain(torch.ones(4)), saved.sum(1))
    assert (cells.gain(torch.zeros(4)) == 0).all()


def test_weights_are_those_of_the_kernel(small):
    """exp(-distance / width), the cell's own column left out."""
    _, landmarks, rows = small
    away = (rows[:, None] - rows[None]).abs()
    for column in range(4):
        expected = torch.exp(-(away.sum(2) - away[..., column]) / landmarks.width)
        got = landmarks.attend(rows, landmarks.distances(rows), column)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_the_kernel_is_narrower_where_there_are_more_rows(small):
    network, landmarks, rows = small
    widths = [
        float(LandmarkRegression(network, rows, n).width) for n in (300, 3000, 10**6)
    ]
    assert widths[0] == float(landmarks.width) > widths[1] > widths[2]
    assert widths[2] == pytest.approx(widths[0] / 2)
    constant = LandmarkSettings(width_power=0.0)
    wide = LandmarkRegression(network, rows, 10**6, constant).width
    assert float(wide) == pytest.approx(widths[0])


def _constant(prediction, rows, missing):
    """A regression's predictions of missing cells, all the same."""
    return torch.where(missing, prediction, 0.0)


def test_means_move_no_further_than_the_distribution_allows(small):
    network, landmarks, rows = small
    landmarks = copy.deepcopy(landmarks)
    landmarks.weight[:] = 1.0
    landmarks.predict = functools.partial(_constant, 1e3)
    observed = torch.rand(rows.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    observed[:5] = False
    posteriors = network(rows, observed, ~observed)
    completed_rows = CompletedRows(network, rows, observed, posteriors)
    moved = completed_rows.shift(landmarks)
    assert (moved[observed] == 0).all()
    some = observed.any(1)
    assert (moved[~some] == 0).all()  # without an observed cell nothing is predicted
    torch.testing.assert_close(moved[some], completed_rows.limit[some])


def test_means_move_by_the_columns_weight_towards_the_predictions(small):
    network, landmarks, rows = (copy.deepcopy(part) for part in small)
    landmarks.predict = functools.partial(_constant, 0.3)
    observed = torch.rand(rows.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    observed[:, 3] |= ~observed[:, :3].any(1)
    moved = []
    for weights in ((1.0, 1.0, 1.0, 1.0), (0.5, 0.1, 0.0, 1.0)):
        landmarks.weight[:] = torch.tensor(weights)
        completed_rows = CompletedRows(network, rows, observed, [])
        completed_rows.limit += 1.0
        moved.append(completed_rows.shift(landmarks))
    assert (moved[0][~observed] - 0.3).abs().max() < 1e-6
    share = torch.tensor([0.5, 0.1, 0.0, 1.0])
    torch.testing.assert_close(moved[1], moved[0] * share)
    # And so do the means of the distributions by which rows are completed.
    model = CellModel(network, (1.0, 1.0), {})
    table = Rows(rows.numpy(), observed.numpy())
    completed = [model.summarise(table, ["mean"])[0]]
    model.landmarks = landmarks
    for weight in (0.0, 0.5, 1.0):
        landmarks.weight[:] = weight
        completed.append(model.summarise(table, ["mean"])[0])
    plain, none, half, whole = completed
    np.testing.assert_allclose(none, plain, atol=1e-6)
    near = ~observed.numpy() & (np.abs(whole - plain) < 0.2)
    assert near.sum() > 100
    np.testing.assert_allclose(
        (half - plain)[near], (whole - plain)[near] / 2, atol=0.02
    )


def test_tilting_moves_means_as_far_as_intended_and_no_tail_takes_over(small):
    network, _, _ = small
    head = network.heads[0]
    g, n_atoms = len(head.columns), head.n_outcomes
    targets = torch.ones(50, network.n_columns, dtype=torch.bool)
    cells = PackedCells.from_mask(targets, head.columns)
    zero, one = torch.zeros(cells.rows.shape), torch.ones(cells.rows.shape)
    center = head.atoms.center[:, None].expand(g, 50, n_atoms)
    logits = torch.where(
        head.atoms.valid[:, None], -0.5 * (center / 0.4) ** 2, -torch.inf
    )
    posterior = NumericPosterior(cells, logits.clone(), head.atoms, zero, one)
    share = torch.softmax(logits, -1)
    start = (share * center).sum(-1)
    shift = torch.linspace(-0.3, 0.3, 50).expand(g, 50)
    posterior = with_mean_moved(posterior, shift)
    moved = (torch.softmax(posterior.logits, -1) * center).sum(-1) - start
    torch.testing.assert_close(moved, shift, atol=0.02, rtol=0.05)
    # However far the regression is off.
    posterior = with_mean_moved(posterior, torch.full((g, 50), 1e4))
    assert posterior.logits[..., :-1].isfinite().any()
    assert (posterior.mean() > start).all()
