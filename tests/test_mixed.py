"""Mixed tables: kinds, dtypes, levels, and laws over frames that hypothesis makes."""

import datetime
import pickle
import time
import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import make_column_selector
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from admc_sklearn import ADMCImputer
from tests.conftest import lightly, quick

laws = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def people(n=300, seed=0):
    """A frame of every kind of column, whose columns tell of each other."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    age = np.clip(30 + 15 * group + 5 * rng.normal(size=n), 18, 90)
    start = np.datetime64("2020-01-01")
    return pd.DataFrame(
        {
            "age": age.round().astype(int),
            "height": 170 + 6 * rng.normal(size=n) + 4 * (group == 2),
            "job": pd.Categorical(
                np.array(["clerk", "nurse", "judge"])[group],
                categories=["judge", "nurse", "clerk", "pilot"],
            ),
            "grade": pd.Categorical(
                np.array(["low", "mid", "high"])[group],
                categories=["low", "mid", "high"],
                ordered=True,
            ),
            "town": np.where(rng.random(n) < 0.8, "Ulm", "Bern"),
            "member": group > 0,
            "since": start + (100 * group + rng.integers(0, 50, n)),
            "shift": pd.to_timedelta(rng.integers(4, 12, n), unit="h"),
            "visits": np.where(rng.random(n) < 0.6, 0, rng.poisson(5, n)),
        }
    )


def lose(frame, rate=0.25, seed=1):
    """Hide cells; whole numbers and truth values become nullable first."""
    rng = np.random.default_rng(seed)
    frame = frame.astype({"age": "Int64", "visits": "Int64", "member": "boolean"})
    return frame.mask(rng.random(frame.shape) < rate)


@pytest.fixture(scope="module")
def fitted():
    frame = lose(people())
    return quick(max_epochs=20).set_output(transform="pandas").fit(frame), frame


def test_what_went_in_comes_out(fitted):
    imputer, frame = fitted
    frame = frame.set_axis([f"row {i}" for i in range(len(frame))])
    before = frame.copy()
    completed = imputer.transform(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert completed.dtypes.equals(frame.dtypes)
    assert completed.index.equals(frame.index)
    assert not completed.isna().any().any()
    known = frame.notna()
    pd.testing.assert_frame_equal(completed.where(known), frame)
    assert list(completed["job"].cat.categories) == ["judge", "nurse", "clerk", "pilot"]
    assert set(completed["job"]) <= {"judge", "nurse", "clerk"}  # pilot was never seen


def test_it_learns_from_every_kind_and_about_every_kind():
    train, test = people(1000), people(500, 7)
    hidden = lose(test, 0.2, 3)
    imputer = ADMCImputer(max_epochs=30, random_state=0).set_output(transform="pandas")
    completed = imputer.fit(lose(train)).transform(hidden)

    def right(column):
        cells = hidden[column].isna()
        return (completed[column][cells] == test[column][cells]).mean()

    assert right("job") > 0.9
    assert right("grade") > 0.9
    assert right("member") > 0.9
    cells = hidden["since"].isna()
    error = (completed["since"] - test["since"])[cells].dt.days.abs()
    assert error.mean() < 25  # half of the fifty days that nothing tells apart
    assert (completed["since"].dt.normalize() == completed["since"]).all()
    assert completed["shift"].min() >= pd.Timedelta("4h")
    assert (completed["shift"] % pd.Timedelta("1h") == pd.Timedelta(0)).all()


def test_without_set_output_scikit_learns_conventions_hold():
    frame = lose(people(60))
    completed = quick(max_epochs=1).fit_transform(frame)
    theirs = SimpleImputer(strategy="most_frequent").fit_transform(
        frame.astype(object).where(frame.notna(), np.nan)
    )
    assert completed.dtype == theirs.dtype == object
    assert completed.shape == frame.shape
    seen = frame.notna().to_numpy()
    assert (completed[seen] == frame.astype(object).to_numpy()[seen]).all()
    numbers = frame[["age", "height", "member"]]
    assert quick(max_epochs=1).fit_transform(numbers).dtype == np.float64


@pytest.mark.usefixtures("light_fits")
def test_polars_in_and_out():
    frame = people(100)
    polars = pl.from_pandas(lose(frame)).with_columns(
        day=pl.col("since").cast(pl.Date),
        narrow=pl.col("age").cast(pl.UInt8),
        single=pl.col("height").cast(pl.Float32),
        level=pl.col("town").cast(pl.Enum(["Ulm", "Bern", "Rom"])),
        zoned=pl.col("since").dt.replace_time_zone("Europe/Berlin"),
    )
    imputer = quick().set_output(transform="polars").fit(polars)
    completed = imputer.transform(polars)
    assert isinstance(completed, pl.DataFrame)
    assert completed.schema == polars.schema
    assert completed.null_count().sum_horizontal().item() == 0
    for name in polars.columns:
        kept = completed[name].filter(polars[name].is_not_null())
        assert kept.equals(polars[name].drop_nulls())
    draws = imputer.sample(polars, 2)
    assert [draw.schema for draw in draws] == [polars.schema] * 2
    other = imputer.set_output(transform="pandas").transform(polars)
    assert isinstance(other, pd.DataFrame)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2, 5, None] * 9, "Int8"),
        ([1.5, 2.5, None, 1.5] * 9, "Float32"),
        ([1.5, 2.5, None, 1.5] * 9, "float32"),
        (["a", None, "b", "b"] * 9, "string"),
        (["a", None, "b", "b"] * 9, object),
        ([1, None, "b", "b"] * 9, object),
        ([True, None, False, False] * 9, object),
        ([3, None, 4, 4] * 9, "category"),
        ([3, None, 4, 4] * 9, "int64[pyarrow]"),
        (["a", None, "b", "b"] * 9, "string[pyarrow]"),
        ([datetime.date(2020, 1, 1), None, datetime.date(2020, 3, 1)] * 12, object),
        (["2020-01-01", None, "2020-03-01"] * 12, "datetime64[ns]"),
        (["2020-01-01", None, "2020-03-01"] * 12, "datetime64[s]"),
        (["2020-01-01", None, "2020-03-01"] * 12, "datetime64[ns, Asia/Tokyo]"),
        ([datetime.timedelta(1), None, datetime.timedelta(3)] * 12, "timedelta64[ms]"),
    ],
)
@pytest.mark.parametrize("strategy", ["mean", "sample"])
def test_every_dtype_survives(values, dtype, strategy):
    column = pd.Series(values).astype(object).astype(dtype)
    frame = pd.DataFrame({"x": column, "y": np.arange(36.0)})
    imputer = quick(max_epochs=0, strategy=strategy).set_output(transform="pandas")
    completed = imputer.fit_transform(frame)
    assert completed["x"].dtype == column.dtype
    assert completed["x"].notna().all()
    known = column.notna()
    pd.testing.assert_series_equal(completed["x"][known], column[known], check_names=0)
    if dtype not in ("Float32", "float32", "Int8", "int64[pyarrow]"):
        if "date" in str(dtype) or "delta" in str(dtype) or dtype is object:
            types = {type(v) for v in column.dropna()}
            assert {type(v) for v in completed["x"]} <= types
        if "time" not in str(dtype) and not isinstance(values[0], datetime.date):
            assert set(completed["x"]) <= set(column.dropna())


@pytest.mark.parametrize("convert", [list, np.array])
def test_arrays_and_lists_of_objects(convert):
    rows = [["a", 1.0], ["b", 2.0], [None, 2.0], ["b", None], ["a", 1.0]] * 4
    X = rows if convert is list else np.array(rows, dtype=object)
    completed = quick(max_epochs=0).fit_transform(X)
    assert completed.dtype == object
    assert set(completed[:, 0]) == {"a", "b"}
    assert all(isinstance(v, float) for v in completed[:, 1])
    assert completed[2, 0] == "b"


@pytest.mark.usefixtures("light_fits")
def test_columns_declared_categorical():
    rng = np.random.default_rng(0)
    code = rng.integers(0, 4, 200) * 10.0
    X = np.column_stack([code, code == 20, rng.normal(size=200)])
    X[::5, 0] = np.nan
    for chosen in ([0], [True, False, False]):
        imputer = quick(categorical_features=chosen).fit(X)
        completed = imputer.transform(X)
        assert completed.dtype == np.float64
        assert set(completed[:, 0]) <= {0.0, 10.0, 20.0, 30.0}
        assert imputer.categories_[0].tolist() == [0.0, 10.0, 20.0, 30.0]
    frame = pd.DataFrame(X, columns=list("abc"))
    selectors = [["a"], make_column_selector("a"), np.array(["a"])]
    for chosen in selectors:
        imputer = quick(max_epochs=0, categorical_features=chosen).fit(frame)
        assert imputer.categories_[0].tolist() == [0.0, 10.0, 20.0, 30.0]
    with pytest.raises(ValueError, match="categorical_features: there is no"):
        quick(categorical_features=["d"]).fit(frame)
    with pytest.raises(ValueError, match="3 entries, got 2"):
        quick(categorical_features=[True, False]).fit(X)


def test_integers_by_dtype_are_completed_by_integers():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 90, size=(100, 3))
    X[rng.random(X.shape) < 0.2] = -1
    completed = quick(missing_values=-1).fit_transform(X)
    assert (completed == np.rint(completed)).all()
    assert completed.min() >= 0


@pytest.mark.parametrize("marker", [-1, "?"])
def test_a_stated_marker_in_a_mixed_table(marker):
    frame = pd.DataFrame(
        {"n": [1, 2, 2, -1, 1, 2] * 5, "s": ["a", "b", "?", "b", "a", "b"] * 5}
    )
    imputer = quick(max_epochs=0, missing_values=marker, add_indicator=True)
    completed = imputer.set_output(transform="pandas").fit_transform(frame)
    name = "n" if marker == -1 else "s"
    assert (completed[name] != marker).all()
    other = "s" if marker == -1 else "n"
    pd.testing.assert_series_equal(completed[other], frame[other])
    flag = completed[f"missingindicator_{name}"]
    assert flag.tolist() == (frame[name] == marker).tolist()
    assert list(completed) == ["n", "s", f"missingindicator_{name}"]
    assert list(imputer.get_feature_names_out()) == list(completed)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_without_a_value(keep, library):
    frame = pd.DataFrame(
        {
            "a": [1.0, 2.0, None, 4.0],
            "number": pd.Series([None] * 4, dtype="Int64"),
            "text": pd.Series([None] * 4, dtype="string"),
            "truth": pd.Series([None] * 4, dtype="boolean"),
            "time": pd.Series([None] * 4, dtype="datetime64[us]"),
            "level": pd.Categorical([None] * 4, categories=["u", "v"]),
            "b": ["x", None, "y", "y"],
        }
    )
    if library == "polars":
        frame = pl.from_pandas(frame)
    imputer = quick(keep_empty_features=keep, add_indicator=True)
    with pytest.warns(UserWarning, match="number.*text.*truth.*time"):
        completed = imputer.set_output(transform=library).fit_transform(frame)
    assert list(completed.columns) == list(imputer.get_feature_names_out())
    if keep:
        names = list(frame.columns)
        assert list(completed.columns)[:7] == names
        if library == "pandas":
            assert completed.iloc[:, :7].dtypes.equals(frame.dtypes)
            assert completed.notna().all().all()
            filled = completed.iloc[0][["number", "text", "truth", "level"]].tolist()
            assert filled == [0, "missing_value", False, "u"]
        else:
            assert completed[:, :7].schema == frame.schema
            assert completed[:, :6].null_count().sum_horizontal().item() == 0
    else:
        assert list(completed.columns)[:2] == ["a", "b"]
        assert "missingindicator_a" in completed.columns
        assert "number" not in completed.columns


def test_levels_not_seen_in_fit_are_kept_and_never_made(fitted):
    imputer, frame = fitted
    new = frame.iloc[:40].copy()
    new["town"] = "Oslo"
    new["height"] = np.nan
    completed = imputer.transform(new)
    assert (completed["town"] == "Oslo").all()
    unknown = imputer.transform(new.assign(town=pd.NA).astype({"town": "str"}))
    np.testing.assert_allclose(completed["height"], unknown["height"], rtol=1e-5)
    assert set(unknown["town"]) <= {"Ulm", "Bern"}


def test_the_anchor_knows_levels_by_bayes_rule():
    """By itself, without a network: from nothing, from numbers, and the other way."""
    rng = np.random.default_rng(0)
    code = rng.choice(3, 400, p=[0.6, 0.3, 0.1])
    frame = pd.DataFrame(
        {
            "level": pd.Categorical(np.array(["a", "b", "c"])[code]),
            "up": 2.0 * code + 0.3 * rng.normal(size=400),
            "down": -1.0 * code + 0.3 * rng.normal(size=400),
        }
    )
    imputer = quick(max_epochs=0).fit(frame)
    share = np.bincount(code) / 400

    def proba(up, down):
        row = pd.DataFrame({"level": [None], "up": [up], "down": [down]})
        return imputer.predict_proba(row, "level")[0]

    np.testing.assert_allclose(proba(np.nan, np.nan), share, atol=1e-5)
    # Levels lie 1.5 standard deviations of "up" apart, seven of what is left of it.
    for k in range(3):
        assert proba(2.0 * k, -1.0 * k).argmax() == k
        assert proba(2.0 * k, np.nan)[k] > 0.95
    # However far a row is from all others, no level is ever impossible.
    assert (proba(1e3, -1e3) > 5e-4 * share).all()
    lost = frame.assign(up=np.nan, down=np.nan)
    completed = imputer.set_output(transform="pandas").transform(lost)
    error = completed[["up", "down"]] - frame[["up", "down"]]
    assert error.std().max() < 1.5 * 0.3


def test_the_anchor_knows_which_level_is_which():
    """Of many, which a few scores tell apart, in no order that is known."""
    rng = np.random.default_rng(0)
    code, mean = rng.integers(0, 30, 900), rng.normal(size=30)
    x = mean[code] + 0.3 * rng.normal(size=900)
    frame = pd.DataFrame({"level": pd.Categorical(code), "x": x})
    frame["other"] = rng.normal(size=900)
    imputer = quick(max_epochs=0).set_output(transform="pandas").fit(frame)
    error = imputer.transform(frame.assign(x=np.nan))["x"] - x
    assert error.std() < 0.5 * x.std()


def test_rare_levels_survive():
    """Two rows in a thousand, plain from another column: found again."""
    rng = np.random.default_rng(0)
    level = np.repeat(["a", "b", "rare"], [600, 390, 10])
    x = np.repeat([0.0, 3.0, 9.0], [600, 390, 10]) + 0.3 * rng.normal(size=1000)
    frame = pd.DataFrame({"level": pd.Categorical(level), "x": x})
    hidden = frame.copy()
    hidden.loc[rng.random(1000) < 0.2, "level"] = np.nan
    blank = pd.DataFrame({"level": [None], "x": [np.nan]})
    blanks = pd.concat([blank] * 4000, ignore_index=True)
    probas, shares = [], []
    for seed in range(3):
        imputer = ADMCImputer(random_state=seed).fit(hidden)
        far = pd.DataFrame({"level": [None], "x": [9.0]})
        proba = imputer.predict_proba(far, "level")
        assert proba.argmax() == 2
        assert proba[0, 2] > 0.9
        probas.append(imputer.predict_proba(blank, "level")[0])
        drawn = imputer.sample(blanks, 1)[0]["level"]
        share = drawn.value_counts(normalize=True).reindex(["a", "b", "rare"])
        shares.append(share.to_numpy())
    # Rows of which nothing is known are rare in training: a fit's shares differ by 0.05
    # from seed to seed, those of three by 0.03.
    np.testing.assert_allclose(np.mean(probas, 0), [0.6, 0.39, 0.01], atol=0.06)
    # A single fit's draws are off by up to 0.03, to either side.
    np.testing.assert_allclose(np.mean(shares, 0), np.mean(probas, 0), atol=0.025)


def test_a_thousand_levels_cost_little_memory_and_time():
    rng = np.random.default_rng(0)
    n, n_levels = 5000, 1000
    town = rng.integers(0, n_levels, n)
    mean = rng.normal(size=n_levels)
    frame = pd.DataFrame(
        {
            "town": pd.Categorical([f"town {t}" for t in town]),
            "rent": mean[town] + 0.3 * rng.normal(size=n),
            "side": np.where(mean[town] > 0, "n", "s"),
        }
    )
    hidden = frame.mask(rng.random(frame.shape) < 0.2)
    started = time.process_time()  # other work on the machine does not count
    tracemalloc.start()
    imputer = quick(max_epochs=3).set_output(transform="pandas").fit(hidden)
    completed = imputer.transform(hidden)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - started < 60
    assert peak < 500e6
    sum_of_weights = sum(p.numel() for p in imputer.model_.parameters())
    assert sum_of_weights < 1_000_000
    cells = hidden["rent"].isna() & hidden["town"].notna()
    error = (completed["rent"] - frame["rent"])[cells]
    assert error.std() < 0.7  # the sd of rent is 1.04; 0.3 is known to nobody
    cells = hidden["side"].isna() & hidden["rent"].notna()
    assert (completed["side"] == frame["side"])[cells].mean() > 0.85


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_free_text_is_named(dtype):
    frame = pd.DataFrame(
        {"note": pd.Series([f"note {i}" for i in range(100)], dtype=dtype), "x": 1.0}
    )
    with pytest.raises(ValueError, match=r"'note' has 100 distinct values.*Drop it"):
        quick().fit(frame)


@pytest.mark.parametrize("column", ["town", 4])
def test_predict_proba(fitted, column):
    imputer, frame = fitted
    proba = imputer.predict_proba(frame, column)
    levels = imputer.categories_[4]
    assert levels.tolist() == ["Bern", "Ulm"]
    assert proba.shape == (len(frame), 2)
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
    known = frame["town"].notna().to_numpy()
    assert set(proba[known].ravel()) == {0.0, 1.0}
    assert (levels[proba[known].argmax(1)] == frame["town"][known]).all()
    assert 0 < proba[~known].min() < proba[~known].max() < 1
    best = levels[proba.argmax(1)]
    assert (best == imputer.transform(frame)["town"]).all()


def test_predict_proba_says_what_it_cannot(fitted):
    imputer, frame = fitted
    with pytest.raises(ValueError, match="'age' is not categorical"):
        imputer.predict_proba(frame, "age")
    with pytest.raises(ValueError, match="column: there is no column 'wage'"):
        imputer.predict_proba(frame, "wage")
    numeric = quick(max_epochs=0).fit(frame[["height", "visits"]])
    assert not hasattr(numeric, "predict_proba")


def test_columns_that_determine_each_other():
    """Codes beside their names, and a copy: found again to the last cell."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, 9, 800)
    frame = pd.DataFrame(
        {
            "code": code.astype(float),
            "name": pd.Categorical.from_codes(code, list("ihgfedcba")),
            "copy": code.astype(float),
            "noise": rng.normal(size=800),
        }
    )
    hidden = frame.copy()
    lost = rng.integers(0, 3, 800)
    for k, name in enumerate(["code", "name", "copy"]):
        hidden.loc[(lost == k) & (rng.random(800) < 0.5), name] = np.nan
    imputer = ADMCImputer(max_epochs=20, random_state=0, strategy="median")
    completed = imputer.set_output(transform="pandas").fit_transform(hidden)
    assert (completed["name"] == frame["name"]).mean() > 0.995
    assert (completed["code"] == frame["code"]).mean() > 0.995
    assert (completed["copy"] == frame["copy"]).mean() > 0.995


