"""The model as operators of fixed size completes as the model itself does."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import ndtr, ndtri

from admc_sklearn import ADMCImputer
from admc_sklearn._export import summaries
from admc_sklearn._export.dense import DenseModel, inverted
from admc_sklearn._export.dense_combined import DenseCombined
from admc_sklearn._shared.contract import Rows
from tests.conftest import (
    BLOCKS_ALONE,
    FEW_TREES,
    gaussian_table,
    hide,
    lightly,
    quick,
    rings,
)


def mixed(n):
    rng = np.random.default_rng(n)
    a = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "a": a,
            "skewed": np.exp(a + 0.3 * rng.normal(size=n)),
            "count": rng.poisson(3, n),
            "level": np.where(a + 0.5 * rng.normal(size=n) > 0, "x", "y"),
            "word": rng.choice(list("abcd"), n),
            "bent": a**2 + 0.2 * rng.normal(size=n),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.25)


def curved(n):
    X = np.column_stack([rings(n, 1), np.exp(rings(n, 2)[:, :2])])
    return hide(X, 0.25, 3)


TABLES = {
    "curved": lambda: curved(150),
    "mixed": lambda: mixed(120),
    "wide": lambda: hide(gaussian_table(80, 70, 1)[0], 0.2, 2),
    "one column": lambda: hide(np.random.default_rng(0).normal(size=(60, 1)), 0.2, 1),
    "never missing": lambda: np.column_stack(
        [np.random.default_rng(1).normal(size=80), hide(rings(80, 1), 0.3, 1)]
    ),
}


def check(imputer, X, n=60):
    cells = imputer._codec.read(X)
    rows = Rows(cells.values[:n].copy(), cells.observed[:n].copy())
    rows.observed[0], rows.observed[1] = False, True
    model = imputer.model_
    for statistic in ("mean", 0.5):
        expected = model.summarise(rows, [statistic])[0]
        graph = DenseModel(imputer.model_, statistic).eval()
        with torch.no_grad():
            found, posteriors = graph(
                torch.tensor(rows.values), torch.tensor(rows.observed)
            )
        # Of standardised numbers, and of codes.
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    return posteriors


@pytest.mark.parametrize("name", TABLES)
def test_completions_are_those_of_the_model(name):
    X = TABLES[name]()
    with lightly():
        imputer = ADMCImputer(max_epochs=2, random_state=0).fit(X)
    check(imputer, X)


def test_several_networks_and_forests():
    X = curved(150)
    imputer = ADMCImputer(max_epochs=2, random_state=0)
    cells = replace(imputer._settings.cells, forests=FEW_TREES)
    imputer._settings = replace(imputer._settings, cells=cells)
    imputer.fit(X)
    assert len(imputer.model_.network.others) > 0
    assert imputer.model_.forests is not None
    check(imputer, X)


def curved_blocks(n):
    """Two blocks that depend on each other in a curved way, a number and a level."""
    rng = np.random.default_rng(3)
    hidden = rng.uniform(-2, 2, size=(n, 2))
    first = hidden @ rng.normal(size=(2, 6))
    second = np.sin(2 * hidden) @ rng.normal(size=(2, 6))
    X = pd.DataFrame(np.hstack([first, second])).add_prefix("v")
    X += 0.005 * rng.normal(size=X.shape)  # two latents each
    X["number"] = hidden[:, 0] + 0.3 * rng.normal(size=n)
    X["level"] = np.where(X["v0"] > 0, "x", "y")
    X.loc[rng.random(n) < 0.3, [f"v{k}" for k in range(6)]] = np.nan
    X.loc[rng.random(n) < 0.3, [f"v{k}" for k in range(6, 12)]] = np.nan
    X.loc[::7, "number"], X.loc[::5, "level"] = np.nan, None
    return X


def trained_far(blocks):
    """Make a model's denoiser change completions, whatever it has learnt."""
    generator = torch.Generator().manual_seed(0)
    for head in blocks.denoiser.heads:
        head.weight.data.normal_(std=0.1, generator=generator)
    blocks.gate.fill_(1.0)


def test_blocks_beside_cells():
    """With the kernels and the denoiser, and as they are without training rows."""
    X = curved_blocks(200)
    names = list(X)
    for columns in (names, names[:12]):
        modalities = {"first": names[:6], "second": names[6:12]}
        imputer = ADMCImputer(modalities=modalities, max_epochs=2, random_state=0)
        imputer._settings = BLOCKS_ALONE
        imputer.fit(X[columns])
        cells = imputer._codec.read(X[columns])
        rows = Rows(cells.values[:60].copy(), cells.observed[:60].copy())
        rows.observed[0] = False
        # Rows of all kinds with a part of a block.
        rows.observed[20:40, 1:4] = rows.observed[30:50, 7:11] = False
        model = imputer.model_
        trained_far(model.blocks)
        for part, statistic in itertools.product(
            (model, model.without_rows()), ("mean", 0.5)
        ):
            expected = part.summarise(rows, [statistic])[0]
            graph = DenseCombined(part, statistic).eval()
            with torch.no_grad():
                found, _ = graph(torch.tensor(rows.values), torch.tensor(rows.observed))
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
        whole = model.summarise(rows, ["mean"])[0]
        assert np.abs(whole - expected).max() > 0.05
        model.blocks.gate.fill_(0.0)
        assert np.abs(whole - model.summarise(rows, ["mean"])[0]).max() > 1e-3


def test_self_masking_and_the_anchor_alone():
    X = mixed(100)
    check(quick(self_masking=True).fit(X), X)
    check(ADMCImputer(max_epochs=0, random_state=0).fit(X), X)


def test_probabilities_of_levels():
    X = mixed(100)
    imputer = quick().fit(X)
    posteriors = check(imputer, X)
    (level,) = [p for p in posteriors if p.kind == 1]
    share = torch.softmax(level.logits, -1)[1, :60].numpy()
    X.loc[: X.index[0], :] = np.nan  # as `check` has it
    expected = imputer.predict_proba(X[:60], "word")
    missing = X["word"][:60].isna().to_numpy()
    np.testing.assert_allclose(share[missing], expected[missing], atol=1e-4)


def test_normal_tails_and_quantiles():
    x = torch.linspace(-8, 8, 2001, dtype=torch.float64)
    np.testing.assert_allclose(summaries._ndtr(x).numpy(), ndtr(x.numpy()), rtol=3e-7)
    p = torch.linspace(1e-6, 1 - 1e-6, 2001, dtype=torch.float64)
    np.testing.assert_allclose(summaries._ndtri(p).numpy(), ndtri(p.numpy()), atol=2e-6)


def test_inverses_in_place():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 7, 7))
    matrices = torch.tensor(root @ root.transpose(0, 2, 1) + np.eye(7))
    np.testing.assert_allclose(
        inverted(matrices, 7).numpy(),
        torch.linalg.inv(matrices).numpy(),
        rtol=1e-9,
        atol=1e-12,
    )
