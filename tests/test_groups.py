"""Rows of one group inform each other: `group_effects`."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from admc_sklearn import ADMCImputer
from admc_sklearn._table.group_means import GroupMeans

from .conftest import quick


def schools(seed, n_groups=30, size=8):
    """Pupils with a strong effect of their school in two columns, none in the third."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), size)
    n = len(group)
    effect = rng.normal(size=(n_groups, 2))[group]
    truth = pd.DataFrame(
        {
            "score": 2 * effect[:, 0] + rng.normal(size=n),
            "passed": effect[:, 1] + 0.5 * rng.normal(size=n) > 0,
            "age": rng.normal(size=n),
        }
    )
    lost = rng.random(truth.shape) < 0.25
    return truth, truth.astype({"passed": "boolean"}).mask(lost), lost, group


@pytest.fixture(scope="module")
def fitted():
    truth, table, lost, group = schools(0)
    imputer = quick(group_effects=True, self_masking=False).fit(table, groups=group)
    return truth, table, lost, group, imputer


def test_other_rows_of_the_group_inform(fitted):
    truth, table, lost, group, imputer = fitted
    plain = quick(self_masking=False).fit(table)
    own = imputer.transform(table, groups=group)
    alone = plain.transform(table)
    gone = lost[:, 0]
    errors = [
        np.sqrt(np.mean((found[gone, 0].astype(float) - truth["score"][gone]) ** 2))
        for found in (own, alone)
    ]
    # The effect of the school is four fifths of the variance.
    assert errors[0] < 0.75 * errors[1]
    right = [
        (found[lost[:, 1], 1] == truth["passed"][lost[:, 1]]).mean()
        for found in (own, alone)
    ]
    assert right[0] > right[1] + 0.1
    assert own.shape == alone.shape == table.shape
    assert len(imputer._group_means.columns) == 2  # age has no effect of the school


def test_groups_that_fit_has_not_seen(fitted):
    *_, imputer = fitted
    truth, table, lost, group = schools(1)
    found = imputer.transform(table, groups=[f"new {g}" for g in group])
    gone = lost[:, 0]
    error = np.sqrt(np.mean((found[gone, 0].astype(float) - truth["score"][gone]) ** 2))
    assert error < 0.75 * truth["score"].std()
    np.testing.assert_array_equal(found, imputer.transform(table, groups=group))
    # A row alone in its group is completed by its own cells.
    alone = imputer.transform(table[:5], groups=np.arange(5))
    assert not pd.isna(alone).any()


def test_a_row_does_not_inform_itself():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(10), 4)
    x = (rng.normal(size=10)[group] + 0.3 * rng.normal(size=40))[:, None]
    observed = rng.random(x.shape) < 0.8
    found = GroupMeans.fit(x, observed, np.zeros(1, int), group)
    values, seen = found(x, observed, group)
    other = x.copy()
    other[7] = 100.0
    again, _ = found(other, observed, group)
    assert again[7] == values[7]
    ratio, scale, center = found.ratio[0], found.scale[0], found.center[0]
    rest = observed[:, 0] & (group == group[7]) & (np.arange(40) != 7)
    expected = (x[rest, 0] - center).sum() / (rest.sum() + ratio) / scale
    assert values[7, 0] == pytest.approx(expected, rel=1e-5)
    assert seen[7, 0] == rest.any()


def test_all_methods_take_groups(fitted, tmp_path):
    _, table, lost, group, imputer = fitted
    rows, own = table[:16], group[:16]
    draws = imputer.sample(rows, 200, groups=own)
    mean = imputer.transform(rows, groups=own)[:, 0].astype(float)
    drawn = np.array([draw["score"] for draw in draws])
    gone = lost[:16, 0]
    error = drawn.std(0)[gone] / np.sqrt(200)
    assert (np.abs(drawn.mean(0) - mean)[gone] < 5 * error).all()
    low, high = imputer.predict_quantiles(rows, [0.1, 0.9], groups=own)
    assert (low["score"] <= high["score"]).all()
    proba = imputer.predict_proba(rows, "passed", groups=own)
    np.testing.assert_allclose(proba.sum(1), 1)
    moved = imputer.sample(rows, 3, groups=own, delta={"score": 5.0})
    bounded = imputer.transform(rows, groups=own, bounds={"score": (8, 9)})
    assert np.mean([m["score"][gone].mean() for m in moved]) > drawn[:, gone].mean() + 1
    assert ((bounded[gone, 0] >= 8) & (bounded[gone, 0] <= 9)).all()
    imputer.save(tmp_path / "one")
    loaded = ADMCImputer.load(tmp_path / "one")
    np.testing.assert_array_equal(
        loaded.transform(rows, groups=own), imputer.transform(rows, groups=own)
    )
    again = clone(imputer)
    again._settings = imputer._settings
    np.testing.assert_array_equal(
        again.fit_transform(table, groups=group), imputer.transform(table, groups=group)
    )


def test_groups_are_needed_and_fit(fitted):
    _, table, _, group, imputer = fitted
    with pytest.raises(ValueError, match="needs groups"):
        quick(group_effects=True).fit(table)
    with pytest.raises(ValueError, match="need groups"):
        imputer.transform(table)
    for wrong, message in (
        (group[:3], "one label for each"),
        ("age", "one label for each"),
        (np.where(group > 3, group, np.nan), "32 rows have none"),
    ):
        with pytest.raises(ValueError, match=message):
            imputer.transform(table, groups=wrong)
        with pytest.raises(ValueError, match=message):
            quick().fit(table, groups=wrong)
    with pytest.raises(ValueError, match="group_effects"):
        imputer.export_onnx("nowhere")


def test_training_goes_on_with_the_columns_that_were_chosen(fitted):
    _, table, _, group, imputer = fitted
    more = clone(imputer).set_params(warm_start=True)
    more._settings = imputer._settings
    more.fit(table, groups=group)
    columns = list(more._group_means.columns)
    effect = np.random.default_rng(3).normal(size=group.max() + 1)[group]
    more.fit(table.assign(age=table["age"] + 3 * effect), groups=group)
    assert more._group_means.columns == columns
    with pytest.raises(ValueError, match="group_effects"):
        more.set_params(group_effects=False).fit(table)


def test_weights_count_in_the_effects_of_groups():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 5)
    x = (2 * rng.normal(size=20)[group] + rng.normal(size=100))[:, None]
    known = np.ones((100, 1), dtype=bool), np.zeros(1, dtype=int)
    weight = np.where(group < 10, 2.0, 1.0)
    twice = np.repeat(np.arange(100), weight.astype(int))
    one = GroupMeans.fit(x, *known, group, weight)
    other = GroupMeans.fit(x[twice], known[0][twice], known[1], group[twice])
    np.testing.assert_allclose(one.center, other.center)
    np.testing.assert_allclose(one.ratio, other.ratio)
