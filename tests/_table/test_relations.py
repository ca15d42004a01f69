"""Columns that one other column determines: found, and completed exactly."""

import numpy as np
import pandas as pd
import pytest

from admc_sklearn import ADMCImputer
from admc_sklearn._table.relations import Relations


def found(X, observed=None, is_level=None):
    """Pairs of columns (source, target) of an array."""
    observed = np.ones(X.shape, dtype=bool) if observed is None else observed
    is_level = np.zeros(X.shape[1], dtype=bool) if is_level is None else is_level
    rules = Relations().fit(X, observed, is_level).rules_
    return {(rule.source, rule.target) for rule in rules}


def temperatures(n=300, seed=0):
    rng = np.random.default_rng(seed)
    celsius = rng.normal(15, 8, n)
    return np.c_[celsius, celsius * 9 / 5 + 32, 60 - celsius + 5 * rng.normal(size=n)]


def imputer(**options):
    return ADMCImputer(max_epochs=0, random_state=0, **options)


@pytest.mark.parametrize("n", [30, 300])
def test_fahrenheit_beside_celsius_is_exact(n):
    """Errors were up to half a degree, intervals six times as wide as they are."""
    X = temperatures(n)
    holes = np.random.default_rng(1).random(X.shape) < 0.25
    holes[np.argmax(X[:, 0])] = [False, True, False]  # beyond what was observed
    gaps = np.where(holes, np.nan, X)
    model = imputer().fit(gaps)
    sure = (holes[:, :2] & ~holes[:, 1::-1]).nonzero()
    truth = X.copy()
    if n == 30:  # too few rows to follow a line beyond what was observed
        truth = truth.clip(np.nanmin(gaps, 0), np.nanmax(gaps, 0))
    quantiles = model.predict_quantiles(gaps, [0.05, 0.95])
    for table in (model.transform(gaps), *quantiles, *model.sample(gaps, 2)):
        np.testing.assert_allclose(table[sure], truth[sure], atol=1e-6)
    # Unseen rows as well, wherever they lie.
    row = np.array([[60.0, np.nan, 3.0]])
    end = np.nanmax(gaps[:, 1]) if n == 30 else 140.0
    assert model.transform(row)[0, 1] == pytest.approx(end)


def test_draws_of_columns_that_determine_each_other_agree():
    X = temperatures()
    gaps = X.copy()
    gaps[:60, :2] = np.nan
    model = imputer().fit(gaps)
    for table in (model.transform(gaps), *model.sample(gaps, 3)):
        np.testing.assert_allclose(table[:60, 1], table[:60, 0] * 1.8 + 32, atol=1e-6)
    spread = np.std(model.sample(gaps, 20)[:, :60, 1], axis=0)
    assert (spread > 1).mean() > 0.9


def test_a_rounded_column_is_rounded_as_it_was():
    X = temperatures()
    X[:, 1] = np.round(X[:, 1])
    truth = X[:50, 1].copy()
    X[:50, 1] = np.nan
    completed = imputer().fit_transform(X)[:50, 1]
    assert (completed == np.rint(completed)).all()
    assert (np.abs(completed - truth) < 1.5).all()
    assert (completed == truth).mean() > 0.9


def test_what_rounding_took_away_is_not_made_up():
    """Whole degrees of Fahrenheit leave Celsius open."""
    X = temperatures()
    X[:, 1] = np.round(X[:, 1])
    assert found(X) == {(0, 1)}
    X[:, 0] = np.round(X[:, 0])
    assert found(X) == set()


@pytest.mark.parametrize("noise", [1e-4, 1e-2])
def test_near_exact_relations_are_no_relations(noise):
    X = temperatures()
    X[:, 1] += noise * X[:, 1].std() * np.random.default_rng(3).normal(size=len(X))
    assert found(X) == set()


@pytest.mark.parametrize("seed", range(5))
def test_tables_without_relations_have_none(seed):
    rng = np.random.default_rng(seed)
    n = rng.choice([12, 40, 200])
    z = rng.normal(size=(n, 1))
    columns = [
        z + rng.normal(size=(n, 2)),
        np.round(z + rng.normal(size=(n, 4))),
        rng.integers(0, 2, size=(n, 3)),
        rng.integers(0, n, size=(n, 1)),
        rng.random((n, 2)) < 0.02,
    ]
    observed = rng.random((n, 12)) < 0.7
    assert found(np.concatenate(columns, 1).astype(float), observed) == set()


