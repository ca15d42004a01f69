"""
A laboratory: values below their detection limits
=================================================

An instrument reports no concentration below its detection limit. Such a cell is
missing, but something is known of it: it lies between zero and the limit. Half of the
limit in its place is a custom, and distorts what follows; ``bounds`` states what is
known, and the draws recover the distribution.
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
from admc_sklearn.pooling import pool_estimates

# %%
# Water of 400 wells, made here: two metals with log-normal concentrations, measured by
# two laboratories, of which one has a limit two or three times as high, and what may
# explain them.
rng = np.random.default_rng(0)
n = 400
depth = rng.gamma(4, 8, n)
mine = np.exp(rng.normal(1, 0.7, n))
lead = np.exp(0.2 - 0.02 * depth - 0.5 * np.log(mine) + rng.normal(0, 0.9, n))
zinc = np.exp(2 + 0.6 * np.log(lead) + rng.normal(0, 0.6, n))
truth = pd.DataFrame({"depth": depth, "mine": mine, "lead": lead, "zinc": zinc})
limit = pd.DataFrame(
    {
        "lead": np.where(rng.random(n) < 0.5, 0.15, 0.45),
        "zinc": np.where(rng.random(n) < 0.5, 2.0, 4.0),
    }
)
metals = list(limit)
wells = truth.copy()
wells[metals] = truth[metals].where(truth[metals] >= limit)
wells.loc[rng.random(n) < 0.1, "depth"] = np.nan  # unknown, at random
below = wells[metals].isna()
print("below the limit:", below.mean().round(2).to_dict())

# %%
# What is known of a cell: it lies above 0, and where it was not detected below the
# limit of its laboratory. NaN stands for an end of which nothing is known.
bounds = {metal: (0, limit[metal].where(below[metal])) for metal in metals}
imputer = ADMCImputer(n_bootstraps=20, max_epochs=20, random_state=0)
imputer.fit(wells, bounds=bounds)
draws = imputer.sample(wells, 20, bounds=bounds)
for draw in draws:
    assert (draw[metals].where(below, 0) <= limit).all(axis=None)
    assert (draw[metals] > 0).all(axis=None)


# %%
# The question: how fast does lead fall with depth and with the distance from a mine?
def analyse(table):
    """Regression of log lead: coefficients, covariance, degrees of freedom."""
    X = pd.DataFrame(
        {"intercept": 1.0, "depth": table["depth"], "mine": np.log(table["mine"])}
    )
    y = np.log(table["lead"])
    estimate = np.linalg.lstsq(X, y, rcond=None)[0]
    df = len(X) - X.shape[1]
    scale = np.sum((y - X @ estimate) ** 2) / df
    covariance = pd.DataFrame(scale * np.linalg.inv(X.T @ X), X.columns, X.columns)
    return pd.Series(estimate, X.columns), covariance, df


pooled = pool_estimates([analyse(draw) for draw in draws])
print(pooled)

half = wells.fillna({metal: limit[metal] / 2 for metal in metals})
half = half.fillna(half.mean())
detected = wells.dropna()
effects = {}
tables = {"all measured": truth, "detected only": detected, "half of the limit": half}
for name, table in tables.items():
    estimate, covariance, _ = analyse(table)
    effects[name] = estimate, 1.96 * np.sqrt(np.diag(covariance))
low, high = pooled.conf_int.T
effects["draws within limits"] = pooled.estimate, (high - low) / 2

# %%
# Mean and standard deviation of the logarithm of lead in all wells.
summary = pd.DataFrame(
    {
        name: [np.log(table["lead"]).mean(), np.log(table["lead"]).std()]
        for name, table in tables.items()
    },
    index=["mean", "sd"],
)
logs = [np.log(draw["lead"]) for draw in draws]
summary["draws within limits"] = [
    np.mean([x.mean() for x in logs]),
    np.mean([x.std() for x in logs]),
]
print(summary.round(3).T)

# %%
# The pictures: the distribution below the limits, and the effects.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
hidden = below["lead"].to_numpy()
edges = np.linspace(-5, np.log(0.45), 20)
drawn = np.concatenate([np.log(draw["lead"][hidden]) for draw in draws])
weights = np.full(len(drawn), 1 / len(draws))
left.hist(np.log(truth["lead"][hidden]), edges, color="0.85", label="true values")
left.hist(drawn, edges, weights=weights, histtype="step", color="k", label="draws")
middle = np.log(limit["lead"][hidden].unique() / 2)
for place in middle:
    left.axvline(place, color="0.5", linestyle="--")
left.text(middle[0], 0.02, " half of a limit", transform=left.get_xaxis_transform())
left.set(xlabel="logarithm of lead", ylabel="wells", title="Below the limits")
left.legend(loc="upper left")

names = ["depth", "mine"]
for k, (name, (estimate, reach)) in enumerate(effects.items()):
    scale = np.array([truth["depth"].std(), np.log(truth["mine"]).std()])
    right.errorbar(
        np.asarray(estimate)[1:] * scale,
        np.arange(2) + 0.15 * (k - 1.5),
        xerr=np.asarray(reach)[1:] * scale,
        fmt=["s", "o", "o", "o"][k],
        color=["0.75", "0.6", "0.4", "k"][k],
        capsize=4,
        label=name,
    )
right.axvline(0, color="0.9", zorder=0)
right.set_yticks(range(2), names)
right.set(xlabel="effect of one standard deviation on log lead", title="95 % intervals")
right.invert_yaxis()
right.legend(loc="center right")
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)

# %%
# Run as a script, the picture goes to a file.
if __name__ == "__main__":
    path = Path("results") / "laboratory.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
