"""Users' own encoders: fitted or not, cloned, frozen, and what is wrong with them."""

import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA, KernelPCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from admc_sklearn import ADMCImputer, CrossModalFeatures
from admc_sklearn.evaluation import make_imputation_scorer

MODALITIES = {"a": slice(0, 8), "b": slice(8, 14)}


def quick(**parameters):
    defaults = {"modalities": MODALITIES, "max_epochs": 0, "random_state": 0}
    return ADMCImputer(**defaults | parameters)


@pytest.fixture
def table():
    """Two modalities of one latent cause, the first absent in a third of the rows."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(120, 2))
    X = z @ rng.normal(size=(2, 14)) + 0.3 * rng.normal(size=(120, 14)) + 100
    X[:40, :8] = np.nan
    return X


def encoder_of(imputer):
    """Return the transformer that completes modality "a"."""
    return imputer.model_.encoders[0].transformer


def test_a_clone_of_an_imputer_with_a_fitted_encoder_can_be_fitted(table):
    pca = PCA(3).fit(table[40:80, :8])
    imputer = quick(encoders={"a": pca}).fit(table)
    np.testing.assert_array_equal(encoder_of(imputer).components_, pca.components_)
    copy = clone(imputer).fit(table)
    anew = PCA(3).fit(table[40:, :8])
    np.testing.assert_allclose(encoder_of(copy).mean_, anew.mean_, rtol=1e-5)
    assert np.isfinite(copy.transform(table)).all()


def test_an_unfitted_encoder_learns_its_modality_in_its_own_units(table):
    table[40, 0] = np.nan  # a row that holds a part of the modality
    encoder = make_pipeline(StandardScaler(), PCA(2))
    imputer = quick(encoders={"a": encoder}).fit(table)
    with pytest.raises(NotFittedError):
        check_is_fitted(encoder)
    learnt = encoder_of(imputer)[0].mean_
    np.testing.assert_allclose(learnt, table[41:, :8].mean(axis=0), rtol=1e-5)
    assert np.isfinite(imputer.transform(table)).all()
    again = pickle.loads(pickle.dumps(imputer))
    np.testing.assert_array_equal(again.transform(table), imputer.transform(table))


def test_a_frozen_encoder_survives_clone_and_is_not_changed(table):
    pca = PCA(3).fit(table[40:60, :8])
    components = pca.components_.copy()
    imputer = quick(encoders={"a": FrozenEstimator(pca)})
    for estimator in (imputer, clone(imputer), clone(clone(imputer))):
        learnt = encoder_of(estimator.fit(table))
        np.testing.assert_array_equal(learnt.components_, components)
    pca.fit(table[60:, :8])  # what the imputer holds is its own
    np.testing.assert_array_equal(encoder_of(imputer).components_, components)


def test_warm_start_keeps_the_first_encoder(table):
    imputer = quick(encoders={"a": PCA(2)}, warm_start=True).fit(table)
    first = encoder_of(imputer)
    assert encoder_of(imputer.fit(table)) is first


def test_the_seed_decides_what_a_random_encoder_learns(table):
    encoder = PCA(2, svd_solver="randomized", iterated_power=1)
    found = [
        encoder_of(quick(encoders={"a": encoder}).fit(table)).components_
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*found)


def test_grid_search_and_cross_validation_with_encoders(table):
    scoring = make_imputation_scorer(mechanism="modality", modalities=MODALITIES)
    imputer = quick(encoders={"a": PCA(2)})
    options = {"scoring": scoring, "cv": 2, "error_score": "raise"}
    assert np.isfinite(cross_val_score(imputer, table, **options)).all()
    fitted = PCA(2).fit(table[40:, :8])
    grid = {
        "encoders": [
            {"a": PCA(1)},
            {"a": fitted},
            {"a": FrozenEstimator(fitted)},
            None,
        ]
    }
    search = GridSearchCV(imputer, grid, **options).fit(table)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert scores[1] > scores[0]  # one latent for two causes
    features = CrossModalFeatures(imputer, cv=2).fit_transform(table)
    assert np.isfinite(features).all()


class Halves(TransformerMixin, BaseEstimator):
    """Has no inverse."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X / 2


class Narrow(Halves):
    """Its inverse forgets a column."""

    def inverse_transform(self, X):
        return 2 * X[:, 1:]


class Infinite(Halves):
    """Its inverse is not finite."""

    def inverse_transform(self, X):
        return X * np.inf


class Plain:
    """No estimator: used as it is."""

    def transform(self, X):
        return X / 2

    def inverse_transform(self, X):
        return 2 * X


def test_objects_that_are_no_estimators_are_used_as_they_are(table):
    completed = quick(encoders={"a": Plain()}).fit_transform(table)
    assert np.isfinite(completed).all()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (Halves(), "has no inverse_transform.*such as PCA"),
        (Narrow(), r"shape \(80, 7\).*made for these columns"),
        (Infinite(), "not finite"),
        (PCA(2).fit(np.eye(5)), "fitted to 5 columns, and the modality has 8"),
        (KernelPCA(2), "fails on the 80 complete rows"),
        (PCA(200), "fails on the 80 complete rows of its 8 columns.*n_components"),
    ],
)
def test_errors_of_encoders_name_the_modality(table, encoder, message, frozen):
    if frozen and not hasattr(encoder, "n_features_in_"):
        if isinstance(encoder, PCA):
            pytest.skip("it cannot be fitted at all")
        encoder = clone(encoder).fit(table[40:, :8])
    encoder = FrozenEstimator(encoder) if frozen else encoder
    label = rf"encoders: (FrozenEstimator\()?{encoder_name(encoder)}\)? of modality 'a'"
    with pytest.raises((TypeError, ValueError), match=f"(?s){label}.*{message}"):
        quick(encoders={"a": encoder}).fit(table)


def encoder_name(encoder):
    return type(getattr(encoder, "estimator", encoder)).__name__


def test_a_frozen_encoder_that_is_not_fitted_says_so(table):
    with pytest.raises(ValueError, match=r"modality 'a' is frozen, but not fitted"):
        quick(encoders={"a": FrozenEstimator(PCA(2))}).fit(table)


def test_a_class_in_the_place_of_an_encoder_says_so(table):
    with pytest.raises(TypeError, match=r"modality 'a' is a class.*PCA\(\)"):
        quick(encoders={"a": PCA}).fit(table)


def test_an_encoder_without_a_complete_row_says_so(table):
    for j in range(8):
        table[j::8, j] = np.nan
    for encoder in (PCA(2), FrozenEstimator(PCA(2).fit(np.eye(8)))):
        with pytest.raises(ValueError, match="modality 'a' has no row in which all"):
            quick(encoders={"a": encoder}).fit(table)
