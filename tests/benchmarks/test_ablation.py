"""The ablation takes away the part that it names, and scores draws as it says."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import _ablation_cells as ablation
from benchmarks.draws import energy_score


def lengths(n):
    """Vectors, their lengths and a category, 20 % hidden: they need every part."""
    rng = np.random.default_rng(0)
    v = rng.normal(size=(n, 3))
    frame = pd.DataFrame(np.column_stack([v, np.linalg.norm(v, axis=1)]))
    frame = frame.add_prefix("x")
    frame["side"] = pd.Categorical(np.where(v[:, 0] > 0, "right", "left"))
    return frame.mask(rng.random(frame.shape) < 0.2)


def parts_of(name):
    """Which parts a variant's model has, after a few epochs."""
    imputer = ablation.imputer_of(name, 0)
    epochs = min(6, imputer.max_epochs)
    model = imputer.set_params(max_epochs=epochs).fit(lengths(600)).model_
    network, coordinates = model.network, model.network.anchor.coordinates
    return {
        "power transforms": not network.warp.is_identity,
        "median distances": coordinates.distances is not None,
        "attention": len(network.denoiser.attention) > 0,
        "positions in atoms": any(
            bool(head.inner_weight.any())
            for head in network.heads
            if hasattr(head, "inner_weight")
        ),
        "the mean head": network.mean_head is not None,
        "forests": model.forests is not None,
    }


@pytest.fixture(scope="module")
def whole():
    return parts_of("as it is")


PARTS = "median distances", "attention", "positions in atoms", "the mean head"


@pytest.mark.parametrize("part", [*PARTS, "forests"])
def test_a_variant_lacks_its_part_alone(part, whole):
    assert whole[part]
    without = parts_of(f"without {part}")
    assert not without[part]
    others = [name for name in whole if name not in (part, "forests")]
    if part != "median distances":  # power transforms are chosen beside them
        assert [without[name] for name in others] == [whole[name] for name in others]


def test_the_anchor_alone_has_neither_training_nor_corrections():
    found = parts_of("anchor alone")
    assert not found["positions in atoms"]
    assert not found["forests"]


def test_energy_scores_of_draws_that_are_right_are_the_lowest():
    rng = np.random.default_rng(0)
    truth, draws = rng.normal(size=(400, 3)), rng.normal(size=(30, 400, 3))
    lost = np.ones((400, 3), dtype=bool)
    lost[::2, 0] = False
    right = energy_score(draws, truth, lost)
    assert right < energy_score(draws + 0.5, truth, lost)
    assert right < energy_score(0.3 * draws, truth, lost)
    # Half of the distance between two independent draws, which the truth is one of.
    pairs = [np.linalg.norm((truth - d)[r, lost[r]]) for d in draws for r in range(400)]
    assert right == pytest.approx(np.mean(pairs) / 2, abs=0.05)
