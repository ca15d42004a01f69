"""`max_time` bounds the whole of a fit."""

import time

import numpy as np
import pandas as pd
import pytest

from admc_sklearn import ADMCImputer


def latent(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 8)) @ rng.normal(size=(8, d)) / 3
    return X + rng.normal(size=(n, d)) / 2


def cells(n, d):
    X = latent(n, d)
    X[np.random.default_rng(1).random(X.shape) < 0.3] = np.nan
    return X, {}


def modal(n, m, width):
    """Modalities that are lost at random, in almost as many ways as there are rows."""
    X = latent(n, m * width)
    lost = np.random.default_rng(1).random((n, m)) < 0.3
    lost[lost.all(1), 0] = False
    X[np.repeat(lost, width, axis=1)] = np.nan
    own = {f"m{k}": list(range(k * width, (k + 1) * width)) for k in range(m)}
    return X, {"modalities": own}


def levels():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=20_000)})
    table["c"] = rng.integers(0, 9000, len(table)).astype(str)
    table.loc[:1000, "c"] = None
    return table, {}


TABLES = {
    "wide": lambda: cells(700, 1500),
    "long": lambda: cells(120_000, 15),
    "bootstraps": lambda: (cells(1500, 40)[0], {"n_bootstraps": 10}),
    "modalities": lambda: modal(1000, 6, 100),
    "many modalities": lambda: modal(1000, 12, 10),
    "levels": levels,
}


@pytest.mark.filterwarnings("ignore:Column 'c'")
@pytest.mark.parametrize("name", TABLES)
def test_a_fit_ends_in_time(name, monkeypatch):
    """By the time of this process, which others on the machine do not change."""
    X, options = TABLES[name]()
    # What is loaded once is not the fit's.
    ADMCImputer(max_epochs=1, random_state=0).fit(cells(50, 3)[0])
    started = time.process_time()
    monkeypatch.setattr(time, "monotonic", lambda: time.process_time())
    imputer = ADMCImputer(max_time=2.0, random_state=0, **options).fit(X)
    assert time.process_time() - started < 2.0 + 2.0
    rows = X[:20]
    completed = imputer.set_output(transform="pandas").transform(rows)
    assert not completed.isna().any(axis=None)


def test_modalities_without_time_are_completed_better_than_by_their_means():
    X = latent(600, 60)
    holes, options = modal(600, 6, 10)
    imputer = ADMCImputer(max_time=1e-3, random_state=0, **options).fit(holes)
    lost = np.isnan(holes)
    error = np.square(imputer.transform(holes) - X)[lost].mean()
    mean = np.square(X - np.nanmean(holes, axis=0))[lost].mean()
    assert error < 0.8 * mean
    # Draws at an end of the observed range are alike.
    assert (imputer.sample(holes, n_draws=3)[:, lost].std(0) > 0).mean() > 0.99


def test_twelve_modalities_fit_in_seconds():
    """Lost in as many ways as there are rows; 1000 rows take less than a minute."""
    X, options = modal(200, 12, 10)
    started = time.process_time()
    ADMCImputer(random_state=0, **options).fit(X)
    assert time.process_time() - started < 25
