"""Tables, splits and scores of the field's protocol (DiffPuter, arXiv:2405.20690)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets

BUNDLED = {
    "breast_cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
}


def read_table(name, data):
    """Read a stored table, its target included; None where it is absent."""
    path = Path(data or ".") / "tabular" / f"{name}.parquet"
    return pd.read_parquet(path) if path.exists() else None


def load_frame(name, data):
    """All columns of a table but its target, as a data frame.

    Parameters
    ----------
    name : str
        One that scikit-learn bundles, or ``<data>/tabular/<name>.parquet``.
    data : str or Path or None

    Returns
    -------
    DataFrame, or None where the file is absent
    """
    if name in BUNDLED:
        return BUNDLED[name](as_frame=True).data
    frame = read_table(name, data)
    return None if frame is None else frame.drop(columns="target")


def load_numeric(name, data):
    """Numeric columns of a table, as a float64 array; see `load_frame`."""
    frame = load_frame(name, data)
    return None if frame is None else frame.select_dtypes("number").to_numpy(np.float64)


@dataclass(frozen=True)
class Split:
    """Standardised training and test rows, and both with cells hidden (NaN)."""

    train: np.ndarray
    test: np.ndarray
    train_incomplete: np.ndarray
    test_incomplete: np.ndarray


def split_mcar(X, seed, rate=0.3):
    """70/30 split; the rate hidden in both; z-scores by observed training cells."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    n_train = round(0.7 * len(X))
    parts = X[order[:n_train]], X[order[n_train:]]
    masks = [rng.random(part.shape) < rate for part in parts]
    seen = np.where(masks[0], np.nan, parts[0])
    scale = np.nanstd(seen, axis=0)
    scale[~(scale > 0)] = 1.0
    train, test = ((part - np.nanmean(seen, axis=0)) / scale for part in parts)
    hidden = [np.where(m, np.nan, p) for m, p in zip(masks, (train, test), strict=True)]
    return Split(train, test, *hidden)


def errors(truth, incomplete, completed):
    """RMSE and MAE over the hidden cells, in the unit of the arrays."""
    difference = (completed - truth)[np.isnan(incomplete) & ~np.isnan(truth)]
    return np.sqrt(np.mean(difference**2)), np.mean(np.abs(difference))


def timed(imputer, split, score):
    """Fit, complete the test rows, and score: a dict of errors and seconds.

    ``score(truth, incomplete, completed)`` is a dict. `ADMCImputer` has the MAE of its
    median, and the number of epochs that it kept.
    """
    started = time.perf_counter()
    imputer.fit(split.train_incomplete)
    fitted = time.perf_counter()
    completed = imputer.transform(split.test_incomplete)
    done = time.perf_counter()
    record = score(split.test, split.test_incomplete, completed)
    record |= {"fit_s": fitted - started, "transform_s": done - fitted}
    # By its attribute: peers run in environments without this package.
    if hasattr(imputer, "n_epochs_"):
        median = imputer.set_params(strategy="median").transform(split.test_incomplete)
        record["mae"] = score(split.test, split.test_incomplete, median)["mae"]
        record["epochs"] = imputer.n_epochs_
    return record


def arguments(parser, tables, imputers, seeds=(0, 1, 2)):
    """Add what every benchmark's command line has."""
    parser.add_argument("--data", help="folder that holds tabular/NAME.parquet")
    parser.add_argument("--tables", nargs="+", default=list(tables))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds))
    parser.add_argument("--imputers", nargs="+", default=list(imputers))
    parser.add_argument("--csv", help="also write every single measurement there")


def splits(options, load, split):
    """Yield (table, seed, split) for all tables that are there."""
    for table in options.tables:
        X = load(table, options.data)
        if X is None:
            print(f"{table}: not found, skipped (see --data)", flush=True)
            continue
        for seed in options.seeds:
            yield table, seed, split(X, seed)


def compare(options, load, split, measure, line):
    """Measure every imputer on every split, print and write the figures and means.

    ``measure(name, split, seed)`` is a dict of figures, ``line`` their format.
    """
    records = []
    for table, seed, part in splits(options, load, split):
        for name in options.imputers:
            record = {"table": table, "seed": seed, **measure(name, part, seed)}
            records.append(record)
            print(line.format(**record), flush=True)
    report(records, options, ["table", "imputer"])


def report(records, options, by):
    """Write the records where asked, and print their means."""
    if not records:
        return
    frame = pd.DataFrame(records)
    if options.csv:
        frame.to_csv(options.csv, index=False)
    means = frame.drop(columns="seed").groupby(by, sort=False)
    print(means.mean().round(4).to_string())


def split_frame(X, seed, mechanism="mcar", rate=0.3):
    """As `split_mcar`, for a frame with numeric and categorical columns.

    Cells are hidden at the rate among those that are known. Under MAR 30 % of the
    columns stay complete and the others go missing by a logistic model of these.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    n_train = round(0.7 * len(X))
    parts = [X.iloc[order[:n_train]], X.iloc[order[n_train:]]]
    masks = [rng.random(part.shape) < rate for part in parts]
    if mechanism != "mcar":
        from admc_sklearn.missingness import ampute

        lost = ampute(
            pd.concat(parts), mechanism=mechanism, rate=rate, random_state=seed
        )
        masks = np.split(lost.isna().to_numpy(), [n_train])
    numeric = X.select_dtypes("number").columns
    seen = parts[0].mask(masks[0])[numeric]
    scale = seen.std(ddof=0)
    scale[~(scale > 0)] = 1.0
    parts = [
        part.assign(**((part[numeric] - seen.mean().fillna(0.0)) / scale))
        for part in parts
    ]
    hidden = [part.mask(m) for part, m in zip(parts, masks, strict=True)]
    return Split(*parts, *hidden)


def mixed_errors(truth, incomplete, completed):
    """RMSE and MAE over hidden numeric cells, accuracy over hidden categorical ones."""
    hidden = incomplete.isna() & truth.notna()
    numeric = truth.select_dtypes("number").columns
    where = hidden[numeric].to_numpy()
    values = completed[numeric].to_numpy(np.float64)
    difference = (values - truth[numeric].to_numpy(np.float64))[where]
    right, total = 0, 0
    for name in truth.columns.difference(numeric):
        cells = hidden[name].to_numpy()
        same = completed[name].astype(object) == truth[name].astype(object)
        right, total = right + same.to_numpy()[cells].sum(), total + cells.sum()
    return {
        "rmse": np.sqrt(np.mean(difference**2)),
        "mae": np.mean(np.abs(difference)),
        "accuracy": right / total if total else np.nan,
    }
