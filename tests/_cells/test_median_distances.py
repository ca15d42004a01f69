"""Median distances: a column that rises on both sides of another one's median."""

import copy
import pickle

import numpy as np
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.anchor.choose_coordinates import CoordinateSettings
from admc_sklearn._cells.anchor.level_scores import Coordinates
from admc_sklearn._cells.anchor.median_distances import MedianDistances
from admc_sklearn._cells.anchor.power_transform import PowerTransform
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.settings import Settings
from admc_sklearn.missingness import ampute
from tests.conftest import gaussian_table, hide


def vectors(n, seed):
    """Vectors and their lengths."""
    v = np.random.default_rng(seed).normal(size=(n, 3))
    return np.column_stack([v, np.linalg.norm(v, axis=1)])


def length_error(imputer):
    new = vectors(500, 1)
    incomplete = new.copy()
    incomplete[:, 3] = np.nan
    return np.sqrt(np.mean((imputer.transform(incomplete) - new)[:, 3] ** 2))


class WithoutDistances(ADMCImputer):
    _settings = Settings(
        CellSettings(
            coordinates=CoordinateSettings(
                max_coordinates=0, max_coordinates_at_random=0
            )
        )
    )


def test_lengths_are_completed_by_their_vectors():
    X = hide(vectors(1000, 0), 0.2, 0)
    with_distances = ADMCImputer(max_epochs=0, random_state=0).fit(X)
    assert with_distances.model_.network.anchor.coordinates.distances is not None
    plain = WithoutDistances(max_epochs=0, random_state=0).fit(X)
    assert plain.model_.network.anchor.coordinates.distances is None
    assert length_error(with_distances) < 0.5 * length_error(plain)


def test_draws_and_training_go_on_with_distances():
    X = hide(vectors(600, 0), 0.2, 0)
    imputer = ADMCImputer(max_epochs=2, random_state=0, warm_start=True, n_bootstraps=2)
    imputer.fit(X)
    assert imputer.fit(X).model_.network.anchor.coordinates.distances is not None
    draws = imputer.sample(X, n_draws=2)
    assert np.isfinite(draws).all()
    known = ~np.isnan(X)
    np.testing.assert_allclose(draws[1][known], X[known], rtol=1e-6)
    again = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(again.transform(X), imputer.transform(X))
    assert again.dependence_.shape == (4, 4) if again.dependence_ is not None else True


@pytest.mark.parametrize("shape", [(800, 6), (200, 4)])
def test_straight_lines_need_no_folds(shape):
    X = gaussian_table(*shape, 0)[0]
    imputer = ADMCImputer(max_epochs=0, random_state=0).fit(hide(X, 0.3, 0))
    assert imputer.model_.network.anchor.coordinates.distances is None


def distances_of(X, **options):
    imputer = ADMCImputer(max_epochs=0, random_state=0, **options).fit(X)
    return imputer.model_.network.anchor.coordinates.distances


def many_vectors(n, n_vectors):
    """Vectors and their lengths, four columns each."""
    return np.hstack([vectors(n, seed) for seed in range(n_vectors)])


@pytest.mark.usefixtures("light_fits")
def test_wide_tables_have_none():
    # 36 columns and as many distances
    assert distances_of(hide(many_vectors(300, 9), 0.3, 0)) is None


@pytest.mark.usefixtures("light_fits")
def test_less_wide_ones_have_them_where_cells_do_not_hide_themselves():
    X = many_vectors(700, 7)  # 28 columns and as many distances
    at_random = hide(X, 0.3, 0)
    by_rows = ampute(X, mechanism="mar", rate=0.3, random_state=0)
    by_value = ampute(X, mechanism="mnar", rate=0.3, random_state=0)
    assert len(distances_of(at_random)) == len(distances_of(by_rows)) == 28
    assert distances_of(by_value) is None
    assert distances_of(at_random, self_masking=True) is None
    assert len(distances_of(by_value, self_masking=False)) == 28
    # Narrow ones have them in any case.
    narrow = ampute(X[:, :8], mechanism="mnar", rate=0.3, random_state=0)
    assert len(distances_of(narrow)) == 8


def some_distances():
    rng = np.random.default_rng(0)
    x = torch.tensor(np.exp(rng.normal(size=(400, 3))), dtype=torch.float32)
    observed = torch.tensor(rng.random((400, 3)) > 0.3)
    distances = MedianDistances(x, observed, 2)
    warp = PowerTransform.fit(x.numpy(), observed.numpy(), ends=True)
    distances.column_warp = warp.select(slice(2))
    distances.warp = PowerTransform.identity(2)
    return distances, warp, x, observed


def test_distances_are_in_own_units():
    distances, warp, x, observed = some_distances()
    assert not warp.is_identity
    expanded, known = distances.append(warp(x), observed)
    assert expanded.shape == known.shape == (400, 5)
    torch.testing.assert_close(expanded[:, :3], warp(x))
    torch.testing.assert_close(expanded[:, 3:], distances.of(x), atol=1e-3, rtol=1e-3)
    np.testing.assert_array_equal(known[:, 3:], observed[:, :2])
    for j in range(2):
        own = x[observed[:, j], j]
        assert float(distances.center[j]) == pytest.approx(float(own.median()))
        added = expanded[observed[:, j], 3 + j]
        assert float(added.mean()) == pytest.approx(0.0, abs=1e-2)
        assert float(added.std()) == pytest.approx(1.0, abs=2e-2)
        distance = (own - own.median()).abs()
        assert np.corrcoef(distance, added)[0, 1] > 0.999


def test_distances_have_a_power_transform_of_their_own():
    distances, warp, x, observed = some_distances()
    own = distances.of(x)
    distances.warp = PowerTransform.fit(own.numpy(), observed[:, :2].numpy(), ends=True)
    assert not distances.warp.is_identity
    expanded, _ = distances.append(warp(x), observed)
    expected = distances.warp(own)
    torch.testing.assert_close(expanded[:, 3:], expected, atol=1e-2, rtol=1e-2)
    assert (expanded[:, 3:] - own).abs().max() > 0.5


def test_values_far_outside_stay_finite():
    distances, warp, x, observed = some_distances()
    expanded, _ = distances.append(warp(1e6 * x), observed)
    assert expanded.isfinite().all()


def test_only_all_coordinates_hold_them():
    distances, warp, x, observed = some_distances()
    coordinates = Coordinates(3, {})
    coordinates.distances = distances
    assert coordinates.base(x, observed)[0].shape == (400, 3)
    assert coordinates.expand(warp(x), observed)[0].shape == (400, 5)
    assert coordinates.to_columns(torch.ones(4, 5)).shape == (4, 3)
    assert copy.deepcopy(coordinates).n_base == 3
