"""A fit that ends early, by an exception or by Ctrl-C, at any moment."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import admc_sklearn
from admc_sklearn import ADMCImputer, CrossModalFeatures
from admc_sklearn._shared.training import Interruption, Trainer
from tests.conftest import BLOCKS_ALONE, hide

PACKAGE = str(Path(admc_sklearn.__file__).parent)
ERRORS = (KeyboardInterrupt, MemoryError, RuntimeError)
N_MOMENTS = 20
pytestmark = pytest.mark.usefixtures("light_fits")
# Generators that are closed by an error may meet another moment.
quiet = pytest.mark.filterwarnings(
    "ignore:Training was interrupted",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(autouse=True)
def _first_interrupt(monkeypatch):
    monkeypatch.setattr(Interruption, "last", -np.inf)


def correlated(n, d, seed=0):
    """A complete table of one factor, and the same with a fourth of its cells lost."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, d))
    return X, hide(X, 0.25, seed)


def modal(n, seed=0):
    """Two modalities of five columns, of which some rows lack one."""
    X, _ = correlated(n, 12, seed)
    lost = np.random.default_rng(seed).random(n)
    Z = hide(X, 0.2, seed)
    Z[:, :10] = X[:, :10]
    Z[lost < 0.2, :5] = np.nan
    Z[lost > 0.8, 5:10] = np.nan
    return X, Z


class Moments:
    """Counts the package's calls in a fit; raises an error at one of them."""

    def __init__(self, at=None, error=None):
        self.at, self.error, self.count = at, error, 0

    def __call__(self, frame, event, argument):
        if event != "call" or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        self.count += 1
        if self.count == self.at:
            raise self.error("at this moment")

    def fit(self, estimator, X):
        """Fit under its eyes; whether the fit ended well."""
        kept = sys.getprofile()
        sys.setprofile(self)
        try:
            estimator.fit(X)
        except ERRORS:
            return False
        finally:
            sys.setprofile(kept)
        return True


def rmse(imputer, X, Z):
    lost = np.isnan(Z)
    return np.sqrt(np.mean((imputer.transform(Z) - X)[lost] ** 2))


def has_spread(imputer, Z):
    draws = imputer.sample(Z, n_draws=4)[:, np.isnan(Z)]
    return (draws.std(0) > 0).mean() > 0.9


def small(**options):
    return ADMCImputer(**{"max_epochs": 2, "random_state": 0, **options})


def moments_of(estimator, X, n_moments=N_MOMENTS):
    counter = Moments()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert counter.fit(estimator, X)
    return np.linspace(1, counter.count, n_moments).astype(int)


@quiet
@pytest.mark.parametrize(
    "kind", ["cells", pytest.param("modalities", marks=pytest.mark.slow)]
)
def test_a_first_fit_that_fails_is_no_fit(kind, monkeypatch):
    options = {"n_bootstraps": 2, "self_masking": True}
    X, Z = correlated(150, 4)
    if kind == "modalities":
        X, Z = modal(100)
        options = {"modalities": {"a": range(5), "b": range(5, 10)}}
    known = small(**options).fit(Z)
    good = rmse(known, X, Z)
    n_moments = N_MOMENTS if kind == "cells" else 5
    for k, at in enumerate(moments_of(small(**options), Z, n_moments)):
        monkeypatch.setattr(Interruption, "last", -np.inf)
        imputer = small(**options)
        if Moments(at, ERRORS[k % 3]).fit(imputer, Z):
            assert rmse(imputer, X, Z) < 1.25 * good
            assert has_spread(imputer, Z)
            continue
        assert not [name for name in vars(imputer) if name.endswith("_")]
        for method in (imputer.transform, imputer.sample, imputer.predict_quantiles):
            with pytest.raises(NotFittedError):
                method(Z)


