# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
"""
Which imputer is best for my data?
==================================

No imputer is best everywhere. `compare_imputers` hides known cells of *your* table,
lets every imputer complete rows that it has not seen, and says whether the difference
matters to the model that comes after.
"""

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from admc_sklearn import ADMCImputer, ImputationDisplay
from admc_sklearn.evaluation import compare_imputers, ranking

# %% [markdown]
# The candidates. Neighbours need columns of one scale: a pipeline whose last step is
# the imputer may stand here, and its scaling is undone before cells are compared.
# ``max_epochs=0`` leaves of `ADMCImputer` the Gaussian that it starts from.

# %%
imputers = {
    "mean": SimpleImputer(),
    "neighbours": make_pipeline(StandardScaler(), KNNImputer(n_neighbors=10)),
    "round-robin": IterativeImputer(max_iter=5, tol=0.1, random_state=0),
    "anchor alone": ADMCImputer(max_epochs=0, random_state=0),
    "ADMCImputer": ADMCImputer(max_epochs=15, random_state=0),
}

# %% [markdown]
# Ten measurements of cell nuclei. Cells go missing at random (MCAR), or by their own
# value (MNAR), as where large values are not measured: a harder case, for which no
# imputer here is made. With ``y`` and an ``estimator`` the completed rows also go into
# a classifier.

# %%
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X = X.filter(like="mean")
results = compare_imputers(
    imputers,
    X,
    mechanisms=("mcar", "mnar"),
    rates=(0.4,),
    y=y,
    estimator=make_pipeline(StandardScaler(), LogisticRegression()),
    random_state=0,
)
figures = ["rmse", "mae", "score", "fit_time", "transform_time"]
print(results.groupby(["mechanism", "imputer"])[figures].mean().round(3).to_string())

# %% [markdown]
# Mean ranks over the six runs. Imputers whose ranks differ by less than the critical
# difference cannot be told apart by these runs.

# %%
print(ranking(results).round(2).to_string())

# %% [markdown]
# The picture: errors of the hidden cells, and what is left of the differences in the
# accuracy of the classifier: next to nothing on this table. Small dots are splits.

# %%
figure = plt.figure(figsize=(10, 4.2), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=[2, 1])
display = ImputationDisplay.from_comparison(results, ax=left)
order = display.data["order"]
mcar = results[results["mechanism"] == "mcar"]
for place, name in enumerate(order):
    scores = mcar.loc[mcar["imputer"] == name, "score"]
    right.axhline(place, color="0.9", lw=1, zorder=0)
    right.plot(scores, np.full(len(scores), place), ".", color="0.55")
    right.plot(scores.mean(), place, "o", mfc="w", mec="k", ms=8)
right.set(
    yticks=range(len(order)),
    yticklabels=order,
    ylim=(len(order) - 0.5, -0.5),
)
right.set_title("accuracy of the classifier, mcar, 40 %", fontsize=9)
right.tick_params(labelsize=8)
right.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# Run as a script, which has a file, the picture goes to one.

# %%
if "__file__" in globals():
    path = Path("results") / "which_imputer.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
