"""Columns in and out: symptoms that users would meet, one test each."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tests.conftest import quick

N = 60
BASE = np.random.default_rng(0).normal(size=N)


def pandas_imputer(**parameters):
    return quick(max_epochs=0, **parameters).set_output(transform="pandas")


def test_observed_truth_values_stay_in_float_output():
    X = pd.DataFrame({"x": BASE, "b": True})
    other = quick(max_epochs=0).fit(X).transform(X.assign(b=False))
    assert (other[:, 1] == 0).all()
    empty = X.assign(b=pd.array([pd.NA] * N, dtype="boolean"))
    with pytest.warns(UserWarning, match="without a single observed"):
        imputer = quick(max_epochs=0).fit(empty)
    assert (imputer.transform(X)[:, 1] == 1).all()


@pytest.mark.parametrize(
    ("top", "dtype"), [(2**63 - 1, "Int64"), (2**64 - 1, "UInt64")]
)
def test_whole_numbers_beyond_float64_stay_in_their_range(top, dtype):
    values = [pd.NA if k % 7 == 0 else top - k % 3 for k in range(N)]
    column = pd.Series(pd.array(values, dtype=dtype))
    completed = pandas_imputer().fit_transform(pd.DataFrame({"x": BASE, "b": column}))
    assert completed["b"].dtype == dtype
    assert completed["b"].between(top - 2, top).all()


def test_dates_beside_a_sentinel_at_the_end_of_time():
    d = pd.to_datetime(["1950-01-01", "1960-01-01", "1990-05-05"] * 20)
    d = pd.Series(d).astype("datetime64[ns]")
    d[::4] = pd.Timestamp.max
    d[1] = pd.NaT
    completed = pandas_imputer().fit_transform(pd.DataFrame({"x": BASE, "d": d}))
    assert completed["d"].between(d.min(), d.max()).all()


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("d", range(N)),
        ("d", pd.to_timedelta(range(N), "D")),
        ("x", pd.date_range("2020", periods=N)),
        ("x", ["tall"] * N),
    ],
)
def test_a_column_of_another_kind_is_named(column, values):
    X = pd.DataFrame({"x": BASE, "d": pd.date_range("2020", periods=N)})
    imputer = pandas_imputer().fit(X)
    with pytest.raises(ValueError, match=f"{column!r} does not hold what it held"):
        imputer.transform(X.assign(**{column: values}))


@pytest.mark.parametrize(
    ("marker", "values", "dtype"),
    [
        ("?", ["a", "?", pd.NA], object),
        ("?", ["a", "?", pd.NA], "string"),
        (-1, [True, False, pd.NA], "boolean"),
        (-1, [4, -1, pd.NA], "Int64"),
    ],
)
def test_a_marker_beside_other_nulls(marker, values, dtype):
    column = pd.Series(pd.array(values * 20, dtype=dtype))
    X = pd.DataFrame({"c": column, "x": BASE})
    completed = pandas_imputer(missing_values=marker).fit_transform(X)
    assert completed["c"].notna().all()
    assert marker not in set(completed["c"])


def test_markers_of_narrow_floats_and_none_among_truth_values():
    x = np.where(np.arange(N) % 5, BASE, -9.9).astype(np.float32)
    completed = pandas_imputer(missing_values=-9.9).fit_transform(
        pd.DataFrame({"x": x})
    )
    assert (completed["x"] > -5).all()
    truth = pd.DataFrame({"b": [True, False] * 30, "x": BASE})
    completed = pandas_imputer(missing_values=0).fit_transform(truth)
    pd.testing.assert_series_equal(completed["b"], truth["b"])


def test_nullable_integers_as_categories_and_as_numbers():
    k = pd.array([0, 1, 2, None] * 15, dtype="Int64")
    X = pd.DataFrame({"k": k, "x": BASE})
    imputer = pandas_imputer(categorical_features=["k"]).fit(X)
    assert [type(v) for v in imputer.categories_[0]] == [int] * 3
    completed = imputer.transform(X)
    assert completed["k"].dtype == "Int64"
    assert completed["k"].isin([0, 1, 2]).all()
    wide = pandas_imputer().fit(X[["x"]])
    narrow = pd.DataFrame({"x": pd.array([1, None], dtype="Int8")})
    assert wide.transform(narrow)["x"].dtype == "Int8"


def test_a_test_set_with_categories_of_its_own():
    X = pd.DataFrame({"k": pd.Categorical(["a", "b", "b"] * 20), "x": BASE})
    T = pd.DataFrame({"k": pd.Categorical(["a", None]), "x": [0.0, 1.0]})
    imputer = pandas_imputer().fit(X)
    completed = imputer.transform(T)
    assert completed["k"].tolist() == ["a", "b"]
    assert isinstance(completed["k"].dtype, pd.CategoricalDtype)
    assert T["k"].cat.categories.tolist() == ["a"]  # X itself is left alone
    none = T.assign(k=pd.Categorical([None, None]))
    assert imputer.transform(none)["k"].tolist() == ["b", "b"]
    enum = pl.DataFrame(
        {"k": pl.Series(["a", None], dtype=pl.Enum(["a"])), "x": [0.0, 1.0]}
    )
    fitted = quick(max_epochs=0).set_output(transform="polars").fit(pl.from_pandas(X))
    assert fitted.transform(enum)["k"].to_list() == ["a", "b"]


def test_a_row_without_observations_gets_the_columns_own_means():
    """The margins are those of the anchor that is kept."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(200, 3))
    Z[:, 1] = np.exp(Z[:, 1])
    Z[:, 2] = Z[:, 0] + 0.1 * Z[:, 2]
    Z[rng.random(Z.shape) < 0.3] = np.nan
    blank = quick(max_epochs=0).fit(Z).transform(np.full((1, 3), np.nan))[0]
    error = (blank - np.nanmean(Z, 0)) / np.nanstd(Z, 0)
    assert np.abs(error).max() < 0.035


