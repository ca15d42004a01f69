"""Noise that belongs to a row."""

import numpy as np
from scipy import stats

from admc_sklearn._runtime import row_keys, row_uniforms


def test_uniforms_are_uniform_and_independent():
    keys = row_keys(np.arange(20_000.0)[:, None], np.ones((20_000, 1), bool), 0)
    u = row_uniforms(keys, 4, 0)
    assert ((u > 0) & (u < 1)).all()
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    other = row_uniforms(keys, 4, 1)
    correlation = np.corrcoef(np.hstack([u, other]).T) - np.eye(8)
    assert np.abs(correlation).max() < 0.03
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03


def test_keys_follow_the_row_not_its_place():
    rng = np.random.default_rng(0)
    X, observed = rng.normal(size=(50, 3)), rng.random((50, 3)) < 0.8
    observed[:, 0] = True
    order = rng.permutation(50)
    keys = row_keys(X, observed, 3)
    np.testing.assert_array_equal(row_keys(X[order], observed[order], 3), keys[order])
    np.testing.assert_array_equal(row_keys(X[7:8], observed[7:8], 3), keys[7:8])
    other = np.where(observed, X, 99.0)  # what stands at missing cells is no matter
    np.testing.assert_array_equal(row_keys(other, observed, 3), keys)
    assert len(set(keys) | set(row_keys(X, observed, 4))) == 100


def test_equal_rows_have_keys_of_their_own():
    assert len(set(row_keys(np.ones((100, 2)), np.ones((100, 2), bool), 0))) == 100
