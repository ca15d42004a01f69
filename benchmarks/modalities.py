"""Missing modalities: error of the completed features, and what a classifier loses.

    python -m benchmarks.modalities --data DIR [--sets mfeat mosi] [--imputers ...]
        [--seeds 0] [--loss] [--features] [--latency] [--max-time 60] [--train-rows 250]
        [--csv FILE]

Sets are DIR/multimodal/NAME.npz, paths to one's own features as
`benchmarks._loaders.load_modalities` reads them, or tables whose columns are cut into
``--blocks`` parts. Columns are standardised by the
training rows, which are complete; for every proper subset of the modalities the test
rows lose the others. One fit serves all subsets, except for regressions, which are
fitted when their subset is met, in `transform`. RMSE is taken over all missing cells of
a subset, then averaged over the subsets. Accuracies are a logistic regression's:

- accuracy: trained on complete rows;
- control: trained on the training rows once a subset, completed by the same imputer
  (`--no-control` leaves it out; `--control-folds 5` completes them by folds, as rows
  that the imputer was not fitted to, at the cost of as many fits);
- of the row "alone": trained on the observed modalities, one classifier a subset.

``--loss`` instead removes each modality at random at 30, 50 and 70 % from training and
test rows, each row keeping one. ``--features`` instead cross-validates complete rows,
plain and with their generated counterparts. ``--latency`` instead times one row, and a
thousand, of mosi's size. ``--tables letter bean --blocks 2 4 --n-rows 500 2000 0``
instead cuts the columns of tables into blocks, takes a block from half of the training
rows, and completes each block of unseen rows (`benchmarks._lost_blocks`);
``--picture FILE`` draws rows against error, and the names of `benchmarks.ablation
--cells` are imputers as well, ours without one of its parts.
"""

from __future__ import annotations

import argparse
import copy
import time

import numpy as np
import pandas as pd
import torch

import admc_sklearn
from admc_sklearn import ADMCImputer
from benchmarks import _appended, _lost_blocks
from benchmarks._ablation_cells import VARIANTS
from benchmarks._baselines import BASELINES, Counterparts
from benchmarks._blocks import SETS, classifier, hide, load_blocks, lose, rmse, subsets
from benchmarks._figures import DPI, draw_lost_blocks

RATES = (0.3, 0.5, 0.7)
OURS = ("admc", "anchor")


def build(name, max_time):
    """Make the factory of an imputer, which gets a seed and modalities' columns."""
    if name == "admc":
        return lambda seed, columns: ADMCImputer(
            modalities=columns,
            keep_whole_numbers=False,
            max_time=max_time,
            random_state=seed,
        )
    if name == "anchor":
        return lambda seed, columns: ADMCImputer(
            modalities=columns,
            keep_whole_numbers=False,
            max_epochs=0,
            random_state=seed,
        )
    return BASELINES[name]


def build_counterparts(name, max_time):
    """Make the factory of a transformer that appends generated features."""
    factory = build(name, max_time)
    if name in OURS:
        # By its attribute: the other parts need it not.
        return lambda seed, columns: admc_sklearn.CrossModalFeatures(
            factory(seed, columns)
        )
    return lambda seed, columns: Counterparts(factory(seed, columns), columns)


def timed(call, *arguments):
    """Give the result of a call, and its seconds."""
    started = time.perf_counter()
    result = call(*arguments)
    return result, time.perf_counter() - started


def fit(imputer, blocks):
    """Fit to the training rows; ours is given the groups of rows."""
    X, train = blocks.X, blocks.train
    if isinstance(imputer, ADMCImputer) and blocks.group is not None:
        return imputer.fit(X[train], groups=blocks.group[train])
    return imputer.fit(X[train])


def measure_subsets(blocks, imputer, control=True, folds=0):
    """Fit once, complete every subset: a dict for each."""
    X, y, columns = blocks.X, blocks.y, blocks.columns
    train, test = blocks.train, ~blocks.train
    plain = classifier(X[train], y[train])
    unfitted = copy.deepcopy(imputer)
    _, fit_s = timed(fit, imputer, blocks)
    records, completions = [], []
    for kept in subsets(columns):
        incomplete = hide(X[test], columns, kept)
        completed, transform_s = timed(imputer.transform, incomplete)
        completions.append(completed)
        records.append(
            {
                "kept": "+".join(kept),
                "rmse": rmse(X[test], incomplete, completed),
                "accuracy": plain.score(completed, y[test]),
                "fit_s": fit_s,
                "transform_s": transform_s,
            }
        )
    if control:
        model = classifier(*completed_copies(blocks, imputer, unfitted, folds))
        for record, completed in zip(records, completions, strict=True):
            record["control"] = model.score(completed, y[test])
    return records


