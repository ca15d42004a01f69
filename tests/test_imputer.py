"""ADMCImputer as its users meet it."""

import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from admc_sklearn import ADMCImputer
from tests.conftest import gaussian_table, hide, quick

light = pytest.mark.usefixtures("light_fits")


@pytest.fixture(scope="module")
def frame():
    X, _, _ = gaussian_table(120, 4, 0)
    X = pd.DataFrame(hide(X, 0.2, 0), columns=list("abcd"))
    return X.set_index(X.index[::-1] + 1000)


@pytest.mark.parametrize("rate", [0.3])
def test_beats_the_baselines_on_a_bundled_table(rate):
    X = load_breast_cancer().data
    order = np.random.default_rng(11).permutation(len(X))
    X = X[order]
    train, test = hide(X[:398], rate, 1), hide(X[398:], rate, 2)
    scale = np.nanstd(train, axis=0)

    def rmse(imputer):
        error = (imputer.fit(train).transform(test) - X[398:]) / scale
        return np.sqrt(np.mean(error[np.isnan(test)] ** 2))

    ours = rmse(ADMCImputer(random_state=0))
    assert ours < 0.85 * rmse(KNNImputer())
    assert ours < 0.5 * rmse(SimpleImputer())


@light
def test_pipeline_and_grid_search_in_two_processes():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = hide(X[:240, :6], 0.2, 0), y[:240]
    model = make_pipeline(
        quick(max_epochs=1), StandardScaler(), LogisticRegression(max_iter=200)
    )
    assert cross_val_score(model, X, y, cv=2).mean() > 0.85
    grid = {"admcimputer__strategy": ["mean", "median"]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.85


@light
def test_set_output_keeps_names_and_index(frame):
    imputer = quick(add_indicator=True).set_output(transform="pandas")
    completed = imputer.fit_transform(frame)
    assert completed.index.equals(frame.index)
    assert list(completed) == [*"abcd", *(f"missingindicator_{c}" for c in "abcd")]
    np.testing.assert_array_equal(
        completed.iloc[:, 4:].to_numpy(), frame.isna().to_numpy().astype(float)
    )


@pytest.mark.parametrize("keep", [True, False])
def test_indicator_and_names_are_those_of_scikit_learn(keep):
    X = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": [np.nan] * 3, "c": [1.0, 2.0, 3.0]})
    ours = quick(add_indicator=True, keep_empty_features=keep)
    theirs = SimpleImputer(add_indicator=True, keep_empty_features=keep).fit(X)
    with pytest.warns(UserWarning, match="observed"):
        ours.fit(X)
    assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())
    new = X.assign(c=[np.nan] * 3)  # missing only now: no indicator, as there
    got, expected = ours.transform(new), theirs.transform(new)
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got[:, -2:], expected[:, -2:])


@light
@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        (lambda X: X.to_numpy(), np.float64),
        (lambda X: X.to_numpy(np.float32), np.float32),
        (lambda X: X.astype("float32"), np.float32),
        (lambda X: X.convert_dtypes(), np.float64),
        (lambda X: X.astype("Float64"), np.float64),
        (lambda X: X.round().astype("Int64"), np.float64),
        (lambda X: X.astype(object), np.float64),
        (lambda X: X.to_numpy().tolist(), np.float64),
    ],
)
def test_every_way_to_hold_numbers(frame, convert, dtype):
    X = convert(frame)
    completed = quick().fit_transform(X)
    assert completed.dtype == dtype
    assert np.isfinite(completed).all()
    assert completed.shape == frame.shape


@light
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_integers_with_a_marker(dtype):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 50, size=(80, 3)).astype(dtype)
    X[rng.random(X.shape) < 0.2] = 99
    completed = quick(missing_values=99).fit_transform(X)
    assert (completed[X == 99] <= 49).all()
    np.testing.assert_array_equal(completed[X != 99], X[X != 99])


@light
@pytest.mark.parametrize("marker", [np.nan, None, pd.NA])
def test_nan_by_any_name(frame, marker):
    expected = quick().fit_transform(frame)
    got = quick(missing_values=marker).fit_transform(frame.astype("Float64"))
    np.testing.assert_array_equal(got, expected)


def test_a_marker_does_not_excuse_nan():
    X = np.array([[1.0, -1.0], [np.nan, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match="NaN"):
        quick(missing_values=-1).fit(X)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (sp.csr_matrix(np.eye(3)), TypeError, "[Ss]parse"),
        (np.empty((0, 3)), ValueError, "0 sample"),
        (np.empty((3, 0)), ValueError, "0 feature"),
        (np.arange(3.0), ValueError, "Reshape your data"),
        (np.array([[1j, 2j], [1j, 3j]]), ValueError, "Complex data"),
    ],
)
def test_bad_input_gets_scikit_learns_own_error(X, error, message):
    with pytest.raises(error, match=message) as ours:
        quick().fit(X)
    with pytest.raises(error) as theirs:
        KNNImputer().fit(X)
    assert str(ours.value).replace("ADMC", "KNN") == str(theirs.value)


def test_infinity_is_refused_by_column():
    X = np.array([[1.0, np.inf], [2.0, 3.0]])
    with pytest.raises(ValueError, match="infinity") as theirs:
        KNNImputer().fit(X)
    with pytest.raises(ValueError, match="'x1'") as ours:
        quick().fit(X)
    assert str(ours.value).startswith(str(theirs.value))
    frame = pd.DataFrame(X, columns=["a", "price"])
    with pytest.raises(ValueError, match=r"infinity .* column 'price'"):
        quick().fit(frame)
    fitted = quick(max_epochs=0).fit(frame.replace(np.inf, np.nan))
    with pytest.raises(ValueError, match=r"infinity .* column 'price'"):
        fitted.transform(frame)


