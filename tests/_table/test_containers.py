"""Containers and dtypes: each comes back as it went in, or is refused in a sentence."""

import datetime
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

from admc_sklearn import CrossModalFeatures
from admc_sklearn.evaluation import imputation_scores
from admc_sklearn.missingness import ampute
from tests.conftest import quick

N = 40
RNG = np.random.default_rng(0)
BASE = RNG.normal(size=N)
X = np.column_stack([BASE, BASE + RNG.normal(size=N), RNG.normal(size=N)])
MISSING = RNG.random(X.shape) < 0.2
HOLES = np.where(MISSING, np.nan, X)
WHOLE = (10 * X).astype(np.int64)
DATES = [datetime.date(2020, 1, 1) + datetime.timedelta(k) for k in range(N)]


def imputer(**parameters):
    return quick(max_epochs=0, **parameters)


def holed(values):
    return [None if k % 7 == 0 else value for k, value in enumerate(values)]


def pandas_column(values, dtype=None):
    return pd.DataFrame({"x": BASE, "c": pd.Series(holed(values), dtype=dtype)})


def arrow_column(values, dtype):
    return pandas_column(values, pd.ArrowDtype(dtype))


def polars_column(values, dtype):
    column = pl.Series(holed(values), dtype=dtype, strict=False)
    return pl.DataFrame({"x": BASE, "c": column})


def column_c(frame):
    """Cells of column c as Python's objects."""
    column = frame["c"]
    return column.astype(object).tolist() if hasattr(column, "iloc") else list(column)