def completed_copies(blocks, imputer, unfitted=None, folds=0):
    """Training rows completed from each subset, one copy a subset, and their labels.

    By the imputer of all rows, or by folds, each from an imputer of the other rows.
    """
    X, y = blocks.X[blocks.train], blocks.y[blocks.train]
    fold = np.random.default_rng(0).permutation(len(X)) % max(1, folds)
    patterns = subsets(blocks.columns)
    copies = np.empty((len(patterns), *X.shape))
    for k in range(max(1, folds)):
        if folds:
            imputer = copy.deepcopy(unfitted).fit(X[fold != k])
        for out, kept in zip(copies, patterns, strict=True):
            incomplete = hide(X[fold == k], blocks.columns, kept)
            out[fold == k] = imputer.transform(incomplete)
    return np.vstack(copies), np.tile(y, len(copies))


def observed_alone(blocks):
    """One classifier a subset, of the observed modalities: a dict for each."""
    records = []
    for kept in subsets(blocks.columns):
        X, train = blocks.only(kept).X, blocks.train
        model = classifier(X[train], blocks.y[train])
        accuracy = model.score(X[~train], blocks.y[~train])
        records.append({"kept": "+".join(kept), "accuracy": accuracy})
    return records


def measure_loss(blocks, imputer, rate, seed):
    """Random loss of modalities in training and test rows: a dict."""
    rng = np.random.default_rng(seed)
    incomplete = lose(blocks.X, blocks.columns, rate, rng)
    seen, unseen = incomplete[blocks.train], incomplete[~blocks.train]
    _, fit_s = timed(imputer.fit, seen)
    completed, transform_s = timed(imputer.transform, unseen)
    error = rmse(blocks.X[~blocks.train], unseen, completed)
    return {"rate": rate, "rmse": error, "fit_s": fit_s, "transform_s": transform_s}


def measure_latency(blocks, imputer, n_calls=200, n_rows=1000):
    """Time one row without one of its modalities, and many, after warm-up: a dict."""
    X, columns = blocks.X, blocks.columns
    imputer.fit(X[blocks.train])
    rng = np.random.default_rng(0)
    rows = rng.choice(np.flatnonzero(~blocks.train), n_rows)
    gone = rng.choice(list(columns), n_rows)
    incomplete = X[rows]
    for name, part in columns.items():
        incomplete[np.ix_(gone == name, part)] = np.nan
    singles = [incomplete[k % n_rows, None] for k in range(n_calls)]
    for row in singles[:10]:
        imputer.transform(row)
    ms = [1000 * timed(imputer.transform, row)[1] for row in singles]
    imputer.transform(incomplete)
    return {
        "median_ms": np.median(ms),
        "p95_ms": np.percentile(ms, 95),
        "rows_s": np.median([timed(imputer.transform, incomplete)[1] for _ in "abc"]),
    }


def sets(options):
    """Yield (name, blocks) of the sets that are there."""
    for name in options.sets:
        blocks = load_blocks(name, options.data)
        if blocks is None:
            blocks = _lost_blocks.table_blocks(name, options.data, options.blocks[0])
        if blocks is None:
            print(f"{name}: not found, skipped (see --data)", flush=True)
            continue
        if options.train_rows:
            blocks = blocks.cut(options.train_rows)
        yield name, blocks


def run_subsets(options):
    """Every imputer on every subset of every set; print tables of each set."""
    records = []
    for name, blocks in sets(options):
        train = blocks.train
        complete = classifier(blocks.X[train], blocks.y[train])
        score = complete.score(blocks.X[~train], blocks.y[~train])
        print(f"{name}: accuracy on complete rows {score:.4f}", flush=True)
        found = [{"imputer": "alone", **r} for r in observed_alone(blocks)]
        for imputer in options.imputers:
            for seed in options.seeds:
                peer = build(imputer, options.max_time)(seed, blocks.columns)
                folds = options.control_folds
                part = measure_subsets(blocks, peer, options.control, folds)
                found += [{"imputer": imputer, "seed": seed, **r} for r in part]
                means = pd.DataFrame(part).drop(columns="kept").mean()
                print(name, imputer, seed, _line(means), flush=True)
        print_subsets(pd.DataFrame(found))
        records += [{"set": name, **r} for r in found]
    return records


def print_subsets(frame):
    """Tables of subsets by imputers, their mean, and who is lowest how often."""
    frame = frame.drop(columns="seed", errors="ignore")
    order = frame["imputer"].unique()
    frame = frame.groupby(["kept", "imputer"], sort=False).mean().unstack()
    present = frame.columns.unique(level=0)
    for figure in [f for f in ("rmse", "accuracy", "control") if f in present]:
        table = frame[figure].reindex(columns=order).dropna(axis=1, how="all")
        print(f"\n{figure}\n{table.round(3).to_string()}")
    if "rmse" in present:
        lowest = frame["rmse"].idxmin(axis=1).value_counts()
        summary = frame.mean().unstack(level=0).reindex(order)
        summary["lowest"] = lowest.reindex(order).fillna(0).astype(int)
        print(f"\nmean over {len(frame)} subsets\n{summary.round(4).to_string()}\n")


