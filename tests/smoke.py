"""Use an installed admc_sklearn as users do, without the tools of the tests.

`make smoke` and `make smoke-lowest` build the package, install it into an environment
of its own, and run this script there. It needs the package and its dependencies alone.
"""

import pickle
import tempfile
import time
from importlib.metadata import version
from importlib.resources import files

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import admc_sklearn
from admc_sklearn import ADMCImputer, CrossModalFeatures, join_modalities
from admc_sklearn.evaluation import compare_imputers, make_imputation_scorer, ranking
from admc_sklearn.missingness import ampute
from admc_sklearn.pooling import pool_over_draws

PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "narwhals", "torch")


def numbers(n_samples=120):
    """Three dependent columns, and the same with missing cells."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_samples, 1)) * [1.0, 2.0, -1.0]
    X += 0.1 * rng.normal(size=X.shape)
    return X, ampute(X, rate=0.2, random_state=0)


def check_numbers():
    """An array: completion, draws, quantiles, a pickle, a clone."""
    X, X_incomplete = numbers()
    imputer = ADMCImputer(max_epochs=3, n_bootstraps=2, random_state=0)
    completed = imputer.fit_transform(X_incomplete)
    known = ~np.isnan(X_incomplete)
    assert np.isfinite(completed).all()
    assert np.array_equal(completed[known], X[known])
    error = np.sqrt(np.mean((completed - X)[~known] ** 2))
    assert error < 0.5 * X.std()
    draws = imputer.sample(X_incomplete, 4)
    assert draws.shape == (4, *X.shape)
    low, high = imputer.predict_quantiles(X_incomplete, [0.1, 0.9])
    assert (low <= high).all()
    again = pickle.loads(pickle.dumps(imputer))
    assert np.array_equal(again.transform(X_incomplete), completed)
    assert not hasattr(clone(imputer), "model_")
    with tempfile.TemporaryDirectory() as folder:
        imputer.save(f"{folder}/model")
        again = ADMCImputer.load(f"{folder}/model")
    assert np.array_equal(again.transform(X_incomplete), completed)
    pooled = pool_over_draws(draws, lambda Z: (Z.mean(axis=0), Z.var(axis=0) / len(Z)))
    assert np.isfinite(pooled.conf_int).all()


def check_mixed_frame():
    """A pandas frame: categories, whole numbers, dates, text."""
    X, _ = numbers()
    frame = pd.DataFrame(
        {
            "size": X[:, 0],
            "count": pd.array((10 + 3 * X[:, 1]).astype(int), dtype="Int64"),
            "side": pd.Categorical(np.where(X[:, 2] > 0, "left", "right")),
            "word": np.where(X[:, 1] > 0, "yes", "no").astype(object),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(X[:, 0].round(), "D"),
        }
    )
    incomplete = ampute(frame, rate=0.2, random_state=0)
    imputer = ADMCImputer(max_epochs=2, random_state=0).fit(incomplete)
    completed = imputer.set_output(transform="pandas").transform(incomplete)
    assert not completed.isna().any(axis=None)
    assert list(completed.dtypes) == list(frame.dtypes)
    proba = imputer.predict_proba(incomplete, "side")
    assert np.allclose(proba.sum(axis=1), 1)
    assert len(imputer.sample(incomplete, 2)) == 2


def check_modalities():
    """Blocks of columns that are lost as a whole."""
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(80, 2))
    text, audio = latent @ rng.normal(size=(2, 6)), latent @ rng.normal(size=(2, 5))
    audio[::4] = np.nan
    X, modalities = join_modalities({"text": text, "audio": audio})
    imputer = ADMCImputer(modalities=modalities, max_epochs=2, random_state=0)
    features = CrossModalFeatures(imputer, cv=0).fit_transform(X)
    assert features.shape == (80, 22)
    assert np.isfinite(features).all()


def check_evaluation():
    """A comparison, a ranking, a grid search."""
    X, X_incomplete = numbers()
    imputers = {"mean": SimpleImputer(), "admc": ADMCImputer(max_epochs=0)}
    results = compare_imputers(imputers, X, cv=2, random_state=0)
    assert results["error"].isna().all(), results["error"].tolist()
    assert ranking(results).index[0] == "admc"
    scorer = make_imputation_scorer()
    search = GridSearchCV(
        imputers["admc"], {"strategy": ["mean"]}, scoring=scorer, cv=2
    )
    assert search.fit(X_incomplete).best_score_ < 0
    model = make_pipeline(imputers["admc"], Ridge())
    assert model.fit(X_incomplete, X[:, 0]).score(X_incomplete, X[:, 0]) > 0.5


def main():
    """Run all checks and say with which versions."""
    started = time.monotonic()
    assert version("admc_sklearn") == admc_sklearn.__version__
    assert files("admc_sklearn").joinpath("py.typed").is_file()
    for check in (check_numbers, check_mixed_frame, check_modalities, check_evaluation):
        check()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"admc_sklearn {admc_sklearn.__version__} works with {versions}")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
