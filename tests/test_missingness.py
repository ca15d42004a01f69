"""Amputation: rates, what removal depends on, and what is left alone."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.compose import make_column_selector
from sklearn.linear_model import LogisticRegression

from admc_sklearn.missingness import ampute
from admc_sklearn.missingness._ampute import MECHANISMS

N = 4000


def normal(n=N, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def slopes(X, removed):
    """Coefficients of an unpenalised logistic regression."""
    return LogisticRegression(C=1e6).fit(X, removed).coef_[0]


def assert_share(removed, rate, n_errors=4):
    """The shares of the rows lie within sampling error of the rate, by column."""
    rate = np.broadcast_to(rate, removed.shape[1])
    error = np.sqrt(rate * (1 - rate) / len(removed))
    assert (np.abs(removed.mean(axis=0) - rate) <= n_errors * error + 1e-12).all()


# ---- general laws


@st.composite
def tables(draw):
    shape = draw(st.tuples(st.integers(1, 20), st.integers(2, 6)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    cells = st.one_of(
        st.just(np.nan), st.sampled_from([0.0, 1.0, -2.5]), st.floats(width=32)
    )
    return draw(npst.arrays(dtype, shape, elements=cells))


@given(
    X=tables(),
    mechanism=st.sampled_from(MECHANISMS),
    rate=st.sampled_from([0.0, 0.1, 0.5, 0.8, 1.0]),
    seed=st.integers(0, 99),
    grouped=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_laws(X, mechanism, rate, seed, grouped):
    modalities = {"first": slice(0, 2)} if grouped else None
    before = X.copy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "rate=", UserWarning)
        Y, again = (
            ampute(
                X,
                mechanism=mechanism,
                rate=rate,
                modalities=modalities,
                random_state=seed,
            )
            for _ in range(2)
        )
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(Y, again)
    assert Y.dtype == X.dtype
    was, now = ~np.isnan(X), ~np.isnan(Y)
    assert not (now & ~was).any()
    np.testing.assert_array_equal(Y[now], X[now])
    for axis in (0, 1):
        np.testing.assert_array_equal(now.any(axis=axis), was.any(axis=axis))
    if rate == 0:
        np.testing.assert_array_equal(Y, X)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_seed(mechanism):
    X, state = normal(200), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, third = (
        np.isnan(ampute(X, mechanism=mechanism, random_state=seed))
        for seed in (1, 2, np.random.RandomState(1))
    )
    assert (first != second).any()
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


# ---- rates


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("mechanism", ["mcar", "mnar", "modality"])
def test_rate_is_met(mechanism, rate):
    removed = np.isnan(ampute(normal(), mechanism=mechanism, rate=rate, random_state=0))
    assert_share(removed, rate)


def test_rate_is_met_by_mar_in_the_columns_that_lose():
    removed = np.isnan(ampute(normal(d=10), mechanism="mar", rate=0.4, random_state=0))
    complete = ~removed.any(axis=0)
    assert complete.sum() == 3
    assert_share(removed[:, ~complete], 0.4)


@pytest.mark.parametrize("mechanism", ["mcar", "mnar", "modality"])
def test_rates_of_columns(mechanism):
    rates = [0.1, 0.0, 0.6, 0.3]
    X = normal(d=4)
    Y = ampute(X, mechanism=mechanism, rate=rates, random_state=0)
    assert_share(np.isnan(Y), rates)
    named = {j: rate for j, rate in enumerate(rates) if rate}
    Z = ampute(X, mechanism=mechanism, rate=named, random_state=0)
    np.testing.assert_array_equal(Y, Z)


def test_rate_is_a_share_of_the_known_cells():
    X = normal()
    X[:3000, 0] = np.nan
    removed = np.isnan(ampute(X, mechanism="mnar", rate=0.5, random_state=0))
    assert_share(removed[3000:], 0.5)
    assert_share(removed[:3000, 1:], 0.5)


def test_rows_are_kept_without_loss_of_rate():
    """Of two columns each lost with 0.4, never both: 0.4 + 0.4 + 0.2."""
    removed = np.isnan(ampute(normal(d=2), rate=0.4, random_state=0))
    either = np.column_stack([removed, ~removed.any(axis=1)])
    assert_share(either, [0.4, 0.4, 0.2])
    assert not removed.all(axis=1).any()


def test_kept_rows_are_independent_draws_conditioned():
    """Odds ratio of two losses given a third column is kept is 1."""
    removed = np.isnan(ampute(normal(40_000, 3), rate=[0.6, 0.5, 0.4], random_state=0))
    assert_share(removed, [0.6, 0.5, 0.4])
    a, b = removed[~removed[:, 2], :2].T
    ratio = np.mean(a & b) * np.mean(~a & ~b) / np.mean(a & ~b) / np.mean(~a & b)
    assert ratio == pytest.approx(1, abs=0.12)


def test_empty_rows_and_columns_on_request():
    X = normal(500, 2)
    Y = ampute(X, rate=0.5, allow_empty_rows=True, random_state=0)
    assert np.isnan(Y).all(axis=1).mean() == pytest.approx(0.25, abs=0.08)
    Y = ampute(X, rate={1: 1.0}, allow_empty_columns=True, random_state=0)
    np.testing.assert_array_equal(np.isnan(Y), [[False, True]] * 500)
    Y = ampute(X, rate={1: 1.0}, random_state=0)
    assert (~np.isnan(Y[:, 1])).sum() == 1


def test_a_rate_out_of_reach_warns_and_comes_close():
    modalities = {"a": [0, 1], "b": [2, 3], "c": [4, 5]}
    with pytest.warns(UserWarning, match=r"rate=0\.9 cannot be met .* 0\.233"):
        Y = ampute(
            normal(),
            mechanism="modality",
            rate=0.9,
            modalities=modalities,
            random_state=0,
        )
    np.testing.assert_array_equal(np.isnan(Y).sum(axis=1), 4)
    assert_share(np.isnan(Y), 2 / 3)


# ---- dependence


def test_mcar_depends_on_nothing():
    X = normal()
    masks = [np.isnan(ampute(x, random_state=0)) for x in (X, X[::-1] ** 3)]
    np.testing.assert_array_equal(*masks)


def test_mar_depends_on_the_complete_columns():
    X = normal(d=7)
    removed = np.isnan(ampute(X, mechanism="mar", random_state=0))
    complete = ~removed.any(axis=0)
    for j in np.flatnonzero(~complete):
        fitted = slopes(X, removed[:, j])
        assert np.linalg.norm(fitted[complete]) == pytest.approx(1, abs=0.2)
        np.testing.assert_allclose(fitted[~complete], 0, atol=0.2)


def test_mar_ignores_the_other_columns():
    X = normal(300, 7)
    removed = np.isnan(ampute(X, mechanism="mar", random_state=0))
    loses, changed = removed.any(axis=0), X.copy()
    changed[:, loses] = np.random.default_rng(1).permutation(X[:, loses]) ** 3
    again = np.isnan(ampute(changed, mechanism="mar", random_state=0))
    np.testing.assert_array_equal(removed, again)


def test_mar_keeps_columns_of_rate_zero_complete_and_uses_them():
    X = normal(d=4)
    rates = {0: 0.3, 1: 0.3, 3: 0.3}
    removed = np.isnan(ampute(X, mechanism="mar", rate=rates, random_state=0))
    np.testing.assert_array_equal(removed.any(axis=0), [True, True, False, True])
    np.testing.assert_allclose(
        np.abs(slopes(X, removed[:, 0])), [0, 0, 1, 0], atol=0.15
    )


def test_mar_does_not_lean_on_a_constant_column():
    X = normal(d=3)
    X[:, 1] = 5.0
    for seed in range(5):
        removed = np.isnan(ampute(X, mechanism="mar", random_state=seed))
        assert removed[:, 1].any()


def test_mnar_depends_on_the_own_value():
    X = normal()
    removed = np.isnan(ampute(X, mechanism="mnar", random_state=0))
    fitted = np.array([slopes(X, column) for column in removed.T])
    np.testing.assert_allclose(np.abs(np.diag(fitted)), 1, atol=0.2)
    np.testing.assert_allclose(fitted - np.diag(np.diag(fitted)), 0, atol=0.2)
    assert np.ptp(np.sign(np.diag(fitted))) == 2  # some lose the low, some the high


def test_mnar_ignores_other_columns():
    X = normal(300)
    changed = X.copy()
    changed[:, 0] = X[::-1, 0]
    masks = [
        np.isnan(ampute(x, mechanism="mnar", allow_empty_rows=True, random_state=0))
        for x in (X, changed)
    ]
    np.testing.assert_array_equal(masks[0][:, 1:], masks[1][:, 1:])
    assert (masks[0][:, 0] != masks[1][:, 0]).any()


@pytest.mark.parametrize("mechanism", ["mar", "mnar"])
@pytest.mark.parametrize("unit", [1e-300, 7.0, 1e300])
def test_units_do_not_matter(mechanism, unit):
    X = normal(300)
    masks = [
        np.isnan(ampute(x, mechanism=mechanism, random_state=0)) for x in (X, X * unit)
    ]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("levels", [["low", "mid", "high"], [1, 2, 3], [True, False]])
def test_models_use_categories(levels):
    level = np.random.default_rng(0).choice(len(levels), N)
    category = pd.Series(pd.Categorical.from_codes(level, levels))
    X = pd.DataFrame({"level": category, "x": normal()[:, 0]})
    for mechanism, rate in (("mar", {"x": 0.5}), ("mnar", 0.4)):
        Y = ampute(X, mechanism=mechanism, rate=rate, random_state=0)
        removed = Y["x" if mechanism == "mar" else "level"].isna()
        by_level = removed.groupby(level).mean()
        assert np.ptp(by_level) > 0.2, mechanism
        assert_share(removed.to_numpy()[:, None], 0.5 if mechanism == "mar" else 0.4)


def test_models_use_dates():
    X = pd.DataFrame({"day": pd.date_range("2020", periods=N), "x": normal()[:, 0]})
    Y = ampute(X, mechanism="mar", rate={"x": 0.5}, random_state=0)
    halves = Y["x"].isna().to_numpy().reshape(2, -1).mean(axis=1)
    assert np.ptp(halves) > 0.2


# ---- modalities


def test_modalities_are_lost_together():
    X = normal(d=5)
    modalities = {"text": [0, 3], "audio": slice(1, 3)}
    Y = ampute(X, mechanism="modality", modalities=modalities, random_state=0)
    removed = np.isnan(Y)
    np.testing.assert_array_equal(removed[:, 0], removed[:, 3])
    np.testing.assert_array_equal(removed[:, 1], removed[:, 2])
    assert_share(removed, 0.3)
    assert not removed.all(axis=1).any()
    joint = pd.DataFrame(removed[:, [0, 1, 4]]).value_counts()
    assert len(joint) == 7  # every pattern but the empty one


def test_rates_of_modalities():
    modalities = {"text": [0, 3], "audio": slice(1, 3)}
    rates = {"text": 0.6, "audio": 0.1}
    Y, Z = (
        ampute(
            normal(d=5),
            mechanism="modality",
            rate=rate,
            modalities=modalities,
            random_state=0,
        )
        for rate in (rates, [0.6, 0.1, 0.0])
    )
    assert_share(np.isnan(Y), [0.6, 0.1, 0.1, 0.6, 0.0])
    np.testing.assert_array_equal(Y, Z)


@pytest.mark.parametrize(
    "columns",
    [
        ["a", "b"],
        [0, 1],
        (0, -2),
        slice(0, 2),
        slice(None, -1),
        slice("a", "b"),
        [True, True, False],
        np.array([True, True, False]),
        pd.Index(["b", "a"]),
        make_column_selector("[ab]"),
    ],
)
def test_ways_to_name_columns(columns):
    X = pd.DataFrame(normal(100, 3), columns=["a", "b", "c"])
    Y = ampute(X, mechanism="modality", modalities={"m": columns}, random_state=0)
    removed = Y.isna()
    assert removed["a"].any()
    assert (removed["a"] == removed["b"]).all()
    assert not (removed["a"] & removed["c"]).any()


def test_a_single_column_is_a_modality():
    X = pd.DataFrame(normal(100, 3), columns=["a", "b", "c"])
    for column in ("b", 1):
        Y = ampute(
            X,
            mechanism="modality",
            rate={"m": 0.4},
            modalities={"m": column},
            random_state=0,
        )
        np.testing.assert_array_equal(Y.isna().any(), [False, True, False])


# ---- types


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.int64, np.float64),
        (np.uint8, np.float64),
        (bool, np.float64),
        (object, object),
        (str, object),
        ("datetime64[D]", "datetime64[D]"),
    ],
)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_arrays(mechanism, before, after):
    X = np.random.default_rng(0).integers(0, 3, (60, 3))
    if np.dtype(before).kind == "M":
        X = X + np.datetime64("2020-01-01")
    X = X.astype(before)
    Y = ampute(X, mechanism=mechanism, random_state=0)
    assert Y.dtype == after
    removed = pd.isna(Y)
    assert removed.any()
    np.testing.assert_array_equal(Y[~removed], X.astype(after)[~removed])


def test_lists_become_arrays():
    Y = ampute([[1, 2], [3, 4], [5, 6]], rate=0.4, random_state=0)
    assert np.isnan(Y).any()


COLUMNS = {
    "int": (pd.Series([1, 2, 3]), "float64"),
    "Int": (pd.Series([1, 2, None], dtype="Int64"), "Int64"),
    "bool": (pd.Series([True, False, True]), "boolean"),
    "float": (pd.Series([0.5, np.nan, 1.5], dtype="float32"), "float32"),
    "category": (pd.Series(["u", None, "v"], dtype="category"), "category"),
    "object": (pd.Series(["u", 2, None], dtype=object), "object"),
    "date": (pd.Series(pd.date_range("2020", periods=3)), None),
    "zone": (pd.Series(pd.date_range("2020", periods=3, tz="Asia/Tokyo")), None),
    "text": (pd.Series(["u", "v", "w"]), None),
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_pandas(mechanism):
    columns = {name: pd.concat([c] * 20) for name, (c, _) in COLUMNS.items()}
    X = pd.DataFrame(columns).set_axis(range(100, 160))
    X.columns.name = "columns"
    before = X.copy(deep=True)
    Y = ampute(X, mechanism=mechanism, random_state=0)
    pd.testing.assert_frame_equal(X, before)
    pd.testing.assert_index_equal(Y.index, X.index)
    pd.testing.assert_index_equal(Y.columns, X.columns)
    for name, (_, dtype) in COLUMNS.items():
        kept, lost = Y[name].notna(), X[name].notna() & Y[name].isna()
        loses_type = lost.any() and dtype is not None
        assert Y[name].dtype == (dtype if loses_type else X[name].dtype), name
        assert (Y[name][kept] == X[name][kept]).all(), name
        assert not (kept & X[name].isna()).any()
    Y.loc[:, "float"] = 9.0
    pd.testing.assert_frame_equal(X, before)


def test_pandas_with_integer_names():
    Y = ampute(pd.DataFrame(normal(50, 2)), rate={1: 0.5}, random_state=0)
    assert list(Y.columns) == [0, 1]
    np.testing.assert_array_equal(Y.isna().any(), [False, True])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_polars(mechanism):
    pl = pytest.importorskip("polars")
    X = pl.DataFrame(
        {
            "int": [1, 2, 3] * 20,
            "bool": [True, False, None] * 20,
            "float": [0.5, float("nan"), None] * 20,
            "category": pl.Series(["u", None, "v"] * 20, dtype=pl.Categorical),
            "enum": pl.Series(["u", "v", "v"] * 20, dtype=pl.Enum(["u", "v"])),
            "text": ["u", "v", "w"] * 20,
            "date": pl.Series(range(60)).cast(pl.Date),
        }
    )
    before = X.clone()
    Y = ampute(X, mechanism=mechanism, random_state=0)
    assert X.equals(before)
    assert Y.schema == X.schema
    assert sum(Y.null_count().row(0)) > sum(X.null_count().row(0))
    assert (Y["float"].is_nan().sum() or 0) == 20  # was missing, so never removed
    for name in X.columns:
        kept = Y[name].is_not_null()
        assert Y[name].filter(kept).equals(X[name].filter(kept))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_frames_lose_the_cells_of_arrays(mechanism):
    X = normal(100, 4)
    X[:30, 1] = np.nan
    names = list("abcd")
    expected = ampute(X, mechanism=mechanism, random_state=0)
    frame = ampute(pd.DataFrame(X, columns=names), mechanism=mechanism, random_state=0)
    np.testing.assert_array_equal(frame.to_numpy(), expected)
    pl = pytest.importorskip("polars")
    frame = ampute(pl.DataFrame(X, names), mechanism=mechanism, random_state=0)
    assert isinstance(frame, pl.DataFrame)
    np.testing.assert_array_equal(frame.to_numpy(), expected)


# ---- errors


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mechanism": "mcr"}, "mechanism must be one of .* got 'mcr'"),
        ({"rate": 1.2}, r"rate must lie in \[0, 1\]; got 1.2"),
        ({"rate": -0.1}, r"rate must lie in \[0, 1\]; got -0.1"),
        ({"rate": np.nan}, r"rate must lie in \[0, 1\]; got nan"),
        ({"rate": [0.1, 0.2]}, r"rate must be one number or 3; got \[0.1, 0.2\]"),
        ({"rate": {"z": 0.2}}, r"rate names \['z'\], which are not among \['a'"),
        ({"modalities": {"m": ["z"]}}, r"modalities\['m'\]: there is no column 'z'"),
        ({"modalities": {"m": [3]}}, r"modalities\['m'\]: there is no column 3"),
        ({"modalities": {"m": [True]}}, "must have 3 entries, got 1"),
        ({"modalities": {"m": []}}, r"\['m'\]: a modality must have columns"),
        ({"modalities": {"m": [0, 1], "n": "b"}}, "'b' belongs to 'm', 'n'"),
        ({"modalities": {"a": "b"}}, "column 'a', which .* named like a modality"),
    ],
)
def test_errors_name_the_rule_and_the_value(parameters, message):
    X = pd.DataFrame(normal(10, 3), columns=["a", "b", "c"])
    with pytest.raises(ValueError, match=message):
        ampute(X, **{"mechanism": "modality", **parameters})


def test_errors_of_tables():
    with pytest.raises(ValueError, match="at least two columns; got 1"):
        ampute(normal(10, 1), mechanism="mar")
    with pytest.raises(ValueError, match="must be a frame or an"):
        ampute(np.zeros(3))
    with pytest.raises(ValueError, match="at least one cell"):
        ampute(np.zeros((0, 3)))
    with pytest.raises(TypeError, match="modalities must be a dict"):
        ampute(normal(10), mechanism="modality", modalities=[[0, 1]])
    with pytest.raises(ValueError, match="no column 'a': X has no column names"):
        ampute(normal(10), mechanism="modality", modalities={"m": ["a"]})