def test_point_masses_and_heavy_tails():
    """Capital gains: mostly nothing, else a long tail; never negative, never beyond."""
    rng = np.random.default_rng(0)
    rich = rng.random(2000) < 0.15
    gain = np.where(rich, rng.lognormal(8, 1.5, 2000), 0.0)
    frame = pd.DataFrame(
        {
            "gain": gain,
            "owner": np.where(rich, "yes", "no"),
            "constant": 3.5,
            "population": rng.pareto(1.2, 2000),
        }
    )
    hidden = frame.mask(rng.random(frame.shape) < 0.3)
    imputer = quick(max_epochs=10).set_output(transform="pandas").fit(hidden)
    for strategy in ("mean", "median", "sample"):
        completed = imputer.set_params(strategy=strategy).transform(hidden)
        for name in ("gain", "population"):
            seen, cells = hidden[name], hidden[name].isna()
            assert completed[name][cells].between(seen.min(), seen.max()).all()
        assert (completed["constant"] == 3.5).all()
        cells = hidden["gain"].isna() & (hidden["owner"] == "no")
        if strategy != "mean":
            assert (completed["gain"][cells] == 0).mean() > 0.97
    cells = hidden["gain"].isna() & hidden["owner"].isna()
    draws = imputer.sample(hidden, n_draws=20)
    share = np.mean([(draw["gain"][cells] == 0).mean() for draw in draws])
    assert share == pytest.approx(0.85, abs=0.08)