def test_powers_and_ratios_are_lines_of_logarithms():
    rng = np.random.default_rng(0)
    area = rng.lognormal(size=200)
    X = np.c_[area, np.sqrt(4 * area / np.pi), 3 / area, rng.lognormal(size=200)]
    assert found(X) == {(j, k) for j in range(3) for k in range(3) if j != k}


def test_units_change_nothing():
    X = temperatures()
    assert found(X * 1e-200) == found(X * 1e150) == found(X) == {(0, 1), (1, 0)}


def test_chains_are_followed():
    rng = np.random.default_rng(0)
    a = rng.normal(size=1200)
    X = np.c_[a, 2 * a, 1 - a, -a]
    # a is never seen beside the last column.
    observed = rng.random(X.shape) < 0.8
    observed[:, 0] &= ~observed[:, 3]
    relations = Relations().fit(X, observed, np.zeros(4, dtype=bool))
    values, known = np.where(observed, X, 0.0), observed.copy()
    relations.determine(values, known)
    some = observed.any(1)
    assert known[some].all()
    np.testing.assert_allclose(values[some], X[some], atol=1e-9)


def test_a_city_has_its_country_and_its_code():
    rng = np.random.default_rng(0)
    n = 400
    cities = np.array(["Bonn", "Cork", "Graz", "Lyon", "Nice", "Ulm"])
    countries = np.array(["DE", "IE", "AT", "FR", "FR", "DE"])
    codes = np.array([53.0, 21.0, 316.0, 69.0, 6.0, 731.0])
    place = rng.integers(0, 6, n)
    frame = pd.DataFrame(
        {
            "city": cities[place],
            "country": countries[place],
            "code": codes[place],
            "x": rng.normal(size=n) + place,
        }
    )
    holes = rng.random(frame.shape) < 0.3
    holes[:, 3] = False
    gaps = frame.mask(holes)
    model = imputer().fit(gaps)
    full = model.set_output(transform="pandas").transform(gaps)
    sure = ~(holes[:, 0] & holes[:, 2])
    for name in ("city", "code", "country"):
        assert (full[name] == frame[name])[sure].all(), name
    proba = model.predict_proba(gaps, "country")
    assert set(proba[sure].ravel()) == {0.0, 1.0}
    for draw in model.sample(gaps, 3):
        country = dict(zip(cities, countries, strict=True))
        assert (draw["country"] == draw["city"].map(country)).all()


def test_whole_numbers_and_dates_reach_beyond_their_range():
    rng = np.random.default_rng(0)
    day = rng.integers(0, 400, 200)
    frame = pd.DataFrame(
        {
            "day": pd.array(day, dtype="Int64"),
            "hours": pd.array(24 * day, dtype="Int64"),
            "date": pd.Timestamp("2020-01-01") + pd.to_timedelta(day, unit="D"),
            "x": rng.normal(size=200),
        }
    )
    gaps = frame.copy()
    ends = [int(day.argmax()), int(day.argmin())]
    gaps.loc[ends, "date"] = pd.NaT
    gaps.loc[[*ends, 3, 4], "hours"] = pd.NA
    full = imputer().set_output(transform="pandas").fit_transform(gaps)
    pd.testing.assert_frame_equal(full, frame)


def test_wide_columns_of_levels_are_no_identifiers():
    """Values that are met once say nothing about what determines what."""
    rng = np.random.default_rng(0)
    X = np.c_[np.arange(200.0), rng.integers(0, 3, 200)]
    assert found(X) == set()
    assert found(X, is_level=np.array([True, True])) == set()


def test_a_copy_of_whole_numbers_has_whole_numbers():
    """Not 6.999999."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, 9, 300).astype(float)
    X = np.c_[code, code, 3 - code, rng.normal(size=300)]
    holes = rng.random(X.shape) < 0.2
    full = imputer().fit_transform(np.where(holes, np.nan, X))
    sure = ~holes[:, :3].all(1)
    np.testing.assert_array_equal(full[sure, :3], X[sure, :3])
