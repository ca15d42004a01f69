"""Sums, groups and orders that completed tables fulfil."""

from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from admc_sklearn import ADMCImputer
from admc_sklearn._table.codec import TableCodec
from admc_sklearn._table.constraints import Constraints
from tests.conftest import quick

PARTS, COUNTS = ["work", "sleep", "rest"], ["women", "men"]
TOWNS, WORDS = ["ulm", "bern", "graz"], ["car", "bus", "foot"]
CONSTRAINTS = [
    {"sum": PARTS, "to": 100},
    {"sum": COUNTS, "to": "people"},
    {"one_of": TOWNS},
    {"one_of": WORDS, "level": "yes"},
    {"order": ["came", "moved", "left"]},
]


def diary(n, seed):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(100 * rng.dirichlet([1, 2, 4], n), columns=PARTS)
    table["women"], table["men"] = rng.poisson(3, n), rng.poisson(5, n)
    table["people"] = table["women"] + table["men"]
    town, way = rng.integers(0, 3, (2, n))
    for k, (name, word) in enumerate(zip(TOWNS, WORDS, strict=True)):
        table[name] = town == k
        table[word] = np.where(way == k, "yes", "no")
    table["came"] = np.datetime64("2020-01-06") + 7 * rng.integers(0, 100, n)
    hours = rng.integers(0, 2000, (2, n)).cumsum(0).astype("m8[h]")
    table["moved"], table["left"] = (table["came"].to_numpy() + hours).astype("M8[us]")
    return table


def lose(table, rate, seed):
    kinds = dict.fromkeys([*COUNTS, "people"], "Int64") | dict.fromkeys(
        TOWNS, "boolean"
    )
    hidden = np.random.default_rng(seed).random(table.shape) < rate
    return table.astype(kinds).mask(hidden)


def assert_fulfilled(found, lost):
    assert found.where(lost.notna()).equals(lost)
    assert not found.isna().any(axis=None)
    np.testing.assert_allclose(found[PARTS].sum(axis=1), 100, rtol=1e-12)
    assert (found[COUNTS].sum(axis=1) == found["people"]).all()
    assert (found[TOWNS].sum(axis=1) == 1).all()
    assert ((found[WORDS] == "yes").sum(axis=1) == 1).all()
    assert (found["came"] <= found["moved"]).all()
    assert (found["moved"] <= found["left"]).all()


@pytest.fixture(scope="module")
def imputer():
    fitted = quick(constraints=CONSTRAINTS).fit(lose(diary(150, 0), 0.3, 0))
    return fitted.set_output(transform="pandas")


def test_means_medians_and_draws_fulfil_them(imputer):
    for rows in (lose(diary(150, 0), 0.3, 0), lose(diary(80, 1), 0.5, 1)):
        for strategy in ("mean", "median", "sample"):
            found = imputer.set_params(strategy=strategy).transform(rows)
            assert_fulfilled(found, rows)
        for draw in imputer.sample(rows, 2):
            assert_fulfilled(draw, rows)
    imputer.set_params(strategy="mean")


def test_quantiles_hold_what_observed_cells_determine(imputer):
    truth = diary(60, 2)
    rows = lose(truth, 0.0, 0)
    rows.loc[:20, "sleep"] = np.nan
    rows.loc[21:40, ["ulm", "bern", "graz"]] = pd.NA
    rows.loc[41:, "moved"] = pd.NaT
    for found in imputer.predict_quantiles(rows, [0.1, 0.9]):
        assert_fulfilled(found, rows)


def test_a_file_and_a_clone_hold_them_and_a_graph_refuses(imputer, tmp_path):
    assert clone(imputer).constraints == CONSTRAINTS
    imputer.save(tmp_path / "model")
    again = ADMCImputer.load(tmp_path / "model")
    assert again.constraints == CONSTRAINTS
    rows = lose(diary(20, 3), 0.5, 3)
    pd.testing.assert_frame_equal(again.transform(rows), imputer.transform(rows))
    with pytest.raises(ValueError, match="constraints: a graph"):
        imputer.export_onnx(tmp_path / "model.onnx")