FRAMES = {
    "decimals": lambda: pandas_column([Decimal(k) / 100 for k in range(N)], object),
    "periods": lambda: pandas_column(
        pd.period_range("2015-01", periods=N, freq="M"), "period[M]"
    ),
    "periods as objects": lambda: pandas_column(
        pd.period_range("2015-01-01", periods=N, freq="D"), object
    ),
    "sparse": lambda: pandas_column(BASE, pd.SparseDtype(float)),
    "sparse counts": lambda: pandas_column(
        np.arange(N) % 3.0, pd.SparseDtype(float, 0.0)
    ),
    "datetimes as objects": lambda: pandas_column(
        [datetime.datetime(2020, 1, day % 28 + 1) for day in range(N)], object
    ),
    "timedeltas as objects": lambda: pandas_column(
        [datetime.timedelta(k) for k in range(N)], object
    ),
    "tuples": lambda: pandas_column([(1, 2), (3, 4)] * 20, object),
    "intervals": lambda: pandas_column(
        [pd.Interval(k % 3, k % 3 + 1) for k in range(N)], object
    ),
    "Int64 beyond floats": lambda: pandas_column(
        [2**60 + k for k in range(N)], "Int64"
    ),
    "arrow decimals": lambda: arrow_column(
        [Decimal(k) / 100 for k in range(N)], pa.decimal128(10, 2)
    ),
    "arrow dates": lambda: arrow_column(DATES, pa.date32()),
    "arrow times": lambda: arrow_column(
        [datetime.time(k % 5) for k in range(N)], pa.time32("s")
    ),
    "arrow durations": lambda: arrow_column(
        [datetime.timedelta(k) for k in range(N)], pa.duration("ns")
    ),
    "arrow binary": lambda: arrow_column([b"a", b"b"] * 20, pa.binary()),
    "polars decimals": lambda: polars_column(
        [Decimal(k) / 100 for k in range(N)], pl.Decimal(10, 2)
    ),
    "polars Int128": lambda: polars_column([2**70 + k for k in range(N)], pl.Int128),
    "polars UInt64": lambda: polars_column([2**63 + k for k in range(N)], pl.UInt64),
    "polars objects": lambda: polars_column(["a", "b"] * 20, pl.Object),
    "polars times": lambda: polars_column(
        [datetime.time(k % 5) for k in range(N)], pl.Time
    ),
    "polars enum": lambda: polars_column("ab" * 20, pl.Enum(["a", "b", "c"])),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_column_comes_back_in_its_dtype_and_with_its_cells(name):
    frame = FRAMES[name]()
    library = "pandas" if isinstance(frame, pd.DataFrame) else "polars"
    fitted = imputer().set_output(transform=library).fit(frame)
    before = column_c(frame)
    gaps = [bool(pd.isna(value)) for value in before]
    observed = [value for value, gap in zip(before, gaps, strict=True) if not gap]
    for completed in (fitted.transform(frame), *fitted.sample(frame, 1)):
        assert completed["c"].dtype == frame["c"].dtype
        after = column_c(completed)
        kept = [value for value, gap in zip(after, gaps, strict=True) if not gap]
        assert kept == observed
        new = [value for value, gap in zip(after, gaps, strict=True) if gap]
        assert {type(value) for value in new} <= {type(value) for value in observed}
        if name != "intervals":  # those have no order
            assert all(min(observed) <= value <= max(observed) for value in new)
    array = fitted.set_output(transform="default").transform(frame)
    kept = [value for value, gap in zip(array[:, 1], gaps, strict=True) if not gap]
    assert kept == [v.to_numpy() if hasattr(v, "to_numpy") else v for v in observed]


def test_completed_decimals_have_the_exponent_of_the_observed_ones():
    frame = FRAMES["decimals"]()
    completed = imputer().set_output(transform="pandas").fit_transform(frame)
    assert {value.as_tuple().exponent for value in completed["c"]} <= {0, -1, -2}
    assert isinstance(completed["c"].sum(), Decimal)
    long = pandas_column([Decimal(f"{k}.{'123456789' * 5}") for k in range(N)], object)
    completed = imputer().set_output(transform="pandas").fit_transform(long)
    assert {value.as_tuple().exponent for value in completed["c"]} == {-45}
    mixed = pandas_column([Decimal(k) if k % 2 else k + 0.5 for k in range(N)], object)
    completed = imputer().set_output(transform="pandas").fit_transform(mixed)
    assert completed["c"].notna().all()


@pytest.mark.parametrize(
    "table",
    [
        WHOLE,
        2**60 + WHOLE,
        WHOLE.astype(np.uint64) + np.uint64(2**63),
        WHOLE.astype("M8[D]"),
        WHOLE.astype("M8[D]").astype("M8[ns]"),
        WHOLE.astype("m8[h]"),
        WHOLE.astype("M8[M]"),
    ],
    ids=str,
)
def test_an_array_comes_back_in_its_dtype(table):
    completed = imputer().fit_transform(table)
    assert completed.dtype == table.dtype
    np.testing.assert_array_equal(completed, table)
    if table.dtype.kind in "mM":
        gaps = table.copy()
        gaps[MISSING] = "NaT"
        fitted = imputer().fit(gaps)
        for completed in (fitted.transform(gaps), fitted.sample(gaps, 1)[0]):
            assert completed.dtype == table.dtype
            assert not np.isnat(completed).any()
            np.testing.assert_array_equal(completed[~MISSING], table[~MISSING])
    else:
        gaps = np.where(MISSING, table.dtype.type(7), table)
        completed = imputer(missing_values=7).fit_transform(gaps)
        assert completed.dtype == table.dtype
        np.testing.assert_array_equal(completed[gaps != 7], gaps[gaps != 7])


def test_whole_numbers_that_no_float_holds_make_an_array_of_objects():
    frame = pd.DataFrame({"id": 2**60 + np.arange(N), "x": HOLES[:, 0]})
    completed = imputer().fit_transform(frame)
    assert completed[:, 0].tolist() == frame["id"].tolist()
    small = frame.assign(id=np.arange(N))
    assert imputer().fit_transform(small).dtype == np.float64
    listed = [[2**60 + k, k / 2] for k in range(N)]
    assert imputer().fit_transform(listed)[:, 0].tolist() == [row[0] for row in listed]


def test_completions_that_an_integer_dtype_cannot_hold_are_floats():
    fitted = imputer().fit(HOLES)
    whole = np.array([[1, 2, 3]])
    assert fitted.transform(whole).dtype == np.float64
    wide = imputer(missing_values=255).fit(1000 * WHOLE)
    completed = wide.transform(np.array([[1, 255, 3]], dtype=np.uint8))
    assert completed.dtype == np.float64


@pytest.mark.parametrize("marker", [np.nan, -1])
@pytest.mark.parametrize("dtype", [float, np.float32, int, object, bool, "U3", "M8[D]"])
def test_masked_cells_are_missing(dtype, marker):
    source = WHOLE.astype(dtype) if dtype == "M8[D]" else (X > 0).astype(int)
    source = source.astype(dtype)
    masked = np.ma.array(source, mask=MISSING.copy())
    masked.data[0, 0], masked.mask[0, 0] = source[1, 0], True
    plain = masked.astype(object)
    plain = np.where(masked.mask, None, plain.data)
    fitted = imputer(missing_values=marker).fit(masked)
    expected = imputer(missing_values=marker).fit(plain)
    completed = fitted.transform(masked)
    assert not isinstance(completed, np.ma.MaskedArray)
    assert not pd.isna(completed).any()
    seen = ~masked.mask
    np.testing.assert_array_equal(completed[seen], masked.data[seen])
    if np.dtype(dtype).kind in "Oib":
        np.testing.assert_array_equal(completed, expected.transform(plain))
        np.testing.assert_array_equal(
            fitted.sample(masked, 1), expected.sample(plain, 1)
        )
        np.testing.assert_array_equal(
            fitted.predict_quantiles(masked, [0.5]),
            expected.predict_quantiles(plain, [0.5]),
        )
    if np.dtype(dtype).kind == "U":
        np.testing.assert_array_equal(
            fitted.predict_proba(masked, 0), expected.predict_proba(plain, 0)
        )


def test_masked_cells_are_missing_to_scores_and_amputation_too():
    masked = np.ma.array(X, mask=MISSING)
    completed = np.where(MISSING, 0.0, X)
    expected = imputation_scores(X, HOLES, completed)
    assert imputation_scores(X, masked, completed) == pytest.approx(
        expected, nan_ok=True
    )
    assert np.isnan(ampute(masked, rate=0.1, random_state=0)[MISSING]).all()
    features = CrossModalFeatures(imputer(), cv=2)
    np.testing.assert_array_equal(
        features.fit_transform(masked), features.fit_transform(HOLES)
    )


class HasArray:
    def __init__(self, table):
        self.table = table

    def __array__(self, dtype=None, copy=None):
        return np.array(self.table, dtype=dtype)


@pytest.mark.parametrize(
    "make",
    [
        torch.tensor,
        lambda table: table.tolist(),
        HasArray,
        lambda table: table.astype(object),
        lambda table: [[pd.NA if v != v else v for v in row] for row in table.tolist()],
        lambda table: pd.DataFrame(table).astype("Float64").to_numpy(),
        lambda table: pd.DataFrame(table).astype(pd.SparseDtype(float)),
    ],
)
def test_other_holders_of_the_same_numbers(make):
    expected = imputer().fit_transform(HOLES)
    np.testing.assert_array_equal(imputer().fit_transform(make(HOLES)), expected)


def test_arrays_of_text_by_any_name():
    words = np.where(X > 0, "a", "b")
    expected = imputer().fit_transform(words)
    for table in (
        HasArray(words.astype(object)),
        words.astype("S1").astype("U1"),
        words.tolist(),
    ):
        np.testing.assert_array_equal(imputer().fit_transform(table), expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pa.table({"a": BASE, "b": ["u", None] * 20}), r"to_pandas\(\)"),
        (lambda: pa.record_batch({"a": BASE}), r"to_pandas\(\)"),
        (lambda: pl.DataFrame({"a": BASE}).lazy(), r"collect\(\)"),
        (lambda: {"a": BASE}, "got dict: pass pandas.DataFrame"),
        (lambda: (row for row in X), "got generator: pass pandas.DataFrame"),
        (lambda: [{"a": 1.0}] * N, "got list of dict: pass pandas.DataFrame"),
        (lambda: None, "got NoneType"),
        (lambda: np.zeros((N, 2), dtype=[("a", float)]), "pass pandas.DataFrame"),
        (lambda: np.zeros(N, dtype=[("a", float)]), "pass pandas.DataFrame"),
        (lambda: torch.tensor(X, requires_grad=True), "detach"),
        (lambda: torch.tensor(X, dtype=torch.bfloat16), "array of floats"),
        (lambda: sp.coo_array(X), "toarray"),
        (lambda: [[1.0, 2.0], [3.0]], "one value for each column"),
        (lambda: [[1.0, [2.0, 3.0]], [4.0, 5.0]], "one value for each column"),
        (lambda: pandas_column([{"k": 1}] * N, object), "'c'.*drop it"),
        (lambda: polars_column([[1, 2]] * N, pl.Array(pl.Int64, 2)), "'c'.*drop it"),
        (lambda: pandas_column([1j] * N, object), "Complex .* 'c'"),
        (lambda: X.astype(complex).astype(object), "Complex .* 'x0'"),
        (lambda: pandas_column([Decimal("Infinity"), 1] * 20, object), "column 'c'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_remedy(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        imputer().fit(make())


TEXT = np.array([["a", 1.0], ["b", None], ["a", 2.0], ["b", 3.0]] * 10, dtype=object)


@pytest.mark.parametrize(
    "row",
    [
        np.full((1, 2), np.nan),
        np.full((1, 2), np.nan, dtype=np.float32),
        [[None, None]],
        [[np.nan, 2.5]],
        torch.full((1, 2), torch.nan),
        np.array([[1.0, np.nan]]),
    ],
)
def test_a_row_without_text_for_an_imputer_fitted_to_text(row):
    completed = imputer().fit(TEXT).transform(row)
    assert completed[0, 0] in ("a", "b", 1.0)
    assert 1.0 <= completed[0, 1] <= 3.0


def test_a_row_without_dates_for_an_imputer_fitted_to_dates():
    fitted = imputer().fit(WHOLE.astype("M8[D]"))
    completed = fitted.transform(np.full((1, 3), np.nan))
    assert all(isinstance(value, datetime.date) for value in completed[0])
    with pytest.raises(ValueError, match="'x0' does not hold what it held"):
        fitted.transform(np.ones((1, 3)))
    frame = pd.DataFrame({"x": BASE, "d": pd.to_datetime(DATES)})
    fitted = imputer().set_output(transform="pandas").fit(frame)
    blank = fitted.transform(frame.assign(x=np.nan, d=np.nan))
    assert blank["d"].dtype == frame["d"].dtype


def test_a_zoned_column_without_values_keeps_the_hour():
    dates = pd.date_range("2020-07-01 12:00", periods=N, tz="Europe/Berlin")
    frame = pd.DataFrame({"x": BASE, "d": dates})
    fitted = imputer().set_output(transform="pandas").fit(frame)
    completed = fitted.transform(frame.assign(d=None))
    assert completed["d"].dtype == frame["d"].dtype
    assert (completed["d"].dt.hour == 12).all()


@pytest.mark.parametrize(
    ("fitted", "later", "types"),
    [
        (["1", "2"], [1, 2], "str .*'1'.* int .*1"),
        (["1", "2"], [1.0, 2.0], "str .* float"),
        (["True", "False"], [True, False], "str .* bool"),
        (pd.Categorical([1, 2]), pd.Categorical(["1", "2"]), "int .* str"),
        ([True, False], ["True", "False"], "bool .* str"),
        (["yes", "no"], ["Yes", "No"], "str .* str"),
    ],
)
def test_levels_of_another_type_are_all_unknown(fitted, later, types):
    def frame(values):
        return pd.DataFrame({"x": [0.0, 1.0] * 20, "level": list(values) * 20})

    known = frame(fitted)
    if isinstance(fitted, pd.Categorical):
        known["level"] = known["level"].astype("category")
    model = imputer().fit(known)
    with pytest.warns(UserWarning, match=f"'level'.*unknown levels.*{types}"):
        model.transform(frame(later))


def test_known_levels_and_a_single_new_one_do_not_warn():
    frame = pd.DataFrame({"x": BASE, "level": ["u", "v"] * 20})
    model = imputer().fit(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.transform(frame)
        model.transform(frame.assign(level=None))
        model.transform(frame.iloc[:1].assign(level="w"))


@pytest.mark.parametrize(
    ("column", "values"),
    [("x", "tall"), ("x", "1.5"), ("x", 1j), ("k", "3"), ("t", [[1]] * N)],
)
def test_values_of_another_kind_are_refused_by_column(column, values):
    frame = pd.DataFrame({"x": BASE, "k": range(N), "t": ["u", "v"] * 20})
    model = imputer().fit(frame)
    with pytest.raises(ValueError, match=f"{column!r} does not hold what it held"):
        model.transform(frame.assign(**{column: values}))


def test_a_level_that_the_columns_dtype_cannot_hold_is_refused_by_column():
    frame = pd.DataFrame({"x": BASE, "t": ["u", "v"] * 20})
    model = imputer().set_output(transform="pandas").fit(frame)
    with (
        pytest.warns(UserWarning, match="unknown levels"),
        pytest.raises(TypeError, match=r"'t'.*does not fit its dtype float64"),
    ):
        model.transform(frame.assign(t=[1.0, np.nan] * 20))


@pytest.mark.parametrize(
    "dtype", [pl.String, pl.Categorical, pl.Enum(["a"]), pl.Date, pl.Boolean, pl.Int64]
)
def test_a_column_of_nulls_alone_is_filled_whatever_its_dtype_is_later(dtype):
    frame = pl.DataFrame({"x": BASE, "c": pl.Series([None] * N, dtype=pl.Null)})
    with pytest.warns(UserWarning, match="without a single observed"):
        model = imputer().set_output(transform="polars").fit(frame)
    completed = model.transform(frame.with_columns(c=pl.lit(None, dtype=dtype)))
    assert completed["c"].null_count() == 0
    assert isinstance(
        completed["c"].dtype, dtype if isinstance(dtype, type) else pl.Enum
    )


@pytest.mark.parametrize("value", [pd.Timedelta("1h"), pd.Timestamp("2020-01-01"), "a"])
def test_a_column_of_objects_that_was_empty_in_fit_takes_any_kind(value):
    table = np.empty((N, 2), dtype=object)
    table[:, 0] = BASE
    with pytest.warns(UserWarning, match="without a single observed"):
        model = imputer().fit(table)
    new = table.copy()
    new[::2, 1] = value
    completed = model.transform(new)
    assert (completed[::2, 1] == value).all()
    assert all(isinstance(v, type(value)) for v in completed[:, 1])


@pytest.mark.parametrize("later", [range(N), [k / 2 for k in range(N)], "ab" * 20])
def test_a_column_that_was_empty_in_fit_takes_any_kind(later):
    frame = pd.DataFrame({"x": BASE, "c": [None] * N})
    with pytest.warns(UserWarning, match="without a single observed"):
        model = imputer().set_output(transform="pandas").fit(frame)
    new = pandas_column(later)
    completed = model.transform(new)
    assert completed["c"].dtype == new["c"].dtype
    assert completed["c"].notna().all()
    assert (completed["c"] == new["c"])[new["c"].notna()].all()


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"x": BASE, "c": pl.Series([None] * N, dtype=pl.Null)}),
        arrow_column([None] * N, pa.null()),
        pandas_column([None] * N, "period[M]"),
        pandas_column([None] * N, pd.SparseDtype(float)),
        pandas_column([None] * N, "datetime64[us, Europe/Berlin]"),
    ],
    ids=lambda frame: str(frame["c"].dtype),
)
def test_columns_of_a_dtype_without_values_are_filled(frame):
    library = "pandas" if isinstance(frame, pd.DataFrame) else "polars"
    with pytest.warns(UserWarning, match="without a single observed"):
        completed = imputer().set_output(transform=library).fit_transform(frame)
    assert not any(pd.isna(value) for value in column_c(completed))


