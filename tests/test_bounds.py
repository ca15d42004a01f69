"""Bounds of columns, and limits of single cells: detection limits and intervals."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.censoring import Power, draw_limited
from admc_sklearn._shared.contract import Rows

from .conftest import quick


def laboratory(seed, n=300):
    """A concentration, its 30 % detection limit, another one, and an outcome."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    lead = np.exp(1.2 * z + rng.normal(size=n) - 1)
    table = pd.DataFrame(
        {
            "lead": lead,
            "zinc": np.exp(z + 0.5 * rng.normal(size=n)),
            "outcome": 2 * np.log(lead) + rng.normal(size=n),
        }
    )
    return table, np.quantile(lead, 0.3)


@pytest.fixture(scope="module")
def censored():
    truth, limit = laboratory(0)
    table = truth.copy()
    table.loc[table["lead"] < limit, "lead"] = np.nan
    table.loc[np.random.default_rng(1).random(len(table)) < 0.15, "zinc"] = np.nan
    below = table["lead"].isna().to_numpy()
    bounds = {"lead": (0, np.where(below, limit, np.nan))}
    imputer = quick(max_epochs=5).fit(table, bounds=bounds)
    return truth, table, limit, below, bounds, imputer


def test_a_detection_limit_is_made_good(censored):
    truth, table, limit, _, bounds, imputer = censored
    draws = imputer.sample(table, 20, bounds=bounds)
    logs = np.log(truth["lead"])
    n = len(truth)

    def analyse(lead):
        x = np.log(lead)
        slope, start = np.polyfit(x, truth["outcome"], 1)
        spread = (truth["outcome"] - start - slope * x).std() / x.std() / np.sqrt(n)
        return np.array([x.mean(), x.std(), slope]), spread

    expected, error = analyse(truth["lead"])
    errors = np.array([logs.std() / np.sqrt(n), logs.std() / np.sqrt(2 * n), error])
    each = np.array([analyse(draw["lead"])[0] for draw in draws])
    pooled = np.sqrt(errors**2 + (1 + 1 / 20) * each.var(0, ddof=1))
    assert (np.abs(each.mean(0) - expected) < 2 * pooled).all()
    half, _ = analyse(table["lead"].fillna(limit / 2))
    assert (np.abs(half - expected) / pooled).max() > 2  # there that fails


def test_cells_keep_within_limits_and_inform_the_others(censored):
    _, table, limit, below, bounds, imputer = censored
    draws = imputer.sample(table, 3, bounds=bounds)
    quantiles = imputer.predict_quantiles(table, [0.01, 0.99], bounds=bounds)
    mean = imputer.transform(table, bounds=bounds)
    for found in (mean, *(np.asarray(t) for t in (*draws, *quantiles))):
        assert ((found[below, 0] >= 0) & (found[below, 0] <= limit)).all()
        assert not np.isnan(found).any()
    # A low lead level says that zinc is low.
    both = pd.DataFrame({"lead": [np.nan] * 2, "zinc": np.nan, "outcome": np.nan})
    ends = {"lead": ([np.nan, 2.0], [limit, np.nan])}
    low, high = imputer.transform(both, bounds=ends)
    assert low[1] < 0.5 * high[1]
    assert low[2] < high[2]


def test_draws_agree_with_means_and_quantiles(censored):
    _, table, _, below, bounds, imputer = censored
    rows = table[below][:12]
    own = {"lead": (0, bounds["lead"][1][below][:12])}
    draws = np.array([np.asarray(d) for d in imputer.sample(rows, 400, bounds=own)])
    gaps = rows.isna().to_numpy()
    mean = imputer.transform(rows, bounds=own)
    z = (draws.mean(0) - mean) / (draws.std(0) + 1e-9) * np.sqrt(400)
    assert np.abs(z[gaps]).mean() < 2  # of a standard normal it is 0.8
    median = np.asarray(imputer.predict_quantiles(rows, [0.5], bounds=own)[0])
    share = (draws <= median).mean(0)
    assert abs(share[gaps].mean() - 0.5) < 0.05


def test_several_limited_cells_of_a_row_depend_on_each_other(censored):
    *_, imputer = censored
    rows = pd.DataFrame({"lead": [np.nan] * 2, "zinc": np.nan, "outcome": 0.0})
    rows["outcome"] = np.nan
    apart = {"lead": (0, 3.0), "zinc": (0, [0.2, np.nan])}
    low, high = imputer.transform(rows, bounds=apart)
    assert low[0] < 0.7 * high[0]


