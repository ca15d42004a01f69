"""The mean head counts as far as it saves squared error in held-out rows."""

import numpy as np
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.network.held_out_cells import Validation
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.settings import Settings
from tests.conftest import hide

ALONE = CellSettings(landmarks=None, donors=None, forests=None, patterns=None)


def waves(n, seed):
    """Two columns that are curved functions of two others, and one of levels."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3, 3, (n, 5))
    X[:, 2] = np.sin(X[:, 0]) + 0.1 * X[:, 2]
    X[:, 3] = X[:, 0] * X[:, 1] + 0.3 * X[:, 3]
    X[:, 4] = X[:, 0] > 0
    return X


def fitted(X, cells=ALONE, **options):
    imputer = ADMCImputer(random_state=0, self_masking=False, **options)
    imputer.set_params(categorical_features=[4])
    imputer._settings = Settings(cells=cells)
    return imputer.fit(X)


@pytest.fixture(scope="module")
def wavy():
    return fitted(hide(waves(1500, 0), 0.2, 0), max_epochs=12)


def held_out(imputer, seed):
    """Hidden cells of rows that the network has not seen."""
    X = waves(400, seed)
    cells = imputer._codec.read(X)
    x, o = torch.tensor(cells.values), torch.tensor(cells.observed)
    generator = torch.Generator().manual_seed(seed)
    network = imputer.model_.network
    return Validation(network, x, o, generator, torch.arange(x.shape[1]))


def test_before_training_it_is_the_anchor_and_does_not_count():
    imputer = fitted(waves(300, 0), max_epochs=0)
    network, cells = imputer.model_.network, held_out(imputer, 3)
    assert not network.mean_head.weight.any()
    rows = cells.values, cells.kept
    anchored = network.anchored(*rows)
    with torch.no_grad():
        summaries = network.summarise(*rows, anchored)
        means = network.means(summaries, *rows, anchored)[:, :4]
    inside = anchored.mean.float().clamp(network.low, network.high)
    own = network.warp.inverse(torch.where(cells.kept, cells.values, inside))[:, :4]
    torch.testing.assert_close(means, own)


def test_it_moves_means_of_numbers_and_lowers_their_error(wavy):
    weight = wavy.model_.network.mean_head.weight
    assert weight[:4].max() > 0.2
    assert weight[4] == 0  # levels have no mean
    X = waves(1000, 1)
    incomplete = hide(X, 0.2, 1)
    hidden = np.isnan(incomplete)[:, :4]

    def error():
        return np.square(wavy.transform(incomplete) - X)[:, :4][hidden].mean()

    whole = error()
    wavy.model_.network.mean_head.weight = torch.zeros(5)
    plain = error()
    wavy.model_.network.mean_head.weight = weight
    assert whole < 0.99 * plain


def test_half_the_weight_moves_means_half_as_far(wavy):
    network = wavy.model_.network
    incomplete = hide(waves(300, 4), 0.2, 4)
    weight, found = network.mean_head.weight, []
    for share in (0.0, 0.1, 0.2):
        network.mean_head.weight = share * weight
        found.append(wavy.transform(incomplete)[:, :4])
    network.mean_head.weight = weight
    none, half, whole = found
    moved = np.abs(whole - none) > 0.01
    assert moved.sum() > 30
    np.testing.assert_allclose(
        (half - none)[moved], (whole - none)[moved] / 2, atol=0.01
    )


def test_means_that_save_nothing_do_not_count(wavy):
    cells = held_out(wavy, 2)
    head = wavy.model_.network.mean_head
    weight, bias = head.weight, head.last.bias.detach().clone()
    cells.weigh_means()
    assert head.weight.max() > 0.2
    with torch.no_grad():
        head.last.bias += 100.0
        cells.weigh_means()
        assert not head.weight.any()
        head.last.bias.copy_(bias)
    head.weight = weight


def test_one_far_cell_leaves_the_head_as_it_is_elsewhere():
    """Its squared error would else be all that a step sees."""
    X = waves(600, 0)
    X[0, 2] = 1e6
    imputer = fitted(hide(X, 0.2, 0), max_epochs=3)
    completed = imputer.transform(hide(waves(200, 1), 0.2, 1))
    assert np.isfinite(completed).all()
    assert np.abs(completed[:, [0, 1, 3]]).max() < 20


def test_there_is_none_without_numbers_or_where_it_is_not_wanted():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3, (200, 5)).astype(float)
    imputer = ADMCImputer(
        categorical_features=list(range(5)), max_epochs=1, random_state=0
    ).fit(hide(X, 0.1, 0))
    assert imputer.model_.network.mean_head is None
    without = fitted(waves(200, 0), CellSettings(mean_head=False), max_epochs=1)
    assert without.model_.network.mean_head is None
    assert np.isfinite(without.transform(hide(waves(50, 1), 0.2, 1))).all()
