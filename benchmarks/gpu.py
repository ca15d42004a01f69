"""What a GPU gives: ADMCImputer on it and beside the CPU, and how busy it is.

    python -m benchmarks.gpu [--device cuda] [--cpu] [--csv FILE]

Made-up tables of `benchmarks.speed`, default parameters: one of california's size, and
one of 1,000,000 rows and 50 columns, which is then completed. A step's time is that of
the epochs, the anchor's conditioning and the validation included; its share is that of
its products of matrices in what the device reaches in one large product of float32
matrices.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from admc_sklearn import ADMCImputer
from admc_sklearn._shared.held_out import MAX_HELD_ROWS
from admc_sklearn._shared.training import TrainingPlan
from benchmarks.speed import made_up

RATE = 0.3
# Name, rows, columns.
RUNS = (("california", 14_303, 8), ("largest", 1_000_000, 50))
# A large product of matrices, and how often it is made.
SIZE, N_PRODUCTS = 8192, 10
# Of a step, forward and back, in the products of a forward pass.
BACKWARD = 3


def peak(device, dtype=torch.float32, size=SIZE):
    """Operations a second of a product of square matrices of a size, measured."""
    a = torch.randn(size, size, device=device).to(dtype)
    a @ a
    _wait(device)
    started = time.perf_counter()
    for _ in range(N_PRODUCTS):
        a @ a
    _wait(device)
    return 2 * size**3 * N_PRODUCTS / (time.perf_counter() - started)


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_work(imputer, X):
    """Operations of a training step's products, and steps of an epoch."""
    network, (n, d) = imputer.model_.network, X.shape
    size = TrainingPlan.of(imputer, (n, d), 0.0).batch_size
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(size, d, generator=generator) > RATE
    targets = observed & (torch.rand(size, d, generator=generator) < RATE)
    observed, targets = (t.to(network.device) for t in (observed, targets))
    values = torch.zeros(size, d, device=network.device)
    kept = observed & ~targets
    with torch.no_grad():
        anchored = network.anchored(values, kept)
        with FlopCounterMode(display=False) as counter:
            summaries = network.summarise(values, kept, anchored)
            network.by_likelihood(summaries, targets, anchored, network.prior)
    held = min(n // 2, math.ceil(imputer.validation_fraction * n), MAX_HELD_ROWS)
    return BACKWARD * counter.get_total_flops(), math.ceil((n - held) / size)


def measure(name, n, d, device, reached, n_new=None):
    """Fit a made-up table and complete rows: a dict of seconds, error and share.

    ``reached`` are the device's operations a second; ``n_new`` rows, as many as were
    fitted, are completed.
    """
    n_new = n if n_new is None else n_new
    X = made_up(n + n_new, d, 0)
    truth = X[n:].copy()
    X[np.random.default_rng(1).random(X.shape, dtype=np.float32) < RATE] = np.nan
    hidden = np.isnan(X[n:])
    imputer = ADMCImputer(device=str(device), random_state=0)
    started = time.perf_counter()
    imputer.fit(X[:n])
    _wait(device)
    fitted = time.perf_counter()
    completed = imputer.transform(X[n:])
    done = time.perf_counter()
    work, n_steps = step_work(imputer, X[:n])
    history = imputer.history_
    epochs = len(history) - 1
    seconds = history["seconds"].iloc[-1] / max(1, epochs * n_steps)
    return {
        "table": name,
        "n_samples": n,
        "n_features": d,
        "device": str(device),
        "fit_s": fitted - started,
        "epochs": epochs,
        "step_ms": 1e3 * seconds,
        "share": work / max(seconds, 1e-9) / reached,
        "transform_s": done - fitted,
        "n_new": n_new,
        "rmse": float(np.sqrt(np.mean((completed - truth)[hidden] ** 2) / truth.var())),
    }


def main():
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cpu", action="store_true", help="also california's on it")
    parser.add_argument("--csv")
    options = parser.parse_args()
    device = torch.device(options.device)
    reached = peak(device)
    print(f"{device}: float32 {reached / 1e12:.1f} TFLOP/s", flush=True)
    # What is loaded when a device is first used belongs to no table.
    measure("warm-up", 500, 4, device, reached)
    records = [measure(*run, device, reached) for run in RUNS]
    if options.cpu:
        cpu = torch.device("cpu")
        records.append(measure(*RUNS[0], cpu, peak(cpu, size=SIZE // 4)))
    frame = pd.DataFrame(records)
    if options.csv:
        frame.to_csv(options.csv, index=False)
    print(frame.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
