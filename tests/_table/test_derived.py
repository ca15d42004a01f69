"""Columns that are functions of others."""

import numpy as np
import pandas as pd
import pytest

from admc_sklearn import ADMCImputer
from admc_sklearn._table.derived import Derived, recompute
from tests.conftest import quick


def bmi(weight, height):
    return weight / height**2


def people(n=150):
    rng = np.random.default_rng(0)
    height = rng.normal(1.72, 0.1, n)
    weight = 24 * height**2 + 9 * rng.normal(size=n)
    return pd.DataFrame({"height": height, "weight": weight, "bmi": weight / height**2})


def incomplete():
    table = people()
    table.loc[:30, "bmi"] = np.nan
    table.loc[31:60, "weight"] = np.nan
    table.loc[61:90, "height"] = np.nan
    table.loc[91:100, ["weight", "height"]] = np.nan
    table.loc[101:110] = np.nan
    return table


DERIVED = {"bmi": (bmi, ["weight", "height"])}


@pytest.fixture(scope="module")
def imputer():
    fitted = quick(derived=DERIVED).fit(incomplete())
    return fitted.set_output(transform="pandas")


def check(found):
    np.testing.assert_allclose(
        found["bmi"], bmi(found["weight"], found["height"]), rtol=1e-6
    )
    known = incomplete().notna()
    assert found.where(known).equals(incomplete())


def test_the_completed_table_and_every_draw_fulfil_the_relation(imputer):
    found = imputer.transform(incomplete())
    check(found)
    truth = people()
    one_missing = slice(0, 90)
    np.testing.assert_allclose(found[one_missing], truth[one_missing], rtol=1e-6)
    for draw in imputer.sample(incomplete(), 3):
        check(draw)
    check(imputer.set_params(strategy="median").transform(incomplete()))
    imputer.set_params(strategy="mean")


def test_arrays_and_indices(imputer):
    X = incomplete().to_numpy()
    fitted = quick(derived={2: (bmi, [1, 0])}).fit(X)
    np.testing.assert_allclose(fitted.transform(X)[:90], people()[:90], rtol=1e-6)


def test_one_derived_column_is_a_part_of_another():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 2, (2, 60))
    table = pd.DataFrame({"a": a, "b": b, "sum": a + b, "square": (a + b) ** 2})
    lost = table.mask(rng.random(table.shape) < 0.3)
    rules = {"sum": (np.add, ["a", "b"]), "square": (np.square, ["sum"])}
    found = (
        quick(derived=rules).fit(lost).set_output(transform="pandas").transform(lost)
    )
    gone = lost[["sum", "square"]].isna().any(axis=1) & lost[["a", "b"]].notna().all(
        axis=1
    )
    np.testing.assert_allclose(found[gone], table[gone], rtol=1e-6)


def test_of_several_solutions_the_nearest_and_of_none_the_completion():
    rule = [Derived("y", 1, [0], np.square)]
    numbers = np.array([[0.7, 0.81], [-0.7, 0.81], [0.3, -5.0]])
    missing = np.array([[True, False]] * 3)
    recompute(rule, numbers, missing, np.array([-2.0, 0.0]), np.array([2.0, 4.0]))
    np.testing.assert_allclose(numbers[:, 0], [0.9, -0.9, 0.3], atol=1e-9)


def test_a_pole_is_no_solution():
    rule = [Derived("y", 1, [0], lambda x: 1 / x)]
    numbers = np.array([[0.1, 1e9]])
    missing = np.array([[True, False]])
    recompute(rule, numbers, missing, np.array([-1.0, 0]), np.array([1.0, 1]))
    assert numbers[0, 0] == 0.1 or numbers[0, 0] == pytest.approx(1e-9)


def test_it_is_saved_without_its_functions(imputer, tmp_path):
    imputer.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"derived columns \['bmi'\].*hand them over"):
        ADMCImputer.load(tmp_path / "model")
    again = ADMCImputer.load(tmp_path / "model", derived=DERIVED)
    pd.testing.assert_frame_equal(
        again.transform(incomplete()), imputer.transform(incomplete())
    )
    with pytest.raises(ValueError, match="derived: a graph cannot hold"):
        imputer.export_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("derived", "error", "words"),
    [
        ({"bmi": bmi}, TypeError, r"derived\['bmi'\] must be a pair"),
        ({"mass": (bmi, ["weight", "height"])}, ValueError, "derived"),
        ({"bmi": (bmi, ["weight", "size"])}, ValueError, r"derived\['bmi'\]"),
        ({"bmi": (bmi, ["weight", "bmi"])}, ValueError, "other columns as its parts"),
        ({"bmi": (lambda w: w, ["sex"])}, ValueError, "'sex' holds levels"),
        ({"bmi": (lambda w: 1 / 0, ["weight"])}, ValueError, "its function fails"),
        ({"bmi": (lambda w: w[:1], ["weight"])}, ValueError, r"returns shape \(1,\)"),
    ],
)
def test_bad_relations_are_named(derived, error, words):
    table = incomplete().assign(sex=np.where(np.arange(150) % 2, "f", "m"))
    with pytest.raises(error, match=words):
        ADMCImputer(max_epochs=0, derived=derived).fit(table).transform(table)


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (lambda w, h: w / h**2, ["height", "weight"]),  # in the wrong order
        (lambda w, h: w + 100 * h, ["weight", "height"]),
        (lambda w, h: w * np.nan, ["weight", "height"]),
    ],
)
def test_a_rule_that_the_rows_contradict_is_refused(function, parts):
    rng = np.random.default_rng(0)
    height = rng.normal(1.72, 0.1, 60)
    weight = 24 * height**2 + 5 * rng.normal(size=60)
    table = pd.DataFrame({"height": height, "weight": weight})
    table["bmi"] = (weight / height**2).round(1)
    table.loc[::4, "bmi"] = np.nan
    with pytest.raises(ValueError, match=r"'bmi'.*100% of the rows"):
        quick(derived={"bmi": (function, parts)}).fit(table)
    quick(derived={"bmi": (lambda w, h: w / h**2, ["weight", "height"])}).fit(table)
