"""Frames and figures as Markdown."""

from __future__ import annotations

import pandas as pd


def markdown_table(frame, bold=None):
    """Write a frame of text as a Markdown table, its index as the first columns.

    Parameters
    ----------
    frame : DataFrame of str
    bold : DataFrame of bool, optional
        Cells set in bold.
    """
    if bold is not None:
        frame = frame.where(~bold, "**" + frame + "**")
    frame = frame.reset_index()
    lines = [list(frame), ["---"] * frame.shape[1], *frame.astype(str).to_numpy()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value, form="{:.4f}"):
    """Write a figure; one that is not there is of a cell that failed."""
    return "failed" if pd.isna(value) else form.format(value)


def percent(value):
    """Write a share as a signed percentage."""
    return "none" if pd.isna(value) else f"{100 * value:+.1f} %"
