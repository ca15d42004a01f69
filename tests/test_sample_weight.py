"""Weights of rows: what they change, what they do not, and what is refused."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.anchor import column_anchor
from admc_sklearn._cells.anchor.choose_coordinates import CoordinateSettings
from tests.conftest import FIRST_SEED, gaussian_table, hide, quick


def two_groups(n, seed):
    """Rows of two groups, whose second column rises or falls with the first one.

    The third one is noise; the fourth one says on which side the second lies.
    """
    rng = np.random.default_rng(FIRST_SEED + seed)
    x, group = rng.normal(size=n), rng.random(n) < 0.5
    y = np.where(group, x, -x) + 0.2 * rng.normal(size=n)
    side = np.where(y > 0, "up", "down")
    frame = pd.DataFrame({"x": x, "y": y, "z": rng.normal(size=n), "side": side})
    return frame, group


def without_y(frame):
    return frame.assign(y=np.nan, side=pd.Series([None] * len(frame), dtype=object))


def test_equal_weights_of_any_size_are_none_at_all():
    X = hide(gaussian_table(80, 4, 0)[0], 0.2, 0)
    expected = quick(max_epochs=1).fit(X).sample(X, 2)
    for weight in (np.full(80, 7.3e-5), 2000):
        found = quick(max_epochs=1).fit(X, sample_weight=weight).sample(X, 2)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame, pl.DataFrame])
def test_a_row_of_weight_zero_is_left_out(kind):
    X = hide(gaussian_table(90, 3, 0)[0], 0.2, 0)
    X[::3] = 1e3
    weight = np.where(np.arange(90) % 3 == 0, 0.0, np.linspace(1, 2, 90))
    groups = np.arange(90) // 2
    fitted = quick(max_epochs=1).fit(kind(X), sample_weight=weight, groups=groups)
    counts = weight > 0
    rest = {"sample_weight": weight[counts], "groups": groups[counts]}
    expected = quick(max_epochs=1).fit(kind(X[counts]), **rest)
    table = kind(X)
    np.testing.assert_array_equal(fitted.transform(table), expected.transform(table))
    assert len(fitted.transform(table)) == 90


def test_only_the_ratios_of_weights_count():
    X = hide(gaussian_table(80, 3, 0)[0], 0.2, 0)
    weight = np.linspace(1, 4, 80)
    found = quick(max_epochs=1).fit(X, sample_weight=weight).transform(X)
    # Powers of two are exact.
    large = quick(max_epochs=1).fit(X, sample_weight=2.0**900 * weight).transform(X)
    np.testing.assert_array_equal(found, large)


def test_the_anchor_learns_from_weights_what_it_learns_from_copies(monkeypatch):
    """Without what is chosen by random splits, which differ with the number of rows."""
    monkeypatch.setattr(column_anchor, "RIDGES", (1e-3,))
    rng = np.random.default_rng(FIRST_SEED)
    # Of few values: repeated ones would seem to determine each other.
    complete = (2 * gaussian_table(500, 4, 0)[0]).round()
    weight = np.where(complete[:, 0] > complete[:, 0].mean(), 4, 1)
    frame = pd.DataFrame(complete).add_prefix("x")
    frame["k"] = pd.cut(frame["x1"] + rng.normal(size=500), 3, labels=list("abc"))
    incomplete = frame.mask(rng.random(frame.shape) < 0.2)
    coordinates = CoordinateSettings(
        power_transforms=False, max_coordinates=1, max_coordinates_at_random=1
    )

    def fitted(frame, weight=None):
        imputer = quick(max_epochs=0, self_masking=False, keep_whole_numbers=False)
        cells = replace(imputer._settings.cells, coordinates=coordinates)
        imputer._settings = replace(imputer._settings, cells=cells)
        groups = np.zeros(len(frame))  # no row is held out
        imputer.set_output(transform="pandas")
        return imputer.fit(frame, groups=groups, sample_weight=weight)

    plain, weighted = fitted(incomplete), fitted(incomplete, weight)
    copies = np.repeat(np.arange(500), weight)
    repeated = fitted(incomplete.iloc[copies])
    numbers = list(frame)[:4]
    found, expected, unweighted = (
        imputer.transform(incomplete)[numbers].to_numpy()
        for imputer in (weighted, repeated, plain)
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(unweighted - expected).max() > 0.1
    found, expected, unweighted = (
        imputer.predict_proba(incomplete, "k")
        for imputer in (weighted, repeated, plain)
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(unweighted - expected).max() > 0.02


@pytest.mark.parametrize("light", [False, True])
def test_a_network_and_its_corrections_follow_the_heavy_rows(light):
    frame, group = two_groups(500, 0)
    weight = np.where(group, 1.0, 0.02)
    if light:
        weight = 1.02 - weight
    incomplete = frame.mask(np.random.default_rng(FIRST_SEED).random(frame.shape) < 0.1)
    imputer = quick(max_epochs=4, self_masking=True, n_bootstraps=1)
    imputer.fit(incomplete, sample_weight=weight)
    new, _ = two_groups(200, 1)
    sign = -1.0 if light else 1.0
    imputer.set_output(transform="pandas")
    found = imputer.transform(without_y(new))
    slope = np.polyfit(new["x"], found["y"], 1)[0]
    assert 0.7 < sign * slope < 1.2
    is_clear = new["x"].abs() > 0.5
    side = np.where(sign * new["x"] > 0, "up", "down")
    assert (found["side"] == side)[is_clear].mean() > 0.9
    drawn = imputer.sample(without_y(new), 1)[0]
    assert 0.6 < sign * np.polyfit(new["x"], drawn["y"], 1)[0] < 1.3
    again = pickle.loads(pickle.dumps(imputer))
    pd.testing.assert_frame_equal(again.transform(without_y(new)), found)


def test_shares_of_levels_are_weighted():
    rng = np.random.default_rng(FIRST_SEED)
    frame = pd.DataFrame({"k": ["a"] * 150 + ["b"] * 150, "x": rng.normal(size=300)})
    frame.loc[::10, "k"] = None
    weight = np.where(np.arange(300) < 150, 3.0, 1.0)
    imputer = quick(max_epochs=0, self_masking=False).fit(frame, sample_weight=weight)
    new = pd.DataFrame({"k": pd.Series([None], dtype=object), "x": [np.nan]})
    np.testing.assert_allclose(
        imputer.predict_proba(new, "k"), [[0.75, 0.25]], atol=0.01
    )


def test_donors_carry_weights_into_files(tmp_path, light_fits):
    """Rows come in pairs that are alike: half of them are worth next to nothing."""
    rng = np.random.default_rng(FIRST_SEED)
    key = rng.normal(size=(200, 3))
    heavy, light = (np.column_stack([key, rng.normal(size=(200, 3))]) for _ in "ab")
    X = np.concatenate([heavy, light, heavy])
    weight = np.repeat([1.0, 0.01, 1.0], 200)
    imputer = ADMCImputer(max_epochs=1, self_masking=False, random_state=0)
    imputer.fit(X, sample_weight=weight)
    assert imputer.model_.donors is not None
    new = heavy.copy()
    new[:, 3:] = np.nan
    found = imputer.transform(new)
    assert np.abs(found - heavy)[:, 3:].mean() < 0.4
    imputer.save(tmp_path / "weighted.admc")
    again = ADMCImputer.load(tmp_path / "weighted.admc")
    np.testing.assert_array_equal(again.transform(new), found)


@pytest.mark.parametrize("light", [False, True])
def test_blocks_follow_the_heavy_rows(light, blocks_alone):
    rng = np.random.default_rng(FIRST_SEED)
    z, group = rng.normal(size=(400, 2)), rng.random(400) < 0.5
    maps = rng.normal(size=(2, 2, 6))
    one, other = z @ maps[0], np.where(group[:, None], z, -z) @ maps[1]
    X = np.hstack([one, other]) + 0.1 * rng.normal(size=(400, 12))
    X[::5, 6:] = np.nan
    weight = np.where(group != light, 1.0, 0.02)
    modalities = {"one": slice(0, 6), "other": slice(6, 12)}
    imputer = ADMCImputer(modalities=modalities, max_epochs=2, random_state=0)
    imputer.fit(X, sample_weight=weight)
    assert imputer.dependence_ is not None
    new = z[:50]
    table = np.hstack([new @ maps[0], np.full((50, 6), np.nan)])
    found = imputer.transform(table)[:, 6:]
    expected = (-1 if light else 1) * new @ maps[1]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9


def test_a_survey_with_unequal_selection_is_weighted_back():
    """Households that spend much are drawn eight times as often as the others.

    So the spending that half of the sample does not report is too high where it is
    completed by the sample's own regression on income.
    """
    rng = np.random.default_rng(FIRST_SEED)
    n = 40_000
    income = rng.normal(size=n)
    spending = 0.5 * income + rng.normal(size=n)
    chance = np.where(spending > 0.8, 0.16, 0.02)
    chosen = rng.random(n) < chance
    sample, weight = np.column_stack([income, spending])[chosen], 1 / chance[chosen]
    is_lost = rng.random(len(sample)) < 0.5
    sample[is_lost, 1] = np.nan

    def population_mean(**fit_options):
        imputer = quick(max_epochs=3, self_masking=False).fit(sample, **fit_options)
        completed = imputer.sample(sample, 5)[:, :, 1].mean(axis=0)
        return np.average(completed, weights=weight)

    # The sampling error of the weighted mean is about 0.04.
    plain, weighted = population_mean(), population_mean(sample_weight=weight)
    assert abs(weighted - spending.mean()) < 0.12
    assert abs(plain - spending.mean()) > 0.2


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -1.0, 1.0, 1.0], "Negative values in data passed to `sample_weight`"),
        ([1.0, np.nan, 1.0, 1.0], "Input sample_weight contains NaN"),
        ([1.0, np.inf, 1.0, 1.0], "Input sample_weight contains infinity"),
        ([1.0, 1.0, 1.0], r"sample_weight.shape == \(3,\), expected \(4,\)!"),
        (np.ones((4, 1)), "Sample weights must be 1D array or scalar"),
        (np.zeros(4), "Sample weights must contain at least one non-zero number"),
        (["a", "b", "c", "d"], "could not convert string to float"),
    ],
)
def test_unsuitable_weights_are_refused(weight, message):
    X = np.arange(8.0).reshape(4, 2)
    with pytest.raises(ValueError, match=message):
        quick().fit(X, sample_weight=weight)


def test_weights_are_routed_through_a_pipeline():
    X = hide(gaussian_table(80, 3, 0)[0], 0.2, 0)
    y, weight = np.nan_to_num(X[:, 0]), np.linspace(1, 5, 80)
    with sklearn.config_context(enable_metadata_routing=True):
        imputer = quick(max_epochs=0).set_fit_request(sample_weight=True)
        regression = LinearRegression().set_fit_request(sample_weight=False)
        pipeline = Pipeline([("impute", imputer), ("regress", regression)])
        pipeline.fit(X, y, sample_weight=weight)
    expected = quick(max_epochs=0).fit(X, sample_weight=weight).transform(X)
    np.testing.assert_array_equal(pipeline["impute"].transform(X), expected)
    plain = quick(max_epochs=0).fit(X).transform(X)
    assert np.abs(expected - plain).max() > 1e-3
    alone = quick(max_epochs=0).fit_transform(X, sample_weight=weight)
    np.testing.assert_array_equal(alone, expected)
