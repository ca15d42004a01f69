"""ImputationDisplay: pictures of what an imputer did, in scikit-learn's convention."""

from __future__ import annotations

from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._data import (
    calibration_data,
    comparison_data,
    density_data,
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
}
KINDS = [kind for kind in _DRAW if kind != "comparison"]


class ImputationDisplay:
    """Pictures of an imputer's work.

    It is recommended to use :meth:`from_imputer` or :meth:`from_comparison`. All
    pictures are in shades of grey.

    Parameters
    ----------
    kind : str
        What is drawn: "density", "calibration", "scatter", "pattern", "training",
        "modalities" or "comparison".

    data : dict
        What the picture shows, by kind:

        - density: ``columns``, a dict of name to two Series, the observed and the
          imputed values; ``left_out``, a list of names; ``n_draws``, 0 where the
          imputed values are the completion.
        - calibration: ``nominal``, shares of shape (n_levels,); ``pooled``, the
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

    Attributes
    ----------
    figure_ : matplotlib Figure
        Set by `plot`.

    axes_ : ndarray of matplotlib Axes
        The panels, set by `plot`.

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

    def __init__(self, *, kind, data):
        self.kind = kind
        self.data = data

    @classmethod
    def from_imputer(
        cls,
        imputer,
        X=None,
        *,
        kind="density",
        columns=None,
        n_draws=None,
        hidden_rate=0.2,
        max_columns=None,
        subsample=1000,
        random_state=None,
        ax=None,
        **plot_kwargs,
    ):
        """Draw what a fitted imputer makes of an incomplete table.

        Parameters
        ----------
        imputer : estimator
            A fitted imputer with `transform` and `get_feature_names_out`.
            ``kind="calibration"`` and ``"scatter"`` need `sample` too, as
            :class:`~admc_sklearn.ADMCImputer` has it.

        X : array-like of shape (n_samples, n_features), default=None
            An incomplete table; not needed for "training" and "modalities".

        kind : str, default="density"
            - "density": observed against imputed values of each column with missing
              cells, as shares: draws where the imputer has `sample`, else the
              completion. The outer bins hold what lies beyond the central 99 %.
            - "calibration": nominal against actual coverage of central intervals of
              the draws, for known cells of numbers and dates hidden for the picture.
            - "scatter": two columns; rows with both observed, and one draw of the
              others.
            - "pattern": which cells are missing together, and in how many rows.
            - "training": the validation figures of every epoch of an ADMCImputer.
            - "modalities": how much of each modality each other one explains, the
              ``dependence_`` of an ADMCImputer.

        columns : list of str or int, or a single one, default=None
            Names or positions; two of them for "scatter". None takes all columns, for
            "density" all with missing cells.

        n_draws : int, default=None
            Draws by `sample`: None takes 5 for "density", 50 for "calibration".

        hidden_rate : float, default=0.2
            Share of the known cells that "calibration" hides.

        max_columns : int, default=None
            Columns drawn at most, those with most missing cells: None takes 12 for
            "density", 100 for "pattern". The picture names those left out.

        subsample : int or None, default=1000
            Rows drawn at random where X has more, since draws take time; None takes
            all, as "pattern" does always.

        random_state : int, RandomState instance or None, default=None
            Seeds the choice of rows and cells and the draws. None takes a fixed seed:
            a repeated call gives the same picture.

        ax : matplotlib Axes, default=None
            Where to draw; panels take the place of ``ax``. None makes a figure.

        **plot_kwargs
            Passed to `plot`.

        Returns
        -------
        display : ImputationDisplay

        Raises
        ------
        ValueError
            If there is no such kind or column, or nothing to draw.
        TypeError
            If the imputer lacks a method that the kind needs.
        sklearn.exceptions.NotFittedError
            If the imputer is not fitted.

        Notes
        -----
        The coverage is counted by the probability integral transform, the rank of the
        hidden value among its draws divided by ``n_draws + 1``, ties broken at random.
        It is uniform, with point masses too and however few the draws, if the value is
        distributed as the draws are. A central interval of share c holds the value if
        the transform lies within c / 2 of one half.
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
    def from_comparison(cls, frame, *, metric="rmse", ax=None, **plot_kwargs):
        """Draw how well, or how fast, imputers completed tables.

        Parameters
        ----------
        frame : pandas or polars DataFrame
            One row a run: ``imputer``, ``mechanism``, ``rate`` (a share) and the
            metric, null where a run has none. There is a panel for each mechanism and
            rate, and for each ``table`` where there are several.

        metric : {"rmse", "mae", "accuracy", "fit_time", "transform_time"}, \
                default="rmse"
            Times are drawn on a logarithmic axis.

        ax : matplotlib Axes, default=None
            Where to draw; panels take the place of ``ax``. None makes a figure.

        **plot_kwargs
            Passed to `plot`.

        Returns
        -------
        display : ImputationDisplay

        Raises
        ------
        ValueError
            If a column is lacking, or the metric is unknown or has no value.

        Notes
        -----
        Imputers have the same order in all panels, by the mean of their ranks.
        """
        require_matplotlib()
        data = comparison_data(frame, metric)
        return cls(kind="comparison", data=data).plot(ax, **plot_kwargs)

    def plot(self, ax=None, *, figsize=None):
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; panels take the place of ``ax``. None makes a figure.

        figsize : (float, float), default=None
            Inches of the figure that is made; None suits the number of panels.

        Returns
        -------
        display : ImputationDisplay

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
