"""Laws of imputing, over tables that hypothesis makes up."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone

from tests.conftest import gaussian_table, hide, lightly, quick

pytestmark = pytest.mark.filterwarnings("ignore:Columns without")
laws = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# A row alone and the row in a batch differ by float32 products, about 1e-5 in
# standardised units.
TOLERANCE = 2e-3
STRATEGIES = st.sampled_from(["mean", "median", "sample"])


@st.composite
def tables(draw, min_rows=1, max_rows=30, max_columns=6):
    """Incomplete tables: smooth, coarse, constant, huge, tiny and duplicate columns."""
    n = draw(st.integers(min_rows, max_rows))
    d = draw(st.integers(1, max_columns))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.normal(size=(n, d))
    kinds = draw(st.lists(st.sampled_from("scohtd"), min_size=d, max_size=d))
    for j, kind in enumerate(kinds):
        if kind == "c":
            X[:, j] = rng.integers(0, 3, n)
        elif kind == "o":
            X[:, j] = 7.25
        elif kind == "h":
            X[:, j] = 1e12 + 1e10 * X[:, j]
        elif kind == "t":
            X[:, j] *= 1e-12
        elif kind == "d":
            X[:, j] = X[:, 0]
    rate = draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    missing = (
        draw(hnp.arrays(bool, (n, d))) if rate == 0.6 else rng.random((n, d)) < rate
    )
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    return np.where(missing, np.nan, X).astype(dtype)


@laws
@given(tables(), STRATEGIES)
def test_all_is_completed_within_the_observed_range_and_the_rest_is_left(X, strategy):
    """Nothing missing is left, and observed cells are bit-identical."""
    before = X.copy()
    completed = quick(strategy=strategy).fit_transform(X)
    np.testing.assert_array_equal(X, before)  # the input is not mutated
    assert completed.shape == X.shape
    assert completed.dtype == X.dtype
    assert np.isfinite(completed).all()
    seen = ~np.isnan(X)
    np.testing.assert_array_equal(completed[seen], X[seen])
    for j in range(X.shape[1]):
        seen = X[~np.isnan(X[:, j]), j]
        filled = completed[np.isnan(X[:, j]), j]
        if len(seen):
            assert (filled >= seen.min()).all()
            assert (filled <= seen.max()).all()
        else:
            assert (filled == 0).all()


@settings(laws, max_examples=12)
@given(tables(min_rows=2))
def test_a_constant_column_returns_its_constant(X):
    X = np.column_stack([X, np.where(np.arange(len(X)) % 2, np.nan, 0.1)])
    X = X.astype(np.float64)
    completed = quick().fit_transform(X)
    assert (completed[:, -1] == 0.1).all()


@settings(laws, max_examples=10)
@given(tables(), STRATEGIES, st.integers(0, 2**31 - 1))
def test_same_seed_same_result_and_repeated_calls_agree(X, strategy, seed):
    first = quick(strategy=strategy, random_state=seed).fit(X)
    second = quick(strategy=strategy, random_state=seed).fit(X)
    completed = first.transform(X)
    np.testing.assert_array_equal(completed, first.transform(X))
    np.testing.assert_array_equal(completed, second.transform(X))
    np.testing.assert_array_equal(first.sample(X, 2), first.sample(X, 2))


@pytest.fixture(scope="module")
def fitted():
    X, _, _ = gaussian_table(300, 5, 0)
    return quick(max_epochs=5).fit(hide(X, 0.2, 0))


def rows_for(fitted, n, seed, rate):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, fitted.n_features_in_))
    return np.where(rng.random(X.shape) < rate, np.nan, X)


@laws
@given(
    st.integers(2, 12), st.integers(0, 10**6), st.floats(0, 1), STRATEGIES, st.data()
)
def test_row_order_and_splitting_do_not_matter(fitted, n, seed, rate, strategy, data):
    X = rows_for(fitted, n, seed, rate)
    # Rows without any observed cell are equal rows: their draws differ on purpose.
    X[:, 0] = np.arange(n)
    imputer = copy.deepcopy(fitted).set_params(strategy=strategy)
    whole = imputer.transform(X)
    order = data.draw(st.permutations(range(n)))
    np.testing.assert_allclose(
        imputer.transform(X[order]), whole[order], atol=TOLERANCE
    )
    alone = np.vstack([imputer.transform(row[None]) for row in X])
    np.testing.assert_allclose(alone, whole, atol=TOLERANCE)


def test_equal_rows_have_draws_of_their_own(fitted):
    X = np.full((200, fitted.n_features_in_), np.nan)
    draws = fitted.sample(X, 2)
    assert len(np.unique(draws[:, :, 0])) > 390


@settings(laws, max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.01, 1000.0), st.floats(-100, 100))
def test_a_change_of_units_changes_the_imputation_alike(seed, factor, shift):
    X, _, _ = gaussian_table(60, 3, 1)
    X = hide(X, 0.3, seed)
    unit = np.array([factor, 1.0, 1.0])
    with lightly():
        other = quick(max_epochs=0).fit_transform(X * unit + [shift, 0, 0])
        same = quick(max_epochs=0).fit_transform(X) * unit + [shift, 0, 0]
    np.testing.assert_allclose(other / unit, same / unit, rtol=1e-3, atol=1e-3)


def test_columns_never_missing_in_fit_can_be_missing_later():
    X, _, _ = gaussian_table(200, 4, 0)
    imputer = quick().fit(X)
    incomplete = hide(X, 0.5, 1)
    incomplete[0] = np.nan
    completed = imputer.transform(incomplete)
    assert np.isfinite(completed).all()
    np.testing.assert_array_equal(imputer.transform(X), X)


@pytest.mark.parametrize("keep", [True, False])
def test_an_empty_column_is_kept_or_dropped_with_its_name(keep):
    X = pd.DataFrame({"a": [1.0, np.nan, 3.0, 4.0], "b": np.nan, "c": [1.0, 2, 3, 4]})
    with pytest.warns(UserWarning, match="'b'"):
        imputer = quick(keep_empty_features=keep).fit(X)
    names = ["a", "b", "c"] if keep else ["a", "c"]
    assert list(imputer.get_feature_names_out()) == names
    imputer.set_output(transform="pandas")
    completed = imputer.transform(X.assign(b=[np.nan, 5.0, np.nan, np.nan]))
    assert list(completed) == names
    assert np.isfinite(completed.to_numpy()).all()
    if keep:  # a value that is there stays, a missing one is filled as in scikit-learn
        assert completed["b"].tolist() == [0.0, 5.0, 0.0, 0.0]


def test_all_missing_rows_are_completed_by_the_columns_own_distribution(fitted):
    X = np.full((1, fitted.n_features_in_), np.nan)
    np.testing.assert_allclose(
        (fitted.transform(X)[0] - fitted._codec.scaling_.mean_)
        / fitted._codec.scaling_.scale_,
        0,
        atol=0.3,
    )


def test_pickle_clone_and_copy(fitted):
    X = rows_for(fitted, 20, 0, 0.4)
    expected = fitted.transform(X)
    for twin in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(twin.transform(X), expected)
        np.testing.assert_array_equal(twin.sample(X, 2), fitted.sample(X, 2))
    assert not hasattr(clone(fitted), "model_")


def test_global_random_states_are_left_alone():
    import torch

    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    X, _, _ = gaussian_table(60, 3, 0)
    quick(strategy="sample").fit_transform(hide(X, 0.3, 0))
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
