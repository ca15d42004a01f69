"""
An imputer in a pipeline and a grid search
==========================================

Two questions that a grid search answers: which imputer, with which parameters, serves
the *classifier* behind it best; and which one completes the *table* best. The answers
need not agree.
"""

# %%
from pathlib import Path

import matplotlib

if __name__ == "__main__":
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from admc_sklearn import ADMCImputer
from admc_sklearn.evaluation import make_imputation_scorer
from admc_sklearn.missingness import ampute

# %%
# Handwritten digits, 16 inner pixels only, to be quick; half of them lost.
X, y = load_digits(return_X_y=True)
X = X.reshape(-1, 8, 8)[:400, 2:6, 2:6].reshape(400, -1)
y = y[:400]
incomplete = ampute(X, rate=0.5, random_state=1)

# %%
# The whole step is a parameter of the pipeline, and so are the parameters of a step:
# here the number of neighbours, and how long the network is trained. With 0 epochs
# `ADMCImputer` is the Gaussian that it starts from.
pipeline = Pipeline(
    [
        ("scale", StandardScaler()),
        ("impute", SimpleImputer()),
        ("classify", LogisticRegression(C=0.05, max_iter=1000)),
    ]
)
round_robin = IterativeImputer(max_iter=10, tol=0.1, random_state=0)
grid = [
    {"impute": [SimpleImputer()]},
    {"impute": [KNNImputer()], "impute__n_neighbors": [3, 15]},
    {"impute": [round_robin]},
    {"impute": [ADMCImputer(random_state=0)], "impute__max_epochs": [0, 15]},
]
labels = ["mean", "3 neighbours", "15 neighbours", "round-robin"]
labels += ["ADMC, 0 epochs", "ADMC, 15 epochs"]
search = GridSearchCV(pipeline, grid, cv=2, refit=False).fit(incomplete, y)
print("best for the classifier:", labels[search.best_index_])

# %%
# The same candidates, judged as imputers: the scorer hides 30 % of the known pixels of
# the rows that the search holds out, and counts how well they are completed. Pixels
# that are really lost never count. No classifier, and no ``y``, is needed.
scorer = make_imputation_scorer("rmse", rate=0.3, random_state=0)
tuned = GridSearchCV(pipeline[:-1], grid, scoring=scorer, cv=2).fit(incomplete)
print("best for the table:", labels[tuned.best_index_])
scores = pd.DataFrame(
    {
        "accuracy": search.cv_results_["mean_test_score"],
        "RMSE": -tuned.cv_results_["mean_test_score"],
        "fit [s]": tuned.cv_results_["mean_fit_time"],
        "complete and score [s]": tuned.cv_results_["mean_score_time"],
    },
    index=labels,
)
print(scores.round(3).to_string())

# %%
# The table's winner, fitted to all rows, is the search itself.
completed = tuned.transform(incomplete)
assert not np.isnan(completed).any()

# %%
# The pictures: each candidate's mean and the range of its folds. Where the ranges
# overlap, take the cheaper one.
figure, axes = plt.subplots(1, 2, figsize=(10, 3.9), sharey=True, layout="constrained")
panels = ((search, 1, "accuracy of the classifier"), (tuned, -1, "RMSE, hidden pixels"))
places = np.arange(len(labels))
for axis, (found, sign, title) in zip(axes, panels, strict=True):
    results = found.cv_results_
    folds = [sign * results[f"split{k}_test_score"] for k in range(found.n_splits_)]
    axis.hlines(places, np.min(folds, 0), np.max(folds, 0), color="0.6", lw=2)
    shades = np.where(places == found.best_index_, "k", "w")
    axis.scatter(np.mean(folds, 0), places, c=shades, edgecolors="k", s=60, zorder=2)
    axis.set(yticks=places, yticklabels=labels, title=title)
    axis.grid(axis="y", color="0.92")
    axis.spines[["top", "right"]].set_visible(False)
axes[0].invert_yaxis()
figure.supxlabel("line: range of the folds; filled: best mean", fontsize=9)

# %%
# Run as a script, the picture goes to a file.
if __name__ == "__main__":
    path = Path("results") / "pipeline_grid_search.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
