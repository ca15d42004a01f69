"""Thumbnails of the gallery: one panel of each example, chosen for what it shows.

Each function draws from the variables of an example that has run. A thumbnail is about
as wide as a hand's palm on the screen: few words, large letters, thick lines.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

FOLDER = Path(__file__).parent / "_diagrams"  # made anew by every build
GREY, INK = "0.7", "0.15"


def _bars(axis, values, title):
    """Horizontal bars, ours dark, with their values written in them."""
    shades = [INK if "ADMC" in name else GREY for name in values.index]
    bars = axis.barh(np.arange(len(values)), values, 0.8, color=shades)
    axis.bar_label(bars, fmt="%.2f", padding=4, fontsize=13)
    axis.set_yticks(np.arange(len(values)), list(values.index))
    axis.set(xlim=(0, 1.25 * values.max()), xticks=[], title=title)
    axis.tick_params(length=0)
    axis.invert_yaxis()
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def quick_start(axis, names):
    """Draw two digits: with missing pixels, completed, and the truth."""
    rows = names["incomplete"], names["completions"]["ADMCImputer"], names["truth"]
    gap = np.full((8, 1), -1.0)
    lines = []
    for k in (0, 1):
        images = [np.asarray(row[k]).reshape(8, 8) for row in rows]
        lines.append(np.hstack([images[0], gap, images[1], gap, images[2]]))
    picture = np.vstack([lines[0], np.full((1, 26), -1.0), lines[1]])
    colours = plt.get_cmap("gray_r").with_extremes(bad="#d8b4a0", under="w")
    axis.imshow(picture, cmap=colours, vmin=0, vmax=16)
    axis.set_xticks([3.5, 12.5, 21.5], ["missing", "completed", "truth"])
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def which_imputer(axis, names):
    """Draw the mean error of each imputer, cells missing at random."""
    results = names["results"]
    rmse = results[results["mechanism"] == "mcar"].groupby("imputer")["rmse"].mean()
    _bars(axis, rmse.sort_values(), "RMSE of hidden cells")


def serving(axis, names):
    """Draw how long requests took."""
    milliseconds = 1000 * names["seconds"]
    axis.hist(milliseconds, bins=20, color=INK)
    axis.set(yticks=[], title="milliseconds of a request")
    axis.tick_params(labelsize=13)
    axis.spines[["top", "right", "left"]].set_visible(False)


def mixed_table(axis, names):
    """Draw how often missing levels are found."""
    scores = names["scores"]
    places = np.arange(len(scores))
    axis.barh(places - 0.2, scores["most frequent"], 0.38, color=GREY)
    axis.barh(places + 0.2, scores["ADMCImputer"], 0.38, color=INK)
    axis.text(0.02, -0.2, "mode", va="center", fontsize=12)
    axis.text(0.02, 0.2, "ADMCImputer", va="center", fontsize=12, color="w")
    axis.set_yticks(places, list(scores.index))
    axis.set(xlim=(0, 1), xticks=[0, 1], title="missing categories found")
    axis.tick_params(length=0)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)


def uncertainty(axis, names):
    """Draw the interval of a coefficient under four analyses."""
    intervals = names["intervals"]
    for place, (name, (center, half)) in enumerate(intervals.items()):
        colour = INK if name == "pooled draws" else "0.6"
        axis.errorbar(center, place, xerr=half, fmt="o", ms=9, lw=3, color=colour)
    axis.axvline(intervals["complete data"][0], color="0.8", zorder=0)
    axis.set_yticks(
        range(len(intervals)), [name.replace(" ", "\n") for name in intervals]
    )
    axis.set(
        ylim=(len(intervals) - 0.5, -0.5), xticks=[], title="effect, 95 % interval"
    )
    axis.tick_params(length=0)
    axis.spines[["top", "right"]].set_visible(False)


def missing_modality(axis, names):
    """Draw the error of the features where speech and video are lost."""
    scores = names["scores"]
    lost = scores[scores["lost"] == "speech and video"].set_index("imputer")["RMSE"]
    _bars(axis, lost, "speech, video lost: RMSE")


def medical_blocks(axis, names):
    """Draw intervals of a laboratory value beside the truth."""
    some = names["middle"][names["rows"]].iloc[:12].sort_values().index
    places = np.arange(len(some))
    axis.vlines(places, names["low"][some], names["high"][some], color="0.7", lw=8)
    truth = names["truth"]["crp"][some].to_numpy()
    axis.plot(places, truth, "o", ms=8, mfc="w", mec=INK, mew=2)
    axis.set(yscale="log", xticks=[], yticks=[], title="CRP: 90 % intervals, truth")
    axis.set_yticks([], minor=True)
    axis.set_xlabel("patients")
    axis.spines[["top", "right"]].set_visible(False)


def survey(axis, names):
    """Draw how many cells are completed and how many stay empty."""
    refused, empty = names["refused"], names["empty"]
    axis.barh(refused.index, refused, 0.75, color=INK)
    axis.barh(refused.index, empty, 0.75, left=refused, color=GREY)
    axis.text(refused["health"] + 20, 1, "completed", va="center", fontsize=13)
    place = refused["hours"] + empty["hours"] / 2
    axis.text(place, 2, "not asked: empty", va="center", ha="center", fontsize=13)
    axis.set(xticks=[], title="cells without an answer")
    axis.tick_params(length=0)
    axis.invert_yaxis()
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def laboratory(axis, names):
    """Draw lead below the detection limits: true values, and draws."""
    truth, edges = np.log(names["truth"]["lead"][names["hidden"]]), names["edges"]
    axis.hist(truth, edges, color=GREY)
    options = {"histtype": "step", "color": INK, "lw": 3}
    axis.hist(names["drawn"], edges, weights=names["weights"], **options)
    axis.set(xticks=[], yticks=[], xlabel="log lead", title="below detection: draws")
    axis.spines[["top", "right", "left"]].set_visible(False)


def pipeline_grid_search(axis, names):
    """Draw the error of each candidate of the search."""
    rmse = names["scores"]["RMSE"]
    _bars(axis, rmse, "grid search: RMSE")


def latency_accuracy(axis, names):
    """Draw joint draws, which lie on the ring of the data."""
    axis.plot(*names["draws"][5][:700, :2].T, ".", color=INK, ms=4)
    axis.set(
        xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal", xticks=[], yticks=[]
    )
    axis.set_title("draws in 5 rounds")


PANELS = {
    "plot_quick_start": quick_start,
    "plot_serving": serving,
    "plot_which_imputer": which_imputer,
    "plot_mixed_table": mixed_table,
    "plot_uncertainty": uncertainty,
    "plot_missing_modality": missing_modality,
    "plot_medical_blocks": medical_blocks,
    "plot_survey": survey,
    "plot_laboratory": laboratory,
    "plot_pipeline_grid_search": pipeline_grid_search,
    "plot_latency_accuracy": latency_accuracy,
}


def save(example, names):
    """Draw the panel of an example, and write it where `with_thumbnail` expects it.

    Parameters
    ----------
    example : str
        Name of the script, without its ending.
    names : dict
        The variables of the script.
    """
    with plt.rc_context({"font.size": 13, "axes.titlesize": 14, "axes.linewidth": 1.2}):
        figure, axis = plt.subplots(figsize=(4, 2.8), layout="constrained")
        PANELS[example](axis, names)
        figure.savefig(FOLDER / f"{example}.png", dpi=200)
    plt.close(figure)


def scrape(block, block_vars, gallery_conf):
    """Draw the thumbnail when the last block of an example has run.

    sphinx-gallery calls this after each block, as it calls its own scraper, which
    collects the figures of the page.

    Returns
    -------
    str
        Nothing to show on the page.
    """
    script = Path(block_vars["src_file"])
    if script.read_text().rstrip().endswith(block[1].rstrip()):
        save(script.stem, block_vars["example_globals"])
    return ""


def with_thumbnail(example, text):
    """Return a script that names its thumbnail."""
    setting = f"# sphinx_gallery_thumbnail_path = '{FOLDER.name}/{example}.png'"
    return f"{text.rstrip()}\n\n{setting}\n"