def run_loss(options):
    """Every imputer under random loss; print the RMSE by rate."""
    records = []
    for name, blocks in sets(options):
        for imputer in options.imputers:
            for seed in options.seeds:
                for rate in RATES:
                    peer = build(imputer, options.max_time)(seed, blocks.columns)
                    record = measure_loss(blocks, peer, rate, seed)
                    records.append(
                        {"set": name, "imputer": imputer, "seed": seed, **record}
                    )
                    print(_line(records[-1]), flush=True)
    if records:
        means = pd.DataFrame(records).groupby(["set", "imputer", "rate"], sort=False)
        for figure in ("rmse", "fit_s"):
            print(f"\n{figure}\n{means[figure].mean().unstack().round(4).to_string()}")
    return records


def run_features(options):
    """Counterparts of every imputer on all modalities, and on the weak ones."""
    records = []
    for name, blocks in sets(options):
        for views, part in _appended.parts(name, blocks, options.rows).items():
            for imputer in options.imputers:
                for seed in options.seeds:
                    counterparts = build_counterparts(imputer, options.max_time)
                    record = {"set": name, "views": views, "imputer": imputer}
                    record |= {"seed": seed}
                    record |= _appended.measure(part, counterparts, seed, options.folds)
                    records.append(record)
                    print(_line(record), flush=True)
    if records:
        groups = pd.DataFrame(records).groupby(["set", "views", "imputer"], sort=False)
        gain = groups["gain"]
        means = groups[["plain", "appended", "gain"]].mean()
        means = means.assign(gain_sd=gain.std(), lowest=gain.min(), highest=gain.max())
        print(f"\n{means.round(4).to_string()}")
    return records


def run_latency(options):
    """Milliseconds of a row, seconds of a thousand."""
    records = []
    blocks = load_blocks("mosi", options.data, drop_constant=False)
    if blocks is None:
        print("mosi: not found, skipped (see --data)", flush=True)
        return records
    print(f"{blocks.X.shape[1]} columns, {torch.get_num_threads()} threads", flush=True)
    for imputer in options.imputers:
        peer = build(imputer, options.max_time)(options.seeds[0], blocks.columns)
        records.append({"imputer": imputer, **measure_latency(blocks, peer)})
        print(_line(records[-1]), flush=True)
    return records


def run_tables(options):
    """Blocks of tables' columns: error by number of rows, gain on the best peer."""
    records = _lost_blocks.records(options, lambda record: print(_line(record)))
    if records:
        frame = pd.DataFrame(records)
        case = ["table", "blocks", "rows"]
        table = frame.pivot_table("rmse", case, "imputer", sort=False)
        ours = [n for n in table if n.startswith("admc") or n in VARIANTS]
        others = table.drop(columns=ours)
        if "admc" in table and len(others.columns):
            table["gain"] = 1 - table["admc"] / others.min(axis=1)
        print(f"\n{table.round(4).to_string()}")
        if "gain" in table:
            print(f"mean gain on the best peer: {table['gain'].mean():.3f}")
        if options.picture:
            draw_lost_blocks(frame).savefig(options.picture, dpi=DPI)
    return records


def _line(record):
    return " ".join(
        f"{key} {value:.4f}" if isinstance(value, float) else str(value)
        for key, value in record.items()
    )


def main():
    """Measure what is asked for, print as it goes, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder that holds multimodal/NAME.npz")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    names = [*OURS, *BASELINES]
    slow = "published", "trees", "mlp"
    quick = [name for name in names if name not in slow]
    of_tables = ["admc", "ridge", "kernel", "trees", "mlp", "autoencoder"]
    more = [*of_tables, "admc_cells", "mice", *VARIANTS]
    names += [name for name in more if name not in names]
    parser.add_argument("--imputers", nargs="+", choices=names)
    parser.add_argument("--seeds", nargs="+", type=int, help="0; --features: 0 to 4")
    parser.add_argument("--train-rows", type=int, help="of --sets: so many of them")
    parser.add_argument("--max-time", type=float, default=60, help="of ours, seconds")
    parser.add_argument("--no-control", dest="control", action="store_false")
    parser.add_argument("--control-folds", type=int, default=0)
    parser.add_argument("--folds", type=int, default=5, help="of --features")
    parser.add_argument("--rows", choices=["all", "test"], help="of --features")
    parser.add_argument("--csv", help="also write every single measurement there")
    parser.add_argument("--blocks", nargs="+", type=int, default=[2], help="--tables")
    parser.add_argument("--n-rows", nargs="+", type=int, default=[0], help="--tables")
    parser.add_argument("--picture", help="of --tables: rows against error, a PNG")
    parser.add_argument("--share", type=float, default=0.5, help="of --tables")
    kind = parser.add_mutually_exclusive_group()
    runs = {"loss": run_loss, "features": run_features, "latency": run_latency}
    for name in runs:
        kind.add_argument(f"--{name}", action="store_true")
    kind.add_argument("--tables", nargs="+", help="numeric tables, cut into blocks")
    runs["tables"] = run_tables
    options = parser.parse_args()
    options.seeds = options.seeds or (range(5) if options.features else [0])
    options.imputers = options.imputers or (of_tables if options.tables else quick)
    run = next((runs[n] for n in runs if getattr(options, n)), run_subsets)
    records = run(options)
    if options.csv and records:
        pd.DataFrame(records).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
