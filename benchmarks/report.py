"""A page with pictures from the results of `benchmarks.run`, and from these alone.

    python -m benchmarks.report DIR

reads ``DIR/results.csv`` and writes ``DIR/report.md`` and its pictures beside it.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks._figures import DPI, METRICS, draw_errors, draw_ranks, draw_times
from benchmarks._markdown import markdown_table, number, percent
from benchmarks._setting import setup_section, status_section, time_section
from benchmarks._summary import (
    OURS,
    PUBLISHED,
    against_peers,
    cells,
    core,
    load,
    measured,
    ranked_rows,
    ranks,
)
from benchmarks.run import PARTS

TITLES = METRICS | {"accuracy": "Accuracy"}


def headline_section(frame):
    """Cells won and mean gains, by part and mechanism."""
    results = {metric: against_peers(frame, metric) for metric in TITLES}
    lines = [
        "## Against the best peer of each cell",
        "",
        "A cell is a table under a mechanism, for unseen or for training rows. It is "
        "won where admc's figure is better than that of *every* peer. The gain is by "
        "how much its error is lower (its accuracy higher) than that of the best peer "
        "of the cell, chosen in hindsight; negative where admc is worse. "
        f"{_counted(frame)}; accuracy has those with categorical cells.",
        "",
        _won(results),
        "",
        *_best_peers(results),
        "",
        "![errors](errors.png)",
        "",
        "Against each peer alone, over all cells that have both:",
        "",
        _against_each(frame),
    ]
    return lines


def _counted(frame):
    """Say which cells count, and in how many of them each optional peer is."""
    names = core(frame)
    text = "Only cells that all of " + ", ".join(names) + " have come to count"
    had = measured(frame)
    had = had[had[names].all(axis=1)]
    good = cells(frame, "rmse").loc[had.index].notna()
    optional = [name for name in had if name not in names]
    if not optional:
        return text
    parts = []
    for name in optional:
        failed = had[name].sum() - good[name].sum()
        tail = f" ({failed} more failed)" if failed else ""
        parts.append(f"{name} in {good[name].sum()}{tail}")
    return (
        f"{text}, {len(had)} in all. Peers that need an environment of their own count "
        f"in those where they have figures, not in others: {', '.join(parts)}"
    )


def _won(results):
    rows = []
    for label, choose in _groups(results["rmse"].index):
        row = {"cells": label}
        for metric, table in results.items():
            part = table[choose(table.index)]
            row[f"{TITLES[metric]}: won"] = f"{int(part['won'].sum())} of {len(part)}"
            row[f"{TITLES[metric]}: mean gain"] = percent(part["gain"].mean())
        rows.append(row)
    return markdown_table(pd.DataFrame(rows).set_index("cells"))


def _against_each(frame):
    rows = {}
    for peer in dict.fromkeys(frame["imputer"]):
        if peer in OURS:
            continue
        pair = frame[frame["imputer"].isin(["admc", peer])]
        row = rows.setdefault(peer, {})
        for metric in METRICS:
            table = against_peers(pair, metric)
            title = TITLES[metric]
            row[f"{title}: lower"] = f"{int(table['won'].sum())} of {len(table)}"
            row[f"{title}: mean gain"] = percent(table["gain"].mean())
    return markdown_table(pd.DataFrame(rows).T.rename_axis("peer"))


def _groups(index):
    yield "all", lambda i: np.ones(len(i), bool)
    for level in ("part", "mechanism"):
        for value in index.get_level_values(level).unique():
            yield (
                f"{value} rows" if level == "part" else value.upper(),
                lambda i, level=level, value=value: i.get_level_values(level) == value,
            )


def _best_peers(results):
    return [
        f"The best peer by {METRICS[metric]}: "
        + ", ".join(f"{k} in {n}" for k, n in table["peer"].value_counts().items())
        + " cells."
        for metric, table in results.items()
        if metric in METRICS
    ]


def ranking_section(frame, pictures):
    """Mean ranks with their critical difference; pictures by part."""
    lines = ["## Ranking", ""]
    if not pictures:
        return [*lines, "No run has two imputers to rank."]
    lines += [_ranked(frame[frame["part"] == PARTS[0]]), ""]
    for part, name in pictures.items():
        lines += [f"![ranks, {part} rows]({name})", ""]
        for metric, title in METRICS.items():
            table = ranks(frame, metric, part)
            tied = ", ".join(table.index[table["as_good_as_best"]])
            width = table["critical_difference"].iloc[0]
            lines.append(
                f"- {title}, {part} rows: not to be told apart from the first by a "
                f"critical difference of {width:.2f}: {tied}."
            )
        lines.append("")
    return lines[:-1]


def _ranked(frame):
    """Say what is ranked over which runs, and who is not."""
    runs = ["table", "mechanism", "seed"]
    rows = ranked_rows(frame)
    n_ranked, n_runs = (len(f.drop_duplicates(runs)) for f in (rows, frame))
    names = list(dict.fromkeys(rows["imputer"]))
    text = (
        f"Mean ranks over the {n_ranked} runs (of {n_runs}) that have all of "
        f"{', '.join(names)}, failures last, with the critical difference of Nemenyi's "
        "test at 5 %. Runs of one table under three mechanisms are not independent: "
        "the difference is a lower limit."
    )
    others = [name for name in dict.fromkeys(frame["imputer"]) if name not in names]
    if others:
        text += f" Not ranked, since some of these runs lack them: {', '.join(others)}."
    return text


def published_section(frame):
    """Put published figures beside ours, with the caveat."""
    frame = frame[(frame["mechanism"] == "mar") & (frame["part"] == "training")]
    mae, rmse = cells(frame, "mae"), cells(frame, "rmse")
    rows = []
    for (table, _, _), errors in mae.iterrows():
        if table not in PUBLISHED:
            continue
        both = {n: (errors[n], rmse.loc[table].iloc[0][n]) for n in mae}
        row = {"MAE / RMSE": table}
        for name, pair in (PUBLISHED[table] | both).items():
            row[name] = " / ".join(number(value, "{:.3f}") for value in pair)
        rows.append(row)
    if not rows:
        return []
    cap = frame["row_cap"].iloc[0]
    fewer = "" if cap == "none" else f", and rows capped at {cap}"
    return [
        "## Beside published figures",
        "",
        "DiffPuter (arXiv:2405.20690) and TabCSDI as published, from second-hand "
        "copies of their tables: MAR, 30 %, training rows. **Not the same masks**: "
        "other splits, other hidden cells by another model, partly other columns "
        f"(california has its target there, not here){fewer}. The peers of the same "
        "run show what these masks are like; `python -m benchmarks.published` makes "
        "those of the published code anew.",
        "",
        markdown_table(pd.DataFrame(rows).set_index("MAE / RMSE")),
    ]


def figures_section(frame):
    """All errors and accuracies, the best of each row in bold."""
    lines = ["## Figures", ""]
    for part, metric in product(frame["part"].unique(), TITLES):
        rows = frame[frame["part"] == part]
        values = cells(rows, metric)
        values = values[values.notna().any(axis=1)]
        if values.empty:
            continue
        best = values.max(axis=1) if metric == "accuracy" else values.min(axis=1)
        texts = values.map(number).mask(~measured(rows).loc[values.index], "not run")
        bold = values.eq(best, axis=0)
        texts.index = bold.index = pd.Index(
            [f"{table}, {mechanism}" for table, mechanism, _ in values.index],
            name="table, mechanism",
        )
        lines += [f"### {TITLES[metric]}, {part} rows", ""]
        lines += [markdown_table(texts, bold), ""]
    return lines[:-1]


def write_report(folder):
    """Write the page and its pictures into the folder of the results.

    Parameters
    ----------
    folder : str or Path
        Holds ``results.csv``.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    ValueError
        If there is no result without an error.
    """
    folder = Path(folder)
    frame = load(folder / "results.csv")
    if frame["error"].notna().all():
        raise ValueError(f"{folder.name}/results.csv holds no figures.")
    pictures = {"errors.png": draw_errors(frame), "time.png": draw_times(frame)}
    ranked = {}
    for part in frame["part"].unique():
        figure = draw_ranks(frame, part)
        if figure is not None:
            ranked[part] = f"ranks_{part}.png"
            pictures[ranked[part]] = figure
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=DPI, metadata={"Software": None})
    page = folder / "report.md"
    sections = page_sections(frame, ranked)
    page.write_text("\n\n".join("\n".join(s) for s in sections if s) + "\n")
    return page


def page_sections(frame, ranked):
    """Lines of each section of the page; ``ranked`` has the pictures by part."""
    title = "# Imputers on ten tables, three mechanisms, unseen and training rows"
    source = "Made by `python -m benchmarks.report` from [results.csv](results.csv)."
    return [
        [title, "", source],
        headline_section(frame),
        setup_section(frame),
        status_section(frame),
        ranking_section(frame, ranked),
        time_section(frame),
        published_section(frame),
        figures_section(frame),
    ]


def main(arguments=None):
    """Write the page of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="holds results.csv")
    print(write_report(parser.parse_args(arguments).folder))


if __name__ == "__main__":
    main()
