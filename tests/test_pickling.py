"""Pickles carry the version of the package, and say so where it does not suit."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from sklearn.exceptions import InconsistentVersionWarning

from admc_sklearn import ADMCImputer, CrossModalFeatures, _pickling


@pytest.fixture(params=["imputer", "features", "unfitted"])
def estimator(request):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    X[3, 1] = np.nan
    imputer = ADMCImputer(max_epochs=0, random_state=0)
    if request.param == "unfitted":
        return imputer
    if request.param == "features":
        return CrossModalFeatures(imputer, cv=0).fit(X)
    return imputer.fit(X)


def test_a_pickle_of_the_same_version_is_read_in_silence(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pickle.loads(pickle.dumps(estimator))
        copies = copy.copy(estimator), copy.deepcopy(estimator)
    for other in (again, *copies):
        assert vars(other).keys() == vars(estimator).keys()


def test_a_patch_release_warns(estimator, monkeypatch):
    monkeypatch.setattr(_pickling, "__version__", "7.3.1")
    made = pickle.dumps(estimator)
    monkeypatch.setattr(_pickling, "__version__", "7.3.2")
    name = type(estimator).__name__
    with pytest.warns(InconsistentVersionWarning, match=rf"{name}.*7\.3\.1.*7\.3\.2"):
        again = pickle.loads(made)
    assert vars(again).keys() == vars(estimator).keys()


@pytest.mark.parametrize("version", ["7.2.9", "8.3.1", "71.3", ""])
def test_another_release_is_refused_in_a_sentence(estimator, monkeypatch, version):
    monkeypatch.setattr(_pickling, "__version__", "7.3.1")
    made = pickle.dumps(estimator)
    monkeypatch.setattr(_pickling, "__version__", version)
    name = type(estimator).__name__
    message = rf"{name} was made by admc_sklearn 7\.3\.1.*{version}.*fit it again"
    with pytest.raises(pickle.UnpicklingError, match=message):
        pickle.loads(made)


def test_the_version_is_read_before_the_classes_that_may_have_gone(monkeypatch):
    """A module that was renamed is an AttributeError or worse, later in the file."""
    X = np.random.default_rng(0).normal(size=(40, 3))
    made = pickle.dumps(ADMCImputer(max_epochs=0, random_state=0).fit(X))
    assert b"TableCodec" in made
    made = made.replace(b"TableCodec", b"TableGonec")
    with pytest.raises(AttributeError):
        pickle.loads(made)
    monkeypatch.setattr(_pickling, "__version__", "99.0")
    with pytest.raises(pickle.UnpicklingError, match="fit it again"):
        pickle.loads(made)


def test_a_pickle_without_a_version_is_refused(estimator):
    state = dict(estimator.__getstate__())
    del state[_pickling.VERSION_KEY]
    blank = object.__new__(type(estimator))
    with pytest.raises(pickle.UnpicklingError, match="did not write its version"):
        blank.__setstate__(state)