@quiet
@pytest.mark.parametrize("warm_start", [False, True])
def test_a_refit_that_fails_leaves_the_earlier_fit_whole(warm_start, monkeypatch):
    _, Z = correlated(150, 4)
    # The other table has as many columns only if training goes on.
    X2, Z2 = correlated(140, 4 if warm_start else 6, seed=1)
    good = rmse(small().fit(Z2), X2, Z2)
    first = small(warm_start=warm_start).fit(Z)
    before = first.transform(Z), first.sample(Z)
    state = vars(first)
    for k, at in enumerate(moments_of(small(warm_start=warm_start).fit(Z), Z2, 8)):
        monkeypatch.setattr(Interruption, "last", -np.inf)
        imputer = small(warm_start=warm_start)
        vars(imputer).update(state)
        if Moments(at, ERRORS[k % 3]).fit(imputer, Z2):
            assert rmse(imputer, X2, Z2) < 1.25 * good
            assert has_spread(imputer, Z2)
            continue
        assert vars(imputer) == state
        np.testing.assert_array_equal(imputer.transform(Z), before[0])
        np.testing.assert_array_equal(imputer.sample(Z), before[1])


def test_a_refit_on_an_unfit_table_leaves_the_earlier_fit_whole():
    _, Z = correlated(100, 3)
    imputer = small(max_epochs=0).fit(Z)
    before = imputer.transform(Z)
    for bad in (np.empty((0, 5)), np.full((20, 5), np.inf), np.ones(7), "text"):
        with pytest.raises((ValueError, TypeError)):
            imputer.fit(bad)
        assert imputer.n_features_in_ == 3
        np.testing.assert_array_equal(imputer.transform(Z), before)


def test_cross_modal_features_that_fail_to_fit_are_as_before():
    _, Z = correlated(60, 3)
    features = CrossModalFeatures(small(max_epochs=0), cv=2)
    Moments(300, RuntimeError).fit(features, Z)
    with pytest.raises(NotFittedError):
        features.transform(Z)
    features.fit(Z)
    before = features.transform(Z)
    assert not Moments(300, MemoryError).fit(features, correlated(60, 5)[1])
    np.testing.assert_array_equal(features.transform(Z), before)


def interrupt_epochs(monkeypatch, epochs):
    """Ctrl-C in these of all epochs that are made, counted from 0."""
    epoch, done = Trainer.epoch, []

    def interrupted(self):
        done.append(1)
        if len(done) - 1 in epochs:
            raise KeyboardInterrupt
        return epoch(self)

    monkeypatch.setattr(Trainer, "epoch", interrupted)
    return done


def test_ctrl_c_in_one_of_two_ways_ends_the_fit(monkeypatch):
    """Narrow blocks that were completed cell by cell are not tried as blocks then."""
    done = interrupt_epochs(monkeypatch, [1])
    X, Z = modal(200)
    imputer = small(modalities={"a": range(5), "b": range(5, 10)}, max_epochs=30)
    with pytest.warns(UserWarning, match="interrupted"):
        imputer.fit(Z)
    assert len(done) == 2
    assert len(imputer.history_) == 2
    assert rmse(imputer, X, Z) < 0.6
    assert has_spread(imputer, Z)


def test_ctrl_c_in_the_epochs_ends_the_whole_fit(monkeypatch):
    """Modalities are not trained on after the cells were interrupted."""
    monkeypatch.setattr(ADMCImputer, "_settings", BLOCKS_ALONE)
    interrupt_epochs(monkeypatch, [1])
    X, Z = modal(200)
    imputer = small(modalities={"a": range(5), "b": range(5, 10)}, max_epochs=30)
    with pytest.warns(UserWarning, match="interrupted"):
        imputer.fit(Z)
    history = imputer.history_
    assert len(history[history["part"] == "modalities"]) <= 1
    assert len(history[history["part"] == "cells"]) == 2
    assert rmse(imputer, X, Z) < 0.6
    assert has_spread(imputer, Z)


def test_ctrl_c_that_comes_twice_ends_a_grid_search(monkeypatch):
    done = interrupt_epochs(monkeypatch, [1, 3])
    X, Z = correlated(120, 3)
    search = GridSearchCV(
        make_pipeline(small(max_epochs=5), Ridge()),
        {"ridge__alpha": [0.1, 1.0]},
        error_score="raise",
        cv=3,
    )
    with pytest.warns(UserWarning, match="interrupted"):
        with pytest.raises(KeyboardInterrupt):
            search.fit(Z, X[:, 0])
    assert len(done) == 4


def test_a_ctrl_c_much_later_is_a_first_one_again(monkeypatch):
    interrupt_epochs(monkeypatch, [0, 1])
    _, Z = correlated(120, 3)
    with pytest.warns(UserWarning, match="interrupted"):
        small().fit(Z)
    Interruption.last -= 60
    with pytest.warns(UserWarning, match="interrupted"):
        small().fit(Z)
