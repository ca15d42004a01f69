"""
Complete a table, and compare
=============================

Hide 30 % of the cells of two real tables, complete the rows that no imputer has seen,
and compare `ADMCImputer` with scikit-learn's own imputers. The picture shows completed
handwritten digits: each pixel is a column of an ordinary table.
"""

# %%
import time
from pathlib import Path

import matplotlib

if __name__ == "__main__":
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from admc_sklearn import ADMCImputer

# %%
# The imputers. Each is fitted once on incomplete rows, and completes other rows.
IMPUTERS = {
    "SimpleImputer": SimpleImputer(keep_empty_features=True),
    "KNNImputer": KNNImputer(
        n_neighbors=10, weights="distance", keep_empty_features=True
    ),
    "IterativeImputer": IterativeImputer(
        max_iter=5, random_state=0, keep_empty_features=True
    ),
    "ADMCImputer": ADMCImputer(random_state=0, verbose=1),
}


# %%
# Errors are taken over the hidden cells only, in standard deviations of each column.
# The columns are standardised first: nearest neighbours need it.
def compare(X, seed=0, rate=0.3):
    """Scores of every imputer, the test rows, what is hidden of them, completions."""
    rng = np.random.default_rng(seed)
    X = X[rng.permutation(len(X))]
    incomplete = np.where(rng.random(X.shape) < rate, np.nan, X)
    n_train = int(0.7 * len(X))
    mean = np.nanmean(incomplete[:n_train], axis=0)
    scale = np.nanstd(incomplete[:n_train], axis=0)
    scale[scale == 0] = 1.0
    train, test = np.split((incomplete - mean) / scale, [n_train])
    truth = (X[n_train:] - mean) / scale
    scores, completions = [], {}
    for name, imputer in IMPUTERS.items():
        started = time.perf_counter()
        imputer.fit(train)
        fitted = time.perf_counter()
        completed = imputer.transform(test)
        done = time.perf_counter()
        error = (completed - truth)[np.isnan(test)]
        scores.append(
            {
                "imputer": name,
                "RMSE": np.sqrt(np.mean(error**2)),
                "MAE": np.mean(np.abs(error)),
                "fit [s]": fitted - started,
                "transform [s]": done - fitted,
            }
        )
        completions[name] = completed * scale + mean
    scores = pd.DataFrame(scores).set_index("imputer")
    return scores, X[n_train:], incomplete[n_train:], completions


tables = {
    "breast_cancer (569 x 30)": load_breast_cancer().data,
    "digits (1797 x 64)": load_digits().data,
}
results = {}
for title, X in tables.items():
    results[title] = compare(X)
    print(f"\n{title}, 30 % of the cells hidden, unseen rows")
    print(results[title][0].round(3).to_string())

# %%
# Completed digits beside the truth, and the errors of both tables.
scores, truth, incomplete, completions = results["digits (1797 x 64)"]
rows = {"hidden": incomplete, **completions, "truth": truth}
n_digits = 9
figure = plt.figure(figsize=(11, 5.4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1.6, 1])
grid = left.subplots(len(rows), n_digits)
for axes, (name, images) in zip(grid, rows.items(), strict=True):
    for axis, image in zip(axes, images, strict=False):
        axis.set_facecolor("#d8b4a0")  # what a hidden pixel looks like
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
    axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
for axis, (title, result) in zip(right.subplots(2, 1), results.items(), strict=True):
    rmse = result[0]["RMSE"]
    shades = ["0.25" if name == "ADMCImputer" else "0.7" for name in rmse.index]
    bars = axis.barh(rmse.index, rmse, color=shades)
    axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.invert_yaxis()
    axis.set(title=title, xlabel="RMSE of hidden cells", xlim=(0, 1.15 * rmse.max()))
    axis.spines[["top", "right"]].set_visible(False)

# %%
# Run as a script, the picture goes to a file.
if __name__ == "__main__":
    path = Path("results") / "quick_start.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
