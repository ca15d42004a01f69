"""
A survey: questions that were not asked, and answers in order
=============================================================

In a survey a cell is empty for two reasons. The question was not answered: such a cell
is completed. Or it was not asked, because an earlier answer made it pointless: such a
cell has no value, and must stay empty. Here those who do not work were not asked about
their hours, wages and jobs; a regression of the wages of those who do is pooled over
draws.
"""

# %%
from pathlib import Path

import matplotlib

if __name__ == "__main__":
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from admc_sklearn import ADMCImputer
from admc_sklearn.pooling import pool_estimates, pool_wald_test

# %%
# The answers are made here. Health and contentment are ordered answers, with steps of
# different widths.
HEALTH = pd.CategoricalDtype(["bad", "fair", "good", "very good"], ordered=True)
CONTENT = pd.CategoricalDtype(["not", "little", "rather", "very"], ordered=True)
OF_WORK = ["hours", "wage", "content"]


def survey(n, seed):
    """Answers of n people, complete but for the questions that were not asked."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, n)
    woman = rng.random(n) < 0.5
    school = np.clip(np.rint(rng.normal(11, 2.5, n)), 4, 18)
    well = 0.12 * (school - 11) - 0.02 * (age - 45) + rng.normal(0, 1, n)
    health = np.digitize(well, [-1.3, -0.4, 0.8])
    works = rng.random(n) < 1 / (1 + np.exp(0.15 * (age - 62) - 0.6 * well))
    hours = np.clip(np.rint(38 - 7 * woman + rng.normal(0, 7, n)), 5, 60)
    wage = 2.1 + 0.07 * school + 0.10 * health - 0.12 * woman + rng.normal(0, 0.3, n)
    feeling = 1.2 * (wage - 3) + 0.3 * well - 0.03 * (hours - 35)
    content = np.digitize(feeling + rng.normal(0, 0.6, n), [-0.9, -0.2, 0.7])
    table = pd.DataFrame(
        {
            "age": age,
            "woman": woman,
            "school": school,
            "health": pd.Categorical.from_codes(health, dtype=HEALTH),
            "works": works,
            "hours": hours,
            "wage": np.exp(wage).round(2),
            "content": pd.Categorical.from_codes(content, dtype=CONTENT),
        }
    )
    table.loc[~works, OF_WORK] = np.nan
    return table


complete = survey(1500, 0)
asked = np.ones(complete.shape, dtype=bool)
asked[np.ix_(~complete["works"], complete.columns.isin(OF_WORK))] = False

# %%
# Some answers are refused: years at school and health more often by those with low
# wages, the wage more often by the old and by men, the rest at random.
rng = np.random.default_rng(1)
low = (complete["wage"] < complete["wage"].median()).to_numpy()
rates = pd.DataFrame(0.05, complete.index, complete.columns)
rates["school"] = rates["health"] = 0.08 + 0.45 * low
rates["wage"] = 0.1 + 0.3 * ((complete["age"] > 45) & ~complete["woman"])
rates["content"] = 0.3
rates[["age", "woman", "works"]] = 0.0
answers = complete.mask(rng.random(complete.shape) < rates)
print(
    pd.DataFrame({"missing": answers.isna().sum(), "not asked": (~asked).sum(axis=0)})
)

# %%
# ``where`` names the cells to complete. The others stay empty in every draw, and inform
# nothing. (Were the filter question refused too, it would be completed first, by a call
# of its own, and decide draw by draw what is to be completed after it.)
imputer = ADMCImputer(n_bootstraps=20, max_epochs=20, random_state=0).fit(answers)
draws = imputer.sample(answers, 20, where=asked)
for draw in draws:
    assert draw.dtypes.equals(answers.dtypes)
    assert draw.notna().to_numpy()[asked].all()
    assert draw.isna().to_numpy()[~asked].all()


# %%
# Wages of those who work, on a logarithmic scale. An analysis returns estimates, their
# covariance matrix and degrees of freedom, with names; results of statsmodels could
# take its place.
def wages(table):
    """Regression of the logarithm of the wage."""
    rows = table[table["works"]].dropna(subset=["school", "health", "wage"])
    X = pd.DataFrame(
        {
            "intercept": 1.0,
            "year at school": rows["school"] - 11,
            "step of health": rows["health"].cat.codes,
            "woman": rows["woman"].astype(float),
        }
    )
    y = np.log(rows["wage"])
    estimate = np.linalg.lstsq(X, y, rcond=None)[0]
    df = len(X) - X.shape[1]
    scale = np.sum((y - X @ estimate) ** 2) / df
    covariance = pd.DataFrame(scale * np.linalg.inv(X.T @ X), X.columns, X.columns)
    return pd.Series(estimate, X.columns), covariance, df


analyses = [wages(draw) for draw in draws]
pooled = pool_estimates(analyses)
print(pooled)
print("school and health:", pool_wald_test(analyses, parameters=pooled.names[1:3]))
print("draws that would suffice:", pooled.n_draws_needed())

# %%
# Those who answered everything are a selection: among them the three effects look
# smaller than they are.
effects = {}
for name, table in {"nothing refused": complete, "answered all": answers}.items():
    estimate, covariance, _ = wages(table)
    effects[name] = estimate, 1.96 * np.sqrt(np.diag(covariance))
low, high = pooled.conf_int.T
effects["pooled draws"] = pooled.estimate, (high - low) / 2

# %%
# The pictures: why cells are empty; the effects; and the ordered answers that were
# refused, beside their shares in the draws.
figure, (left, middle, right) = plt.subplots(
    1, 3, figsize=(13, 4.2), width_ratios=[1.1, 1.2, 1], layout="constrained"
)
columns = [name for name in answers if answers[name].isna().any()]
refused = pd.Series((answers.isna() & asked).sum(), dtype=int)[columns]
empty = pd.Series((~asked).sum(axis=0), answers.columns)[columns]
left.barh(columns, refused, color="0.25", label="not answered: completed")
left.barh(columns, empty, left=refused, color="0.85", label="not asked: stays empty")
left.set(xlabel="people", title="Empty cells", xlim=(0, 1200))
left.invert_yaxis()
left.legend(loc="upper right")

shown = list(pooled.names[1:])
for k, (name, (estimate, half)) in enumerate(effects.items()):
    middle.errorbar(
        np.asarray(estimate)[1:],
        np.arange(len(shown)) + 0.2 * (k - 1),
        xerr=np.asarray(half)[1:],
        fmt=["s", "o", "o"][k],
        color=["0.75", "0.5", "k"][k],
        capsize=4,
        label=name,
    )
middle.axvline(0, color="0.9", zorder=0)
middle.set_yticks(range(len(shown)), shown)
middle.set(xlabel="effect on the log wage, 95 % interval", title="Wages")
middle.invert_yaxis()
middle.legend()

hidden = (answers["content"].isna() & complete["content"].notna()).to_numpy()
given = complete["content"][hidden].value_counts(normalize=True, sort=False)
shares = pd.DataFrame(
    [draw["content"][hidden].value_counts(normalize=True, sort=False) for draw in draws]
)
right.bar(given.index, given, color="0.85", label="would have said")
right.errorbar(
    given.index,
    shares.mean(),
    yerr=1.96 * shares.std(),
    fmt="ko",
    capsize=4,
    label="draws",
)
right.set(title="Content with the job: not answered", ylabel="share")
right.legend(loc="upper left")
for axis in (left, middle, right):
    axis.spines[["top", "right"]].set_visible(False)

# %%
# Run as a script, the picture goes to a file.
if __name__ == "__main__":
    path = Path("results") / "survey.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
