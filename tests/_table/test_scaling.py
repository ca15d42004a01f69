"""Standardise, and come back within the range and onto the grid."""

import numpy as np
import pytest

from admc_sklearn._table.standardiser import Standardiser


def fitted(X, missing):
    no = np.zeros(X.shape[1], dtype=bool)
    return Standardiser().fit(X, missing, no, no)


def test_standardises_by_the_observed_cells():
    X = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, np.nan]])
    missing = np.isnan(X)
    scaling = fitted(X, missing)
    values, observed = scaling.encode(X, missing)
    np.testing.assert_allclose(values, [[-1, 0], [1, 0], [0, 0]])
    np.testing.assert_array_equal(observed, ~missing)
    assert values.dtype == np.float32


@pytest.mark.parametrize("unit", [1e-300, 1e-20, 1.0, 1e20, 1e300])
def test_any_unit_is_standardised(unit):
    X = np.random.default_rng(0).normal(3, 2, size=(100, 1)) * unit
    missing = np.zeros(X.shape, dtype=bool)
    values, _ = fitted(X, missing).encode(X, missing)
    assert values.std() == pytest.approx(1, rel=1e-3)


def test_decoding_writes_missing_cells_only_and_stays_in_range():
    X = np.array([[0.0], [10.0], [20.0], [np.nan], [np.nan]])
    missing = np.isnan(X)
    scaling = fitted(X, missing)
    out = X.copy()
    scaling.decode_into(out, missing, np.array([[9.0], [9.0], [9.0], [50.0], [-50.0]]))
    assert out.ravel().tolist() == [0.0, 10.0, 20.0, 20.0, 0.0]


def test_rounding_is_undone_on_the_grid_of_few_values():
    X = np.array([[0.1], [0.2], [0.3], [np.nan]])
    missing = np.isnan(X)
    scaling = fitted(X, missing)
    values, _ = scaling.encode(X, missing)
    values[3] = values[2] + np.float32(1e-6)
    out = X.copy()
    scaling.decode_into(out, missing, values)
    assert out[3, 0] == 0.3
    values[3] = values[2] - 0.1  # a mean between grid points is left alone
    scaling.decode_into(out, missing, values)
    assert 0.2 < out[3, 0] < 0.3


def test_values_far_beyond_the_training_range_stay_finite():
    X = np.array([[0.0], [1e-200], [2e-200]])
    none = np.zeros(X.shape, dtype=bool)
    scaling = fitted(X, none)
    values, _ = scaling.encode(np.array([[1e300], [0.0], [0.0]]), none)
    assert np.isfinite(values).all()


def test_a_value_that_recurs_is_hit_exactly_among_many_others():
    """Zeros of a zero-inflated column stay zeros."""
    rng = np.random.default_rng(0)
    X = np.where(rng.random((500, 1)) < 0.4, 0.0, rng.lognormal(size=(500, 1)))
    missing = np.zeros(X.shape, dtype=bool)
    scaling = fitted(X, missing)
    assert scaling.grids_[0].tolist() == [0.0]
    values, _ = scaling.encode(X, missing)
    out = X.copy()
    scaling.decode_into(out, ~missing, values * np.float32(1 + 1e-6))
    assert ((out == 0) == (X == 0)).all()