def test_limits_as_arrays_and_frames_are_the_same(censored):
    _, table, _, _, bounds, imputer = censored
    rows = table[:30]
    upper = np.full(rows.shape, np.nan)
    upper[:, 0] = bounds["lead"][1][:30]
    expected = imputer.transform(rows, bounds={"lead": (0, upper[:, 0])})
    lower = np.array([0, np.nan, np.nan])
    for low, high in (
        (lower, upper),
        (lower, pd.DataFrame(upper)),
        ([0.0, None, None], pl.DataFrame(upper)),
    ):
        found = imputer.transform(rows, bounds=(low, high))
        np.testing.assert_array_equal(found, expected)
    # Observed cells have no limits, and none at all are as if they were not given.
    plain = imputer.transform(rows)
    for nothing in ({}, (None, None), (np.nan, np.inf), {"outcome": (100, 200)}):
        np.testing.assert_array_equal(imputer.transform(rows, bounds=nothing), plain)


def test_rows_do_not_depend_on_their_companions(censored):
    _, table, _, below, bounds, imputer = censored
    rows, ends = table[below][:9], bounds["lead"][1][below][:9]
    whole = imputer.sample(rows, 2, bounds={"lead": (0, ends)})
    alone = imputer.sample(rows[4:5], 2, bounds={"lead": (0, ends[4:5])})
    for many, one in zip(whole, alone, strict=True):
        np.testing.assert_allclose(many[4:5], one, rtol=1e-4, atol=1e-5)


def test_whole_numbers_dates_and_levels():
    rng = np.random.default_rng(0)
    n = 80
    size = rng.integers(10, 60, n)
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(2 * size, "D")
    table = pd.DataFrame(
        {"size": pd.array(size, "Int64"), "day": day, "kind": size > 30}
    )
    table["kind"] = pd.array(table["kind"], "boolean")
    table = table.mask(rng.random(table.shape) < 0.2)
    imputer = quick().set_output(transform="pandas").fit(table)
    rows = table[:6].copy()
    rows.loc[:, ["size", "day"]] = None
    first = pd.Timestamp("2023-06-01")
    bounds = {"size": (2.5, 4.4), "day": (None, first)}
    for found in (
        imputer.transform(rows, bounds=bounds),
        *imputer.sample(rows, 2, bounds=bounds),
    ):
        assert found["size"].isin([3, 4]).all()
        assert (found["day"] <= first).all()
        assert found.dtypes.equals(imputer.transform(rows).dtypes)
    with pytest.raises(ValueError, match=r"'size'.*no whole number"):
        imputer.transform(rows, bounds={"size": (2.2, 2.8)})
    with pytest.raises(ValueError, match=r"'kind'.*levels"):
        imputer.transform(rows, bounds={"kind": (0, 1)})


def test_bounds_of_a_column_open_its_tails():
    truth, _ = laboratory(3, 200)
    table = truth.copy()
    top = table["lead"] > table["lead"].quantile(0.9)
    table.loc[top, "lead"] = np.nan
    most = table["lead"].max()
    plain = quick(self_masking=False).fit(table)
    wide = clone(plain).set_params(bounds={"lead": (0, None)}).fit(table)
    closed = clone(plain).set_params(bounds={"lead": (0, 1.1 * most)}).fit(table)
    empty = table[:1].assign(lead=np.nan, zinc=50.0, outcome=6.0)
    rows = pd.concat([empty] * 50, ignore_index=True)
    highest = [
        max(draw["lead"].max() for draw in imputer.sample(rows, 4))
        for imputer in (plain, closed, wide)
    ]
    assert highest[0] <= most < highest[1] <= 1.1 * most < highest[2]
    drawn = np.array([draw["lead"] for draw in wide.sample(rows, 40)])
    mean = wide.transform(rows)[:, 0].mean()
    assert abs(drawn.mean() - mean) < 4 * drawn.std() / np.sqrt(drawn.size)
    assert drawn.min() >= 0


