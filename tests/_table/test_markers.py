"""Several codes for missing cells, in all columns or by column."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils import get_tags

from admc_sklearn import ADMCImputer, CrossModalFeatures, ImputationDisplay
from admc_sklearn._table.missing_markers import codes_of, matches
from admc_sklearn.evaluation import make_imputation_scorer


def quick(**parameters):
    return ADMCImputer(**{"max_epochs": 0, "random_state": 0} | parameters)


@pytest.fixture
def coded():
    """A frame with two codes in one column, a third in another, and its nulls."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=80)
    frame = pd.DataFrame(
        {
            "income": 50 + 10 * z,
            "age": rng.integers(20, 60, 80),
            "town": rng.choice(["Ulm", "Bonn"], 80),
        }
    )
    marked = frame.copy()
    marked.loc[:5, "income"], marked.loc[6:9, "income"] = -99, -88
    marked.loc[[3, 20], "age"] = 0
    marked.loc[30:33, "town"] = "?"
    nulls = frame.mask(marked != frame)
    return marked, nulls


def test_one_call_takes_two_codes(coded):
    marked, nulls = coded
    imputer = quick(missing_values=[-99, -88, 0, "?"]).fit(marked)
    completed = imputer.set_output(transform="pandas").transform(marked)
    assert completed["income"].min() >= nulls["income"].min()
    assert completed["age"].min() >= nulls["age"].min()
    assert set(completed["town"]) == {"Ulm", "Bonn"}
    expected = quick().set_output(transform="pandas").fit_transform(nulls)
    pd.testing.assert_frame_equal(completed, expected, check_dtype=False)
    seen = nulls.notna().to_numpy()
    assert (completed.to_numpy() == marked.to_numpy())[seen].all()


@pytest.mark.parametrize("library", ["pandas", "polars", "objects"])
def test_codes_by_column(coded, library):
    marked, nulls = coded
    marked.loc[40, "income"] = 0.0  # is data there
    nulls.loc[40, "income"] = 0.0
    codes = {"income": [-99, -88], 1: 0, "town": "?"}
    table = {
        "pandas": marked,
        "polars": pl.from_pandas(marked),
        "objects": marked.to_numpy(dtype=object),
    }[library]
    if library == "objects":
        codes = {0: [-99, -88], "x1": [0], -1: ["?"]}
    completed = quick(missing_values=codes).fit_transform(table)
    assert completed[40, 0] == 0.0
    expected = quick().fit_transform(nulls)
    np.testing.assert_allclose(
        completed[:, :2].astype(float), expected[:, :2].astype(float)
    )
    assert (completed[:, 2] == expected[:, 2]).all()


def test_codes_in_arrays_of_floats_and_integers():
    rng = np.random.default_rng(1)
    X = np.round(rng.normal(size=(60, 3)), 1) + 5
    hidden = rng.random(X.shape) < 0.2
    expected = quick().fit_transform(np.where(hidden, np.nan, X))
    codes = np.where(rng.random(X.shape) < 0.5, -9.9, -88)
    marked = np.where(hidden, codes, X)
    for dtype in (np.float64, np.float32):
        imputer = quick(missing_values=[-9.9, -88, "?"])
        completed = imputer.fit_transform(marked.astype(dtype))
        np.testing.assert_allclose(completed, expected, atol=1e-3)
    with pytest.raises(ValueError, match=r"NaN.*np\.nan besides"):
        quick(missing_values=[-9.9, -88]).fit(np.where(hidden, np.nan, X))
    for missing_values in ([-9.9, np.nan], {0: -9.9}):
        marked = np.where(hidden, np.nan, X)
        rows = hidden[:, 0] & (np.arange(60) % 2 == 0)
        marked[rows, 0] = -9.9
        completed = quick(missing_values=missing_values).fit_transform(marked)
        np.testing.assert_allclose(completed, expected)
    objects = np.where(hidden, None, X)
    objects[hidden[:, 0], 0] = -9.9
    completed = quick(missing_values=[-9.9, -88]).fit_transform(objects)
    np.testing.assert_allclose(completed, expected)
    whole = np.where(hidden, -99, np.rint(10 * X)).astype(np.int64)
    assert quick(missing_values=[-99, -88]).fit_transform(whole).min() > 0


