"""Categorical columns of thousands of levels."""

import time

import numpy as np
import pandas as pd
import pytest
import torch

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.anchor import level_scores as _scores
from admc_sklearn._table.column_kinds import MAX_LEVELS, CategoryColumn


def postcodes(n, n_levels, seed=0):
    """Rows whose x tells the first digit of a level; some levels are frequent."""
    rng = np.random.default_rng(seed)
    place = (n_levels * rng.random(n) ** 2).astype(int)
    table = pd.DataFrame(
        {"c": place.astype(str), "x": place % 10 + rng.normal(size=n) / 5}
    )
    table["c"] = table["c"].astype(object)
    holes = table.copy()
    holes.loc[: n // 20, "c"] = None
    return holes


def quick(**options):
    return ADMCImputer(**{"max_epochs": 0, "random_state": 0, **options})


def test_a_warning_names_the_column_whose_rare_levels_share_what_is_learnt():
    with pytest.warns(UserWarning, match="'c' has .* rarest share"):
        quick().fit(postcodes(3000, 2 * MAX_LEVELS))


@pytest.mark.filterwarnings("ignore:Column 'c'")
def test_rare_levels_come_back_and_are_drawn_and_have_probabilities():
    table = postcodes(4000, 2 * MAX_LEVELS)
    imputer = quick().set_output(transform="pandas").fit(table)
    completed = imputer.transform(table)
    known = table["c"].notna()
    assert completed["c"].notna().all()
    assert (completed["c"] == table["c"])[known].all()
    counts = table["c"].value_counts()
    assert len(imputer.categories_[0]) == len(counts)
    rare = set(counts.index[MAX_LEVELS:])
    proba = imputer.predict_proba(table, "c")
    assert proba.shape == (len(table), len(counts))
    np.testing.assert_allclose(proba.sum(1), 1.0, rtol=1e-5)
    column = {level: k for k, level in enumerate(imputer.categories_[0])}
    own = [column[level] for level in table["c"][known]]
    assert (proba[known.to_numpy()][np.arange(len(own)), own] == 1).all()
    # The mode, and the shares of draws, are those of the probabilities.
    missing = ~known.to_numpy()
    best = [column[level] for level in completed["c"][missing]]
    at_best = proba[missing][np.arange(len(best)), best]
    assert (at_best > 0.5 * proba[missing].max(1)).all()
    is_rare = np.array([level in rare for level in imputer.categories_[0]])
    expected = proba[missing][:, is_rare].sum(1).mean()
    draws = imputer.sample(table, n_draws=20)
    drawn = np.concatenate([draw["c"].to_numpy()[missing] for draw in draws])
    found = np.isin(drawn, list(rare)).mean()
    error = np.sqrt(expected * (1 - expected) / len(drawn))
    assert abs(found - expected) < 5 * error
    assert len(set(drawn) & rare) > 50


def test_numbers_of_rare_levels_are_draws_in_proportion_to_their_frequency():
    n_rare = 300
    counts = np.concatenate([np.full(MAX_LEVELS, 9), 1 + np.arange(n_rare) % 4])
    names = [f"{k:05d}" for k in range(len(counts))]
    values = np.repeat(np.array(names, dtype=object), counts)
    with pytest.warns(UserWarning, match="rarest"):
        column = CategoryColumn(values, None, False, "c")
    assert (column.write(column.read(values)) == values).all()
    u = (np.arange(400_000) + 0.5) / 400_000
    drawn = pd.Series(column.write(u)).value_counts(normalize=True)
    share = counts[MAX_LEVELS:] / counts[MAX_LEVELS:].sum()
    np.testing.assert_allclose(drawn[names[MAX_LEVELS:]], share, atol=1e-5)
    assert column.write(np.zeros(1))[0] in names[MAX_LEVELS:]


def test_directions_of_many_levels_are_those_of_few(monkeypatch):
    rng = np.random.default_rng(0)
    n, k = 3000, 60
    codes = rng.integers(0, k, n)
    told = rng.normal(size=(k, 3))[codes] + rng.normal(size=(n, 3))
    values = torch.tensor(np.column_stack([told, codes]))
    observed = torch.as_tensor(rng.random(values.shape) > 0.2)
    n_levels = np.array([0, 0, 0, k])

    def strongest():
        scores = _scores.score_levels(values, observed, n_levels, np.arange(n))
        return scores.table[0][:, :3], scores.share[0]

    table, share = strongest()
    monkeypatch.setattr(_scores, "MANY_LEVELS", 10)
    other, _ = strongest()
    unit = (
        share + _scores.ScoreSettings().shrinkage / int(observed[:, 3].sum())
    ).sqrt()[:, None]
    spans = [(t * unit) @ (t * unit).T for t in (table, other)]
    torch.testing.assert_close(*spans, rtol=1e-8, atol=1e-8)


@pytest.mark.filterwarnings("ignore:Column 'c'")
def test_the_cost_of_levels_is_not_their_cube():
    def seconds(n_levels):
        rng = np.random.default_rng(0)
        table = pd.DataFrame({"x": rng.normal(size=12_000)})
        table["c"] = rng.integers(0, n_levels, len(table)).astype(str)
        table.loc[:100, "c"] = None
        start = time.process_time()
        quick(max_time=2).fit(table)
        return time.process_time() - start

    seconds(10)
    assert seconds(6000) < 4 * seconds(750) + 2


@pytest.mark.filterwarnings("ignore:Column 'c'")
def test_a_hundred_thousand_levels_fit():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=150_000)})
    table["c"] = rng.integers(0, 100_000, len(table)).astype(str)
    table.loc[:500, "c"] = None
    completed = quick(max_time=2).set_output(transform="pandas").fit(table)
    assert completed.transform(table[:1000])["c"].notna().all()
