"""Noise that belongs to a row; threads, forks and generators of our own."""

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from admc_sklearn._cells import fit as _training
from admc_sklearn._cells.model import CellModel
from admc_sklearn._cells.network.denoiser import Denoiser
from admc_sklearn._combined import fit as _combined
from admc_sklearn._shared.devices import in_threads, one_thread, slices
from admc_sklearn._shared.linalg import leading_vectors
from admc_sklearn._shared.noise import row_keys, row_uniforms
from admc_sklearn._shared.trunk import dropout_factors, linear
from tests.conftest import ROOT, gaussian_table, hide, quick


def test_uniforms_are_uniform_and_independent():
    keys = row_keys(np.arange(20_000.0)[:, None], np.ones((20_000, 1), bool), 0)
    u = row_uniforms(keys, 4, 0)
    assert ((u > 0) & (u < 1)).all()
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    other = row_uniforms(keys, 4, 1)
    correlation = np.corrcoef(np.hstack([u, other]).T) - np.eye(8)
    assert np.abs(correlation).max() < 0.03
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03


def test_keys_follow_the_row_not_its_place():
    rng = np.random.default_rng(0)
    X, observed = rng.normal(size=(50, 3)), rng.random((50, 3)) < 0.8
    observed[:, 0] = True
    order = rng.permutation(50)
    keys = row_keys(X, observed, 3)
    np.testing.assert_array_equal(row_keys(X[order], observed[order], 3), keys[order])
    np.testing.assert_array_equal(row_keys(X[7:8], observed[7:8], 3), keys[7:8])
    other = np.where(observed, X, 99.0)  # what stands at missing cells is no matter
    np.testing.assert_array_equal(row_keys(other, observed, 3), keys)
    assert len(set(keys) | set(row_keys(X, observed, 4))) == 100


def test_equal_rows_have_keys_of_their_own():
    assert len(set(row_keys(np.ones((100, 2)), np.ones((100, 2), bool), 0))) == 100


def test_batches_cover_all_items_and_are_larger_on_a_gpu():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for n, cost, limit in [(0, 3, None), (10, 3, None), (10, 1000, None), (90, 1, 7)]:
        for device in (cpu, gpu):
            parts = slices(n, cost, 12, device, limit)
            items = [i for part in parts for i in range(n)[part]]
            assert items == list(range(n))
            assert [part.stop for part in parts[:-1]] == [p.start for p in parts[1:]]
    sizes = {d: slices(10**6, 10, 1000, d)[0].stop for d in (cpu, gpu)}
    assert sizes == {cpu: 100, gpu: 1600}
    assert slices(10**6, 10, 1000, gpu, limit=5)[0].stop == 80


# Threads and forks. What could hang runs in a process that a time limit ends.

TABLE = """
import numpy as np, os, threading, time, torch, warnings
from admc_sklearn import ADMCImputer
from tests.conftest import lightly

light = lightly()
light.__enter__()

def table(n, d):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 2)) @ rng.normal(size=(2, d))
    X += 0.5 * rng.normal(size=(n, d))
    return np.where(rng.random((n, d)) < 0.3, np.nan, X)

def imputer(**options):
    return ADMCImputer(max_epochs=1, self_masking=False, random_state=0, **options)

def in_child(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
"""


def run(code, limit=600):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TABLE + textwrap.dedent(code)],
        timeout=limit,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def incomplete(n, d, seed=0):
    return hide(gaussian_table(n, d, seed)[0], 0.3, seed)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")


@needs_fork
def test_forked_children_of_two_threads_complete_rows_and_fit():
    run("""
    import multiprocessing
    torch.set_num_threads(2)
    X = table(60, 4)
    fitted = imputer().fit(X)
    expected = fitted.transform(X)
    torch.ones(1000, 1000) @ torch.ones(1000, 1000)  # the parent's own two threads
    torch.ones(2_000_000).add(1).sum()

    def work():
        import pickle
        np.testing.assert_array_equal(fitted.transform(X), expected)
        fitted.sample(X, 2)
        fitted.predict_quantiles(X)
        again = imputer().fit(X)
        np.testing.assert_array_equal(again.transform(X), expected)
        pickle.loads(pickle.dumps(again)).transform(X)

    in_child(work)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map(fitted.transform, [X[:30], X[30:]])
    np.testing.assert_allclose(np.vstack(parts), expected, atol=1e-4)
    """)


