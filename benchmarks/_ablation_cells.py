"""What each part of the model of cells gives: it is taken away, and measured.

See `benchmarks.ablation`, which this belongs to. A variant is a change of the
settings that the fit is given, or of the imputer's parameters.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pandas as pd

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.settings import CellSettings
from admc_sklearn._combined.settings import Settings
from benchmarks._protocol import load_frame, mixed_errors, split_frame
from benchmarks.draws import as_numbers, crps, energy_score

TABLES = "bean california concrete default gesture horse_colic letter magic penguins "
TABLES = (TABLES + "wine_red").split()
SIZES = (150, 500, 1500)
SEEDS = (200, 201, 202)  # others than those that are reported
N_DRAWS, MAX_TEST_ROWS = 20, 500

WHOLE = CellSettings()


def _coordinates(**changes):
    return replace(WHOLE, coordinates=replace(WHOLE.coordinates, **changes))


def _without_attention():
    sizes = {k: replace(size, n_attention=0) for k, size in WHOLE.sizes.items()}
    return replace(WHOLE, sizes=sizes)


VARIANTS = {
    "as it is": (WHOLE, {}),
    "without power transforms": (_coordinates(power_transforms=False), {}),
    "without median distances": (
        _coordinates(max_coordinates=0, max_coordinates_at_random=0),
        {},
    ),
    "distances up to 48 coordinates": (_coordinates(max_coordinates_at_random=48), {}),
    "one score a level": (
        replace(WHOLE, scores=replace(WHOLE.scores, max_scores=1)),
        {},
    ),
    "without the order of levels": (
        replace(WHOLE, scores=replace(WHOLE.scores, order_rows=0.0)),
        {},
    ),
    "without attention": (_without_attention(), {}),
    "without positions in atoms": (
        replace(WHOLE, training=replace(WHOLE.training, inner_weight=0.0)),
        {},
    ),
    "without the mean head": (replace(WHOLE, mean_head=False), {}),
    "without landmarks": (replace(WHOLE, landmarks=None), {}),
    "without donors": (replace(WHOLE, donors=None), {}),
    "without forests": (replace(WHOLE, forests=None), {}),
    "one network": (replace(WHOLE, max_networks=1), {}),
    "without patterns": (replace(WHOLE, patterns=None), {}),
    "without both": (replace(WHOLE, landmarks=None, donors=None), {}),
    "without self-masking": (WHOLE, {"self_masking": False}),
    "without gaps": (replace(WHOLE, gaps=None), {}),
    "anchor alone": (WHOLE, {"max_epochs": 0}),
}


def imputer_of(name, seed):
    """Imputer of a variant."""
    settings, parameters = VARIANTS[name]

    class Ablated(ADMCImputer):
        _settings = Settings(cells=settings)

    return Ablated(keep_whole_numbers=False, random_state=seed, **parameters)


def measure(name, split, seed):
    """Figures of a variant on unseen rows: a dict."""
    test, hidden = split.test[:MAX_TEST_ROWS], split.test_incomplete[:MAX_TEST_ROWS]
    imputer = imputer_of(name, seed).set_output(transform="pandas")
    started = time.process_time()
    imputer.fit(split.train_incomplete)
    fit_s = time.process_time() - started
    means = mixed_errors(test, hidden, imputer.transform(hidden))
    medians = imputer.set_params(strategy="median").transform(hidden)
    means["mae"] = mixed_errors(test, hidden, medians)["mae"]
    draws = np.stack(as_numbers(imputer.sample(hidden, n_draws=N_DRAWS), test))
    truth, given = as_numbers([test, hidden], test)
    lost = np.isnan(given) & ~np.isnan(truth)
    numeric = np.array([pd.api.types.is_numeric_dtype(t) for t in test.dtypes])
    lost &= numeric
    return means | {
        "crps": crps(draws[:, lost], truth[lost]).mean(),
        "energy": energy_score(draws, truth, lost),
        "fit_s": fit_s,
    }


def add_arguments(group):
    """Options of `run`."""
    group.add_argument("--cells", action="store_true", help="ablate these, on tables")
    group.add_argument("--tables", nargs="+", default=TABLES)
    group.add_argument("--rows", nargs="+", type=int, default=list(SIZES))
    group.add_argument("--mechanisms", nargs="+", default=["mcar", "mar"])
    group.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    group.add_argument("--variants", nargs="+", default=list(VARIANTS))
    group.add_argument("--csv")


def run(options):
    """Measure all variants on all tables, sizes, mechanisms and seeds; print."""
    records = []
    for mechanism in options.mechanisms:
        for n in options.rows:
            for seed in options.seeds:
                for table in options.tables:
                    X = load_frame(table, options.data)
                    if X is None:
                        continue
                    X = X.sample(min(len(X), round(n / 0.7)), random_state=seed)
                    split = split_frame(X.reset_index(drop=True), seed, mechanism)
                    for name in options.variants:
                        record = {"table": table, "rows": n, "mechanism": mechanism}
                        record |= {"seed": seed, "variant": name}
                        record |= measure(name, split, seed)
                        records.append(record)
                        print(record, flush=True)
                    if options.csv:
                        pd.DataFrame(records).to_csv(options.csv, index=False)
    if not records:
        raise SystemExit(f"None of these tables is in {options.data}/tabular.")
    print(summarise(pd.DataFrame(records)).round(2).to_string())


def summarise(frame):
    """Change in per cent of each variant against the whole: mean and worst table."""
    keys = ["table", "rows", "mechanism"]
    figures = ["rmse", "mae", "accuracy", "crps", "energy", "fit_s"]
    means = frame.groupby([*keys, "variant"], sort=False)[figures].mean()
    whole = means.xs("as it is", level="variant")
    change = 100 * (means / whole - 1)
    grouped = change.groupby("variant", sort=False)
    return pd.concat({"mean": grouped.mean(), "most": grouped.max()}, axis=1)
