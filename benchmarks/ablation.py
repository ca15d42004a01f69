"""Ablation of the model of modalities: each part is taken away, and measured.

    python -m benchmarks.ablation --data DIR [--set mfeat] [--max-time 60]
    python -m benchmarks.ablation --data DIR --cells [--rows 150 500] [--tables ...]

Each variant is fitted once to complete training rows; errors are means over all proper
subsets of available modalities, unseen rows, standardised columns. ``rmse`` is the
error of the mean, ``draw`` the error of a single draw, ``energy`` the energy distance
between draws and the truth (8 draws, in root mean square units: it is low only where
draws are right together). ``steps`` are the calls of the network that a draw takes. The
path without conditioning and jointly trained encoders are the peers ``published`` and
``autoencoder`` of `benchmarks.modalities`: an unconditional diffusion with observed
values spliced in, and one autoencoder of all modalities.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace

import numpy as np
import pandas as pd

from admc_sklearn import ADMCImputer
from admc_sklearn._blocks.settings import BlockSettings
from admc_sklearn._combined.partition import PartitionSettings
from admc_sklearn._combined.settings import Settings
from benchmarks import _ablation_cells
from benchmarks._baselines import BASELINES
from benchmarks._blocks import hide, load_blocks, rmse, subsets

N_DRAWS = 8


WHOLE = BlockSettings()


def _without_attention():
    sizes = {k: replace(size, n_attention=0) for k, size in WHOLE.sizes.items()}
    return replace(WHOLE, sizes=sizes)


def _without_anchor():
    """Leave the latents their own means and variances."""
    anchor = replace(WHOLE.cross_fit.anchor, has_slopes=False)
    return replace(WHOLE, cross_fit=replace(WHOLE.cross_fit, anchor=anchor))


def _without_kernels():
    """Leave the anchor linear in the latents."""
    cross_fit = replace(WHOLE.cross_fit, linear_weights=(math.inf,))
    return replace(WHOLE, cross_fit=cross_fit)


# The settings of each variant, and the imputer's parameters.
VARIANTS = {
    "as it is": (WHOLE, {}),
    "without attention": (_without_attention(), {}),
    "without kernel features": (_without_kernels(), {}),
    "without anchor": (_without_anchor(), {}),
    "anchor alone": (WHOLE, {"max_epochs": 0}),
}


def imputer_of(name, **parameters):
    """Imputer of a variant."""
    blocks, own = VARIANTS[name]
    settings = Settings(blocks=blocks, partition=PartitionSettings(max_cell_columns=0))

    class Ablated(ADMCImputer):
        _settings = settings

    return Ablated(keep_whole_numbers=False, random_state=0, **parameters | own)


def energy(draws, truth):
    """Energy distance of each row's draws to its truth, over all rows; rms units."""
    scale = np.sqrt(truth.shape[1])
    to_truth = np.linalg.norm(draws - truth, axis=2).mean() / scale
    pairs = [
        np.linalg.norm(a - b, axis=1).mean()
        for k, a in enumerate(draws)
        for b in draws[:k]
    ]
    return to_truth - 0.5 * np.mean(pairs) / scale


def measure(imputer, blocks, steps):
    """Mean figures over the subsets, for every number of steps: a list of dicts."""
    X = blocks.X[~blocks.train]
    records = []
    for n_steps in steps:
        imputer.set_params(n_steps=n_steps)
        for kept in subsets(blocks.columns):
            incomplete = hide(X, blocks.columns, kept)
            lost = np.isnan(incomplete[0])
            completed = imputer.transform(incomplete)
            started = time.perf_counter()
            draws = imputer.sample(incomplete, N_DRAWS)
            seconds = (time.perf_counter() - started) / N_DRAWS
            records.append(
                {
                    "steps": n_steps,
                    "rmse": rmse(X, incomplete, completed),
                    "draw": rmse(X, incomplete, draws[0]),
                    "energy": energy(draws[:, :, lost], X[:, lost]),
                    "seconds a draw": seconds,
                }
            )
    return records


def main():
    """Fit every variant, measure it, print the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    _ablation_cells.add_arguments(parser.add_argument_group("tables of cells"))
    parser.add_argument("--set", default="mfeat")
    parser.add_argument("--max-time", type=float)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 8, 50])
    parser.add_argument("--peers", nargs="*", default=["published", "autoencoder"])
    options = parser.parse_args()
    if options.cells:
        _ablation_cells.run(options)
        return
    blocks = load_blocks(options.set, options.data)
    if blocks is None:
        parser.error(f"there is no {options.set} in {options.data}")
    frames = []
    parameters = {"modalities": blocks.columns, "max_time": options.max_time}
    for name in VARIANTS:
        imputer = imputer_of(name, **parameters).fit(blocks.X[blocks.train])
        frame = pd.DataFrame(measure(imputer, blocks, options.steps))
        frames.append(frame.assign(variant=name))
    for name in options.peers:
        peer = BASELINES[name](0, blocks.columns).fit(blocks.X[blocks.train])
        X = blocks.X[~blocks.train]
        for kept in subsets(blocks.columns):
            incomplete = hide(X, blocks.columns, kept)
            error = rmse(X, incomplete, peer.transform(incomplete))
            frames.append(pd.DataFrame([{"variant": name, "steps": 0, "rmse": error}]))
    table = pd.concat(frames).groupby(["variant", "steps"], sort=False).mean()
    print(table.round(4).to_string())


if __name__ == "__main__":
    main()
