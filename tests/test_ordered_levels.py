"""Categories with an order: medians and quantiles by it, means smoothed along it."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.anchor.level_scores import _smoothed
from admc_sklearn._export.dense import DenseModel
from admc_sklearn._shared.contract import Rows

from .conftest import quick

LEVELS = ["none", "some", "much", "all"]


def answers(n=240, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    code = np.digitize(z + 0.8 * rng.normal(size=n), [-0.8, 0, 1])
    table = pd.DataFrame(
        {"z": z, "answer": np.take(LEVELS, code), "w": z + rng.normal(size=n)}
    )
    table["answer"] = pd.Categorical(table["answer"], LEVELS, ordered=True)
    return table.mask(rng.random(table.shape) < 0.2)


@pytest.fixture(scope="module")
def fitted():
    table = answers()
    return table, quick().fit(table)


def test_quantiles_are_those_of_the_order(fitted):
    table, imputer = fitted
    gone = table["answer"].isna().to_numpy()
    below = imputer.predict_proba(table, "answer").cumsum(1)
    levels = (0.1, 0.5, 0.9)
    for level, found in zip(
        levels, imputer.predict_quantiles(table, levels), strict=True
    ):
        codes = found["answer"].cat.codes.to_numpy()[gone]
        expected = (below[gone] < level).sum(1)
        near = np.abs(below[gone] - level).min(1) < 1e-4  # rounding decides
        np.testing.assert_array_equal(codes[~near], expected[~near])
    imputer.set_params(strategy="median")
    median = imputer.transform(table)[gone, 1]
    imputer.set_params(strategy="mean")
    mode = imputer.transform(table)[gone, 1]
    np.testing.assert_array_equal(
        median, np.asarray(imputer.predict_quantiles(table, [0.5])[0]["answer"])[gone]
    )
    chances = imputer.predict_proba(table, "answer")[gone]
    np.testing.assert_array_equal(mode, np.take(LEVELS, chances.argmax(1)))


def test_levels_without_an_order_have_none(fitted):
    table, _ = fitted
    plain = table.assign(answer=table["answer"].cat.as_unordered())
    imputer = quick().fit(plain)
    low, high = imputer.predict_quantiles(plain, (0.05, 0.95))
    pd.testing.assert_series_equal(low["answer"], high["answer"])
    assert not imputer._codec.is_ordered_.any()
    codes = table["answer"].cat.codes
    words = [None if code < 0 else LEVELS[code] for code in codes]
    frame = pl.DataFrame({"z": table["z"].to_numpy(), "answer": words})
    frame = frame.with_columns(pl.col("answer").cast(pl.Enum(LEVELS)))
    assert quick().fit(frame)._codec.is_ordered_.tolist() == [False, True]


def test_files_and_graphs_keep_the_order(fitted, tmp_path):
    table, imputer = fitted
    imputer.save(tmp_path / "one")
    loaded = ADMCImputer.load(tmp_path / "one").set_params(strategy="median")
    expected = imputer.set_params(strategy="median").transform(table)
    imputer.set_params(strategy="mean")
    np.testing.assert_array_equal(loaded.transform(table), expected)
    cells = imputer._codec.read(table)
    rows = Rows(cells.values, cells.observed)
    graph = DenseModel(imputer.model_, 0.5).eval()
    with torch.no_grad():
        found, _ = graph(torch.tensor(rows.values), torch.tensor(rows.observed))
    expected = imputer.model_.without_rows().summarise(rows, [0.5])[0]
    same = found.numpy()[:, 1] == expected[:, 1]
    assert same.mean() > 0.99  # a probability next to a half may fall on either side


def test_means_are_smoothed_along_the_order():
    share = torch.tensor([0.4, 0.1, 0.2, 0.3], dtype=torch.float64)
    means = torch.tensor([[0.0, 1], [3, 1], [1, 1], [2, 1]], dtype=torch.float64)
    root = share.sqrt()[:, None]
    kept = _smoothed(root * means, share, 0.0) / root
    torch.testing.assert_close(kept, means)
    some = _smoothed(root * means, share, 0.1) / root
    assert torch.diff(some[:, 0]).abs().sum() < torch.diff(means[:, 0]).abs().sum()
    torch.testing.assert_close(some[:, 1], means[:, 1])
    torch.testing.assert_close(share @ some, share @ means)
    equal = _smoothed(root * means, share, 1e6) / root
    torch.testing.assert_close(
        equal[:, 0], (share @ means[:, 0]).expand(4), atol=1e-5, rtol=0
    )
