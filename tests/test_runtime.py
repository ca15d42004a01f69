"""Noise that belongs to a row."""

import numpy as np
import torch
from scipy import stats

from admc_sklearn._runtime import row_keys, row_uniforms, slices


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


def test_batches_cover_all_items_and_are_larger_on_a_gpu():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for n, cost, limit in [(0, 3, None), (10, 3, None), (10, 1000, None), (90, 1, 7)]:
        for device in (cpu, gpu):
            parts = slices(n, cost, 12, device, limit)
            items = [i for part in parts for i in range(n)[part]]
            assert items == list(range(n))
            assert [part.stop for part in parts[:-1]] == [p.start for p in parts[1:]]
    sizes = {d: slices(10**6, 10, 1000, d)[0].stop for d in (cpu, gpu)}
    assert sizes == {cpu: 100, gpu: 1600}
    assert slices(10**6, 10, 1000, gpu, limit=5)[0].stop == 80