def test_infinity_in_a_frame_is_refused():
    frame = pd.DataFrame({"a": [1.0, np.inf], "b": ["x", "y"]})
    with pytest.raises(ValueError, match="infinity"):
        quick().fit(frame)


def test_a_column_that_changes_its_kind_is_named(fitted):
    imputer, frame = fitted
    with pytest.raises(ValueError, match="'height' does not hold"):
        imputer.transform(frame.assign(height="tall"))


def test_categories_only_and_a_single_row():
    frame = pd.DataFrame({"a": list("xyxyx") * 8, "b": list("uvuvw") * 8})
    frame.iloc[3, 0] = frame.iloc[7, 1] = None
    imputer = quick(max_epochs=3).fit(frame)
    assert imputer.transform(frame)[3, 0] == "y"
    single = quick().set_output(transform="pandas").fit_transform(frame.iloc[[3]])
    assert single["b"].tolist() == ["v"]


@pytest.mark.usefixtures("light_fits")
def test_pipeline_pickle_and_clone(fitted):
    imputer, frame = fitted
    expected = imputer.transform(frame)
    again = pickle.loads(pickle.dumps(imputer)).transform(frame)
    pd.testing.assert_frame_equal(again, expected)
    model = make_pipeline(
        quick(max_epochs=1).set_output(transform="pandas"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    assert clone(model).fit_transform(frame[["job", "town"]]).shape == (300, 5)


@st.composite
def frames(draw):
    """Small mixed frames with any share of the cells missing."""
    n = draw(st.integers(1, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    makers = {
        "number": lambda: rng.normal(size=n),
        "whole": lambda: pd.array(rng.integers(-3, 300, n), dtype="Int64"),
        "few": lambda: rng.integers(0, 3, n) / 2,
        "level": lambda: pd.Categorical(rng.choice(["p", "q", "r"], n), list("rqps")),
        "order": lambda: pd.Categorical(rng.integers(0, 3, n), [2, 1, 0], ordered=True),
        "text": lambda: pd.array(rng.choice(["p", "q"], n), dtype="string"),
        "truth": lambda: pd.array(rng.random(n) < 0.3, dtype="boolean"),
        "date": lambda: np.datetime64("2000-01-01", "s") + rng.integers(0, 10**9, n),
        "span": lambda: pd.to_timedelta(rng.integers(0, 9, n), unit="D"),
        "same": lambda: np.full(n, "one"),
        "mass": lambda: np.where(rng.random(n) < 0.7, 0, rng.lognormal(3, 2, n)),
    }
    kinds = draw(st.lists(st.sampled_from(sorted(makers)), min_size=1, max_size=6))
    frame = pd.DataFrame({f"{k}{i}": makers[k]() for i, k in enumerate(kinds)})
    frame.index = rng.permutation(n) + 100
    return frame.mask(rng.random(frame.shape) < draw(st.sampled_from([0, 0.2, 0.7])))


@pytest.mark.filterwarnings("ignore:Columns without")
@laws
@given(frames(), st.sampled_from(["mean", "median", "sample"]))
def test_laws_of_mixed_frames(frame, strategy):
    before = frame.copy()
    imputer = quick(strategy=strategy).set_output(transform="pandas")
    with lightly():
        completed = imputer.fit(frame).transform(frame)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(completed, imputer.transform(frame))
    assert completed.dtypes.equals(frame.dtypes)
    assert completed.index.equals(frame.index)
    assert completed.notna().all().all()
    pd.testing.assert_frame_equal(completed.where(frame.notna()), frame)
    for name in frame:
        seen, all_of_it = frame[name].dropna(), completed[name]
        if not len(seen):
            continue
        if name.startswith(("level", "order", "text", "truth", "same")):
            assert set(all_of_it) <= set(seen)
        else:
            assert all_of_it.between(seen.min(), seen.max()).all()
    if strategy == "mean":
        alone = imputer.transform(frame.iloc[[0]])
        row = completed.iloc[[0]]
        assert alone.dtypes.equals(frame.dtypes)
        numbers = row.select_dtypes(["float64"])
        np.testing.assert_allclose(
            alone[numbers.columns], numbers, rtol=2e-3, atol=2e-3
        )
        rest = row.columns.difference(numbers.columns)
        rest = [c for c in rest if c.startswith(("level", "text", "truth", "order"))]
        pd.testing.assert_frame_equal(alone[rest], row[rest])
