"""Which cells are completed: `impute_features` and `where`; the others stay."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_selector

from admc_sklearn import ADMCImputer

from .conftest import gaussian_table, hide, quick


@pytest.fixture(scope="module")
def X():
    return hide(gaussian_table(80, 4, 0)[0], 0.3, 1)


@pytest.fixture(scope="module")
def imputer(X):
    return quick(add_indicator=True).fit(X)


def frame(n=60):
    rng = np.random.default_rng(0)
    a = rng.normal(size=n)
    made = pd.DataFrame(
        {
            "a": a,
            "twice": 2 * a,
            "whole": pd.array(rng.integers(0, 9, n), dtype="Int64"),
            "level": pd.Categorical(np.where(a > 0, "x", "y")),
            "day": pd.Timestamp("2020-01-01")
            + pd.to_timedelta(rng.integers(0, 99, n), "D"),
        }
    )
    return made.mask(rng.random(made.shape) < 0.3)


def test_other_cells_stay_and_completed_ones_are_as_ever(imputer, X):
    where = np.random.default_rng(2).random(X.shape) < 0.5
    full, lost = imputer.transform(X), np.isnan(X)
    found = imputer.transform(X, where=where)
    np.testing.assert_array_equal(
        found[:, :4], np.where(lost & ~where, np.nan, full[:, :4])
    )
    np.testing.assert_array_equal(
        found[:, 4:], full[:, 4:]
    )  # flags say what was missing
    pairs = [
        (imputer.sample(X, 2, where=where), imputer.sample(X, 2)),
        (
            imputer.predict_quantiles(X, [0.2, 0.8], where=where),
            imputer.predict_quantiles(X, [0.2, 0.8]),
        ),
    ]
    for some, every in pairs:
        for one, all_cells in zip(some, every, strict=True):
            expected = np.where(lost & ~where, np.nan, all_cells[:, :4])
            np.testing.assert_array_equal(one[:, :4], expected)
    np.testing.assert_array_equal(
        imputer.transform(X, where=np.ones(X.shape, bool)), full
    )
    none = imputer.transform(X, where=np.zeros(X.shape, bool))
    np.testing.assert_array_equal(none[:, :4], X)


@pytest.mark.parametrize(
    "columns", [[1, 3], [False, True, False, True], slice(1, None, 2)]
)
def test_columns_to_complete(imputer, X, columns):
    some = clone(imputer).set_params(impute_features=columns)
    vars(some).update({**vars(imputer), **some.get_params()})
    full, found = imputer.transform(X), some.transform(X)
    np.testing.assert_array_equal(found[:, [1, 3]], full[:, [1, 3]])
    np.testing.assert_array_equal(found[:, [0, 2]], X[:, [0, 2]])
    assert list(some.get_feature_names_out()) == list(imputer.get_feature_names_out())


def test_frames_keep_dtypes_and_gaps():
    table = frame()
    imputer = quick().fit(table).set_output(transform="pandas")
    full = imputer.transform(table)
    for columns in (["a", "day"], make_column_selector(dtype_include="category")):
        found = imputer.set_params(impute_features=columns).transform(table)
        chosen = columns if isinstance(columns, list) else ["level"]
        others = [name for name in table if name not in chosen]
        pd.testing.assert_frame_equal(found[chosen], full[chosen])
        pd.testing.assert_frame_equal(found[others], table[others])
    # With `where` besides, both have to agree.
    where = table.notna() | (np.arange(len(table)) < 30)[:, None]
    imputer.set_params(impute_features=["a", "whole"])
    found = imputer.transform(table, where=where)
    assert found["whole"].dtype == "Int64"
    assert found["a"][:30].notna().all()
    assert found["a"][30:].isna().equals(table["a"][30:].isna())
    drawn = imputer.sample(table, 2, where=where)
    pd.testing.assert_series_equal(drawn[1]["level"], table["level"])


def test_a_polars_frame_and_markers():
    table = pl.DataFrame(
        {"a": [1.5, None, 2.5, 3.0] * 20, "b": ["x", None, "y", "x"] * 20}
    )
    imputer = quick(impute_features=["a"]).fit(table).set_output(transform="polars")
    found = imputer.transform(table)
    assert found["a"].null_count() == 0
    assert found["b"].equals(table["b"])
    X = np.where(np.isnan(hide(gaussian_table(50, 3, 0)[0], 0.2, 1)), -99.0, 1.0)
    X *= np.where(X < 0, 1, gaussian_table(50, 3, 0)[0])
    imputer = quick(missing_values=-99, impute_features=[0]).fit(X)
    found = imputer.transform(X)
    assert (found[:, 0] != -99).all()
    np.testing.assert_array_equal(found[:, 1:], X[:, 1:])


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (np.ones((80, 3), bool), r"shape \(80, 4\); got bool of shape \(80, 3\)"),
        (np.ones((80, 4)), "array of bool"),
    ],
)
def test_where_of_another_form_is_refused(imputer, X, where, words):
    with pytest.raises(ValueError, match=words):
        imputer.transform(X, where=where)
    with pytest.raises(ValueError, match=words):
        imputer.sample(X, where=where)


def test_unknown_columns_are_named(X):
    imputer = ADMCImputer(max_epochs=0, impute_features=[7]).fit(X)
    with pytest.raises(ValueError, match="impute_features"):
        imputer.transform(X)
