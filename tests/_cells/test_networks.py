"""Several networks of small tables, each with its anchor: one model on average."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.settings import CellSettings
from tests.conftest import gaussian_table, hide


@pytest.fixture(scope="module")
def imputer():
    """An imputer of a small table of numbers, some of them skewed, and levels."""
    X, _, _ = gaussian_table(200, 4, 0)
    frame = pd.DataFrame(hide(X, 0.3, 0), columns=list("abcd"))
    frame["d"] = np.exp(frame["d"])
    frame["level"] = pd.Categorical(np.where(X[:, 0] > 0, "high", "low"))
    frame.loc[::4, "level"] = None
    return ADMCImputer(max_epochs=3, warm_start=True, random_state=0).fit(frame), frame


def test_log_probabilities_are_those_of_the_networks_on_average(imputer):
    model, frame = imputer[0].model_, imputer[1]
    network = model.network
    assert len(network.all) == 3
    observed = torch.tensor(frame.notna().to_numpy())
    truth = torch.randn(observed.shape, generator=torch.Generator().manual_seed(0))
    truth[:, 4] = (truth[:, 4] > 0).float()
    with torch.no_grad():
        own = network.coordinates(truth)
        found = network(own, observed, ~observed)
        alone = []
        for one in network.all:
            single = copy.deepcopy(one)
            single.others = torch.nn.ModuleList()
            alone.append(single(single.coordinates(truth), observed, ~observed))
    differ = False
    for k, posterior in enumerate(found):
        parts = [torch.softmax(part[k].logits, -1) for part in alone]
        expected = torch.softmax(torch.stack(parts).log().mean(0), -1)
        filled = posterior.cells.filled
        share = torch.softmax(posterior.logits, -1)
        np.testing.assert_allclose(share[filled], expected[filled], atol=1e-4)
        differ = differ or not torch.allclose(parts[0], parts[1], atol=1e-3)
    assert differ  # they are not one network three times


@pytest.mark.parametrize(("n", "expected"), [(100, 3), (900, 2), (3000, 1)])
def test_fewer_networks_where_there_are_more_rows(n, expected):
    assert CellSettings().n_networks(n) == expected


def test_networks_are_copied_and_go_on(imputer):
    imputer, frame = copy.deepcopy(imputer)
    before = imputer.transform(frame[:20])
    pd.testing.assert_frame_equal(
        pd.DataFrame(before), pd.DataFrame(copy.deepcopy(imputer).transform(frame[:20]))
    )
    again = imputer.fit(frame)
    assert len(again.model_.network.all) == 3
    assert np.isfinite(again.transform(frame)[:, :4].astype(float)).all()


def test_draws_of_replicas_take_turns_with_the_networks():
    """Each draw has one network: their average varies less than they do."""
    X, _, _ = gaussian_table(120, 3, 1)
    X = hide(X, 0.2, 1)
    imputer = ADMCImputer(max_epochs=1, n_bootstraps=4, random_state=0).fit(X)
    model = imputer.model_
    used = [[prior is not None for prior in model._priors(k)] for k in range(5)]
    assert used == [[j == k % 4 % 3 for j in range(3)] for k in range(5)]
    assert [len(replica) for replica in model.replicas] == [1] * 4
    model.forests = None  # they carry draws from the average of all networks
    before = imputer.sample(X, 4)
    second = model.network.others[0].heads[0].bias
    second.data += torch.randn(second.shape, generator=torch.Generator().manual_seed(0))
    after = imputer.sample(X, 4)
    changed = [not np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
    assert changed == [False, True, False, False]


def test_a_time_limit_leaves_fewer():
    X, _, _ = gaussian_table(150, 4, 2)
    imputer = ADMCImputer(max_time=1e-6, random_state=0).fit(hide(X, 0.2, 2))
    assert len(imputer.model_.network.all) == 1
