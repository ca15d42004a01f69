"""Columns of floats that hold whole numbers are completed by whole numbers."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from admc_sklearn import ADMCImputer, CrossModalFeatures


def quick(**parameters):
    return ADMCImputer(**{"max_epochs": 0, "random_state": 0} | parameters)


@pytest.fixture
def survey():
    """Answers from 1 to 5, counts, and a column of real numbers, with gaps."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=200)
    frame = pd.DataFrame(
        {
            "answer": np.clip(np.rint(3 + z), 1, 5),
            "count": rng.poisson(np.exp(3 + z)).astype(float),
            "weight": 60 + z + 0.3 * rng.normal(size=200),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.2)


def cells(frame, completed, column):
    """Completed cells of a column, by any of the ways that they come in."""
    place = frame.columns.get_loc(column)
    return np.asarray(completed)[frame[column].isna().to_numpy(), place]


@pytest.mark.parametrize("library", ["pandas", "polars", "array", "float32"])
def test_answers_that_read_csv_made_floats_stay_whole(survey, library):
    table = {
        "pandas": survey,
        "polars": pl.from_pandas(survey),
        "array": survey.to_numpy(),
        "float32": survey.to_numpy(np.float32),
    }[library]
    is_array = isinstance(table, np.ndarray)
    imputer = quick(keep_whole_numbers=True if is_array else "from_frame").fit(table)
    ways = [
        imputer.transform(table),
        imputer.set_params(strategy="median").transform(table),
        imputer.set_params(strategy="sample").transform(table),
        *imputer.sample(table, 2),
        *imputer.predict_quantiles(table),
    ]
    for completed in ways:
        for column in ("answer", "count"):
            found = cells(survey, completed, column)
            assert (found == np.rint(found)).all()
            assert survey[column].min() <= found.min()
            assert found.max() <= survey[column].max()
        found = cells(survey, completed, "weight")
        assert (found != np.rint(found)).any()


def test_whole_numbers_can_be_switched_off_after_fit(survey):
    imputer = quick().fit(survey)
    rounded = cells(survey, imputer.transform(survey), "answer")
    mean = imputer.set_params(keep_whole_numbers=False).transform(survey)
    mean = cells(survey, mean, "answer")
    assert (mean != np.rint(mean)).any()
    np.testing.assert_array_equal(np.rint(mean), rounded)


def test_arrays_of_floats_are_rounded_only_where_that_is_asked_for(survey):
    X = survey.to_numpy()
    imputer = quick().fit(X)
    mean = cells(survey, imputer.transform(X), "answer")
    assert (mean != np.rint(mean)).any()
    imputer.set_params(keep_whole_numbers=True)
    rounded = cells(survey, imputer.transform(X), "answer")
    np.testing.assert_array_equal(np.rint(mean), rounded)


def test_one_or_two_whole_values_are_no_evidence():
    x = np.random.default_rng(0).normal(size=40)
    order = np.argsort(x)
    frame = pd.DataFrame({"x": x, "few": np.nan})
    frame.loc[order[[0, -1]], "few"] = 0.0, 5.0
    found = quick().fit_transform(frame)[:, 1]
    assert (found != np.rint(found)).any()
    frame.loc[order[20], "few"] = 2.0
    found = quick().fit_transform(frame)[:, 1]
    assert (found == np.rint(found)).all()


def test_integers_by_dtype_stay_whole_when_it_is_switched_off(survey):
    frame = survey.astype({"answer": "Int64"})
    imputer = quick(keep_whole_numbers=False).set_output(transform="pandas")
    assert imputer.fit_transform(frame)["answer"].dtype == "Int64"


def test_one_fraction_makes_a_column_real(survey):
    survey.loc[survey["answer"].first_valid_index(), "answer"] = 2.5
    found = cells(survey, quick().fit_transform(survey), "answer")
    assert (found != np.rint(found)).any()


def test_a_small_negative_number_is_not_rounded_to_minus_zero():
    rng = np.random.default_rng(0)
    X = np.rint(2 * rng.normal(size=(200, 2)))
    X[::3, 0] = np.nan
    completed = quick(keep_whole_numbers=True).fit_transform(X)[::3, 0]
    zeros = completed[completed == 0]
    assert len(zeros)
    assert not np.signbit(zeros).any()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("scale", [2.0**60, 1e300])
def test_huge_floats_are_whole_and_left_alone(scale):
    rng = np.random.default_rng(0)
    z = rng.normal(size=100)
    X = np.column_stack([z + 0.1 * rng.normal(size=100), z])
    X[:20, 0] = np.nan
    rounding = quick(keep_whole_numbers=True)
    expected = quick().fit_transform(X)
    completed = rounding.fit_transform(X * [scale, 1.0])
    np.testing.assert_allclose(completed[:, 0] / scale, expected[:, 0], rtol=1e-4)


def test_constant_and_almost_empty_columns_of_whole_numbers():
    X = np.full((30, 3), 7.0)
    X[:, 1] = np.arange(30) + 0.5
    X[3:, 2] = np.nan
    X[:3, 2] = [1.0, 2.0, 4.0]
    X[::2, 0] = np.nan
    completed = quick(keep_whole_numbers=True).fit_transform(X)
    assert (completed[:, 0] == 7).all()
    assert np.isin(completed[:, 2], [1, 2, 3, 4]).all()


def test_counterparts_are_features_and_not_rounded(survey):
    out = CrossModalFeatures(quick(), cv=0).fit_transform(survey)
    completed, generated = out[:, :3], out[:, 3:]
    assert (completed[:, 0] == np.rint(completed[:, 0])).all()
    assert (generated[:, 0] != np.rint(generated[:, 0])).any()
