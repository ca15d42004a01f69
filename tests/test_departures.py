"""Draws under stated departures from missing at random, and tipping points."""

import numpy as np
import pandas as pd
import pytest

from admc_sklearn.pooling import tipping_point

from .conftest import quick


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    n = 200
    z = rng.normal(size=n)
    full = pd.DataFrame(
        {
            "income": 10 * (z + 0.5 * rng.normal(size=n)),
            "rent": 2 * z + rng.normal(size=n),
            "owner": np.where(z + rng.normal(size=n) > 0, "yes", "no"),
            "age": rng.integers(20, 80, n),
        }
    )
    return full.mask(rng.random(full.shape) < 0.25)


@pytest.fixture(scope="module")
def imputer(table):
    return quick(self_masking=False).fit(table)


def mean_change(one, other, column, rows):
    return np.mean(
        [(a[column] - b[column])[rows].mean() for a, b in zip(one, other, strict=True)]
    )


def test_draws_are_shifted_and_the_rest_of_the_row_follows(table, imputer):
    plain = imputer.sample(table, 20)
    moved = imputer.sample(table, 20, delta={"income": 0.5})
    gone, sd = table["income"].isna(), table["income"].std()
    # Two sets of draws: the tolerance is their Monte-Carlo error.
    error = 3 * sd / np.sqrt(gone.sum() * 20)
    assert abs(mean_change(moved, plain, "income", gone) - 0.5 * sd) < error
    beside = table["rent"].isna()
    assert mean_change(moved, plain, "rent", beside & gone) > 0.2
    assert abs(mean_change(moved, plain, "rent", beside & ~gone)) < 1e-6
    for draw, known in zip(moved, [table] * 20, strict=True):
        pd.testing.assert_frame_equal(draw[known.notna()], known)


def test_departures_by_row_and_of_levels(table, imputer):
    n = len(table)
    treated = np.arange(n) < n // 2
    plain = imputer.sample(table, 20)
    gone = table["income"].isna().to_numpy()
    moved = imputer.sample(table, 20, delta={"income": np.where(treated, -1.0, 0.0)})
    sd = table["income"].std()
    error = 3 * sd / np.sqrt(gone[treated].sum() * 20)
    assert abs(mean_change(moved, plain, "income", gone & treated) + sd) < error
    assert abs(mean_change(moved, plain, "income", gone & ~treated)) < error

    gone = table["owner"].isna()
    share = [
        np.mean([(draw["owner"] == "yes")[gone].mean() for draw in draws])
        for draws in (
            imputer.sample(table, 20, delta={"owner": {"no": 2.0}}),
            plain,
            imputer.sample(table, 20, delta={"owner": 2.0}),
        )
    ]
    assert share[0] < share[1] - 0.15
    assert share[2] > share[1] + 0.15
    # Of a row in which nothing else is missing the log-odds are known.
    alone = table.notna().drop(columns="owner").all(axis=1) & gone
    rows = table[alone]
    p = imputer.predict_proba(rows, "owner")[:, 1]
    draws = imputer.sample(rows, 200, delta={"owner": 2.0})
    drawn = np.mean([(draw["owner"] == "yes").to_numpy() for draw in draws], axis=0)
    expected = 1 / (1 + (1 - p) / p * np.exp(-2))
    assert abs((drawn - expected).mean()) < 3 * 0.5 / np.sqrt(200 * len(rows))


def test_no_departure_is_no_change_and_bounds_hold(table, imputer):
    plain = imputer.sample(table, 20)
    for one, other in zip(imputer.sample(table, 2, delta={}), plain, strict=False):
        pd.testing.assert_frame_equal(one, other)
    # Columns that are named are drawn first, whatever the amount: other noise.
    gone, sd = table["income"].isna(), table["income"].std()
    same = imputer.sample(table, 20, delta={"income": 0.0})
    error = 3 * sd / np.sqrt(gone.sum() * 20)
    assert abs(mean_change(same, plain, "income", gone)) < error
    near = imputer.sample(table, 20, delta={"income": 1e-9})
    assert abs(mean_change(same, near, "income", gone)) < 1e-4 * sd
    low = min(draw["age"].min() for draw in imputer.sample(table, 3, delta={"age": -2}))
    assert low < table["age"].min()  # beyond the observed range
    bounded = quick(bounds={"age": (18, None)}, self_masking=False).fit(table)
    low = min(draw["age"].min() for draw in bounded.sample(table, 3, delta={"age": -2}))
    assert low == 18
    both = imputer.sample(
        table, 2, bounds={"income": (-5, 5)}, delta={"income": 9.0, "rent": 1.0}
    )
    gone = table["income"].isna()
    assert all(draw["income"][gone].between(-5, 5).all() for draw in both)


