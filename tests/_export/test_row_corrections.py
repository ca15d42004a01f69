"""Corrections by training rows, as operators of fixed size."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.corrections.forests import fit_forests
from admc_sklearn._cells.corrections.pattern_regression import (
    DEFAULT,
    KernelRegression,
    OnePattern,
    PatternRegression,
    _known,
)
from admc_sklearn._export import row_corrections
from admc_sklearn._export.dense import DenseModel
from admc_sklearn._shared.contract import Rows, without
from tests.conftest import FEW_TREES, lightly

BY_ROWS = ("landmarks", "donors", "patterns")


def mixed_frame(n=320):
    """Columns of all kinds; half of the rows recur, and a quarter has one pattern."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(n // 8, 3))[rng.integers(n // 8, size=n)]
    rows[::2] = rng.normal(size=rows[::2].shape)
    a, b, c = rows.T
    made = pd.DataFrame(
        {
            "a": a,
            "twice": 2 * a + 1,
            "count": np.rint(np.exp(1 + 0.5 * c)),
            "level": np.where(a * b + 0.3 * c > 0, "x", "y"),
            "b": b,
            "product": a * b,
        }
    )
    lost = rng.random(made.shape) < 0.15
    lost[::4] = made.columns == "product"
    made = made.mask(lost)
    made.loc[0] = np.nan  # an empty row
    made["full"] = rng.normal(size=n)
    made.loc[0, "full"] = np.nan
    return made.assign(empty=np.nan)


def with_every_correction(X, **parameters):
    """Fit an imputer that has all five corrections, whatever they are worth."""
    with lightly():
        imputer = ADMCImputer(
            max_epochs=2, self_masking=True, random_state=0, **parameters
        )
        cells = replace(imputer._settings.cells, forests=None)
        imputer._settings = replace(imputer._settings, cells=cells)
        weight = np.where(np.arange(len(X)) % 3, 1.0, 2.0)
        imputer.fit(X, sample_weight=weight)
    cells, model = imputer._codec.read(X), imputer.model_
    rows = model.coordinates(Rows(cells.values, cells.observed))
    # Shallow trees: their depth is written out in a graph.
    settings = replace(FEW_TREES, min_leaf=20.0)
    generator = torch.Generator().manual_seed(0)
    model.forests = fit_forests(
        model.network, rows, model.ridges[0][0], generator, settings=settings
    )
    model.patterns = PatternRegression([one_pattern(model.network, rows)])
    assert len(model.corrections) == 5
    return imputer


def one_pattern(network, rows):
    """Regressions of the columns that the row after the first one lacks."""
    observed = rows.observed[4]
    (own,) = lost = [(~observed).nonzero()[:, 0]]
    points, targets, _ = _known(network, rows, observed, own, DEFAULT)
    weight, precision = torch.zeros(2, len(observed))
    weight[own], precision[own] = 0.8, 1.5
    regression = KernelRegression(points, targets)
    return OnePattern(observed, weight, precision, lost, [regression])


@pytest.fixture(scope="module")
def fitted():
    """A model, and rows of its table, the first of which is empty."""
    X = mixed_frame()
    with pytest.warns(UserWarning, match="empty"):
        imputer = with_every_correction(X)
    cells = imputer._codec.read(X)
    return imputer.model_, Rows(cells.values[:160], cells.observed[:160])


def completed(model, rows, statistic):
    with torch.no_grad():
        return DenseModel(model, statistic).eval()(
            torch.tensor(rows.values), torch.tensor(rows.observed)
        )


@pytest.mark.parametrize("statistic", ["mean", 0.5])
def test_each_correction_is_that_of_the_model(fitted, statistic):
    model, rows = fitted
    expected = model.summarise(rows, [statistic])[0]
    found, _ = completed(model, rows, statistic)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    for name in BY_ROWS:
        apart = without(model, **{name: None}).summarise(rows, [statistic])[0]
        assert np.abs(apart - expected).max() > 0.01, name


def test_levels_are_donated(fitted):
    model, rows = fitted
    _, posteriors = completed(model, rows, "mean")
    (level,) = [p for p in posteriors if p.kind == 1]
    share = torch.softmax(level.logits, -1)[0].numpy()
    lost = ~rows.observed[:, 3]
    expected = model.probabilities(rows, 3)
    np.testing.assert_allclose(share[lost], expected[lost], atol=1e-4)
    apart = without(model, donors=None).probabilities(rows, 3)
    assert np.abs(apart - expected)[lost].max() > 0.01


@pytest.mark.parametrize("n_differences", [1, 90])
@pytest.mark.parametrize("power", [1, 2])
def test_distances_are_summed_over_some_columns_at_a_time(
    power, n_differences, monkeypatch
):
    monkeypatch.setattr(row_corrections, "DIFFERENCES", n_differences)
    rng = torch.Generator().manual_seed(0)
    rows, points = (torch.randn(n, 7, generator=rng).double() for n in (5, 40))
    found = row_corrections.distances(rows, points.T, power)
    expected = torch.cdist(rows, points, p=float(power)) ** power
    torch.testing.assert_close(found, expected)
