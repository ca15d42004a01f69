"""Diagrams of the user guide, drawn when the documentation is built."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

INK, GREY, PALE = "0.1", "0.55", "0.9"


def _canvas(width, height):
    figure = plt.figure(figsize=(width, height), facecolor="w")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


def _box(axes, x, y, w, h, title, text="", fill="w"):
    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=shape, fc=fill, ec=INK))
    middle = x + w / 2
    if not text:
        axes.text(middle, y + h / 2, title, ha="center", va="center", weight="bold")
        return
    axes.text(middle, y + h - 0.12, title, ha="center", va="top", weight="bold")
    axes.text(middle, y + h - 0.42, text, ha="center", va="top", linespacing=1.35)


def _arrow(axes, start, end, style="-|>", **options):
    options = {"color": INK, "lw": 1.2, "mutation_scale": 12, **options}
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, **options))


def _row(axes, x, y, known, size=0.34):
    for k, seen in enumerate(known):
        look = {"fc": "w"} if seen else {"fc": PALE, "hatch": "////"}
        corner = (x + k * size, y)
        axes.add_patch(Rectangle(corner, size, size, ec=INK, lw=0.9, **look))


def _density(axes, place, weights, title, note):
    inset = axes.inset_axes(place, transform=axes.transData)
    inset.bar(np.arange(len(weights)), weights, color=GREY, width=0.85)
    inset.set(xticks=[], yticks=[], ylim=(0, 1.15 * weights.max()))
    inset.spines[["top", "right", "left"]].set_visible(False)
    inset.set_title(title, fontsize=9, weight="bold")
    inset.set_xlabel(note, fontsize=8)


def draw_pipeline():
    """Draw the whole way of a table, from missing cells to completed ones."""
    figure, axes = _canvas(12, 6.9)
    lanes = ((3.5, 3.1, "columns, one cell at a time"), (1.35, 1.75, "modalities"))
    for y, height, name in lanes:
        shade = Rectangle((2.55, y), 6.95, height, fc="0.96", ec="none", zorder=0)
        axes.add_patch(shade)
        top = y + height - 0.09
        axes.text(9.4, top, name, ha="right", va="top", style="italic")

    table = "numbers, categories,\ndates, features\nof modalities"
    _box(axes, 0.25, 2.85, 1.95, 1.35, "Table", table)
    _row(axes, 0.47, 2.4, [1, 0, 1, 1, 0], size=0.3)
    _arrow(axes, (2.23, 3.9), (2.72, 4.7))
    _arrow(axes, (2.23, 3.1), (2.72, 2.2))

    coordinates = "standardised,\npower transforms,\nmedian distances,\nlevel scores"
    anchor = "Gaussian of all\ncoordinates, times\nthe frequency of\neach atom"
    network = "attention between\ncolumns; added to the\nlog probability of\neach atom"
    encoders = "one for a modality,\nfitted alone"
    kernels = "kernel features,\nridges by cross-fit"
    denoiser = "attention between\nmodalities"
    for x, width, upper, lower in (
        (2.75, 1.75, ("Coordinates", coordinates), ("Encoders", encoders)),
        (4.95, 1.75, ("Anchor", anchor), ("Kernel anchor", kernels)),
        (7.15, 1.95, ("Network", network), ("Denoiser", denoiser)),
    ):
        _box(axes, x, 3.75, width, 1.5, *upper)
        _box(axes, x, 1.55, width, 1.1, *lower)
        if upper[0] != "Network":
            for y in (4.5, 2.1):
                _arrow(axes, (x + width + 0.03, y), (x + width + 0.42, y))
    _box(axes, 2.75, 5.65, 1.75, 0.45, "Exact relations")
    _box(axes, 4.95, 5.65, 1.75, 0.45, "Bootstraps")
    _arrow(axes, (5.82, 5.62), (5.82, 5.28), mutation_scale=9)
    _arrow(axes, (3.3, 2.68), (3.3, 3.72), style="<|-|>", ls="--")
    note = "each lane takes the other's result as columns"
    axes.text(3.4, 3.28, note, va="center", fontsize=8.5)

    corrections = "1 landmark regression\n2 donor rows\n3 forests\n"
    corrections += "4 pattern regression\n5 self-masking"
    joint = "the joint distribution\nof the missing cells"
    reads = "mean, median,\nquantiles, probabilities\nof levels, draws"
    _box(axes, 9.85, 5.1, 1.95, 1.45, "Corrections", corrections)
    _box(axes, 9.85, 3.3, 1.95, 1.3, "One posterior", joint)
    _box(axes, 9.85, 1.35, 1.95, 1.35, "Read in five ways", reads)
    _arrow(axes, (9.13, 4.9), (9.82, 5.6))
    _arrow(axes, (10.82, 5.07), (10.82, 4.63))
    _arrow(axes, (9.13, 2.3), (9.82, 3.5))
    _arrow(axes, (10.82, 3.27), (10.82, 2.73))
    # A cell that another cell determines does not go through the models.
    axes.plot([3.62, 3.62, 9.62, 9.62], [6.13, 6.72, 6.72, 4.2], color=INK, ls=":")
    _arrow(axes, (9.62, 4.2), (9.82, 4.2), mutation_scale=9)
    axes.text(3.72, 6.68, "computed, not estimated", va="top", fontsize=8.5)

    decide = (
        "Cells hidden on purpose, most of them in held-out rows, decide: which "
        "coordinates are used, the ridges,\nwhen training ends, how much the denoiser "
        "counts, and whether each correction is used at all."
    )
    _box(axes, 2.55, 0.3, 9.25, 0.75, "", fill=PALE)
    axes.text(7.17, 0.675, decide, ha="center", va="center", linespacing=1.35)
    for x in (3.62, 5.82, 8.12):
        _arrow(axes, (x, 1.07), (x, 1.32), mutation_scale=9, color=GREY)
    return figure


def draw_cells():
    """How one row of single columns is completed."""
    figure, axes = _canvas(10.4, 5.4)
    known = [1, 0, 1, 1, 0, 1]
    _row(axes, 0.35, 4.55, known)
    axes.text(0.35, 5.02, "a row; hatched cells are missing", va="bottom")
    _box(
        axes,
        3.3,
        4.05,
        2.75,
        1.15,
        "Anchor",
        "Gaussian of all columns:\nmean and spread of each\nmissing cell",
    )
    _box(
        axes,
        3.3,
        2.0,
        2.75,
        1.3,
        "Network",
        "one token a column,\nattention between tokens,\na wide layer over all",
    )
    _arrow(axes, (2.45, 4.72), (3.25, 4.72))
    _arrow(axes, (2.45, 4.5), (3.25, 2.9))
    _arrow(axes, (4.67, 4.02), (4.67, 3.34))
    axes.text(4.77, 3.67, "its estimate of the row", va="center", fontsize=8.5)
    atoms = np.arange(16)
    anchor = np.exp(-0.5 * ((atoms - 8) / 3.2) ** 2)
    change = -2.6 * np.exp(-0.5 * ((atoms - 7) / 1.8) ** 2) + 0.9 * (atoms > 9)
    posterior = anchor * np.exp(change)
    _density(
        axes,
        (6.85, 4.2, 2.2, 0.75),
        anchor,
        "anchor's density of the atoms",
        "atoms: values, bins, levels",
    )
    change_axes = axes.inset_axes((6.85, 2.35, 2.2, 0.75), transform=axes.transData)
    change_axes.bar(atoms, change, color=GREY, width=0.85)
    change_axes.axhline(0, color=INK, lw=0.8)
    change_axes.set(xticks=[], yticks=[])
    change_axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    change_axes.set_title("correction of its logarithm", fontsize=9, weight="bold")
    change_axes.set_xlabel("0 before training", fontsize=8)
    _arrow(axes, (6.1, 4.65), (6.75, 4.65))
    _arrow(axes, (6.1, 2.7), (6.75, 2.7))
    _density(
        axes,
        (6.85, 0.55, 2.2, 0.85),
        posterior / posterior.sum(),
        "posterior of one cell",
        "",
    )
    for start, bend in (((9.2, 4.5), -0.25), ((9.2, 2.6), -0.15)):
        _arrow(axes, start, (9.2, 1.1), connectionstyle=f"arc3,rad={bend}")
    axes.text(9.95, 2.75, "added", rotation=90, va="center")
    _box(
        axes,
        3.3,
        0.3,
        2.75,
        1.15,
        "One call",
        "mean, median, quantiles,\nprobabilities",
    )
    _box(
        axes,
        0.35,
        0.3,
        2.5,
        2.1,
        "Draws",
        "some cells are drawn and\ncount as observed; the\nnext round sees them",
    )
    _row(axes, 0.58, 0.5, [1, 1, 1, 1, 0, 1])
    _arrow(axes, (6.75, 0.95), (6.1, 0.95))
    _arrow(axes, (3.25, 0.85), (2.9, 0.85))
    _arrow(axes, (1.2, 2.45), (1.2, 4.5), ls="--")
    axes.text(1.3, 3.4, "next of\nn_steps\nrounds", va="center", fontsize=8.5)
    return figure


def draw_blocks():
    """How modalities of many columns are completed."""
    figure, axes = _canvas(10.4, 4.7)
    modalities = (("text", True), ("audio", False), ("video", True))
    for k, (name, there) in enumerate(modalities):
        y = 3.6 - 1.45 * k
        axes.text(0.3, y + 0.56, name if there else f"{name}, missing")
        _row(axes, 0.3, y + 0.13, [there] * 6)
        if there:
            _box(axes, 2.85, y, 1.2, 0.6, "encoder")
            _arrow(axes, (2.4, y + 0.3), (2.82, y + 0.3))
            axes.plot([4.08, 4.6], [y + 0.3, y + 0.3], color=INK, lw=1.2)
    axes.plot([4.6, 4.6], [1.0, 3.9], color=INK, lw=1.2)
    axes.text(3.45, 2.2, "each fitted alone", ha="center", fontsize=8.5)
    axes.text(4.68, 2.4, "latents", va="center", fontsize=8.5)
    for y in (3.45, 1.25):
        _arrow(axes, (4.6, y), (5.2, y))
    anchor = "kernel regression of the\nlatents that are missing on\n"
    anchor += "those there, one for every\npattern: mean, covariance"
    _box(axes, 5.25, 2.75, 2.4, 1.45, "Anchor", anchor)
    denoiser = "one token a modality,\nattention between them:\n"
    denoiser += "observed ones clean,\nmissing ones noisy"
    _box(axes, 5.25, 0.5, 2.4, 1.45, "Denoiser", denoiser)
    _arrow(axes, (6.45, 2.72), (6.45, 1.98))
    axes.text(6.55, 2.37, "corrected", va="center", fontsize=8.5)
    _box(axes, 8.2, 3.1, 1.9, 1.05, "One call", "at infinite noise:\nthe mean")
    draw = "from noise of the\nanchor's shape: a draw"
    _box(axes, 8.2, 1.65, 1.9, 1.05, "n_steps calls", draw)
    _box(axes, 8.2, 0.35, 1.9, 0.8, "decoder", "")
    for start, end in (((7.68, 1.6), (8.15, 3.2)), ((7.68, 1.4), (8.15, 2.0))):
        _arrow(axes, start, end)
    _arrow(axes, (9.15, 1.62), (9.15, 1.18))
    axes.plot([10.12, 10.25, 10.25], [3.6, 3.6, 0.75], color=INK, lw=1.2)
    _arrow(axes, (10.25, 0.75), (10.12, 0.75))
    axes.text(8.1, 0.2, "columns of audio", ha="right", fontsize=8.5)
    _arrow(axes, (8.18, 0.5), (7.95, 0.32), mutation_scale=9)
    return figure


def draw_all(folder):
    """Write every diagram to a folder as SVG."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    pictures = {"pipeline": draw_pipeline, "cells": draw_cells, "blocks": draw_blocks}
    for name, draw in pictures.items():
        with plt.rc_context({"font.size": 9.5, "svg.hashsalt": "docs"}):
            figure = draw()
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    draw_all(Path(__file__).parent / "_diagrams")