@light
def test_strategy_and_steps_change_without_a_refit(frame):
    imputer = quick().fit(frame)
    mean = imputer.transform(frame)
    median = imputer.set_params(strategy="median").transform(frame)
    drawn = imputer.set_params(strategy="sample", n_steps=1).transform(frame)
    assert not np.array_equal(mean, median)
    assert not np.array_equal(median, drawn)
    np.testing.assert_array_equal(
        imputer.set_params(strategy="mean").transform(frame), mean
    )
    fresh = imputer.set_params(strategy="sample", n_steps=8).transform(frame)
    np.testing.assert_array_equal(fresh, imputer.sample(frame.to_numpy(), 1)[0])


@light
def test_sample_gives_arrays_for_arrays_and_frames_for_frames(frame):
    imputer = quick(add_indicator=True).fit(frame)
    draws = imputer.sample(frame, n_draws=3, random_state=1)
    assert len(draws) == 3
    for one in draws:
        assert one.index.equals(frame.index)
        assert list(one) == list(imputer.get_feature_names_out())
        pd.testing.assert_frame_equal(one[list("abcd")].where(frame.notna()), frame)
    assert not draws[0].equals(draws[1])
    plain = quick().fit(frame.to_numpy())
    again = plain.sample(frame.to_numpy(), 3, random_state=1)
    assert again.shape == (3, *frame.shape)
    other = plain.sample(frame.to_numpy(), 3, random_state=2)
    assert not np.array_equal(again, other)
    with pytest.raises(ValueError, match="n_draws"):
        plain.sample(frame.to_numpy(), 0)


def test_a_fitted_imputer_opens_in_another_process(frame, tmp_path):
    imputer = quick().fit(frame.to_numpy())
    expected = imputer.transform(frame.to_numpy())
    joblib.dump((imputer, frame.to_numpy(), expected), tmp_path / "fitted.joblib")
    code = (
        "import joblib, sys, numpy as np\n"
        f"imputer, X, expected = joblib.load({str(tmp_path / 'fitted.joblib')!r})\n"
        "np.testing.assert_allclose(imputer.transform(X), expected, atol=1e-4)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_pickle_holds_no_training_rows():
    X, _, _ = gaussian_table(4000, 3, 0)
    small = pickle.dumps(quick(max_epochs=0).fit(X[:2000]))
    large = pickle.dumps(quick(max_epochs=0).fit(X))
    assert len(large) == pytest.approx(len(small), rel=0.02)


@light
def test_a_pickle_from_another_device_opens_here(frame):
    imputer = quick().fit(frame)
    expected = imputer.transform(frame)
    state = imputer.__getstate__()
    arrays = state["_packed"]["arrays"].values()
    assert all(isinstance(array, np.ndarray) for array in arrays)  # on no device
    state["device_"] = "cuda:7"
    twin = ADMCImputer()
    twin.__setstate__(state)
    assert twin.device_.type == "cpu"
    np.testing.assert_array_equal(twin.transform(frame), expected)


@light
def test_a_wide_table_and_more_columns_than_rows():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(60, 3))
    X = base @ rng.normal(size=(3, 200)) + 0.3 * rng.normal(size=(60, 200))
    incomplete = hide(X, 0.3, 0)
    completed = quick().fit_transform(incomplete)
    missing = np.isnan(incomplete)
    baseline = SimpleImputer().fit_transform(incomplete)
    error = np.sqrt(np.mean((completed - X)[missing] ** 2))
    assert error < 0.5 * np.sqrt(np.mean((baseline - X)[missing] ** 2))


def test_a_single_row_and_a_single_column():
    one_row = quick().fit_transform([[1.0, np.nan, 3.0]])
    assert one_row[0, [0, 2]].tolist() == [1.0, 3.0]
    one_column = quick().fit_transform([[1.0], [np.nan], [3.0], [2.0]])
    assert 1.0 <= one_column[1, 0] <= 3.0


def test_unknown_values_of_parameters_are_named():
    X = load_diabetes().data[:20]
    with pytest.raises(ValueError, match="'strategy' parameter"):
        ADMCImputer(strategy="mode").fit(X)
    with pytest.raises(ValueError, match="not a torch device"):
        ADMCImputer(device="toaster").fit(X)


@light
def test_parameters_changed_after_fit_are_checked(frame):
    imputer = quick().fit(frame)
    with pytest.raises(ValueError, match="'strategy' parameter"):
        imputer.set_params(strategy="mode").transform(frame)
    with pytest.raises(ValueError, match="'n_steps' parameter"):
        imputer.set_params(strategy="sample", n_steps=0).sample(frame)


@light
def test_fits_in_threads_do_not_disturb_each_other(frame):
    expected = [quick(random_state=k).fit_transform(frame) for k in range(2)]
    got = joblib.Parallel(n_jobs=2, backend="threading")(
        joblib.delayed(quick(random_state=k).fit_transform)(frame) for k in range(2)
    )
    np.testing.assert_array_equal(got, expected)


@light
def test_fit_inside_no_grad_still_trains(frame):
    expected = quick().fit_transform(frame)
    with torch.no_grad():
        np.testing.assert_array_equal(quick().fit_transform(frame), expected)


def test_subnormal_numbers_are_a_constant():
    X = np.column_stack([np.arange(20.0), np.where(np.arange(20) % 2, 0.0, 5e-324)])
    X[3, 1] = X[5, 0] = np.nan
    assert np.isfinite(quick().fit_transform(X)).all()
