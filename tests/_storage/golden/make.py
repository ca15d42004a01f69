"""Makes the golden files: once for every format, which later versions still read.

    python tests/_storage/golden/make.py FOLDER

The networks are as small as can be, so that a file has some kB.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from admc_sklearn import ADMCImputer
from admc_sklearn._blocks.denoiser import DenoiserSize
from admc_sklearn._blocks.kernel_features import KernelSettings
from admc_sklearn._cells.corrections.forests import ForestSettings
from admc_sklearn._cells.network.denoiser import NetworkSize
from admc_sklearn._combined.settings import Settings


def settings():
    """Least sizes of everything."""
    made = Settings()
    cells = replace(
        made.cells,
        sizes={"small": NetworkSize(4, 8, 1, 1, 0.0)},
        forests=ForestSettings(n_trees=2, n_samples=100),
        max_networks=1,
    )
    cross = replace(
        made.blocks.cross_fit, kernel=KernelSettings(n_landmarks=10, n_features=4)
    )
    sizes = {"small": DenoiserSize(4, 8, 1, 1)}
    blocks = replace(made.blocks, cross_fit=cross, sizes=sizes)
    partition = replace(made.partition, max_cell_columns=0)
    return Settings(cells=cells, blocks=blocks, partition=partition)


def tables():
    """Incomplete tables by name, and the parameters of their imputers."""
    rng = np.random.default_rng(0)
    n = 60
    a = rng.normal(size=n).round(3)
    cells = pd.DataFrame({"a": a, "b": (a**2 + rng.normal(size=n)).round(3)})
    cells["level"] = np.where(a + 0.5 * rng.normal(size=n) > 0, "high", "low")
    cells["count"] = rng.poisson(3, n)
    cells = cells.mask(rng.random(cells.shape) < 0.2)
    z = rng.normal(size=(n, 2))
    X = (z @ rng.normal(size=(2, 11)) + 0.1 * rng.normal(size=(n, 11))).round(3)
    X[rng.random(n) < 0.3, :5] = np.nan
    X[rng.random(n) < 0.3, 5:10] = np.nan
    blocks = pd.DataFrame(X).add_prefix("v")
    names = list(blocks)
    modalities = {"first": names[:5], "second": names[5:10]}
    return {"cells": (cells, {}), "blocks": (blocks, {"modalities": modalities})}


def main(folder):
    """Fit, save, complete."""
    small = type("ADMCImputer", (ADMCImputer,), {"_settings": settings()})
    for name, (given, parameters) in tables().items():
        imputer = small(random_state=0, max_epochs=3, **parameters).fit(given)
        print(name, imputer.save(folder / f"{name}.safetensors").to_dict())
        given.to_csv(folder / f"{name}_given.csv", index=False)
        imputer.set_output(transform="pandas")
        completed = imputer.transform(pd.read_csv(folder / f"{name}_given.csv"))
        completed.to_csv(folder / f"{name}_completed.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
