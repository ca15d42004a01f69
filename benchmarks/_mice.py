"""R's mice, where it is installed."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

MICE_SCRIPT = Path(__file__).parent / "mice.R"


@functools.cache
def has_r(*packages):
    """Whether R is installed, and packages of it."""
    if shutil.which("Rscript") is None:
        return False
    wanted = " && ".join(f"requireNamespace('{name}')" for name in packages)
    command = ["Rscript", "-e", f"quit(status = !({wanted}))"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def has_mice():
    """Whether R is installed, and its mice."""
    return has_r("mice")


def mice_draws(train, rows, n_draws, method, seed):
    """Draws of rows by R's mice, which learns from the rows to train on alone.

    NaN in columns that mice leaves out, since others nearly determine them.

    Returns
    -------
    array of shape (n_draws, n, d)
    """
    with tempfile.TemporaryDirectory() as folder:
        given, drawn = Path(folder) / "given.csv", Path(folder) / "drawn.csv"
        table = pd.DataFrame(np.concatenate([train, rows])).add_prefix("v")
        table[".train"] = np.repeat([1, 0], [len(train), len(rows)])
        table.to_csv(given, index=False)
        options = [str(n_draws), method, str(seed)]
        command = ["Rscript", str(MICE_SCRIPT), str(given), str(drawn)]
        subprocess.run([*command, *options], check=True, capture_output=True)
        found = pd.read_csv(drawn).to_numpy()
    return found.reshape(n_draws, *rows.shape)
