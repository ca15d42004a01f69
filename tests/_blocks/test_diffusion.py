"""Absorbing and revealing cells."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from admc_sklearn._cells.network.masked_diffusion import absorb, reveal_rounds


def test_absorb_hides_the_rate_and_only_observed_cells():
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(4000, 10, generator=generator) < 0.7
    noise = torch.rand(4000, 10, generator=generator)
    rates = torch.full((4000, 1), 0.2)
    kept, absorbed = absorb(observed, rates, noise)
    assert torch.equal(kept | absorbed, observed)
    assert not (kept & absorbed).any()
    share = absorbed.sum() / observed.sum()
    assert share.item() == pytest.approx(0.2, abs=0.01)


@given(
    st.integers(1, 12), st.integers(1, 15), st.integers(0, 2**31 - 1), st.floats(0, 1)
)
def test_rounds_partition_the_missing_cells(d, n_steps, seed, rate):
    rng = np.random.default_rng(seed)
    missing = torch.tensor(rng.random((6, d)) < rate)
    noise = torch.tensor(rng.random((6, d)))
    rounds = reveal_rounds(missing, noise, n_steps)
    assert ((rounds >= 0) == missing).all()
    assert rounds.max() < n_steps
    for row, is_missing in zip(rounds, missing, strict=True):
        n_missing = int(is_missing.sum())
        sizes = torch.bincount(row[is_missing], minlength=1)
        # Nearly equal rounds, none empty: as many cells as rounds is the chain rule.
        assert len(sizes[sizes > 0]) == min(n_missing, n_steps)
        if n_missing:
            assert sizes.max() - sizes.min() <= 1


def test_rounds_follow_the_noise():
    missing = torch.tensor([[True, False, True, True]])
    noise = torch.tensor([[0.9, 0.0, 0.1, 0.5]])
    assert reveal_rounds(missing, noise, 3).tolist() == [[2, -1, 0, 1]]
    assert reveal_rounds(missing, noise, 1).tolist() == [[0, -1, 0, 0]]
