"""Figures, grids of panels and captions for `ImputationDisplay`; all text is small.

matplotlib is imported where it is used, as it is optional.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from itertools import count, takewhile

SMALL, TINY = "small", "x-small"


def require_matplotlib():
    """Raise an ImportError that says how to install matplotlib, where it is lacking."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib, which the `plot` extra brings. Run "
            'pip install "admc_sklearn[plot]".'
        ) from error


def new_figure(figsize):
    """Make a figure whose layout leaves room for labels."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=figsize, layout="constrained")


def open_grid(ax, figsize, n_rows, n_cols, **ratios):
    """Lay out panels in a new figure, or in ``ax``, which loses its frame.

    Returns
    -------
    canvas : Figure, SubFigure or Axes
        `caption` writes to it.
    panels : ndarray of Axes of shape (n_rows, n_cols)
    """
    if ax is None:
        canvas = new_figure(figsize)
        grid = canvas.add_gridspec(n_rows, n_cols, **ratios)
        return canvas, grid.subplots(squeeze=False)
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure, spec = ax.figure, ax.get_subplotspec()
    ax.set_axis_off()
    if spec and isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        canvas = figure.add_subfigure(spec)
        grid = canvas.add_gridspec(n_rows, n_cols, **ratios)
        return canvas, grid.subplots(squeeze=False)
    ratios = {"hspace": 0.75, "wspace": 0.4} | ratios  # nothing else makes room
    if spec:
        return ax, spec.subgridspec(n_rows, n_cols, **ratios).subplots(squeeze=False)
    box = ax.get_position()
    edges = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
    grid = figure.add_gridspec(n_rows, n_cols, **edges, **ratios)
    return ax, grid.subplots(squeeze=False)


def caption(canvas, title, note="", handles=()):
    """Put a title, a note and a legend around the panels of `open_grid`."""
    text = "\n".join([title, *textwrap.wrap(note, 90)])
    style = {"handles": handles, "ncols": max(1, len(handles))}
    style |= {"fontsize": SMALL, "frameon": False}
    if hasattr(canvas, "suptitle"):
        canvas.suptitle(text, fontsize=SMALL, x=0.01, ha="left")
        if handles:
            canvas.legend(loc="outside lower center", **style)
        return
    canvas.set_title(text, loc="left", fontsize=SMALL, pad=20)
    if handles:
        anchored = {"loc": "upper center", "bbox_to_anchor": (0.5, 0)}
        canvas.legend(borderaxespad=3, **anchored, **style)


def plain(ax):
    """Take the upper and right edges of a panel away and shrink its labels."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=TINY)


def short(text, width=20):
    """Text cut to a width, both of its ends kept."""
    text = str(text)
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def labels(texts, width=20):
    """Texts cut to a width, a list in which no two look alike.

    Those that would also show the part in which they differ, or else get numbers.
    """
    texts = [str(text) for text in texts]
    cut = [short(text, width) for text in texts]
    alike = {label: [] for label in cut}
    for text, label in zip(texts, cut, strict=True):
        alike[label].append(text)
    for k, text in enumerate(texts):
        if len(alike[cut[k]]) > 1:
            cut[k] = _with_middle(text, alike[cut[k]], width)
    counts, taken = Counter(cut), set(cut)
    for k, text in enumerate(texts):
        if counts[cut[k]] > 1:
            marks = (f" ({number})" for number in count(1))
            numbered = (short(text, width - len(mark)) + mark for mark in marks)
            cut[k] = next(label for label in numbered if label not in taken)
            taken.add(cut[k])
    return cut


def _with_middle(text, others, width):
    """Text cut to its ends and what is between those that all ``others`` share."""
    start = _n_shared(others)
    stop = len(text) - _n_shared([other[start:][::-1] for other in others])
    middle = short(text[start:stop], width - 8)
    if not middle or len(text) <= width:
        return short(text, width)
    tail = (width - 2 - len(middle)) // 2
    head = width - 2 - len(middle) - tail
    return f"{text[:head]}…{middle}…{text[len(text) - tail :]}"


def _n_shared(texts):
    """Count the first characters that are the same in all texts."""
    same = (len(set(letters)) == 1 for letters in zip(*texts, strict=False))
    return sum(takewhile(bool, same))


def left_out_note(names):
    """Name the columns that are left out; nothing where there are none."""
    if not names:
        return ""
    some = ", ".join(labels(names)[:6])
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"{len(names)} columns left out: {some}{more}"
