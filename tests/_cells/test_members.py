"""Several networks of small tables: their average is one network."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.settings import Settings
from admc_sklearn._shared.contract import Rows
from tests.conftest import gaussian_table, hide


@pytest.fixture(scope="module")
def networks():
    """Networks of one anchor and other weights, and rows in their coordinates."""
    X, _, _ = gaussian_table(200, 4, 0)
    frame = pd.DataFrame(hide(X, 0.3, 0), columns=list("abcd"))
    frame["level"] = pd.Categorical(np.where(X[:, 0] > 0, "high", "low"))
    imputer = ADMCImputer(max_epochs=1, self_masking=False, random_state=0)
    imputer._settings = Settings(cells=CellSettings(max_networks=1))
    network = imputer.fit(frame).model_.network
    generator = torch.Generator().manual_seed(0)
    others = []
    for _ in range(3):
        other = copy.deepcopy(network)
        with torch.no_grad():
            for parameter in other.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.2 * noise.to(parameter.dtype))
        others.append(other)
    values = torch.randn(50, 5, generator=generator)
    values[:, 4] = (values[:, 4] > 0).float()
    observed = torch.rand(50, 5, generator=generator) < 0.6
    return others, Rows(values, observed)


def test_the_joined_network_says_the_mean_of_its_members(networks):
    others, rows = networks

    def by_likelihood(network):
        anchored = network.anchored(rows.values, rows.observed)
        summaries = network.summarise(rows.values, rows.observed, anchored)
        targets = ~rows.observed
        return network.by_likelihood(summaries, targets, anchored, network.prior)

    with torch.no_grad():
        parts = [by_likelihood(network) for network in others]
        joined = copy.deepcopy(others[0])
        joined.join(others[1:])
        found = by_likelihood(joined)
    assert len(joined.members) == 3
    for k, posterior in enumerate(found):
        logits = torch.stack([part[k].logits for part in parts])
        mean, filled = logits.mean(0), posterior.cells.filled
        usable = torch.isfinite(mean[filled])
        torch.testing.assert_close(
            posterior.logits[filled][usable], mean[filled][usable], atol=1e-4, rtol=1e-4
        )


def test_means_and_attention_are_those_of_the_members_on_average(networks):
    others, rows = networks
    joined = copy.deepcopy(others[0])
    joined.join(others[1:])
    anchored = others[0].anchored(rows.values, rows.observed)
    known = rows.values, rows.observed, anchored
    with torch.no_grad():
        parts = [own.means(own.summarise(*known), *known) for own in others]
        means = joined.means(joined.summarise(*known), *known)
        torch.testing.assert_close(means, torch.stack(parts).mean(0))
        attention = torch.stack([own.attention(*known[:2]) for own in others])
        found = joined.attention(*known[:2])
    torch.testing.assert_close(found, attention.mean(0))


@pytest.mark.parametrize(("n", "expected"), [(100, 4), (900, 2), (3000, 1)])
def test_fewer_networks_where_there_are_more_rows(n, expected):
    assert CellSettings().n_networks(range(n)) == expected


def test_a_small_table_has_several_and_pickles_and_goes_on():
    X, _, _ = gaussian_table(150, 4, 1)
    X = hide(X, 0.2, 1)
    imputer = ADMCImputer(
        max_epochs=3, self_masking=False, warm_start=True, random_state=0
    ).fit(X)
    n_members = len(imputer.model_.network.members)
    assert n_members > 1
    np.testing.assert_array_equal(
        copy.deepcopy(imputer).transform(X), imputer.transform(X)
    )
    again = imputer.fit(X)
    assert len(again.model_.network.members) == n_members
    assert np.isfinite(again.transform(X)).all()
