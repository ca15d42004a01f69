"""
A mixed table, in a pipeline
============================

Ages, jobs, dates and capital gains in one data frame, a fifth of the cells lost. The
imputer completes them in their own dtypes; a classifier stands behind it in a pipeline.

The table is made here, after the well-known census extract `adult`. Give a folder that
holds ``tabular/adult.parquet`` as an argument to use the extract itself.
"""

# %%
import sys
from pathlib import Path

import matplotlib

if __name__ == "__main__":
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from admc_sklearn import ADMCImputer


# %%
# The table: whole numbers, categories (ordered ones too), a truth value, a date, and
# gains that are mostly 0 with a long tail.
def census(n, seed):
    """People whose columns depend on each other, and whether they earn well."""
    rng = np.random.default_rng(seed)
    years = np.clip(np.rint(rng.normal(10, 2.6, n)), 2, 16)
    age = np.clip(np.rint(17 + rng.gamma(2.6, 8.5, n)), 17, 90)
    married = rng.random(n) < 1 / (1 + np.exp(-(age - 32) / 7))
    skill = 0.5 * (years - 10) + rng.normal(0, 0.8, n)
    jobs = np.array(["cleaner", "craft", "clerk", "sales", "manager", "professor"])
    job = jobs[np.clip(np.rint(2.2 + skill), 0, 5).astype(int)]
    score = 0.45 * (years - 10) + 0.05 * (age - 38) + 1.4 * married - 2.2
    well_off = rng.random(n) < 1 / (1 + np.exp(-score))
    invests = rng.random(n) < 0.03 + 0.25 * well_off
    degrees = ["none", "some", "high", "degree"]
    school = pd.cut(years, [0, 8, 10, 12, 16], labels=degrees)
    frame = pd.DataFrame(
        {
            "age": pd.array(age, dtype="Int64"),
            "school": school,
            "school_years": pd.array(years, dtype="Int64"),
            "job": pd.Categorical(job),
            "married": pd.array(married, dtype="boolean"),
            "hours": np.clip(np.rint(rng.normal(38 + 4 * well_off, 9, n)), 5, 90),
            "gain": np.where(invests, np.rint(rng.lognormal(8.4, 1.0, n)), 0.0),
            "hired": np.datetime64("2024-01-01")
            - (rng.beta(1, 3, n) * (age - 16) * 365).astype("timedelta64[D]"),
        }
    )
    return frame, well_off.astype(int)


def load(folder=None):
    """Return the extract itself from a folder, else the table made here."""
    if folder is None:
        return census(4000, 0)
    frame = pd.read_parquet(Path(folder) / "tabular" / "adult.parquet").iloc[:12000]
    target = (frame.pop("target") == ">50K").astype(int).to_numpy()
    return frame, target


complete, target = load(*(sys.argv[1:2] if __name__ == "__main__" else []))
rng = np.random.default_rng(1)
incomplete = complete.mask(rng.random(complete.shape) < 0.2)
train, test, y_train, y_test = train_test_split(incomplete, target, random_state=0)

# %%
# Fit on some rows, complete the others. What went in comes out: dtypes, categories,
# index. A completed gain is 0 or positive, a completed date a day.
imputer = ADMCImputer(max_epochs=20, random_state=0).set_output(transform="pandas")
completed = imputer.fit(train).transform(test)
assert completed.dtypes.equals(test.dtypes)
print(pd.concat({"lost": test, "completed": completed}, axis=1).head(5).T.to_string())

# %%
# How often is a lost category found, against the most frequent one?
scores = {}
for name in train.select_dtypes(["category", "boolean"]):
    lost = test[name].isna() & complete.loc[test.index, name].notna()
    truth = complete.loc[test.index, name][lost]
    scores[name] = {
        "most frequent": (train[name].mode()[0] == truth).mean(),
        "ADMCImputer": (completed[name][lost] == truth).mean(),
    }
scores = pd.DataFrame(scores).T
print("\nAccuracy of lost categories, unseen rows\n", scores.round(3).to_string())

# %%
# In a pipeline. Gradient boosting reads the categories from the dtypes; a linear model
# gets them one-hot.
boosting = make_pipeline(
    ADMCImputer(max_epochs=15, random_state=0).set_output(transform="pandas"),
    make_column_transformer(
        ("drop", make_column_selector(dtype_include="datetime")),
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas"),
    HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0),
)
linear = make_pipeline(
    ADMCImputer(max_epochs=15, random_state=0).set_output(transform="pandas"),
    make_column_transformer(
        (
            OneHotEncoder(handle_unknown="ignore"),
            make_column_selector(dtype_include=["category", "boolean"]),
        ),
        (StandardScaler(), make_column_selector(dtype_include="number")),
    ),
    LogisticRegression(max_iter=500),
)
for name, model in {"boosting": boosting, "linear": linear}.items():
    print(f"accuracy of {name}: {model.fit(train, y_train).score(test, y_test):.3f}")

# %%
# Two pictures: how often lost categories are found, and that completed gains keep their
# point mass and their range. Draws, not means, have the spread of the data.
first = "gain" if "gain" in complete else "capital-gain"
drawn = imputer.sample(test, 1)[0]
lost = test[first].isna()
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
places = np.arange(len(scores))
left.barh(places - 0.2, scores["most frequent"], 0.38, color="0.7")
left.barh(places + 0.2, scores["ADMCImputer"], 0.38, color="0.25")
left.set(yticks=places, yticklabels=scores.index, xlim=(0, 1), xlabel="accuracy")
left.legend(
    ["most frequent", "ADMCImputer"],
    loc="upper center",
    bbox_to_anchor=(0.5, -0.14),
    ncols=2,
)
left.set_title("Lost categories")
left.invert_yaxis()
bins = np.concatenate([[0, 60], np.geomspace(100, complete[first].max() + 1, 24)])
for values, label, style in (
    (complete.loc[test.index, first][lost], "truth", {"color": "0.75"}),
    (drawn[first][lost], "draw", {"histtype": "step", "color": "k", "lw": 1.6}),
):
    right.hist(values.astype(float), bins, label=label, **style)
right.set(xscale="symlog", yscale="log", xlabel=first, ylabel="cells")
right.set_xscale("symlog", linthresh=100)
right.legend()
right.set_title(f"Lost cells of {first}: mostly 0, else a long tail")
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)

# %%
# Run as a script, the picture goes to a file.
if __name__ == "__main__":
    path = Path("results") / "mixed_table.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