class Survey(pd.DataFrame):
    _metadata = ("crs",)

    @property
    def _constructor(self):
        return Survey


@pytest.mark.parametrize("add_indicator", [False, True])
def test_a_subclass_of_a_frame_survives(add_indicator):
    frame = Survey(HOLES, columns=list("abc"))
    frame.crs = "EPSG:4326"
    frame.attrs["source"] = "survey"
    model = imputer(add_indicator=add_indicator).set_output(transform="pandas")
    model.fit(frame)
    for completed in (
        model.transform(frame),
        *model.sample(frame, 2),
        *model.predict_quantiles(frame, [0.5]),
    ):
        assert type(completed) is Survey
        assert completed.crs == "EPSG:4326"
        assert completed.attrs == {"source": "survey"}


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_names_of_indicators_that_are_taken_get_a_number(library):
    names = ["a", "missingindicator_a", "b"]
    frame = pd.DataFrame(HOLES, columns=names)
    frame = frame if library == "pandas" else pl.from_pandas(frame)
    model = imputer(add_indicator=True).set_output(transform=library)
    completed = model.fit_transform(frame)
    expected = [
        *names,
        "missingindicator_a_2",
        "missingindicator_missingindicator_a",
        "missingindicator_b",
    ]
    assert list(completed.columns) == expected
    assert list(model.get_feature_names_out()) == expected


def test_a_marker_takes_away_the_tag_that_nan_is_welcome():
    for marker in (np.nan, None, pd.NA):
        tags = imputer(missing_values=marker).__sklearn_tags__()
        assert tags.input_tags.allow_nan
    assert not imputer(missing_values=-1).__sklearn_tags__().input_tags.allow_nan