def test_draws_of_a_group_have_the_shares_of_its_probabilities():
    rng = np.random.default_rng(0)
    town = rng.choice(3, 400, p=[0.6, 0.3, 0.1])
    X = (town[:, None] == np.arange(3)).astype(float)
    X[:150] = np.nan
    fitted = quick(constraints=[{"one_of": [0, 1, 2]}]).fit(X)
    means = fitted.transform(X)
    np.testing.assert_allclose(means.sum(axis=1), 1, rtol=1e-12)
    draws = fitted.sample(X, 20)[:, :150]
    assert set(np.unique(draws)) == {0, 1}
    assert (draws.sum(axis=2) == 1).all()
    # Draws of 150 rows; their shares have a standard error of 0.01.
    np.testing.assert_allclose(draws.mean(axis=(0, 1)), means[:150].mean(0), atol=0.05)
    assert len(np.unique(draws[:, 0], axis=0)) > 1  # draws of a row differ
    medians = fitted.set_params(strategy="median").transform(X)
    assert (np.sort(medians, axis=1) == [0, 0, 1]).all()


def test_arrays_polars_and_totals_by_index():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 2, (2, 80)).astype(np.float32)
    X = np.column_stack([a, b, a + b])
    lost = np.where(rng.random(X.shape) < 0.3, np.float32(np.nan), X)
    fitted = quick(constraints=[{"sum": [0, 1], "to": [2]}]).fit(lost)
    found = fitted.transform(lost)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0] + found[:, 1], found[:, 2], rtol=1e-6)
    frame = pl.DataFrame(lost, schema=["a", "b", "all"], nan_to_null=True)
    rules = [{"sum": ["a", "b"], "to": "all"}]
    found = quick(constraints=rules).set_output(transform="polars").fit_transform(frame)
    np.testing.assert_allclose(found["a"] + found["b"], found["all"], rtol=1e-6)


def completed(table, constraints, values, keep_whole=False, **how):
    """A table that is completed by given standardised values, without a model."""
    names = [str(name) for name in table]
    codec = TableCodec(np.nan)
    cells = codec.fit(table, names, np.zeros(len(names), dtype=bool))
    rules = Constraints(constraints, names, codec)
    rules.learn(cells)
    numbers = codec.complete(cells, values.astype(np.float32), keep_whole)
    numbers = numbers.astype(np.float64)
    before = numbers.copy()
    how = {"joint": True, "fractions": False, **how}
    chance = np.random.default_rng(0).random(numbers.shape)
    rules.apply(numbers, cells, keep_whole, lambda rows: chance[rows], **how)
    np.testing.assert_array_equal(numbers[~cells.missing], before[~cells.missing])
    assert np.isfinite(numbers).all()
    out = codec.to_frame(
        table, cells, numbers, range(len(names)), None, names, "pandas"
    )
    return out, before


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.4, 0.8, 1.0]))
def test_all_constraints_hold_whatever_is_completed(seed, rate):
    lost = lose(diary(12, seed), rate, seed)
    known = lose(diary(12, seed + 1), 0.0, 0)  # rows without gaps, to learn from
    table = pd.concat([lost, known], ignore_index=True)
    values = np.random.default_rng(seed).normal(scale=2, size=table.shape)
    found, _ = completed(table, CONSTRAINTS, values, keep_whole="from_frame")
    assert_fulfilled(found, table)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["whole", "decimal", "float"]))
