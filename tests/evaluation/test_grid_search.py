"""A grid search over imputers shares the cores and a cache, and a GPU."""

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.datasets import load_breast_cancer

from benchmarks.grid_search import figures, n_cached, search_over_imputers
from tests.conftest import hide, quick

N_FITS = 5 * 4  # the scaler's, and four imputers', in four folds


@pytest.fixture(scope="module")
def labelled():
    X, y = load_breast_cancer(return_X_y=True)
    return hide(X[:200, :5], 0.2, 0), y[:200]


@pytest.fixture
def fresh_workers(monkeypatch):
    """Processes of a session in which nobody has set a number of threads."""
    for name in ("OMP", "MKL", "OPENBLAS"):
        monkeypatch.delenv(f"{name}_NUM_THREADS", raising=False)
    get_reusable_executor().shutdown(wait=True)
    yield
    get_reusable_executor().shutdown(wait=True)


def search(n_jobs, labelled, memory=None, device="cpu", **grid):
    """A finished search; one epoch of training."""
    imputer = quick(max_epochs=1, device=device)
    return search_over_imputers(n_jobs, imputer, memory, **grid).fit(*labelled)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_workers_share_the_cores_and_the_cache(labelled, tmp_path, fresh_workers):
    memory = joblib.Memory(tmp_path, verbose=0)
    alone, shared = (figures(search(2, labelled, m)) for m in (None, memory))
    for found in (alone, shared):
        assert found["torch_threads"] <= max(1, joblib.cpu_count() // 2)
        assert found["blas_threads"] <= max(1, joblib.cpu_count() // 2)
    np.testing.assert_array_equal(shared["accuracies"], alone["accuracies"])
    assert n_cached(tmp_path) == N_FITS
    again = search(2, labelled, memory, classify__C=[0.01, 1.0])
    assert n_cached(tmp_path) == N_FITS
    default = [c["classify__C"] == 1.0 for c in again.cv_results_["params"]]
    accuracies = figures(again)["accuracies"][default]
    np.testing.assert_array_equal(accuracies, shared["accuracies"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_several_workers_share_a_gpu(labelled, fresh_workers):
    alone, shared = (figures(search(n, labelled, device="cuda")) for n in (1, 2))
    np.testing.assert_allclose(shared["accuracies"], alone["accuracies"], atol=0.02)
