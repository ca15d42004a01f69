"""
Accuracy against time
=====================

What longer training buys, what a single row costs, and what more rounds make of a draw.
Training time is set by ``max_epochs`` or ``max_time``; ``strategy`` and ``n_steps`` can
be changed on a fitted imputer, so one fit serves a fast path and a careful one.
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
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

from admc_sklearn import ADMCImputer
from admc_sklearn.evaluation import imputation_scores
from admc_sklearn.missingness import ampute


# %%
# Places on a ring, three readings of them that are not linear, and one that has nothing
# to do with them. A Gaussian sees little of that; the network has something to learn.
def measure(n, seed):
    """Table of n rows: two coordinates on a ring, three functions of them, noise."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-np.pi, np.pi, n)
    columns = [np.cos(angle), np.sin(angle), np.cos(2 * angle), np.abs(angle)]
    columns += [np.sin(2 * angle)]
    readings = np.column_stack(columns) + rng.normal(0, 0.05, (n, 5))
    return np.column_stack([readings, rng.normal(0, 1, n)])


train = ampute(measure(2000, 0), rate=0.3, random_state=0)
truth = measure(1500, 1)
test = ampute(truth, rate=0.3, random_state=1)


def seconds(call, repeats):
    """Time of a call, median of some repeats, and what it returned."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - started)
    return np.median(times), result


# %%
# Error of unseen rows after some epochs of training; 0 leave the Gaussian alone. Where
# a job has so many seconds, say so by ``max_time``: the learning rate comes down in
# time, and the best weights so far are kept.
imputers = {
    "KNNImputer": KNNImputer(),
    "IterativeImputer": IterativeImputer(max_iter=5, tol=0.1, random_state=0),
    "ADMC, 0 epochs": ADMCImputer(max_epochs=0, random_state=0),
    "ADMC, 15 epochs": ADMCImputer(max_epochs=15, random_state=0),
    "ADMC, 60 epochs": ADMCImputer(max_epochs=60, random_state=0),
}
scores = []
for name, imputer in imputers.items():
    fit_time, _ = seconds(lambda imputer=imputer: imputer.fit(train), 1)
    completed = imputer.transform(test)
    # A single row, as a service would get it, after a call to warm up.
    call = lambda imputer=imputer: imputer.transform(test[:1])  # noqa: E731
    one_row, _ = seconds(call, 50)
    # The last column has nothing to do with the others: no imputer can tell it.
    parts = (table[:, :5] for table in (truth, test, completed))
    rmse = imputation_scores(*parts)["rmse"]
    scores.append({"imputer": name, "RMSE": rmse, "fit [s]": fit_time})
    scores[-1]["one row [ms]"] = 1000 * one_row
scores = pd.DataFrame(scores).set_index("imputer")
print(scores.round(3).to_string())

# %%
# Draws: rows of which nothing of use is known must still come to lie on the ring. One
# round draws the cells of a row as if they did not depend on each other; five rounds,
# as many as cells are missing, draw each given those before. No fit is repeated.
imputer = imputers["ADMC, 60 epochs"]
lost = truth.copy()
lost[:, :5] = np.nan
draws, costs = {}, {}
for n_steps in (1, 2, 5):
    imputer.set_params(strategy="sample", n_steps=n_steps)
    costs[n_steps], draws[n_steps] = seconds(lambda: imputer.transform(lost), 3)
    off = np.abs(np.hypot(*draws[n_steps][:, :2].T) - 1).mean()
    print(f"{n_steps} rounds: {costs[n_steps]:.2f} s, {off:.3f} off the ring")
imputer.set_params(strategy="mean")

# %%
# The pictures: the trade of training, the cost of one row, and draws in 1 and 5 rounds.
figure, axes = plt.subplots(2, 2, figsize=(9.5, 7.6), layout="constrained")
shades = ["0.25" if name.startswith("ADMC") else "0.75" for name in scores.index]
axis = axes[0, 0]
bars = axis.barh(scores.index, scores["RMSE"], color=shades)
axis.bar_label(bars, fmt="%.2f", padding=3)
axis.set_yticks(
    range(len(scores)),
    [f"{name}\nfit {t:.2f} s" for name, t in scores["fit [s]"].items()],
)
axis.set(xlim=(0, 1.15 * scores["RMSE"].max()), xlabel="RMSE", title="Hidden cells")
axis.invert_yaxis()
axis = axes[0, 1]
one_row = scores["one row [ms]"]
axis.bar_label(axis.barh(one_row.index, one_row, color=shades), fmt="%.1f", padding=3)
axis.invert_yaxis()
axis.set(xlim=(0, 1.2 * one_row.max()), xlabel="milliseconds", title="One row")
for axis, n_steps in zip(axes[1], (1, 5), strict=True):
    axis.plot(*draws[n_steps][:700, :2].T, "k.", ms=3)
    axis.set(title=f"Draws in {n_steps} rounds, {costs[n_steps]:.2f} s", aspect="equal")
    axis.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), xlabel="cosine", ylabel="sine")
axes[1, 0].set_title(f"Draws in 1 round, {costs[1]:.2f} s")
for axis in axes.flat:
    axis.spines[["top", "right"]].set_visible(False)

# %%
# Run as a script, the picture goes to a file.
if __name__ == "__main__":
    path = Path("results") / "latency_accuracy.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path.resolve()}")
