"""
Patients: images, laboratory, questionnaire
===========================================

A hospital's table has parts that go missing in different ways: imaging features that a
patient has or has not, laboratory values of which single ones were not measured, a
questionnaire that was filled in or not, sex and age. One imputer completes all of it,
each part by the others, in the dtypes that went in.
"""

# %%
from pathlib import Path

import matplotlib

if __name__ == "__main__":
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from admc_sklearn import ADMCImputer, join_modalities

# %%
# The patients are made here. A frailty and an inflammation, both unseen, stand behind
# everything: images show both through a bent map, laboratory values are skewed and
# depend on sex too, answers are steps.
ANSWERS = ["never", "rarely", "often", "always"]
N_IMAGES = 60


def patients(n, seed):
    """Frames of the parts, by name."""
    rng = np.random.default_rng(seed)
    age = np.clip(np.rint(rng.normal(62, 13, n)), 18, 95)
    woman = rng.random(n) < 0.5
    frailty = 0.05 * (age - 62) + rng.normal(0, 0.8, n)
    inflammation = rng.normal(0, 1, n)
    state = np.column_stack([frailty, inflammation, 0.5 * rng.normal(size=(n, 2))])
    bent = np.tanh(state @ rng.normal(0, 0.8, (4, 20)) + rng.normal(0, 0.5, 20))
    images = bent @ rng.normal(0, 0.4, (20, N_IMAGES))
    images = images + rng.normal(0, 0.5, images.shape)
    noise = rng.normal(size=(6, n))
    lab = {
        "crp": np.exp(1.5 + 1.1 * inflammation + 0.4 * noise[0]).round(1),
        "leukocytes": np.exp(2 + 0.25 * inflammation + 0.2 * noise[1]).round(1),
        "ferritin": np.exp(4.8 - 0.6 * woman + 0.5 * inflammation + 0.4 * noise[2]),
        "haemoglobin": 15
        - 1.6 * woman
        - 0.5 * frailty
        - 0.4 * inflammation
        + 0.7 * noise[3],
        "creatinine": 75 * np.exp(0.18 * frailty - 0.25 * woman + 0.15 * noise[4]),
        "albumin": 42 - 1.5 * frailty - 2.0 * inflammation + 1.5 * noise[5],
    }
    feels = {
        "tired": frailty + 0.4 * inflammation,
        "in_pain": 0.9 * inflammation + 0.3 * frailty,
        "breathless": 1.1 * frailty,
        "sleeps_badly": 0.6 * inflammation + 0.5 * frailty,
        "needs_help": 1.2 * frailty + 0.2 * woman,
    }
    levels = pd.CategoricalDtype(ANSWERS, ordered=True)
    answers = {}
    for name, feeling in feels.items():
        steps = np.digitize(feeling + rng.normal(0, 0.5, n), [-0.8, 0.1, 1.0])
        answers[name] = pd.Categorical.from_codes(steps, dtype=levels)
    names = [f"image_{k}" for k in range(N_IMAGES)]
    return {
        "images": pd.DataFrame(images.astype(np.float32), columns=names),
        "laboratory": pd.DataFrame(lab),
        "questionnaire": pd.DataFrame(answers),
        "person": pd.DataFrame(
            {
                "sex": pd.Categorical(np.where(woman, "woman", "man")),
                "age": pd.array(age, dtype="Int64"),
            }
        ),
    }


parts = patients(1000, 0)
complete, columns = join_modalities(parts)
print({name: len(own) for name, own in columns.items()})

# %%
# A third of the patients have no images, a third did not fill in the questionnaire, a
# quarter of the laboratory values and some ages are missing one by one.
rng = np.random.default_rng(1)
lost = pd.DataFrame(False, index=complete.index, columns=complete.columns)
for name in ("images", "questionnaire"):
    lost.loc[rng.random(len(complete)) < 0.33, columns[name]] = True
lost[columns["laboratory"]] = rng.random((len(complete), 6)) < 0.25
lost[columns["person"]] = rng.random((len(complete), 2)) < 0.1
incomplete = complete.mask(lost)
train, test = incomplete.iloc[:600], incomplete.iloc[600:]