@needs_fork
def test_a_child_forked_while_another_thread_fits_can_fit():
    run("""
    torch.set_num_threads(2)
    X = table(60, 4)
    expected = imputer().fit(X).transform(X)
    stop = threading.Event()

    def fit_on():
        while not stop.is_set():
            imputer().fit(X)

    def work():
        np.testing.assert_array_equal(imputer().fit(X).transform(X), expected)

    thread = threading.Thread(target=fit_on)
    thread.start()
    try:
        for pause in (0.01, 0.05, 0.1):
            time.sleep(pause)
            in_child(work)
    finally:
        stop.set()
        thread.join()
    """)


@pytest.mark.usefixtures("light_fits")
def test_the_result_does_not_depend_on_the_number_of_threads(two_threads):
    # Large enough for steps and completions in more than one part.
    X = incomplete(460, 13)
    found = []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        imputer = quick(max_epochs=1, batch_size=400, self_masking=False).fit(X)
        found.append([imputer.transform(X), imputer.predict_quantiles(X[:50], [0.1])])
        assert torch.get_num_threads() == n_threads
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.usefixtures("light_fits")
def test_threads_are_given_back_after_every_call_and_every_failure(
    two_threads, monkeypatch
):
    X = incomplete(80, 4)
    imputer = quick(max_epochs=1).fit(X)
    calls = [imputer.fit, imputer.transform, imputer.sample, imputer.predict_quantiles]
    for call in calls:
        call(X)
        assert torch.get_num_threads() == 2

    def fail(*_, **__):
        assert torch.get_num_threads() == 1
        raise error

    monkeypatch.setattr(_combined, "fit_cells", fail)
    monkeypatch.setattr(CellModel, "posteriors", fail)
    monkeypatch.setattr(CellModel, "_draw_once", fail)
    for error in (MemoryError(), KeyboardInterrupt(), ValueError()):
        for call in (quick().fit, *calls[1:]):
            with pytest.raises(type(error)):
                call(X)
            assert torch.get_num_threads() == 2


def test_operators_have_one_thread_inside_a_call_and_others_keep_theirs(two_threads):
    seen = []
    with one_thread():
        outside = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        outside.start()
        outside.join()
        inside = in_threads(lambda _: torch.get_num_threads(), range(4))
        with one_thread():
            pass
        assert torch.get_num_threads() == 1
    assert seen == [2]
    assert inside == [1] * 4
    assert torch.get_num_threads() == 2


def test_work_is_dealt_to_threads_in_order_and_in_the_mode_of_the_caller(two_threads):
    barrier = threading.Barrier(2, timeout=60)

    def work(item):
        barrier.wait()  # passed by two at a time
        nested = in_threads(lambda k: k, range(3))  # the same thread does these
        return item, nested, torch.is_inference_mode_enabled(), threading.get_ident()

    with one_thread(), torch.inference_mode():
        found = in_threads(work, range(6))
    assert [item for item, *_ in found] == list(range(6))
    assert all(nested == [0, 1, 2] for _, nested, _, _ in found)
    assert all(mode for _, _, mode, _ in found)
    assert len({thread for *_, thread in found}) == 2


def test_an_error_in_a_thread_is_raised_and_ends_the_work(two_threads):
    done = []

    def work(item):
        if item == 1:
            raise ValueError("item 1")
        done.append(item)

    before = threading.active_count()
    with pytest.raises(ValueError, match="item 1"), one_thread():
        in_threads(work, range(1000))
    assert len(done) < 1000
    assert threading.active_count() == before


