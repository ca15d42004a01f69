"""Departures from missing at random that a user states: shifts, and log-odds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .column_kinds import MAX_LEVELS
from .column_selection import find_columns

# Further shifts would leave the coordinates in which values are told apart.
MAX_SHIFT = 10.0


def resolve_delta(delta, X, names, categories):
    """Shifts of columns by position, in standardised units, and log-odds of levels.

    Parameters
    ----------
    delta : dict
        By column, names or indices: a number or an array (n,) of standard deviations
        that are added to its missing cells; in a column of levels ``{level:
        log_odds}``, or for two levels what is added to the log-odds of the second.
    X : frame or array of shape (n, d)
    names : sequence of d str
    categories : list of d arrays or None
        Levels of every column.

    Returns
    -------
    dict of float arrays of shape (n,) or (n, n_levels)

    Raises
    ------
    TypeError, ValueError
        Naming the column.
    """
    if not isinstance(delta, Mapping):
        raise TypeError(f"delta must be a dict by column; got {delta!r}.")
    found, n = {}, X.shape[0]
    for name, amount in delta.items():
        (j,) = find_columns([name], X, names, "delta")
        levels, where = categories[j], f"delta[{name!r}]"
        if levels is None:
            own = _amount(amount, n, where)
            if np.abs(own).max(initial=0.0) > MAX_SHIFT:
                raise ValueError(
                    f"{where} must be at most {MAX_SHIFT:g} standard deviations."
                )
        else:
            if len(levels) > MAX_LEVELS:
                raise ValueError(
                    f"{where}: the column has {len(levels)} levels, of which rare "
                    "ones are drawn together: no departure can be stated."
                )
            if not isinstance(amount, Mapping):
                if len(levels) != 2:
                    raise ValueError(
                        f"{where}: a column of {len(levels)} levels takes a dict, "
                        "{level: log-odds}."
                    )
                amount = {levels[1]: amount}
            own = np.zeros((n, len(levels)))
            known = list(levels)
            for level, log_odds in amount.items():
                if level not in known:
                    raise ValueError(f"{where}: there is no level {level!r}.")
                own[:, known.index(level)] = _amount(log_odds, n, where)
        found[int(j)] = own
    return found


def _amount(amount, n, where):
    """Finite numbers of every row, (n,)."""
    try:
        own = np.asarray(amount, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{where} must be a number; got {amount!r}.") from None
    if own.shape not in {(), (n,)}:
        raise ValueError(
            f"{where} must be a number, or one for each of {n} rows; got shape "
            f"{own.shape}."
        )
    if not np.isfinite(own).all():
        raise ValueError(f"{where} must be finite.")
    return np.broadcast_to(own, (n,))