def test_a_single_row_whose_missing_column_has_no_dtype_left():
    F = pd.DataFrame({"x": BASE, "c": ["a", "b", "a"] * 20})
    row = pd.DataFrame([{"x": 1.0, "c": np.nan}])
    assert pandas_imputer().fit(F).transform(row)["c"][0] in ("a", "b")
    imputer = quick(max_epochs=0).set_output(transform="polars").fit(pl.from_pandas(F))
    row = pl.DataFrame({"x": [1.0], "c": [None]})
    completed = imputer.transform(row)
    assert completed["c"][0] in ("a", "b")
    assert completed["c"].dtype == pl.String


def test_objects_that_are_zoned_dates_and_arrays_of_a_frames_output():
    dates = pd.date_range("2020", periods=N, tz="Europe/Berlin")
    column = pd.Series(dates).astype(object)
    column[::7] = None
    X = pd.DataFrame({"x": BASE, "d": column})
    completed = pandas_imputer().fit_transform(X)
    assert completed["d"].map(type).eq(pd.Timestamp).all()
    assert {d.tzinfo.key for d in completed["d"]} == {"Europe/Berlin"}
    again = quick(max_epochs=0).fit_transform(completed.to_numpy())
    assert (again[:, 1] == completed["d"].to_numpy()).all()


def test_arrow_dictionaries_and_empty_arrow_dates():
    words = pa.array(["a", "b", None] * 20).dictionary_encode()
    k = pd.Series(pd.arrays.ArrowExtensionArray(words))
    X = pd.DataFrame({"x": BASE, "k": k})
    completed = pandas_imputer().fit_transform(X)
    assert completed["k"].dtype == k.dtype
    assert set(completed["k"]) == {"a", "b"}
    empty = pd.Series([None] * N, dtype=pd.ArrowDtype(pa.date32()))
    with pytest.warns(UserWarning, match="without a single observed"):
        completed = pandas_imputer().fit_transform(
            pd.DataFrame({"x": BASE, "e": empty})
        )
    assert completed["e"].notna().all()


def test_degenerate_outputs_keep_their_rows():
    E = pd.DataFrame({"e": [np.nan] * N}, index=range(100, 100 + N))
    with pytest.warns(UserWarning, match="without a single observed"):
        completed = pandas_imputer(keep_empty_features=False).fit_transform(E)
    assert completed.shape == (N, 0)
    assert completed.index.equals(E.index)
    with pytest.raises(ValueError, match="between 0 and 1"):
        quick(max_epochs=0).fit(np.c_[BASE, BASE]).predict_quantiles(
            np.c_[BASE, BASE], []
        )


def test_values_that_cannot_be_categories_are_named():
    X = pd.DataFrame({"note": [{}, {"a": 1}] * 30, "x": BASE})
    with pytest.raises(TypeError, match="'note' has values that cannot be categories"):
        quick().fit(X)
    with pytest.raises(TypeError, match="'x0' has values that cannot be categories"):
        quick().fit(np.array([[{}, 1], [{}, 2]], dtype=object))
