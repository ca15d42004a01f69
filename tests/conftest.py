"""Shared tables. Everything is made here or bundled with scikit-learn."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path

# Before torch and BLAS are imported: workers that run side by side share the cores.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = os.cpu_count() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import numpy as np
import pandas as pd
import pytest

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.anchor.choose_coordinates import CoordinateSettings
from admc_sklearn._cells.corrections.donors import DonorSettings
from admc_sklearn._cells.corrections.forests import ForestSettings
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.partition import PartitionSettings
from admc_sklearn._combined.settings import Settings

BLOCKS_ALONE = Settings(partition=PartitionSettings(max_cell_columns=0))
ROOT = Path(__file__).resolve().parents[1]
# ADMC_TEST_SEED=1000 runs the suite on other tables: no test may hang on these.
FIRST_SEED = int(os.environ.get("ADMC_TEST_SEED", "0"))


def hide(X, rate, seed):
    """A copy of X with cells hidden completely at random."""
    rng = np.random.default_rng(FIRST_SEED + seed)
    return np.where(rng.random(X.shape) < rate, np.nan, X)


def gaussian_table(n, d, seed, n_factors=2):
    """Correlated Gaussian rows, their mean and covariance."""
    rng = np.random.default_rng(FIRST_SEED + seed)
    loadings = rng.normal(size=(d, n_factors))
    mean = rng.normal(size=d)
    # Numpy's own draws go through a decomposition of the covariance, whose vectors are
    # others on another processor where singular values are equal.
    shared, own = rng.normal(size=(n, n_factors)), rng.normal(size=(n, d))
    X = mean + shared @ loadings.T + np.sqrt(0.3) * own
    return X, mean, loadings @ loadings.T + 0.3 * np.eye(d)


def rings(n, seed):
    """Two columns on a ring and a third that says on which side: far from Gaussian."""
    rng = np.random.default_rng(FIRST_SEED + seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = 1 + 0.05 * rng.normal(size=n)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    return np.column_stack([x, y, x * y + 0.05 * rng.normal(size=n)])


# Of tests that are not about forests.
FEW_TREES = ForestSettings(n_trees=4, n_samples=1000)


def quick(**parameters):
    """An imputer that trains for moments only: one network, and few trees."""
    imputer = ADMCImputer(**{"max_epochs": 2, "random_state": 0, **parameters})
    cells = replace(imputer._settings.cells, max_networks=1, forests=FEW_TREES)
    imputer._settings = replace(imputer._settings, cells=cells)
    return imputer


@contextlib.contextmanager
def lightly():
    """Half as long fits with all parts, for tests of what is not how good they are.

    Candidates are judged by one turn of held-out rows, as those of a large table are,
    the weights of donors are learnt in a few steps, there is one network and few trees.
    """
    cells = CellSettings(
        coordinates=CoordinateSettings(one_fold_cells=0),
        donors=DonorSettings(n_steps=4),
        forests=FEW_TREES,
        max_networks=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        settings = replace(ADMCImputer._settings, cells=cells)
        patch.setattr(ADMCImputer, "_settings", settings)
        yield


@pytest.fixture(scope="module")
def blocks_alone():
    """No block is completed cell by cell instead, narrow as those of tests are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ADMCImputer, "_settings", BLOCKS_ALONE)
        yield


@pytest.fixture
def light_fits():
    """Fit lightly throughout a test."""
    with lightly():
        yield


@pytest.fixture(scope="session")
def ring_rows():
    return hide(rings(3000, 0), 0.25, 1), rings(1000, 2)


@pytest.fixture(scope="session")
def ring_imputer(ring_rows):
    """An imputer trained in earnest; tests leave it as it is."""
    return ADMCImputer(max_epochs=60, random_state=0).fit(ring_rows[0])


def mixed_rings(n, seed):
    """Rings with a category of which side a point lies on, 20 % hidden."""
    X = rings(n, seed)
    frame = pd.DataFrame(X).add_prefix("x")
    frame["side"] = pd.Categorical(np.where(X[:, 0] > 0, "right", "left"))
    return frame.mask(np.random.default_rng(seed).random(frame.shape) < 0.2)