@example(9936, "decimal")  # all totals that are known have fewer digits than the parts
def test_totals_of_totals_hold_in_any_order(seed, kind):
    rng = np.random.default_rng(seed)
    parts = rng.integers(0, 40, (24, 4))
    table = pd.DataFrame(parts, columns=list("abcd"))
    table["ab"], table["cd"] = table["a"] + table["b"], table["c"] + table["d"]
    table["all"] = table["ab"] + table["cd"]
    lost = table.astype("Int64") if kind == "whole" else table / 4
    if kind == "decimal":
        lost = lost.astype(object).map(lambda x: Decimal(str(x)))
    lost = lost.mask(rng.random(table.shape) < 0.5)
    lost.iloc[:6] = lost.iloc[:6].mask(rng.random((6, 7)) < 0.9)
    rules = [
        {"sum": ["a", "b"], "to": "ab"},
        {"sum": ["c", "d"], "to": "cd"},
        {"sum": ["ab", "cd"], "to": "all"},
    ]
    rules = [rules[k] for k in rng.permutation(3)]
    if lost.isna().all().any():
        return
    found, _ = completed(lost, rules, rng.normal(size=lost.shape))
    found = found.astype(float)
    for total, own in (("ab", ["a", "b"]), ("cd", ["c", "d"]), ("all", ["ab", "cd"])):
        np.testing.assert_allclose(found[own].sum(axis=1), found[total], atol=1e-9)


def test_parts_move_by_their_variances_within_their_ranges():
    known = pd.DataFrame({"a": [0.0, 10, 5, 5], "b": [10.0, 0, 5, 5]})
    known["c"] = 100 - known["a"] - known["b"]
    table = pd.concat([known, known.iloc[:3] * np.nan], ignore_index=True)
    table["c"] = [90.0, 90, 90, 90, 92, 99, 70]
    values = np.zeros(table.shape)
    found, before = completed(table, [{"sum": ["a", "b", "c"], "to": 100}], values)
    np.testing.assert_allclose(before[4:, :2], 5)
    np.testing.assert_allclose(found.iloc[4:, :2], [[4, 4], [0.5, 0.5], [15, 15]])


def test_a_known_sum_lowers_the_error_of_what_is_completed():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet([1, 2, 3, 4], 500)
    lost = np.where(rng.random(truth.shape) < 0.5, np.nan, truth)
    table = pd.DataFrame(lost, columns=list("abcd"))
    guess = (truth - np.nanmean(lost, 0)) / np.nanstd(lost, 0)
    guess += rng.normal(size=truth.shape)
    found, before = completed(table, [{"sum": list("abcd"), "to": 1}], guess)
    error = ((np.stack([before, found]) - truth) / truth.std(0)) ** 2
    assert error[1].mean() < error[0].mean()