# %%
# The images are named as a modality, and are completed as a block. So is the
# questionnaire, for it is lost as a whole; its answers are still completed one by one.
# All other columns are modalities of their own.
imputer = ADMCImputer(
    modalities={name: columns[name] for name in ("images", "questionnaire")},
    max_epochs=30,
    random_state=0,
).set_output(transform="pandas")
completed = imputer.fit(train).transform(test)
assert completed.dtypes.equals(complete.dtypes)
assert not completed.isna().any(axis=None)
shown = ["image_0", "crp", "haemoglobin", "tired", "sex", "age"]
both = {"lost": test[shown], "completed": completed[shown]}
print(pd.concat(both, axis=1).head(5).T.to_string())

# %%
# The error of numbers in standard deviations of the column, and how many categories are
# right, beside the mean and the most frequent level.
truth, is_lost = complete.loc[test.index], lost.loc[test.index]
is_number = [name for name in complete if complete[name].dtype.kind in "fi"]
levels = pd.Series(
    {
        name: train[name].mean() if name in is_number else train[name].mode()[0]
        for name in train
    },
    dtype=object,
)
simple = test.astype(object).where(test.notna(), levels, axis=1)


def rmse(found, names):
    """Error of the lost numbers, in standard deviations of the training rows."""
    error = (found[names].astype(float) - truth[names].astype(float)).to_numpy()
    error = error / train[names].astype(float).std().to_numpy()
    return np.sqrt(np.mean(error[is_lost[names].to_numpy()] ** 2))


def accuracy(found, names):
    """Share of the lost categories that are right."""
    right = found[names].astype(object) == truth[names].astype(object)
    return right.to_numpy()[is_lost[names].to_numpy()].mean()


found = {"mean, most frequent": simple, "ADMCImputer": completed}
errors = {
    "images": columns["images"],
    "laboratory": columns["laboratory"],
    "age": ["age"],
}
hits = {"questionnaire": columns["questionnaire"], "sex": ["sex"]}
errors = pd.DataFrame(
    {k: [rmse(table, v) for table in found.values()] for k, v in errors.items()},
    index=found,
).T
hits = pd.DataFrame(
    {k: [accuracy(table, v) for table in found.values()] for k, v in hits.items()},
    index=found,
).T
print("\nRMSE, unseen patients\n", errors.round(3).to_string())
print("\nAccuracy, unseen patients\n", hits.round(3).to_string())

# %%
# A single value without its uncertainty misleads: a missing C-reactive protein as an
# interval that should hold nine of ten.
low, middle, high = (
    frame["crp"] for frame in imputer.predict_quantiles(test, (0.05, 0.5, 0.95))
)
rows = is_lost["crp"]
inside = ((low <= truth["crp"]) & (truth["crp"] <= high))[rows].mean()
print(f"\ncrp: {rows.sum()} lost, {inside:.0%} within their 90 % intervals")

# %%
# The parts beside the baseline, and the intervals of 30 patients.
figure, axes = plt.subplots(
    1, 3, figsize=(12.5, 4), width_ratios=[1.1, 0.8, 1.6], layout="constrained"
)
for axis, table, measure in zip(
    axes, (errors, hits), ("RMSE", "Accuracy"), strict=False
):
    table.plot.bar(ax=axis, color=["0.75", "0.25"], width=0.8, rot=0, legend=False)
    for container in axis.containers:
        axis.bar_label(container, fmt="%.2f", padding=2)
    axis.set(title=f"{measure}, what was lost", ylim=(0, 1.15))
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
some = middle[rows].iloc[:30].sort_values().index
for place, patient in enumerate(some):
    axes[2].plot([place] * 2, [low[patient], high[patient]], color="0.65", lw=4)
axes[2].plot(middle[some].to_numpy(), "k_", ms=9, label="median")
axes[2].plot(truth["crp"][some].to_numpy(), "ko", ms=4, mfc="w", label="truth")
axes[2].set(
    yscale="log",
    xticks=[],
    xlabel="patients without the value",
    ylabel="crp [mg/l]",
    title="C-reactive protein, 90 % intervals",
)
axes[2].legend(loc="upper left")
for axis in axes:
    axis.spines[["top", "right"]].set_visible(False)

# %%
# Run as a script, the picture goes to a file.
if __name__ == "__main__":
    path = Path("results") / "medical_blocks.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