def test_bounds_survive_files_and_pickles(tmp_path, censored):
    truth, *_ = censored
    imputer = quick(bounds={"lead": (0, None), "zinc": (None, 1000.0)}).fit(truth)
    imputer.save(tmp_path / "one")
    loaded = ADMCImputer.load(tmp_path / "one")
    gaps = truth[:20].assign(lead=np.nan)
    np.testing.assert_array_equal(imputer.transform(gaps), loaded.transform(gaps))
    assert loaded.bounds == {"lead": (0, None), "zinc": (None, 1000.0)}
    with pytest.raises(ValueError, match="bounds"):
        imputer.export_onnx(tmp_path / "graph")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"lead": (3, 1)}, "'lead'.*above"),
        ({"lead": (1,)}, "'lead'.*pair"),
        ({"lead": ("low", 1)}, "'lead'.*'low'"),
        ({"tin": (0, 1)}, "tin"),
        ({"lead": (0, [1.0, 2.0])}, "'lead'.*shape"),
        ((0, np.zeros((2, 2))), "shape"),
    ],
)
def test_unsuitable_limits_name_the_column(censored, bounds, message):
    *_, imputer = censored
    rows = pd.DataFrame({"lead": [np.nan] * 3, "zinc": 1.0, "outcome": 0.0})
    with pytest.raises(ValueError, match=message):
        imputer.transform(rows, bounds=bounds)
    with pytest.raises(TypeError, match="pair of arrays"):
        imputer.transform(rows, bounds=3)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"lead": (100, None)}, "'lead'.*exclude observed"),
        ({"lead": (None, 0.1)}, "'lead'.*exclude observed"),
        ({"lead": 3}, "'lead'.*pair"),
        ({"lead": (3, 1)}, "'lead'.*above"),
        ({"lead": (0, np.ones(40))}, "'lead'.*single cells"),
        ({"tin": (0, 1)}, "tin"),
    ],
)
def test_unsuitable_bounds_name_the_column(bounds, message):
    table, _ = laboratory(4, 40)
    with pytest.raises(ValueError, match=message):
        quick(bounds=bounds).fit(table)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("power", [-0.5, 0.0, 0.5, 2.0])
def test_power_transforms_increase_and_invert(sign, power):
    transform = Power(sign, 1.5, power)
    x = 1.5 + sign * np.linspace(0.1, 5, 40)
    x = np.sort(x)
    assert (np.diff(transform(x)) > 0).all()
    np.testing.assert_allclose(transform.inverse(transform(x)), x, rtol=1e-9)
    step = 1e-6
    slope = (transform(x + step) - transform(x - step)) / (2 * step)
    np.testing.assert_allclose(np.log(slope), transform.log_slope(x), atol=1e-5)


def test_drawn_cells_have_the_distribution_that_was_cut():
    """A normal column cut at both ends, and a skew one at the lower."""
    rng = np.random.default_rng(5)
    n = 4000
    z = rng.normal(size=(n, 2))
    truth = np.column_stack([z[:, 0], np.exp(0.6 * z[:, 0] + 0.8 * z[:, 1])])
    limits = np.stack([np.full((n, 2), -np.inf), np.full((n, 2), np.inf)], -1)
    observed = np.ones((n, 2), dtype=bool)
    low, top = truth[:, 0] < -0.5, truth[:, 0] > 1
    limits[low, 0, 1], limits[top, 0, 0] = -0.5, 1
    skew = truth[:, 1] < 0.7
    limits[skew, 1] = 0, 0.7
    observed[low | top, 0], observed[skew, 1] = False, False
    values = np.where(observed, truth, 0).astype(np.float32)
    rows = Rows(values, observed, limits=limits)
    found = draw_limited(rows, np.zeros(2, int), 0)
    assert found.observed.all()
    assert found.limits is None
    x, y = found.values.T.astype(float)
    assert (x[low] <= -0.5).all()
    assert (x[top] >= 1).all()
    assert ((y[skew] >= 0) & (y[skew] <= 0.7)).all()
    error = 1 / np.sqrt(n)
    assert abs(x.mean() - z[:, 0].mean()) < 3 * error
    assert abs(x.std() - z[:, 0].std()) < 3 * error
    for cut, one, other in ((low, x, truth[:, 0]), (skew, y, truth[:, 1])):
        for level in (0.1, 0.5):
            true = np.quantile(other[cut], level)
            assert abs((one[cut] <= true).mean() - level) < 0.08
    true = np.corrcoef(z[:, 0], np.log(truth[:, 1]))[0, 1]
    assert abs(np.corrcoef(x, np.log(y))[0, 1] - true) < 3 * error