@pytest.mark.parametrize(
    ("values", "codes", "found"),
    [
        (np.array([0.5, 1.0]), [1, "?", 10**400], [False, True]),
        (np.array([2**53 + 1, 2**53]), [2**53], [False, True]),
        (np.array([1, 2], dtype=np.uint8), [-1, 257, 1.5, 2.0], [False, True]),
        (np.array([1.0, 2.0], dtype=np.float32), [1e300], [False, False]),
        (np.array([False, True]), [0, 1], [False, False]),
        (np.array([False, True]), [True], [False, True]),
        (np.array([0, False, "0"], dtype=object), [0], [True, False, False]),
        (np.array(["-99", "?"], dtype=object), [-99, "?"], [False, True]),
        (np.array(["2020-01-01"], dtype="M8[D]"), [-99, "?"], [False]),
    ],
)
def test_a_code_of_another_kind_matches_nothing(values, codes, found):
    assert matches(values, codes).tolist() == found


@pytest.mark.parametrize(
    ("missing_values", "error", "message"),
    [
        ({"incom": -99}, ValueError, "missing_values: there is no column 'incom'"),
        ({7: -99}, ValueError, "no column 7"),
        ([], ValueError, "empty list"),
        ({"age": []}, ValueError, r"missing_values\['age'\] is an empty list"),
        ([-99, [-88]], TypeError, r"number, text or a null.*\[-88\]"),
        ({"age": {"a": 1}}, TypeError, r"missing_values\['age'\] must be"),
    ],
)
def test_unclear_codes_are_errors(coded, missing_values, error, message):
    with pytest.raises(error, match=message):
        quick(missing_values=missing_values).fit(coded[0])


def test_nan_is_allowed_where_it_is_a_marker():
    for missing_values in (np.nan, None, pd.NA, [-1, None], {"a": -1}):
        assert get_tags(quick(missing_values=missing_values)).input_tags.allow_nan
    for missing_values in (-1, [-1, -2], "?"):
        assert not get_tags(quick(missing_values=missing_values)).input_tags.allow_nan


def test_codes_are_cloned_and_nulls_dropped():
    for missing_values in ([-99, np.nan], {"a": [-99, "?"]}, (-1, -2), np.array([-1])):
        copy = clone(quick(missing_values=missing_values))
        assert repr(copy.missing_values) == repr(missing_values)
    names = ["a", "b"]
    assert codes_of([np.nan, pd.NA, np.int64(-1)], None, names) == [[-1], [-1]]
    assert codes_of({"b": [None, -1]}, None, names) == [[], [-1]]


@pytest.mark.parametrize("as_array", [False, True])
def test_grid_search_over_codes_hides_no_code(coded, as_array):
    table = coded[0].drop(columns="town")
    table = table.to_numpy(float) if as_array else table
    candidates = [[-99, -88, 0], [-99, -88]]
    search = GridSearchCV(
        quick(),
        {"missing_values": candidates},
        scoring=make_imputation_scorer(),
        cv=2,
        error_score="raise",
    ).fit(table)
    assert search.best_params_["missing_values"] in candidates
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.transform(table)[:, 0].min() > 0


@pytest.mark.parametrize("missing_values", [[-99, -88], {0: [-99, -88]}])
def test_counterparts_are_generated_beside_codes(missing_values):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 1)) + 0.3 * rng.normal(size=(60, 3))
    X[:4, 0], X[4:8, 0] = -99, -88
    imputer = quick(missing_values=missing_values)
    out = CrossModalFeatures(imputer, cv=0).fit_transform(X)
    assert np.isfinite(out).all()
    assert out.min() > -20


def test_pictures_take_codes_for_missing(coded):
    pytest.importorskip("matplotlib").use("Agg")
    marked, nulls = coded
    for table, missing_values in [
        (marked, {"income": [-99, -88], "age": 0, "town": "?"}),
        (pl.from_pandas(marked), [-99, -88, 0, "?"]),
        (marked.to_numpy(dtype=object), [-99, -88, 0, "?"]),
    ]:
        imputer = quick(missing_values=missing_values).fit(table)
        shown = ImputationDisplay.from_imputer(imputer, table, kind="pattern").data
        expected = ImputationDisplay.from_imputer(
            quick().fit(nulls), nulls, kind="pattern"
        ).data
        np.testing.assert_array_equal(shown["patterns"], expected["patterns"])
        np.testing.assert_array_equal(shown["counts"], expected["counts"])
        display = ImputationDisplay.from_imputer(
            imputer, table, kind="calibration", n_draws=5
        )
        assert display.data["n_cells"] > 10
