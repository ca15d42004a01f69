"""The picture of the README and of the first page: completed handwritten digits.

    python docs/first_picture.py

writes ``docs/_static/digits.png``. Each pixel is a column of an ordinary table; the
imputers have not seen the rows that they complete.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.impute import KNNImputer

from admc_sklearn import ADMCImputer
from admc_sklearn.missingness import ampute

HIDDEN = "#d8b4a0"


def complete_digits(n_shown=12):
    """Complete unseen digits in two ways, and measure the spread of draws.

    Returns
    -------
    dict of str to array of shape (n_shown, 64)
    """
    X = load_digits().data
    X = X[np.random.default_rng(0).permutation(len(X))]
    incomplete = ampute(X, rate=0.5, random_state=0)
    train, rows = incomplete[:1258], incomplete[1258 : 1258 + n_shown]
    neighbours = KNNImputer(n_neighbors=10, weights="distance").fit(train)
    imputer = ADMCImputer(random_state=0).fit(train)
    return {
        "half of the pixels missing": rows,
        "KNNImputer": neighbours.transform(rows),
        "ADMCImputer": imputer.transform(rows),
        "its uncertainty": imputer.sample(rows, n_draws=30).std(axis=0),
        "truth": X[1258 : 1258 + n_shown],
    }


def draw(rows):
    """Draw one line of images for each entry."""
    n_shown = len(rows["truth"])
    figure, grid = plt.subplots(
        len(rows), n_shown, figsize=(0.62 * n_shown + 2.2, 0.64 * len(rows))
    )
    figure.subplots_adjust(0.235, 0.01, 0.995, 0.99, wspace=0.08, hspace=0.08)
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        spread = name == "its uncertainty"
        for axis, image in zip(axes, images, strict=True):
            axis.set_facecolor(HIDDEN)
            axis.imshow(
                image.reshape(8, 8),
                cmap="Purples" if spread else "gray_r",
                vmin=0,
                vmax=6 if spread else 16,
            )
            axis.set(xticks=[], yticks=[])
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    return figure


if __name__ == "__main__":
    path = Path(__file__).parent / "_static" / "digits.png"
    path.parent.mkdir(exist_ok=True)
    figure = draw(complete_digits())
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
