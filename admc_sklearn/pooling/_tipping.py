"""Sensitivity of a pooled analysis to values that are not missing at random.

Draws are made under stated departures, missing values shifted by so many standard
deviations, and analysed each time: the tipping point is the departure at which the
conclusion changes (Yan, Lee and Li, 2009, doi:10.1080/10543400903242761).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .._display._figure import require_matplotlib
from .._table.types import Axes, Estimator, RandomState, Table
from ._rubin import PooledEstimates, pool_over_draws


@dataclass(frozen=True, eq=False, repr=False)
class TippingPoint:
    """Pooled analyses under departures from missing at random.

    `tipping_point` returns it.

    Attributes
    ----------
    deltas : list of dict
        The departures, as `ADMCImputer.sample` takes them.
    pooled : list of PooledEstimates
        One for each.
    """

    deltas: list[dict[Any, Any]]
    pooled: list[PooledEstimates]

    def to_frame(self) -> pd.DataFrame:
        """Table of all analyses.

        One row for each departure and parameter: the departure by column, parameter,
        estimate, confidence limits, p-value, and whether the ``conclusion`` is that the
        parameter is positive (1), negative (-1) or neither (0). ``changed`` says where
        it is another than that at the departure nearest to none.
        """
        rows = []
        for delta, pooled in zip(self.deltas, self.pooled, strict=True):
            table = pooled.to_frame()[["estimate", "lower", "upper", "p_value"]]
            conclusion = np.where(table["lower"] > 0, 1, 0)
            conclusion = np.where(table["upper"] < 0, -1, conclusion)
            table["conclusion"] = conclusion
            table.insert(0, "parameter", table.index)
            for place, (name, amount) in enumerate(delta.items()):
                table.insert(place, f"delta_{name}", _label(amount))
            rows.append(table)
        found = pd.concat(rows, ignore_index=True)
        n_parameters = len(rows[0])
        start = self._nearest() * n_parameters
        base = found["conclusion"].iloc[start : start + n_parameters].to_numpy()
        found["changed"] = found["conclusion"] != np.tile(base, len(rows))
        return found

    def tips(self) -> pd.DataFrame:
        """Rows of `to_frame` at which conclusions first change.

        For each parameter and each side of the departure nearest to none, in the order
        of the departures; without rows where no conclusion changes.
        """
        table, n_parameters = (
            self.to_frame(),
            len(np.atleast_1d(self.pooled[0].estimate)),
        )
        start, found = self._nearest(), []
        sides = range(start, -1, -1), range(start, len(self.deltas))
        for k in range(n_parameters):
            for side in sides:
                rows = [place * n_parameters + k for place in side]
                changed = [row for row in rows if table["changed"].iloc[row]]
                found += changed[:1]
        return table.iloc[sorted(set(found))].reset_index(drop=True)

    def plot(self, parameter: Any = None, *, ax: Axes | None = None) -> Axes:
        """Picture of an estimate and its interval against the departure.

        Parameters
        ----------
        parameter : hashable, optional
            Name or position of the parameter; by default the first one.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        ax : matplotlib Axes

        Raises
        ------
        ValueError
            If several columns are moved by different amounts, or by amounts of each
            row: see `to_frame`.
        """
        require_matplotlib()
        import matplotlib.pyplot as plt

        x = np.array([self._amount(delta) for delta in self.deltas], dtype=float)
        if np.isnan(x).any():
            raise ValueError(
                "Departures that differ between columns or rows are not drawn: see "
                "to_frame()."
            )
        table = self.to_frame()
        parameter = table["parameter"].iloc[0] if parameter is None else parameter
        own = table[table["parameter"] == parameter]
        if not len(own):
            known = table["parameter"].unique().tolist()
            raise ValueError(f"There is no parameter {parameter!r}; there are {known}.")
        order = np.argsort(x)
        x, own = x[order], own.iloc[order]
        if ax is None:
            _, ax = plt.subplots()
        ax.fill_between(x, own["lower"], own["upper"], color="0.85", label="interval")
        ax.plot(x, own["estimate"], color="black", marker="o", label="estimate")
        ax.axhline(0, color="black", linewidth=0.8)
        changed = own["changed"].to_numpy()
        if changed.any():
            ax.plot(
                x[changed],
                own["estimate"][changed],
                linestyle="none",
                marker="o",
                color="white",
                markeredgecolor="black",
                label="other conclusion",
            )
        columns = " and ".join(str(name) for name in self.deltas[0])
        ax.set(
            xlabel=f"shift of missing {columns} (standard deviations or log-odds)",
            ylabel="estimate" if own["parameter"].iloc[0] == 0 else str(parameter),
        )
        ax.legend(frameon=False)
        return ax

    def _nearest(self):
        """Position of the departure nearest to none."""
        sizes = [
            max((np.abs(_numbers(a)).max() for a in delta.values()), default=0.0)
            for delta in self.deltas
        ]
        return int(np.argmin(sizes))

    @staticmethod
    def _amount(delta):
        """Get the one amount of a departure, NaN where there are several."""
        amounts = {float(v) for a in delta.values() for v in np.ravel(_numbers(a))}
        return amounts.pop() if len(amounts) == 1 else (np.nan if amounts else 0.0)

    def __repr__(self) -> str:
        head = f"Pooled under {len(self.deltas)} departures from missing at random\n"
        return head + self.to_frame().to_string(float_format="{:.4g}".format)


def tipping_point(
    imputer: Estimator,
    X: Table,
    analysis: Callable[[Any], Any],
    deltas: Mapping[Any, Sequence[Any]] | Sequence[Mapping[Any, Any]],
    *,
    n_draws: int = 20,
    dfcom: float | None = None,
    confidence_level: float = 0.95,
    random_state: RandomState = None,
    **options: Any,
) -> TippingPoint:
    """Analyse draws under departures from missing at random.

    Parameters
    ----------
    imputer : ADMCImputer
        Fitted.
    X : array-like of shape (n_samples, n_features)
        The incomplete table.
    analysis : callable
        Function of one completed table, see `pool_over_draws`.
    deltas : dict or list of dict
        The departures, in a sensible order: ``{"income": [0, 0.25, 0.5]}`` moves one
        column, or several by amounts in step; ``[{"income": 0.5, "smoker": {"yes":
        1}}, ...]`` has one ``delta`` of `ADMCImputer.sample` each.
    n_draws : int, default=20
        Draws of each; all departures have the same noise.
    dfcom, confidence_level
        As in `pool_over_draws`.
    random_state : int, RandomState instance or None, default=None
        As in `ADMCImputer.sample`.
    **options
        Further arguments of `ADMCImputer.sample`: ``groups``, ``bounds``, ``where``.

    Returns
    -------
    TippingPoint
        With a table, the departures at which conclusions change, and a picture.

    Raises
    ------
    ValueError
        If there is no departure, amounts differ in number, or the analyses cannot be
        pooled.
    """
    every = _each(deltas)
    if not isinstance(random_state, int | np.integer | None):
        random_state = int(random_state.randint(2**31 - 1))
    pooled = []
    for delta in _of_same_columns(every):
        draws = imputer.sample(X, n_draws, random_state, delta=delta, **options)
        pooled.append(
            pool_over_draws(
                draws, analysis, dfcom=dfcom, confidence_level=confidence_level
            )
        )
    return TippingPoint(every, pooled)


def _each(deltas):
    """List the departures, each a dict by column."""
    if isinstance(deltas, Mapping):
        for name, amounts in deltas.items():
            if not np.iterable(amounts):
                raise TypeError(f"deltas[{name!r}] must be a list of amounts.")
        counts = {name: len(amounts) for name, amounts in deltas.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"deltas must have one number of amounts; got {counts}.")
        rows = zip(*deltas.values(), strict=True)
        every = [dict(zip(deltas, row, strict=True)) for row in rows]
    else:
        every = [dict(delta) for delta in deltas]
    if not every:
        raise ValueError("deltas must hold at least one departure.")
    return every


def _of_same_columns(every):
    """Departures that all name the same columns, so that their draws share noise."""
    none = {
        name: {} if isinstance(amount, Mapping) else 0.0
        for delta in every
        for name, amount in delta.items()
    }
    return [none | delta for delta in every]


def _numbers(amount):
    """Amounts of a column as numbers."""
    values = list(amount.values()) if isinstance(amount, Mapping) else amount
    return np.asarray(values, dtype=float)


def _label(amount):
    """Say what an amount is, for the table."""
    if isinstance(amount, Mapping):
        return str(dict(amount))
    return float(amount) if np.ndim(amount) == 0 else "by row"