@pytest.mark.usefixtures("light_fits")
def test_fits_in_threads_are_those_of_one_beside_a_user_of_the_global_generator(
    two_threads,
):
    X = incomplete(80, 4)
    alone = [quick(random_state=k).fit(X).transform(X) for k in (0, 1)]
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            torch.rand(10)
            np.random.rand(10)  # noqa: NPY002

    user = threading.Thread(target=hammer)
    user.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            fits = [pool.submit(quick(random_state=k).fit, X) for k in (0, 1)]
            beside = [fit.result().transform(X) for fit in fits]
    finally:
        stop.set()
        user.join()
    np.testing.assert_array_equal(beside, alone)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("light_fits")
def test_fits_do_not_wait_for_each_other(monkeypatch, two_threads):
    """Each of two fits waits, in the middle, for the other to get there."""
    barrier = threading.Barrier(2, timeout=60)
    fit_landmarks = _training.fit_landmarks

    def wait(*arguments):
        barrier.wait()
        return fit_landmarks(*arguments)

    monkeypatch.setattr(_training, "fit_landmarks", wait)
    X = incomplete(80, 4)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: quick(max_epochs=1).fit(X), range(2)))


@pytest.mark.usefixtures("light_fits")
def test_nothing_random_comes_from_the_global_generator(monkeypatch):
    """Tables with levels, many columns, blocks and bootstraps, fitted and drawn."""
    X = incomplete(120, 6)
    levels = pd.DataFrame(X, columns=list("uvwxyz"))
    levels = levels.assign(level=np.where(X[:, 0] > 0, "a", "b"))
    blocks = gaussian_table(640, 526, 0)[0]
    blocks[::10, :520] = np.nan
    blocks[::7, 520:] = np.nan
    wide = incomplete(60, 140)
    options = {"max_epochs": 1, "n_bootstraps": 1, "self_masking": False}
    for table, more in (
        (X, {}),
        (levels, {}),
        (wide, {}),
        (blocks, {"modalities": {"a": range(520), "b": range(520, 526)}}),
    ):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        imputer = quick(**options, **more).fit(table)
        imputer.sample(table[:20], 1)
        assert torch.equal(torch.get_rng_state(), before)
    assert [len(own) for own in imputer.model_.partition.blocks] == [520, 6]


def test_leading_vectors_are_those_of_the_singular_value_decomposition():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=generator) @ torch.randn(
        5, 40, generator=generator
    )
    x = x.double()
    values, vectors = leading_vectors(x, 5, generator)
    _, expected, rows = torch.linalg.svd(x)
    torch.testing.assert_close(values, expected[:5])
    overlap = (rows[:5] @ vectors).square().sum(0)
    torch.testing.assert_close(overlap, torch.ones(5).double())
    # More than there are.
    values, vectors = leading_vectors(x[:3], 7, generator)
    assert values.shape == (3,)
    assert vectors.shape == (40, 3)


def test_dropout_keeps_the_mean_and_drops_at_the_rate():
    generator = torch.Generator().manual_seed(0)
    factors = dropout_factors(0.3, (200, 500), generator, "cpu")
    share = float((factors == 0).float().mean())
    error = 5 * (0.3 * 0.7 / factors.numel()) ** 0.5
    assert abs(share - 0.3) < error
    assert torch.equal(factors.unique(), torch.tensor([0.0, 1 / 0.7]))
    layer = linear(400, 30, generator)
    assert float(layer.weight.detach().abs().max()) <= 1 / 20
    assert abs(float(layer.weight.detach().std()) * 20 * 3**0.5 - 1) < 0.05


def test_training_drops_entries_and_completion_does_not(monkeypatch):
    X = incomplete(100, 4)
    seen = []
    forward = Denoiser.forward

    def spy(self, features, extra=None, factors=None):
        seen.append((torch.is_grad_enabled(), factors is not None))
        return forward(self, features, extra, factors)

    monkeypatch.setattr(Denoiser, "forward", spy)
    quick(max_epochs=1).fit(X).transform(X)
    assert (True, True) in seen
    assert (True, False) not in seen
    assert (False, True) not in seen
