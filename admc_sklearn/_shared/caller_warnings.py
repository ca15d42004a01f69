"""Warnings that name the line of a user's own code."""

from __future__ import annotations

import sys
import warnings

# Packages whose lines are of no use to whoever reads the warning.
_SKIPPED = {"admc_sklearn", "sklearn", "contextlib"}


def warn_caller(message, category=UserWarning):
    """Warn at the innermost line outside of this package and of scikit-learn.

    Parameters
    ----------
    message : str or Warning
    category : type of Warning
        Unless the message is a warning itself.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back and _package_of(frame) in _SKIPPED:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package_of(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0]
