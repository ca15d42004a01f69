"""Training: what it keeps, when it stops, what it shows."""

import math
import time

import numpy as np
import pytest
import torch

from admc_sklearn import ADMCImputer, _training
from admc_sklearn._anchor import fit_anchor
from admc_sklearn._runtime import resolve_device
from admc_sklearn._training import SIZES, TrainingPlan, build_network, fit_network
from admc_sklearn._warp import Warp

from .conftest import gaussian_table, hide, quick, rings


def plan(**changes):
    fields = {
        "max_epochs": 3,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "validation_fraction": 0.2,
        "n_iter_no_change": 10,
        "deadline": math.inf,
        "show_progress": False,
    }
    return TrainingPlan(**{**fields, **changes})


def standardised(X):
    observed = ~np.isnan(X)
    values = (X - np.nanmean(X, 0)) / np.nanstd(X, 0)
    return np.where(observed, values, 0).astype(np.float32), observed


def test_learning_beats_the_anchor_where_rows_are_not_gaussian(ring_imputer):
    history = ring_imputer.history_
    assert history["epoch"].tolist() == list(range(len(history)))
    assert history["valid_rmse"].min() < 0.9 * history["valid_rmse"][0]
    assert history["valid_loss"].min() < history["valid_loss"][0] - 0.3
    assert ring_imputer.n_epochs_ == history["valid_rmse"].argmin() > 0


def test_the_kept_weights_are_those_of_the_best_epoch(monkeypatch):
    """Held-out error of the result is the lowest in the history, never the last."""
    kept = {}
    train = _training._train

    def spy(trainer, validation):
        history = train(trainer, validation)
        kept["rmse"] = validation.measure()[0]
        return history

    monkeypatch.setattr(_training, "_train", spy)
    X, _, _ = gaussian_table(150, 4, 0)
    imputer = quick(max_epochs=12, learning_rate=0.05).fit(hide(X, 0.2, 0))
    assert kept["rmse"] == pytest.approx(imputer.history_["valid_rmse"].min(), rel=1e-5)


def test_gaussian_rows_are_left_to_the_anchor_or_gain(monkeypatch):
    X, _, _ = gaussian_table(300, 5, 1)
    imputer = quick(max_epochs=10).fit(hide(X, 0.3, 0))
    rmse = imputer.history_["valid_rmse"]
    assert rmse[imputer.n_epochs_] <= rmse[0]


def test_an_untrained_network_is_the_anchor():
    X, _, _ = gaussian_table(2000, 4, 0)
    values, observed = standardised(hide(X, 0.3, 0))
    network, history = fit_network(
        values, observed, SIZES["small"], plan(max_epochs=0), torch.device("cpu"), 0
    )
    assert len(history) == 1
    x, o = torch.tensor(values), torch.tensor(observed)
    with torch.no_grad():
        posterior = network(x, o, ~o)
        mean, _ = network.anchor.condition(x, o)
    error = posterior.mean() - posterior.cells.gather(mean)
    assert error[posterior.cells.filled].abs().mean() < 0.01


def test_missing_cells_never_enter_a_loss():
    """What stands at missing cells, even NaN, changes nothing."""
    X = rings(400, 0)
    observed = np.random.default_rng(0).random(X.shape) < 0.7
    results = []
    for filler in (0.0, 1e3):
        values = np.where(observed, X, filler).astype(np.float32)
        _, history = fit_network(
            values, observed, SIZES["small"], plan(), torch.device("cpu"), 0
        )
        results.append([r["train_loss"] for r in history[1:]])
    assert results[0] == results[1]


def test_max_time_stops_and_brings_the_learning_rate_down(monkeypatch):
    rates = []
    rate = _training.Trainer.rate

    def spy(self):
        rates.append(rate(self))
        return rates[-1]

    monkeypatch.setattr(_training.Trainer, "rate", spy)
    X = hide(rings(6000, 0), 0.2, 0)
    started = time.monotonic()
    imputer = ADMCImputer(max_epochs=10_000, max_time=3, random_state=0).fit(X)
    assert time.monotonic() - started < 9
    assert len(imputer.history_) < 1000
    assert rates[-1] < 0.2 * max(rates)
    assert imputer.n_epochs_ > 0


def test_n_iter_no_change_stops():
    X, _, _ = gaussian_table(200, 4, 0)
    imputer = quick(max_epochs=500, n_iter_no_change=4).fit(hide(X, 0.2, 0))
    assert len(imputer.history_) - 1 == imputer.n_epochs_ + 4


def test_ctrl_c_keeps_the_best_weights_and_warns(monkeypatch):
    epoch = _training.Trainer.epoch
    done = []

    def interrupted(self):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(epoch(self))
        return done[-1]

    monkeypatch.setattr(_training.Trainer, "epoch", interrupted)
    X = hide(rings(500, 0), 0.2, 0)
    with pytest.warns(UserWarning, match="interrupted"):
        imputer = ADMCImputer(max_epochs=50, random_state=0).fit(X)
    assert len(imputer.history_) == 4
    assert np.isfinite(imputer.transform(X)).all()


def test_progress_shows_the_validation_figure_and_silence_is_silent(capfd):
    X = hide(rings(200, 0), 0.2, 0)
    quick(verbose=0).fit(X)
    assert capfd.readouterr() == ("", "")
    imputer = quick(verbose=1).fit(X)
    shown = capfd.readouterr().err
    assert f"{imputer.history_['valid_rmse'].iloc[-1]:.4f}" in shown


def test_an_odd_last_batch_and_rows_without_cells_train():
    X = hide(rings(97, 0), 0.2, 0)
    X[::3] = np.nan
    imputer = quick(batch_size=32).fit(X)
    assert imputer.history_["train_loss"][1:].notna().all()


def test_network_sizes_and_wide_tables_share_tokens():
    X = np.random.default_rng(0).normal(size=(30, 150)).astype(np.float32)
    observed = np.ones(X.shape, dtype=bool)
    generator = torch.Generator().manual_seed(0)
    anchor = fit_anchor(torch.tensor(X), torch.tensor(observed), 10.0, generator)
    network = build_network(X, observed, Warp.identity(150), anchor, SIZES["small"])
    assert network.denoiser.embedding.n_tokens == 50
    targets = torch.tensor(np.random.default_rng(0).random(X.shape) < 0.3)
    posterior = network(torch.tensor(X), ~targets, targets)
    assert torch.isfinite(posterior.mean()).all()


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "mps"])
def test_unusable_devices_are_named(device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    if device == "cuda:99" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ValueError, match=device):
        resolve_device(device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_data_and_network_stay_on_the_gpu(monkeypatch):
    seen = []
    step = _training.Trainer.step

    def spy(self, rows):
        seen.append((self.values.device.type, rows.device.type))
        return step(self, rows)

    monkeypatch.setattr(_training.Trainer, "step", spy)
    X = hide(rings(2000, 0), 0.2, 0)
    imputer = ADMCImputer(max_epochs=30, device="cuda", random_state=0).fit(X)
    assert set(seen) == {("cuda", "cuda")}
    cpu = ADMCImputer(max_epochs=30, device="cpu", random_state=0).fit(X)
    got, expected = (i.history_["valid_rmse"].min() for i in (imputer, cpu))
    assert got == pytest.approx(expected, rel=0.1)