def test_rows_without_weight_teach_no_limits():
    truth, limit = laboratory(7, 60)
    table = truth.copy()
    below = (table["lead"] < limit).to_numpy()
    table.loc[below, "lead"] = np.nan
    weight = np.where(np.arange(60) % 4, 1.0, 0.0)
    some = weight > 0
    bounds = {"lead": (0, np.where(below, limit, np.nan))}
    one = quick().fit(table, sample_weight=weight, bounds=bounds)
    own = {"lead": (0, bounds["lead"][1][some])}
    other = quick().fit(table[some], bounds=own)
    np.testing.assert_array_equal(
        one.transform(table, bounds=bounds), other.transform(table, bounds=bounds)
    )


def test_open_limits_are_not_drawn_at_the_limit(censored):
    """Beyond the observed range what is drawn stays where it was drawn."""
    _, table, limit, below, _, _ = censored
    plain = quick(self_masking=False).fit(table)  # `fit` had no limits
    draws = plain.sample(
        table, 3, bounds={"lead": (None, np.where(below, limit, np.nan))}
    )
    drawn = np.array([draw["lead"][below] for draw in draws])
    assert (drawn <= limit).all()
    assert len(np.unique(drawn)) > drawn.size / 2
    most = table["lead"].max()
    rows = table[below][:10]
    far = plain.sample(rows, 3, bounds={"lead": (1.01 * most, None)})
    far = np.array([draw["lead"] for draw in far])
    assert (far >= 1.01 * most).all()
    assert len(np.unique(far)) > far.size / 2


def test_limits_keep_within_the_bounds_of_the_column(censored):
    _, table, limit, below, _, _ = censored
    limits = {"lead": (None, np.where(below, limit, np.nan))}
    imputer = quick(bounds={"lead": (0, None)}).fit(table, bounds=limits)
    assert min(d["lead"].min() for d in imputer.sample(table, 3, bounds=limits)) >= 0
    rows = table[:4].assign(lead=np.nan)
    with pytest.raises(ValueError, match=r"'lead'.*beyond the column"):
        imputer.transform(rows, bounds={"lead": (-3, -1)})
    # The observed range stays what it was: for a further fit, and for new data.
    imputer.set_params(warm_start=True).fit(table, bounds=limits)
    ends = imputer._codec.scaling_.low_[0], imputer._codec.scaling_.high_[0]
    imputer.fit(table, bounds=limits)
    assert ends == (imputer._codec.scaling_.low_[0], imputer._codec.scaling_.high_[0])
    new = table.assign(lead=1.5 * table["lead"].max())
    with pytest.warns(UserWarning, match="'lead' leaves the range"):
        imputer.compare_new_data(new)


def test_a_fit_that_fails_leaves_ranges_as_they_were():
    truth, _ = laboratory(5, 60)
    imputer = quick(warm_start=True).fit(truth)
    before = imputer._codec.scaling_.low_.copy()
    imputer.set_params(
        bounds={"lead": (-9, 999)}, constraints=[{"sum": ["lead", "zinc"], "to": 2}]
    )
    with pytest.raises(ValueError, match="constraints"):
        imputer.fit(truth)
    np.testing.assert_array_equal(imputer._codec.scaling_.low_, before)


def test_a_value_beyond_an_end_of_limits_in_a_large_table():
    rng = np.random.default_rng(0)
    x = np.exp(rng.normal(size=5001))
    below = x < 0.5
    values = np.where(below, 0.0, x)[:, None].astype(np.float32)
    values[17], below[17] = -0.01, False  # a sample of the values would miss it
    limits = np.full((5001, 1, 2), [-np.inf, np.inf])
    limits[below, 0] = 0, 0.5
    found = draw_limited(
        Rows(values, ~below[:, None], limits=limits), np.zeros(1, int), 0
    )
    assert np.isfinite(found.values).all()
    assert (found.values[below] <= 0.5).all()


def test_frames_of_limits_may_have_columns_of_several_types():
    rng = np.random.default_rng(0)
    n = 40
    days = np.datetime64("2020-01-01") + rng.integers(0, 300, n)
    frame = pl.DataFrame({"day": days, "y": rng.normal(size=n)})
    gone = pl.int_range(n) % 4 == 0
    frame = frame.with_columns(pl.when(gone).then(None).otherwise("day").alias("day"))
    last = pd.Timestamp("2020-02-01").date()
    ends = pl.DataFrame({"day": [last] * n, "y": [None] * n})
    imputer = quick().set_output(transform="polars").fit(frame)
    found = imputer.transform(frame, bounds=(None, ends))
    assert found.filter(gone)["day"].dt.date().max() <= last