def test_where_known_cells_contradict_each_other_nothing_known_moves():
    n = 40
    table = pd.DataFrame({"a": np.arange(n) * 1.0, "b": np.arange(n) + 1.0})
    table["c"] = table["b"] + 1
    table["yes"] = np.arange(n) % 2 == 0
    table["no"] = np.arange(n) % 2 == 1
    table = table.astype({"yes": "boolean", "no": "boolean"})
    table.loc[0, ["a", "b", "c"]] = [9.0, np.nan, 5.0]
    rules = [{"order": ["a", "b", "c"]}, {"one_of": ["yes", "no"]}]
    found, before = completed(table, rules, np.zeros(table.shape))
    assert found.loc[0, "b"] == before[0, 1]
    assert found.drop(index=0).equals(table.drop(index=0))


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        ("sum", TypeError, r"constraints\[0\] must be a dict"),
        ({"total": ["a", "b"]}, ValueError, "must have one of the keys 'sum'"),
        ({"sum": ["a", "b"]}, ValueError, "a sum needs 'to'"),
        ({"sum": ["a", "b"], "level": 1}, ValueError, "does not go with 'level'"),
        ({"sum": "ab", "to": 1}, TypeError, r"\['sum'\] must be a list of columns"),
        ({"sum": ["a"], "to": "b"}, ValueError, "at least two columns"),
        ({"sum": ["a", "a"], "to": "b"}, ValueError, "has 'a' twice"),
        ({"sum": ["a", "b"], "to": "a"}, ValueError, "'a' is a part of its own sum"),
        ({"sum": ["a", "z"], "to": 1}, ValueError, "there is no column 'z'"),
        ({"sum": ["a", lambda X: "b"], "to": 1}, TypeError, "neither a name nor"),
        ({"sum": ["a", "b"], "to": np.nan}, ValueError, "must be finite"),
        ({"sum": ["a", "day"], "to": 1}, ValueError, "'day' holds dates"),
        ({"sum": ["a", "word"], "to": 1}, ValueError, "'word' holds levels"),
        (
            {"sum": ["a", "b"], "to": 4},
            ValueError,
            "100 % of the rows in which 'a', 'b'",
        ),
        ({"one_of": ["a", "yes"]}, ValueError, "'a' holds 2, where 0 and 1"),
        ({"one_of": ["yes", "near"]}, ValueError, "'near' holds 1.2, where 0 and 1"),
        ({"one_of": ["yes", "day"]}, ValueError, "'day' holds dates"),
        ({"one_of": ["yes", "word"]}, ValueError, "'word' holds levels such as 'n'"),
        ({"one_of": ["word", "many"], "level": "y"}, ValueError, "'many' has 3 levels"),
        ({"one_of": ["word", "word2"], "level": "Y"}, ValueError, "without 'Y'"),
        ({"one_of": ["word", "word2"], "level": "y"}, ValueError, "contradict this gr"),
        ({"order": ["b", "a"]}, ValueError, "'b', 'a' are known contradict this order"),
        ({"order": ["a", "day"]}, ValueError, "'day' holds dates, 'a' numbers"),
        ({"order": ["a", "word"]}, ValueError, "'word' holds levels; an order"),
        (
            [{"order": ["a", "b"]}, {"order": ["b", "a"]}],
            ValueError,
            "orders of 'a', 'b' go round",
        ),
        (
            [{"order": ["a", "b"]}, {"sum": ["a", "c"], "to": "b"}],
            ValueError,
            "Column 'a' is in constraints of different kinds",
        ),
        (
            [{"sum": ["a", "c"], "to": "b"}, {"sum": ["a", "c"], "to": "d"}],
            ValueError,
            r"constraints\[1\]: column '.' is bound twice",
        ),
    ],
)
def test_bad_constraints_are_named(rule, error, words):
    n = 40
    table = pd.DataFrame({"a": 2.0 + np.arange(n), "c": 1.0})
    table["b"] = table["a"] + 1
    table["d"], table["yes"] = table["b"], np.arange(n) % 2 == 0
    table["day"] = np.datetime64("2020-01-01") + np.arange(n)
    table["word"] = table["word2"] = np.where(table["yes"], "y", "n")
    table["near"] = np.where(table["yes"], 0, 1.2)
    table["many"] = np.resize(["x", "y", "z"], n)
    rules = rule if isinstance(rule, list) else [rule]
    with pytest.raises(error, match=words):
        ADMCImputer(max_epochs=0, constraints=rules).fit(table)


def test_a_derived_column_cannot_be_constrained_but_its_parts_can():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 9, (2, 80))
    table = pd.DataFrame({"a": a, "b": b, "all": a + b, "share": a / (a + b)})
    lost = table.mask(rng.random(table.shape) < 0.3)
    rules = {"share": (np.divide, ["a", "all"])}
    constraints = [{"sum": ["a", "b"], "to": "all"}]
    fitted = quick(derived=rules, constraints=constraints).fit(lost)
    found = fitted.set_output(transform="pandas").transform(lost)
    np.testing.assert_allclose(found["a"] + found["b"], found["all"], rtol=1e-12)
    own = lost["share"].isna()
    np.testing.assert_allclose(
        found["share"][own], (found["a"] / found["all"])[own], rtol=1e-9
    )
    with pytest.raises(ValueError, match="'share' is computed as derived"):
        quick(derived=rules, constraints=[{"order": ["share", "a"]}]).fit(lost)
