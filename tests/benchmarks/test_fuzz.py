"""Laws of imputing over random tables of all kinds; `benchmarks.fuzz` tries many more.

The tables are made by `benchmarks._tables`, from choices that hypothesis makes and
simplifies; the laws are those of `benchmarks._laws`.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from benchmarks._laws import BrokenLaw, Laws, _equal, check_laws
from benchmarks._tables import (
    CONTAINERS,
    FLOATS,
    KINDS,
    PATTERNS,
    RATES,
    STRATEGIES,
    Options,
    Recipe,
    make_table,
    random_recipe,
)
from tests.conftest import quick

recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**31 - 1),
    n_rows=st.integers(1, 6) | st.integers(1, 40) | st.integers(1, 400),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=14).map(tuple),
    rate=st.sampled_from(RATES),
    pattern=st.sampled_from(PATTERNS),
    container=st.sampled_from(CONTAINERS),
    n_distinct=st.sampled_from([0, 0, 0, 1, 4]),
)
choices = st.builds(
    Options,
    max_epochs=st.sampled_from([0, 0, 1]),
    strategy=st.sampled_from(STRATEGIES),
    n_bootstraps=st.sampled_from([0, 2]),
    self_masking=st.sampled_from(["auto", True, False]),
    has_modalities=st.booleans(),
    keep_empty_features=st.booleans(),
)
# Derandomised, so that a suite that was green stays so until the code changes.
profile = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@profile
@given(recipes, choices)
def test_any_table_can_be_completed(recipe, options):
    check_laws(recipe, options)


def test_a_recipe_makes_one_table():
    for seed in range(40):
        recipe, _ = random_recipe(seed)
        first, second = make_table(recipe), make_table(recipe)
        for one, other in zip(first, second, strict=True):
            assert _equal(one, other)
        assert len(first[0]) == recipe.n_rows
        assert random_recipe(seed) == random_recipe(seed)


def test_tables_of_all_kinds_patterns_and_rates_are_made():
    made = [random_recipe(seed) for seed in range(600)]
    assert {kind for recipe, _ in made for kind in recipe.kinds} == set(KINDS)
    assert {recipe.pattern for recipe, _ in made} == set(PATTERNS)
    assert {recipe.container for recipe, _ in made} == set(CONTAINERS)
    n_rows = [recipe.n_rows for recipe, _ in made]
    assert min(n_rows) == 1
    assert max(n_rows) > 300
    rates = []
    for recipe, _ in made[:100]:
        table, _ = make_table(recipe)
        table = table.to_pandas() if recipe.container == "polars" else table
        rates.append(np.mean(pd.isna(table)))
    assert min(rates) < 0.03
    assert max(rates) > 0.95


def edited(completed, row, column, value):
    completed = completed.copy()
    completed[row, column] = value
    return completed


def test_laws_see_what_is_wrong():
    recipe = Recipe(seed=0, n_rows=30, kinds=FLOATS[:3], container="float64")
    table, _ = make_table(recipe)
    imputer = quick(max_epochs=0).fit(table)
    laws, completed = Laws(table, imputer), imputer.transform(table)
    laws.check("transform", table, completed)
    filled = tuple(np.argwhere(np.isnan(table))[0])
    seen = tuple(np.argwhere(~np.isnan(table))[0])
    for cell, value, law in [
        (filled, np.nan, "missing"),
        (filled, np.inf, "not in"),
        (seen, 1e6, "changed"),
    ]:
        with pytest.raises(BrokenLaw, match=law):
            laws.check("transform", table, edited(completed, *cell, value))
    laws.check_order([completed, completed])
    with pytest.raises(BrokenLaw, match="fall"):
        laws.check_order([completed, edited(completed, *filled, -1e6)])
    with pytest.raises(BrokenLaw, match="columns"):
        laws.check("transform", table, completed[:, :2])


def test_the_command_names_a_failing_table_and_goes_on(monkeypatch, capsys):
    def check(recipe, options):
        if recipe.seed == 11:
            raise BrokenLaw("as arranged")

    monkeypatch.setattr(fuzz, "check_laws", check)
    assert fuzz.main(["--seed", "10", "--tables", "3"]) == 1
    shown = capsys.readouterr().out
    assert "--only 11" in shown
    assert "BrokenLaw: as arranged" in shown
    assert "3 tables from 10 on, 1 failures" in shown
    assert fuzz.main(["--only", "12"]) == 0
    assert "12: every law holds" in capsys.readouterr().out
    with pytest.raises(BrokenLaw):
        fuzz.main(["--only", "11"])
