"""
How sure is a completed cell, and does it matter?
=================================================

A completed table without its uncertainty misleads every analysis after it. Here a
regression is run on several joint draws and pooled by Rubin's rules, beside complete
cases and a single completion; then the intervals of the draws are checked on cells
hidden on purpose.
"""

# %%
from pathlib import Path

import matplotlib

if __name__ == "__main__":
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes

from admc_sklearn import ADMCImputer, ImputationDisplay
from admc_sklearn.pooling import pool_over_draws

# %%
# The effect of body mass index on the progression of diabetes, given blood pressure.
# Index and pressure go missing more often where the disease went badly.
frame, target = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
table = frame[["age", "bmi", "bp", "s5"]].assign(progression=target)
rng = np.random.default_rng(0)
risk = 1 / (1 + np.exp(-(table["progression"] - 150) / 40))
incomplete = table.copy()
for name in ("bmi", "bp"):
    incomplete.loc[rng.random(len(table)) < 0.8 * risk, name] = np.nan
print(incomplete.isna().mean().round(2).to_string())


# %%
# Any analysis that gives estimates and variances can be pooled; here least squares.
def regression(rows):
    """Estimates, variances and degrees of freedom of bmi and bp."""
    A = np.column_stack([np.ones(len(rows)), rows[["bmi", "bp"]]])
    y = rows["progression"].to_numpy()
    estimate = np.linalg.lstsq(A, y, rcond=None)[0]
    residual = y - A @ estimate
    df = len(y) - A.shape[1]
    variance = np.diag(np.linalg.inv(A.T @ A)) * (residual @ residual) / df
    return estimate[1:], variance[1:], df


# %%
# Draws take turns with anchors fitted to resampled rows (``n_bootstraps``): what the
# model itself does not know widens the interval, as it should.
imputer = ADMCImputer(n_bootstraps=20, max_epochs=20, random_state=0)
imputer.set_output(transform="pandas").fit(incomplete)
pooled = pool_over_draws(imputer.sample(incomplete, 20), regression)
print(pooled)

analyses = {
    "complete data": regression(table),
    "complete cases": regression(incomplete.dropna()),
    "mean completion": regression(imputer.transform(incomplete)),
}
intervals = {
    name: (estimate[0], 1.97 * np.sqrt(variance[0]))
    for name, (estimate, variance, _) in analyses.items()
}
low, high = pooled.conf_int[0]
intervals["pooled draws"] = (pooled.estimate[0], (high - low) / 2)

# %%
# The pictures: the effect of bmi under each analysis, and calibration: of cells hidden
# in addition, how many lie within the central intervals of their draws.
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
for place, (name, (center, half)) in enumerate(intervals.items()):
    ours = name == "pooled draws"
    left.errorbar(
        center, place, xerr=half, fmt="o", capsize=4, color="k" if ours else "0.55"
    )
left.axvline(intervals["complete data"][0], color="0.8", zorder=0)
left.set(
    yticks=range(len(intervals)),
    yticklabels=list(intervals),
    xlabel="progression per unit of bmi, 95 % interval",
    ylim=(len(intervals) - 0.5, -0.5),
)
left.spines[["top", "right"]].set_visible(False)
display = ImputationDisplay.from_imputer(
    imputer, incomplete, kind="calibration", random_state=0, ax=right
)

# %%
# Run as a script, the picture goes to a file.
if __name__ == "__main__":
    path = Path("results") / "uncertainty.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