@pytest.mark.parametrize(
    ("delta", "error", "message"),
    [
        ({"wage": 1}, ValueError, "wage"),
        ({"owner": {"perhaps": 1}}, ValueError, "'owner'.*perhaps"),
        ({"income": "more"}, TypeError, "'income'.*number"),
        ({"income": [1.0, 2.0]}, ValueError, "'income'.*shape"),
        ({"income": np.inf}, ValueError, "'income'.*finite"),
        ({"income": 50}, ValueError, "'income'.*at most 10"),
        (0.5, TypeError, "dict"),
    ],
)
def test_unsuitable_departures_name_the_column(table, imputer, delta, error, message):
    with pytest.raises(error, match=message):
        imputer.sample(table, 1, delta=delta)


def test_tipping_point(table, imputer):
    def analysis(draw):
        x = draw["income"]
        return pd.Series({"mean": x.mean() - 2}), pd.Series({"mean": x.var() / len(x)})

    found = tipping_point(
        imputer, table, analysis, {"income": [-3, -1, 0, 1, 4]}, n_draws=5
    )
    frame = found.to_frame()
    assert frame["delta_income"].tolist() == [-3, -1, 0, 1, 4]
    assert frame["estimate"].is_monotonic_increasing
    base = frame["conclusion"][2]
    assert frame["changed"].tolist() == (frame["conclusion"] != base).tolist()
    tips = found.tips()
    assert tips["changed"].all()
    assert set(tips["delta_income"]) <= {-3, -1, 1, 4}
    assert frame["conclusion"].iloc[-1] == 1  # everybody far above
    plain = imputer.sample(table, 5)
    error = 3 * np.sqrt(found.pooled[2].between[0] / 5)
    expected = np.mean([analysis(draw)[0]["mean"] for draw in plain])
    assert abs(found.pooled[2].estimate[0] - expected) < 2 * error
    # The departures share their noise, none at all too.
    shift = np.diff([pooled.estimate[0] for pooled in found.pooled])
    share = table["income"].isna().mean() * table["income"].std()
    np.testing.assert_allclose(shift, share * np.array([2, 1, 1, 3]), rtol=0.02)
    pytest.importorskip("matplotlib")
    ax = found.plot("mean")
    assert ax.get_ylabel() == "mean"
    with pytest.raises(ValueError, match="no parameter"):
        found.plot("median")
    apart = tipping_point(
        imputer, table, analysis, [{}, {"income": 1, "rent": 2}], n_draws=2
    )
    with pytest.raises(ValueError, match="to_frame"):
        apart.plot()
    with pytest.raises(ValueError, match="one number of amounts"):
        tipping_point(imputer, table, analysis, {"income": [0], "rent": [0, 1]})
    with pytest.raises(ValueError, match="at least one"):
        tipping_point(imputer, table, analysis, [])


def test_whole_numbers_stay_whole(table):
    counts = table.assign(age=table["age"].round())
    imputer = quick(max_epochs=0).fit(counts)
    for draw in imputer.sample(counts, 3, delta={"age": -0.5}):
        assert (draw["age"] == draw["age"].round()).all()


def test_columns_of_any_shape_are_shifted_as_far_as_is_asked():
    """The network's coordinates end not far below a log-normal column."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=300)
    skew = np.exp(z + 0.5 * rng.normal(size=300))
    table = pd.DataFrame({"z": z, "skew": skew})
    gone = rng.random(300) < 0.3
    table.loc[gone, "skew"] = np.nan
    imputer = quick(self_masking=False).fit(table)
    base = imputer.sample(table, 20, delta={"skew": 0.0})
    for amount in (-2.0, -0.5, 1.0):
        moved = imputer.sample(table, 20, delta={"skew": amount})
        shift = mean_change(moved, base, "skew", gone) / table["skew"].std(ddof=0)
        assert shift == pytest.approx(amount, abs=1e-3)
