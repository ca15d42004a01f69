"""Folds: what rises on both sides of a column's middle is told by straight lines."""

import copy
import pickle

import numpy as np
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.anchor import choose_coordinates as coordinates_file
from admc_sklearn._cells.anchor.level_scores import Coordinates
from admc_sklearn._cells.anchor.median_distances import Folds
from admc_sklearn._cells.anchor.power_transform import Warp
from admc_sklearn.missingness import ampute

from .conftest import gaussian_table, hide


def vectors(n, seed):
    """Vectors and their lengths."""
    v = np.random.default_rng(seed).normal(size=(n, 3))
    return np.column_stack([v, np.linalg.norm(v, axis=1)])


def length_error(imputer):
    new = vectors(500, 1)
    incomplete = new.copy()
    incomplete[:, 3] = np.nan
    return np.sqrt(np.mean((imputer.transform(incomplete) - new)[:, 3] ** 2))


def test_the_anchor_knows_lengths(monkeypatch):
    X = hide(vectors(1000, 0), 0.2, 0)
    folded = ADMCImputer(max_epochs=0, random_state=0).fit(X)
    assert folded.model_.network.anchor.coordinates.folds is not None
    monkeypatch.setattr(coordinates_file, "MIN_FOLD_GAIN", 1.0)
    plain = ADMCImputer(max_epochs=0, random_state=0).fit(X)
    assert plain.model_.network.anchor.coordinates.folds is None
    assert length_error(folded) < 0.5 * length_error(plain)


def test_draws_and_training_go_on_with_folds():
    X = hide(vectors(600, 0), 0.2, 0)
    imputer = ADMCImputer(max_epochs=2, random_state=0, warm_start=True, n_bootstraps=2)
    imputer.fit(X)
    assert imputer.fit(X).model_.network.anchor.coordinates.folds is not None
    draws = imputer.sample(X, n_draws=2)
    assert np.isfinite(draws).all()
    known = ~np.isnan(X)
    np.testing.assert_allclose(draws[1][known], X[known], rtol=1e-6)
    again = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(again.transform(X), imputer.transform(X))
    assert again.dependence_.shape == (4, 4) if again.dependence_ is not None else True


@pytest.mark.parametrize("shape", [(800, 6), (40, 4)])
def test_straight_lines_need_no_folds(shape):
    X = gaussian_table(*shape, 0)[0]
    imputer = ADMCImputer(max_epochs=0, random_state=0).fit(hide(X, 0.3, 0))
    assert imputer.model_.network.anchor.coordinates.folds is None


def folds_of(X, **options):
    imputer = ADMCImputer(max_epochs=0, random_state=0, **options).fit(X)
    return imputer.model_.network.anchor.coordinates.folds


def many_vectors(n, n_vectors):
    """Vectors and their lengths, four columns each."""
    return np.hstack([vectors(n, seed) for seed in range(n_vectors)])


def test_wide_tables_have_none():
    # 36 columns and as many folds
    assert folds_of(hide(many_vectors(300, 9), 0.3, 0)) is None


def test_less_wide_ones_have_them_where_cells_do_not_hide_themselves():
    X = many_vectors(300, 7)  # 28 columns and as many folds
    at_random = hide(X, 0.3, 0)
    by_rows = ampute(X, mechanism="mar", rate=0.3, random_state=0)
    by_value = ampute(X, mechanism="mnar", rate=0.3, random_state=0)
    assert len(folds_of(at_random)) == len(folds_of(by_rows)) == 28
    assert folds_of(by_value) is None
    assert folds_of(at_random, self_masking=True) is None
    assert len(folds_of(by_value, self_masking=False)) == 28
    # Narrow ones have them in any case.
    narrow = ampute(X[:, :8], mechanism="mnar", rate=0.3, random_state=0)
    assert len(folds_of(narrow)) == 8


def some_folds():
    rng = np.random.default_rng(0)
    x = torch.tensor(np.exp(rng.normal(size=(400, 3))), dtype=torch.float32)
    observed = torch.tensor(rng.random((400, 3)) > 0.3)
    folds = Folds(x, observed, 2)
    warp = Warp.fit(x.numpy(), observed.numpy(), ends=True)
    folds.column_warp, folds.warp = warp.select(slice(2)), Warp.identity(2)
    return folds, warp, x, observed


def test_folds_are_distances_in_own_units():
    folds, warp, x, observed = some_folds()
    assert not warp.is_identity
    told, known = folds.append(warp(x), observed)
    assert told.shape == known.shape == (400, 5)
    torch.testing.assert_close(told[:, :3], warp(x))
    torch.testing.assert_close(told[:, 3:], folds.of(x), atol=1e-3, rtol=1e-3)
    np.testing.assert_array_equal(known[:, 3:], observed[:, :2])
    for j in range(2):
        own = x[observed[:, j], j]
        assert float(folds.center[j]) == pytest.approx(float(own.median()))
        told_j = told[observed[:, j], 3 + j]
        assert float(told_j.mean()) == pytest.approx(0.0, abs=1e-2)
        assert float(told_j.std()) == pytest.approx(1.0, abs=2e-2)
        distance = (own - own.median()).abs()
        assert np.corrcoef(distance, told_j)[0, 1] > 0.999


def test_folds_are_warped_by_a_warp_of_their_own():
    folds, warp, x, observed = some_folds()
    own = folds.of(x)
    folds.warp = Warp.fit(own.numpy(), observed[:, :2].numpy(), ends=True)
    assert not folds.warp.is_identity
    told, _ = folds.append(warp(x), observed)
    expected = folds.warp(own)
    torch.testing.assert_close(told[:, 3:], expected, atol=1e-2, rtol=1e-2)
    assert (told[:, 3:] - own).abs().max() > 0.5


def test_values_far_outside_stay_finite():
    folds, warp, x, observed = some_folds()
    told, _ = folds.append(warp(1e6 * x), observed)
    assert told.isfinite().all()


def test_only_all_coordinates_hold_them():
    folds, warp, x, observed = some_folds()
    coordinates = Coordinates(3, {})
    coordinates.folds = folds
    assert coordinates.base(x, observed)[0].shape == (400, 3)
    assert coordinates.expand(warp(x), observed)[0].shape == (400, 5)
    assert coordinates.to_columns(torch.ones(4, 5)).shape == (4, 3)
    assert copy.deepcopy(coordinates).n_base == 3
