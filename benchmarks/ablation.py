"""What each part of the model of modalities gives: it is taken away, and measured.

    python -m benchmarks.ablation --data DIR [--set mfeat] [--max-time 60]

Each variant is fitted once to complete training rows; errors are means over all proper
subsets of available modalities, unseen rows, standardised columns. ``rmse`` is that of
the mean, ``draw`` that of a single draw, ``energy`` the energy distance between draws
and the truth (8 draws, in root mean square units: it is low only where draws are right
together), in so many calls of the network. The path without conditioning and jointly
trained encoders are the peers ``published`` and ``autoencoder`` of
`benchmarks.modalities`: an unconditional diffusion with observed values spliced in, and
one autoencoder of all modalities.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from admc_sklearn import ADMCImputer
from admc_sklearn._blocks.anchor import AnchorSettings
from admc_sklearn._blocks.cross_fit import CrossFitSettings
from admc_sklearn._blocks.settings import SIZES, BlockSettings
from admc_sklearn._cells.settings import CellSettings
from benchmarks._baselines import BASELINES
from benchmarks._blocks import hide, load_blocks, rmse, subsets

N_DRAWS = 8


WITHOUT_ATTENTION = BlockSettings(
    sizes={name: replace(size, n_attention=0) for name, size in SIZES.items()}
)
# Without slopes the anchor has the latents' own means and variances.
WITHOUT_ANCHOR = BlockSettings(
    cross_fit=CrossFitSettings(anchor=AnchorSettings(has_slopes=False))
)
# Settings of each variant, and parameters of the imputer.
VARIANTS = {
    "as it is": (BlockSettings(), {}),
    "without attention": (WITHOUT_ATTENTION, {}),
    "without anchor": (WITHOUT_ANCHOR, {}),
    "anchor alone": (BlockSettings(), {"max_epochs": 0}),
}


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
    parser.add_argument("--set", default="mfeat")
    parser.add_argument("--max-time", type=float)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 8, 50])
    parser.add_argument("--peers", nargs="*", default=["published", "autoencoder"])
    options = parser.parse_args()
    blocks = load_blocks(options.set, options.data)
    if blocks is None:
        parser.error(f"there is no {options.set} in {options.data}")
    frames = []
    for name, (patch, parameters) in VARIANTS.items():
        with patch():
            imputer = ADMCImputer(
                modalities=blocks.columns,
                keep_whole_numbers=False,
                max_time=options.max_time,
                random_state=0,
                **parameters,
            ).fit(blocks.X[blocks.train])
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
