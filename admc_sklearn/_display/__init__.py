"""ImputationDisplay: pictures of what an imputer did, in scikit-learn's convention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._table.types import Axes, Estimator, Frame, RandomState, Table
from ._data import (
    calibration_data,
    comparison_data,
    density_data,
    flux_data,
    modalities_data,
    pattern_data,
    scatter_data,
    training_data,
)
from ._figure import require_matplotlib
from ._incomplete_table import read_table
from ._panels import (
    draw_calibration,
    draw_comparison,
    draw_density,
    draw_flux,
    draw_modalities,
    draw_pattern,
    draw_scatter,
    draw_training,
)

_DRAW = {
    "density": draw_density,
    "calibration": draw_calibration,
    "scatter": draw_scatter,
    "pattern": draw_pattern,
    "training": draw_training,
    "modalities": draw_modalities,
    "comparison": draw_comparison,
    "flux": draw_flux,
}
KINDS = [kind for kind in _DRAW if kind not in ("comparison", "flux")]


class ImputationDisplay:
    """Pictures of an imputer's work.

    It is recommended to use :meth:`from_imputer`, :meth:`from_comparison` or
    :meth:`from_table`. All pictures are in shades of grey.

    Parameters
    ----------
    kind : str
        Kind of the picture: "density", "calibration", "scatter", "pattern", "training",
        "modalities", "comparison" or "flux".

    data : dict
        Data that the picture shows. Their keys depend on the kind:

        - density: ``columns``, a dict of name to two Series, the observed and the
          imputed values; ``left_out``, a list of names; ``n_draws``, 0 where the
          imputed values are the completion.
        - calibration: ``nominal``, shares of shape (n_shares,); ``pooled``, the
          coverage over all hidden cells, of that shape; ``columns``, a dict of name
          to the coverage in that column; ``n_cells``, the number of hidden cells.
        - scatter: ``names`` of two columns; ``values`` and ``missing`` of shape
          (n_samples, 2), the missing cells filled by one draw.
        - pattern: ``names``; ``patterns``, a bool array of shape
          (n_patterns, n_features), True where missing; ``counts`` of shape
          (n_patterns,), falling; ``left_out``.
        - training: ``history``, a DataFrame; ``kept``, an epoch.
        - modalities: ``shares``, a square DataFrame.
        - comparison: ``values``, a DataFrame with ``panel``, ``imputer``, ``value``;
          ``panels``, their titles, in ``n_columns``; ``order``, the imputers, best
          first; ``metric``.
        - flux: ``flux``, the DataFrame of :func:`~admc_sklearn.missingness.flux`.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure that holds the picture, after `plot`.

    axes_ : ndarray of matplotlib Axes
        The panels of the picture, after `plot`.

    See Also
    --------
    admc_sklearn.ADMCImputer : The imputer whose work is drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from admc_sklearn import ADMCImputer
    >>> X = np.arange(20.0)[:, None] * [1.0, 2.0, 3.0]
    >>> X[3, 1] = X[8, 0] = X[8, 2] = np.nan
    >>> imputer = ADMCImputer(max_epochs=0, random_state=0).fit(X)
    >>> display = ImputationDisplay.from_imputer(imputer, X, kind="pattern")
    >>> display.data["counts"]
    array([18,  1,  1])
    """

    figure_: Any
    axes_: np.ndarray

    def __init__(self, *, kind: str, data: dict[str, Any]) -> None:
        self.kind = kind
        self.data = data

    @classmethod
    def from_imputer(
        cls,
        imputer: Estimator,
        X: Table | None = None,
        *,
        kind: Literal[
            "density", "calibration", "scatter", "pattern", "training", "modalities"
        ] = "density",
        columns: str | int | Sequence[str | int] | None = None,
        n_draws: int | None = None,
        hidden_rate: float = 0.2,
        max_columns: int | None = None,
        subsample: int | None = 1000,
        random_state: RandomState = None,
        ax: Axes | None = None,
        **plot_kwargs: Any,
    ) -> ImputationDisplay:
        """Draw a picture of how a fitted imputer completes an incomplete table.

        Parameters
        ----------
        imputer : estimator
            Fitted imputer with `transform` and `get_feature_names_out`.
            ``kind="calibration"`` and ``"scatter"`` also need `sample`, as in
            :class:`~admc_sklearn.ADMCImputer`.

        X : array-like of shape (n_samples, n_features), default=None
            Incomplete table. It is not needed for "training" and "modalities".

        kind : str, default="density"
            Kind of the picture.

            - "density": distributions of the observed and of the imputed values of each
              column with missing cells, as shares. The imputed values are draws if the
              imputer has `sample`, and its completion otherwise. The outer bins hold
              the values beyond the central 99 %.
            - "calibration": nominal and actual coverage of central intervals of the
              draws, for known cells of numbers and dates that are hidden for the
              picture.
            - "scatter": two columns, with the rows in which both are observed, and one
              draw of the other rows.
            - "pattern": the cells that are missing together, and in how many rows.
            - "training": the validation figures of every epoch of an ADMCImputer.
            - "modalities": the share of each modality that each other one explains, the
              ``dependence_`` of an ADMCImputer.

        columns : list of str or int, or a single one, default=None
            Columns to draw, as names or positions; "scatter" needs two. None takes all
            columns, and for "density" all columns with missing cells.

        n_draws : int, default=None
            Number of draws by `sample`. None takes 5 for "density" and 50 for
            "calibration".

        hidden_rate : float, default=0.2
            Share of the known cells that "calibration" hides.

        max_columns : int, default=None
            Largest number of columns to draw, which are those with most missing cells.
            None takes 12 for "density" and 100 for "pattern". The picture names the
            columns that are left out.

        subsample : int or None, default=1000
            Number of rows that are drawn at random if X has more, because draws take
            time. None takes all rows, as "pattern" always does.

        random_state : int, RandomState instance or None, default=None
            Seed of the choice of rows and cells, and of the draws. None takes a fixed
            seed, so that a repeated call gives the same picture.

        ax : matplotlib Axes, default=None
            Axes to draw in; several panels replace it. None makes a figure.

        **plot_kwargs
            Further arguments of `plot`.

        Returns
        -------
        display : ImputationDisplay
            The picture, drawn.

        Raises
        ------
        ValueError
            If the kind or a column is unknown, or there is nothing to draw.
        TypeError
            If the imputer lacks a method that the kind needs.
        ImportError
            If matplotlib is not installed.
        sklearn.exceptions.NotFittedError
            If the imputer is not fitted.

        Notes
        -----
        The coverage is counted by the probability integral transform: the rank of the
        hidden value among its draws, divided by ``n_draws + 1``, with ties broken at
        random. The transform is uniform if the value has the distribution of the draws,
        for any number of draws and also with point masses. A central interval of share
        c holds the value if the transform lies within c / 2 of one half.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
        require_matplotlib()  # before the draws, which take time
        check_is_fitted(imputer)
        if kind == "training":
            data = training_data(imputer)
            return cls(kind=kind, data=data).plot(ax, **plot_kwargs)
        if kind == "modalities":
            data = modalities_data(imputer)
            return cls(kind=kind, data=data).plot(ax, **plot_kwargs)
        # None repeats itself, as the imputer's own draws do.
        rng = check_random_state(0 if random_state is None else random_state)
        table = read_table(imputer, X, None if kind == "pattern" else subsample, rng)
        if kind == "density":
            data = density_data(table, columns, n_draws, max_columns, rng)
        elif kind == "calibration":
            data = calibration_data(table, columns, n_draws, hidden_rate, rng)
        elif kind == "scatter":
            data = scatter_data(table, columns, rng)
        else:
            data = pattern_data(table, columns, max_columns)
        return cls(kind=kind, data=data).plot(ax, **plot_kwargs)

    @classmethod
    def from_comparison(
        cls,
        frame: Frame,
        *,
        metric: Literal[
            "rmse", "mae", "accuracy", "fit_time", "transform_time"
        ] = "rmse",
        ax: Axes | None = None,
        **plot_kwargs: Any,
    ) -> ImputationDisplay:
        """Draw how well, or how fast, imputers completed tables.

        Parameters
        ----------
        frame : pandas or polars DataFrame
            Results of :func:`~admc_sklearn.evaluation.compare_imputers`, one row for
            each run. The columns ``imputer``, ``mechanism``, ``rate`` (a share) and the
            metric are needed; the metric is null where a run has none. There is a panel
            for each mechanism and rate, and for each ``table`` if there are several.

        metric : {"rmse", "mae", "accuracy", "fit_time", "transform_time"}, \
                default="rmse"
            Column of ``frame`` to draw. Times are drawn on a logarithmic axis.

        ax : matplotlib Axes, default=None
            Axes to draw in; several panels replace it. None makes a figure.

        **plot_kwargs
            Further arguments of `plot`.

        Returns
        -------
        display : ImputationDisplay
            The picture, drawn.

        Raises
        ------
        ValueError
            If a column is lacking, or the metric is unknown or has no value.
        ImportError
            If matplotlib is not installed.

        Notes
        -----
        Imputers have the same order in all panels, the order of their mean ranks.
        """
        require_matplotlib()
        data = comparison_data(frame, metric)
        return cls(kind="comparison", data=data).plot(ax, **plot_kwargs)

    @classmethod
    def from_table(
        cls, X: Table, *, ax: Axes | None = None, **plot_kwargs: Any
    ) -> ImputationDisplay:
        """Draw which columns of an incomplete table inform the others.

        The picture has the outflux of each column over its influx: see
        :func:`~admc_sklearn.missingness.flux`. A column at the top left is a good
        predictor and needs none. One at the bottom right needs the others most. Columns
        far below the diagonal, at the bottom left, take no part in either: they lose
        their cells where others do, and it may be better to leave them out.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
            Incomplete table. Missing cells are NaN, None or null.

        ax : matplotlib Axes, default=None
            Axes to draw in. None makes a figure.

        **plot_kwargs
            Further arguments of `plot`.

        Returns
        -------
        display : ImputationDisplay
            The picture, drawn.

        Raises
        ------
        ValueError
            If no cell is missing, or none is observed.
        ImportError
            If matplotlib is not installed.
        """
        require_matplotlib()
        return cls(kind="flux", data=flux_data(X)).plot(ax, **plot_kwargs)

    def plot(
        self, ax: Axes | None = None, *, figsize: tuple[float, float] | None = None
    ) -> ImputationDisplay:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw in; several panels replace it. None makes a figure.

        figsize : (float, float), default=None
            Width and height, in inches, of the figure that is made. None suits the
            number of panels.

        Returns
        -------
        display : ImputationDisplay
            The picture itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        require_matplotlib()
        if self.kind not in _DRAW:
            raise ValueError(f"kind must be one of {list(_DRAW)}, got {self.kind!r}.")
        self.axes_ = _DRAW[self.kind](self.data, ax, figsize)
        self.figure_ = self.axes_[0].figure.figure  # of a subfigure too
        return self
