"""ADMCImputer: parameters, validation, pickling; the maths is elsewhere."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.impute import MissingIndicator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._callbacks import fit_task
from ._cells.censoring import draw_limited
from ._combined.fit import fit_model
from ._combined.partition import given_encoders
from ._combined.settings import Settings
from ._compat import (
    CallbackSupportMixin,
    Interval,
    MissingValues,
    StrOptions,
    _check_feature_names_in,
    _check_sample_weight,
    _fit_context,
    _get_output_config,
    available_if,
    validate_parameter_constraints,
)
from ._exporting import Exported
from ._pickling import VersionedPickle
from ._reporting import Reported
from ._shared.contract import FitContext, Report, Rows
from ._shared.devices import resolve_device
from ._shared.noise import draw_seeds, row_keys, row_uniforms
from ._shared.training import TrainingPlan, summarise_history
from ._storing import Stored, packed, settle, unpacked
from ._table.bounds import (
    cell_limits,
    ends_of,
    intersected,
    resolve_bounds,
    widest,
    within_limits,
)
from ._table.codec import TableCodec
from ._table.column_selection import resolve_modalities, shared_positions
from ._table.constraints import Constraints
from ._table.containers import is_frame
from ._table.departures import resolve_delta
from ._table.derived import check_derived, recompute, resolve_derived
from ._table.group_means import GroupMeans, padded
from ._table.missing_markers import accepts_null
from ._table.query import Query, rows_of
from ._table.types import (
    ArrayOrFrame,
    CellBounds,
    Columns,
    Estimator,
    FrameT,
    Markers,
    Modalities,
    RandomState,
    Table,
)
from ._table.validation import (
    all_or_nothing,
    check_groups,
    check_quantiles,
    check_table,
    rows_by_weight,
    select_columns,
    warn_of_empty_columns,
    with_distinct,
)

_COUNT = Interval(Integral, 1, None, closed="left")
# First stream of the noise by which draws choose one of a group; far from the others.
_GROUP_STREAM = 2**34


def _has_categories(imputer):
    """Whether a fitted imputer has a categorical column: AttributeError if not."""
    return any(levels is not None for levels in getattr(imputer, "categories_", ()))


class ADMCImputer(
    Exported,
    Stored,
    Reported,
    VersionedPickle,
    CallbackSupportMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Complete missing values by an anchored, attention-based diffusion model.

    A table may be mixed: numbers, whole numbers, truth values, categories, dates and
    durations. A Gaussian distribution over all columns, the anchor, is fitted to the
    incomplete table by expectation-maximisation. A network with attention between
    columns starts out as the anchor and is trained as a masked diffusion model: it
    predicts hidden cells from the other cells of their row, for every pattern at once.
    One fitted imputer completes unseen rows with any pattern of missing values.

    The parameters are listed in three groups: what is completed (`modalities` to
    `constraints`), accuracy against cost (`n_steps` to `model_size`), and
    randomness and running (`random_state` to `verbose`).

    Parameters
    ----------
    modalities : dict or None, default=None
        Columns of each modality, by the modality's name. The columns are names,
        indices, a slice, a mask or a `make_column_selector`. A column that is left out
        is a modality of its own; with None, every column is. A modality of numeric
        columns that is present or absent as a whole in most rows is completed as a
        block: see Notes.

    encoders : dict or None, default=None
        Transformers with ``inverse_transform``, by the names of modalities. The imputer
        completes the latents of an encoder, instead of the principal components of its
        modality. An encoder that is not fitted is cloned, and the clone is fitted, in
        the columns' own units, to the rows in which the modality is complete. A fitted
        encoder is used as it is. But :func:`sklearn.base.clone`, and hence every
        cross-validation, returns it without its fit, and it is then fitted anew;
        `sklearn.frozen.FrozenEstimator` around the encoder prevents this. The encoders
        that are passed are not changed.

    missing_values : float, int, str, np.nan, None, pandas.NA, list or dict, \
            default=np.nan
        The value that marks a missing cell. A list holds several such values, as in
        ``[-99, -88, "?"]``. A dict holds them by column, as in
        ``{"age": 0, "income": [-99, -88]}``; its keys are names or indices. In data
        frames, in arrays of objects and with a dict, ``np.nan``, ``None``,
        ``pandas.NA`` and ``pandas.NaT`` are missing as well. An array of floats that
        holds NaN is refused where NaN is not listed. A number does not match text, and
        0 does not match False.

    categorical_features : "from_dtype", array-like or callable, default="from_dtype"
        Columns that are categorical in addition to those that are by their dtype. The
        latter are categories, enumerations, text, truth values, and columns of objects
        other than numbers and dates; ``"from_dtype"`` adds nothing to them. Others are
        given by names, indices, a mask or a `make_column_selector`.

    keep_whole_numbers : bool or "from_frame", default="from_frame"
        Whether a column of floats is completed by whole numbers where all its observed
        cells are whole. `fit` must have seen at least three observed cells of the
        column. ``"from_frame"`` applies this where `fit` got a data frame, because
        frames store integers with gaps as floats. True applies it in arrays too. False
        never applies it, and the mean then keeps its lower squared error. Columns of an
        integer dtype are always completed by whole numbers. Means, quantiles and draws
        are treated alike. May be changed on a fitted imputer.

    self_masking : bool or "auto", default="auto"
        Whether the probability that a cell is missing may depend on its own value. The
        log-odds of being missing are then linear in a number, and differ by level in a
        categorical column; the distributions of missing cells are tilted accordingly.
        ``"auto"`` applies this to columns in which it predicts the missing cells better
        than the observed cells of the rows do. True always applies it, False never
        does. Unless it is False, *gaps* are found too: where most columns have an
        interval without any observed value, though values are dense at both of its
        ends, as if only results out of the ordinary had been written down, missing
        cells are taken to lie in it (see ``gaps_``). The imputer assumes that the rows
        to complete lose cells as the rows of `fit` did: set False if cells are hidden
        at random to measure the imputer. Tables with blocks (see Notes) are always
        completed without it.

    strategy : {"mean", "median", "sample"}, default="mean"
        The statistic that replaces a missing cell. ``"mean"`` has the lowest squared
        error and ``"median"`` the lowest absolute error, and each takes one call of the
        network; ``"sample"`` is one joint draw of all missing cells of the row. A
        categorical cell becomes the most probable level, or the level drawn; where the
        levels have an order its median is the middle one. Whole numbers (see
        `keep_whole_numbers`) and dates are rounded. May be changed on a fitted imputer.

    add_indicator : bool, default=False
        Whether to append a :class:`~sklearn.impute.MissingIndicator` of the columns
        that had missing values in `fit`.

    keep_empty_features : bool, default=True
        Whether to keep columns without a single observed value in `fit`. Their missing
        cells are filled with 0 (the epoch for dates, False, the first category of a
        categorical dtype, ``"missing_value"`` for text). With False they are dropped.

    impute_features : "all", array-like or callable, default="all"
        Columns to complete: names, indices, a mask or a `make_column_selector`. The
        others inform them, and keep their missing cells. May be changed on a fitted
        imputer.

    derived : dict or None, default=None
        Columns that are functions of others, ``{column: (function, [columns])}``, as in
        ``{"bmi": (lambda w, h: w / h**2, ["weight", "height"])}``. The function takes
        arrays of the parts' values. A missing derived cell is computed from its parts;
        where it is known, a missing part is solved for (of several the last one,
        beside the completions of the others), so that the completed table fulfils the
        relation, as every draw does. May be changed on a fitted imputer.

    bounds : dict or None, default=None
        Ends of what may be imputed, ``{column: (low, high)}``, where that is beyond the
        observed range, as in ``{"concentration": (0, None)}``; the tails follow the
        anchor. None leaves an end open: completions then go beyond the observed range
        at most as far as it is wide. Columns of which a few values recur keep to these.
        For cells that are known to lie within limits of their own, below a detection
        limit, see the argument ``bounds`` of `fit` and `transform`.

    constraints : list of dict or None, default=None
        What holds between columns, which are names or indices. The completed table
        fulfils it, and so does every draw; observed cells stay as they are:

        - ``{"sum": ["a", "b", "c"], "to": 100}``: columns that add up to a number, or
          to a column, ``"to": "total"`` (in arrays ``"to": [3]``);
        - ``{"one_of": ["red", "green"]}``: exactly one is 1 or True, the others are 0
          or False; in columns of two words one is ``"level"``, as in ``{"one_of":
          ["car", "bus"], "level": "yes"}``;
        - ``{"order": ["start", "end"]}``: numbers, dates or durations that do not
          fall.

        See Notes.

    group_effects : bool, default=False
        Whether rows of one group, the visits of a person or the pupils of a school,
        inform each other: then `fit`, `transform` and the other methods need
        ``groups``. Where columns differ between groups, predictions of the group's
        effect from its other rows (of the same call) are further columns of the model.
        Groups that `fit` has not seen are like others. See Notes.

    n_steps : int, default=8
        Number of rounds in which a draw reveals the missing cells of a row. A single
        round ignores how the missing cells depend on each other; as many rounds as
        missing cells are exact. May be changed on a fitted imputer.

    n_bootstraps : int, default=0
        Number of versions of the anchor that are fitted to resampled rows. Draws use
        them in turn, in small tables each with one of the networks, which makes
        multiple imputation proper, for estimates that are pooled by
        :func:`~admc_sklearn.pooling.pool_estimates`. Take about as many as draws. With
        0 the draws ignore that the model is estimated, and vary too little
        in tables of some hundred rows.

    max_epochs : int, default=60
        Largest number of passes over the training rows. Training ends earlier where the
        error of held-out rows falls too slowly (see `tol`); the learning rate then
        falls to zero in as many epochs again. With 0 the Gaussian anchor
        alone is used.

    max_time : float, default=None
        Number of seconds after which `fit` stops, with the best weights so far. The
        limit covers everything that `fit` does, and is kept to within 20 % or two
        seconds, whichever is more. The learning rate is lowered in time. At most half
        of the time is for the choice of coordinates and the anchor; 15 % of the rest
        is for the steps after the epochs. Steps for which there is no time are left
        out: power transforms, epochs, landmarks, donor rows, self-masking, curved
        features of modalities. Reading the table and one pass of each Gaussian are
        never cut short, and can take longer in a table of many millions of cells.

    batch_size : int or "auto", default="auto"
        Largest number of rows in a training step. The rows of an epoch are divided into
        as few batches of equal size as hold them. ``"auto"`` takes 512 for up to 16
        columns, 256 for 32 columns and more, and fewer for tables that have less than
        sixteen times as many rows.

    learning_rate : float, default=2e-3
        Learning rate of AdamW, and of Muon for the matrices of hidden layers, in
        batches of up to 256 rows. It is multiplied by the square root of
        ``batch_size / 256`` for larger batches. It is constant at first and falls to
        zero at the end.

    validation_fraction : float, default=0.1
        Share of the rows that are held out of training, in (0, 1). Their error shows
        when to stop. At most 10,000 rows are held out.

    n_iter_no_change : int, default=15
        Number of epochs without a lower validation error after which training stops.

    tol : float, default=0.01
        Share by which the validation error must fall for training to go on. Where it
        falls by less within 85 steps (and at least three epochs), the learning rate
        begins to fall and training to end. With 0 all of ``max_epochs`` are made:
        errors of a large table then fall by up to 4 %, in up to three times the time.

    model_size : {"auto", "small", "medium", "large"}, default="auto"
        Size of the network. ``"auto"`` chooses it by the number of observed cells.

    random_state : int, RandomState instance or None, default=None
        Seed of training and of draws. Whatever it is, repeated calls of one fitted
        imputer agree.

    device : str, default="auto"
        Torch device on which the network is trained and run. ``"auto"`` takes CUDA if
        there is one, then MPS, then the CPU.

    warm_start : bool, default=False
        Whether a further `fit` continues the training of the fitted network, for
        another ``max_epochs``. Columns, units, levels and atoms remain those of the
        first `fit`; the anchor is fitted anew. The held-out rows are the same as long
        as the seed and the number of rows are.

    verbose : int, default=0
        How much is printed. 1 shows a progress bar with the validation error.

    Attributes
    ----------
    history_ : pandas.DataFrame
        One row for each epoch: ``epoch``; ``train_loss`` and ``valid_loss`` (nats per
        cell); ``valid_rmse`` (in standardised units, of cells hidden in held-out rows;
        categorical cells count by their Brier score, which is 1 for the frequencies
        alone); ``seconds`` since training began. Epoch 0 is the anchor alone. The frame
        is empty where there were too few cells to hold any out: then the anchor alone
        is used. Small tables have several networks: the first one's.

    n_epochs_ : int
        The epoch whose weights are kept, which is the one of the lowest ``valid_rmse``.

    device_ : torch.device
        The device on which the network is.

    model_ : torch.nn.Module
        The fitted network; None if no column had an observed value.

    categories_ : list of `n_features_in_` arrays or None
        Levels of each categorical column that occurred in `fit`; None for other
        columns.

    self_masking_ : ndarray of shape (`n_features_in_`,)
        Change in the log-odds that a cell is missing, for a change of its value by one
        standard deviation of its column. For a categorical column it is the standard
        deviation of the log-odds of its levels. It is 0 where self-masking is not
        used.

    dependence_ : pandas.DataFrame or None
        Share of the variance of each block (row) that each other modality alone
        explains (column), in training rows that the model had not seen; NaN where it
        was not measured. None if no modality is a block.

    indicator_ : MissingIndicator or None
        The fitted indicator, if ``add_indicator``.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns seen in `fit`, if all of them are strings.

    See Also
    --------
    sklearn.impute.KNNImputer : Means of the nearest rows.
    sklearn.impute.IterativeImputer : Round-robin regression of the columns.

    Notes
    -----
    *Pickles.* A pickle holds the parameters, the network's weights, statistics and
    atoms of the columns (for columns with few distinct values, those values), and
    training rows: up to 800 completed rows as landmarks, the latents of blocks in up to
    1500 rows, up to 2000 rows for each pattern that is regressed, and, where donor rows
    are used, up to 16,384 rows. A pickle opens on machines without the device on which
    it was made. It opens with the release of this package that made it, and with a
    warning with other releases of the same minor version; other releases refuse it with
    an error.

    *Numbers.* Means of numbers combine the network with a kernel ridge regression on
    the completed rest of the row, to the extent that lowers the error of held-out
    cells. The regression has a Laplace kernel with landmarks, the kernel of a forest of
    random cuts [3]_. Means, quantiles and draws are read from one distribution. Blocks
    are completed without this regression.

    *Groups.* ``group_effects`` approximates a two-level model with random intercepts:
    the further columns are best linear predictions of the intercepts, from the
    observed cells of the group's other rows. What missing cells of one group have in
    common beyond these is not drawn jointly.

    *Exact relations.* A cell that one other, observed cell determines exactly (the same
    quantity in other units, a copy, a ratio or a power, a level's code) is computed
    from that cell, and its quantiles and draws are that value. The value may lie beyond
    the observed range where the relation held in at least 100 rows.

    *Constraints.* The last missing part of a sum is what is left, whatever its sign.
    Several parts are moved in proportion to the variances of their columns. They stay
    within their observed ranges if they can, then at least keep the sign that their
    column had, and whole numbers stay whole. Of a group the most probable column is 1,
    and in draws the one that was drawn; means that are not rounded are fractions that
    add up to 1. A cell that breaks an order moves to the nearest value that observed
    cells allow; two missing cells are swapped. Where observed cells contradict a
    constraint, the missing ones come as near to it as they can. Quantiles are those of
    single cells: orders hold among them, the most probable column of a group of levels
    is the one, and otherwise only cells that observed ones determine are set.

    *Blocks.* A modality is a block if it has an encoder, or if it has at least five
    columns, all of numbers, and at most a fifth of the rows with observed cells of the
    modality lack some of its cells. Blocks are completed in the latents of their
    encoders (by default principal components of 99.95 % of the variance): by a
    regression on curved features of the observed modalities, which attention between
    modalities corrects. They are drawn by a Gaussian diffusion in ``n_steps`` calls.
    Their posterior is taken to be normal, so that their median is their mean.
    ``n_bootstraps`` applies to other columns only. Training at times hides all columns
    of a modality together, also where it is not a block.

    *Narrow blocks.* A table of at most 64 columns, without ``encoders``, is also
    completed as if its blocks were single columns that are lost together. Held-out rows
    lose whole blocks, and what completes them with the lower error is kept, for means
    and draws alike.

    *Rounds.* A classifier (gradient boosting) was trained to distinguish completed
    from complete rows, with 30 % of the cells missing, on unseen rows and one CPU
    thread. For 1, 2, 4, 8, 16 and 32 rounds (``n_steps``) its AUC, 0.5 at best, was
    0.521, 0.525, 0.515, 0.509, 0.509 and 0.509 on the magic data, and 0.561, 0.540,
    0.519, 0.521, 0.521 and 0.521 on california. A draw of 6000 rows took 0.16, 0.25,
    0.4, 0.8, 0.9 and 0.9 s. Cells are revealed in random order; other orders made no
    difference.

    *Callbacks.* From scikit-learn 1.9 on ``set_callbacks`` takes callbacks, such as its
    ``ProgressBar``: they are told of the fit, of each network's training, and of each
    epoch. Training of a network ends where a callback asks for it after an epoch.

    *Reproducibility.* On a CPU the same seed gives the same imputer, with any number of
    threads, except under ``max_time``, where the amount of training depends on the
    speed of the machine.

    References
    ----------
    .. [1] "ADMC: Attention-based Diffusion Model for Missing Modalities Feature
       Completion", 2025, arXiv:2507.05624.
    .. [2] Sahoo et al., masked diffusion, 2024, arXiv:2406.07524.
    .. [3] Balog et al., the Mondrian kernel, 2016, arXiv:1606.05241.

    Examples
    --------
    >>> import numpy as np
    >>> from admc_sklearn import ADMCImputer
    >>> X = np.arange(20.0)[:, None] * [1.0, 2.0, 3.0]
    >>> X[3, 1] = X[8, 0] = X[8, 2] = np.nan
    >>> ADMCImputer(random_state=0).fit_transform(X)[[3, 8]].round(1)
    array([[ 3.,  6.,  9.],
           [ 8., 16., 24.]])
    """

    history_: pd.DataFrame
    n_epochs_: int
    device_: torch.device
    model_: Any  # None where no column has an observed value
    categories_: list[np.ndarray | None]
    self_masking_: np.ndarray
    gaps_: np.ndarray
    dependence_: pd.DataFrame | None
    indicator_: MissingIndicator | None
    n_features_in_: int
    feature_names_in_: np.ndarray

    _parameter_constraints = {  # noqa: RUF012
        "modalities": [Mapping, None],
        "encoders": [Mapping, None],
        "strategy": [StrOptions({"mean", "median", "sample"})],
        "n_steps": [_COUNT],
        "n_bootstraps": [Interval(Integral, 0, None, closed="left")],
        "missing_values": [MissingValues(), None, list, tuple, set, Mapping],
        "keep_whole_numbers": ["boolean", StrOptions({"from_frame"})],
        "categorical_features": [StrOptions({"from_dtype"}), "array-like", callable],
        "self_masking": ["boolean", StrOptions({"auto"})],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
        "derived": [Mapping, None],
        "bounds": [Mapping, None],
        "group_effects": ["boolean"],
        "constraints": [list, tuple, None],
        "impute_features": [StrOptions({"all"}), "array-like", slice, callable],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [_COUNT, StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [_COUNT],
        "tol": [Interval(Real, 0, 1, closed="left")],
        "model_size": [StrOptions({"auto", "small", "medium", "large"})],
        "device": "no_validation",
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    _learnt = (
        "n_features_in_",
        "feature_names_in_",
        "_sampling_seed",
        "_codec",
        "_group_means",
        "categories_",
        "indicator_",
        "model_",
        "history_",
        "n_epochs_",
        "dependence_",
        "self_masking_",
        "gaps_",
    )

    # How the models are fitted. Experiments set `Settings` in a subclass.
    _settings: Settings = Settings()

    def __init__(
        self,
        *,
        modalities: Modalities | None = None,
        encoders: Mapping[str, Estimator] | None = None,
        strategy: Literal["mean", "median", "sample"] = "mean",
        n_steps: int = 8,
        n_bootstraps: int = 0,
        missing_values: Markers = np.nan,
        keep_whole_numbers: bool | Literal["from_frame"] = "from_frame",
        categorical_features: Columns = "from_dtype",
        self_masking: bool | Literal["auto"] = "auto",
        add_indicator: bool = False,
        keep_empty_features: bool = True,
        impute_features: Columns = "all",
        derived: Mapping[Any, tuple[Any, Sequence[Any]]] | None = None,
        bounds: Mapping[Any, Sequence[Any]] | None = None,
        group_effects: bool = False,
        constraints: Sequence[Mapping[str, Any]] | None = None,
        max_epochs: int = 60,
        max_time: float | None = None,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: float = 2e-3,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 15,
        tol: float = 0.01,
        model_size: Literal["auto", "small", "medium", "large"] = "auto",
        device: str | torch.device = "auto",
        warm_start: bool = False,
        verbose: int = 0,
        random_state: RandomState = None,
    ) -> None:
        self.modalities = modalities
        self.encoders = encoders
        self.strategy = strategy
        self.n_steps = n_steps
        self.n_bootstraps = n_bootstraps
        self.missing_values = missing_values
        self.keep_whole_numbers = keep_whole_numbers
        self.categorical_features = categorical_features
        self.self_masking = self_masking
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.impute_features = impute_features
        self.derived = derived
        self.bounds = bounds
        self.group_effects = group_effects
        self.constraints = constraints
        self.max_epochs = max_epochs
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.model_size = model_size
        self.device = device
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Table,
        y: Any = None,
        *,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        bounds: CellBounds | None = None,
    ) -> ADMCImputer:
        """Fit the imputer to an incomplete table.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Incomplete table: a pandas or polars frame, or an array. Cells are missing
            where they hold one of ``missing_values``, and where an array is masked.
        y : None
            Ignored.
        groups : array-like of shape (n_samples,), optional
            Group of each row, such as the video of an utterance. Rows of one group are
            held out together. Use this where the rows to complete will belong to groups
            that are not in X. With ``group_effects`` they inform each other besides.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row, such as a survey's inverse selection probability, in
            everything that is learnt. Only ratios count: the weights are divided by
            their mean, so that the table counts as its number of rows. A row of weight
            2 counts as a row of weight 1 that is there twice; one of weight 0 is left
            out.
        bounds : tuple or dict, optional
            Limits between which single missing cells are known to lie (left-, right-
            or interval-censored), ends included. ``(low, high)``: two arrays of shape
            (n_samples, n_features), or what broadcasts to it, with NaN where an end is
            open; or by column, ``{"lead": (0, 0.2)}``, where each end is a number or an
            array of shape (n_samples,). Such cells are drawn within their limits from a
            normal model of power-transformed columns, and then learnt from.

        Returns
        -------
        self : ADMCImputer
            The fitted imputer.

        Raises
        ------
        ValueError
            If X, a parameter, an encoder or a weight is unsuitable; the message says
            why.
        TypeError
            If X is no table, or one of a library that is not supported.

        Notes
        -----
        A fit that ends in an exception leaves the imputer as it was: not fitted, or
        with all of an earlier fit. Ctrl-C in the epochs ends training, with a warning:
        the best weights so far are kept, and the steps that follow are cut short. At
        any other moment, and if it is repeated within ten seconds, Ctrl-C is an
        exception. So one Ctrl-C in a grid search ends the fit that is running, and two
        end the search.
        """
        task = fit_task(self, X, groups)
        with all_or_nothing(self) as draft:
            draft._fit(X, groups, sample_weight, bounds, task)
            task.end(draft)
        return self

    def fit_transform(
        self,
        X: Table,
        y: Any = None,
        *,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        bounds: CellBounds | None = None,
        where: ArrayLike | None = None,
    ) -> ArrayOrFrame:
        """Fit the imputer to an incomplete table, and complete it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Incomplete table.
        y : None
            Ignored.
        groups, sample_weight, bounds, where
            As in `fit` and `transform`.

        Returns
        -------
        X_completed : array or frame of shape (n_samples, n_features_out)
            The completed table, see `transform`.
        """
        known = {"sample_weight": sample_weight, "bounds": bounds}
        self.fit(X, y, groups=groups, **known)
        groups = groups if self.group_effects else None
        return self.transform(X, where=where, bounds=bounds, groups=groups)

    def _fit(
        self, X, groups=None, sample_weight=None, bounds=None, task=None, shards_of=None
    ):
        """Fit; see `fit`, which has this done to a copy of the imputer.

        ``shards_of`` makes the shards of a `FitContext` from the codec of the table.
        """
        started = time.monotonic()
        start = getattr(self, "model_", None) if self.warm_start else None
        X = check_table(self, X, reset=start is None)
        self.device_ = resolve_device(self.device)
        seeds = draw_seeds(check_random_state(self.random_state), 2)
        training_seed, self._sampling_seed = seeds
        if groups is not None:
            groups = check_groups(groups, X.shape[0])
        weight, every, used = None, X, slice(None)
        if sample_weight is not None:
            rows, options = np.empty(X.shape[0]), {"ensure_non_negative": True}
            weight = _check_sample_weight(sample_weight, rows, dtype=float, **options)
            used = weight > 0  # the other rows are left out
            X, groups, weight = rows_by_weight(X, groups, weight)
        categorical, modalities = self._resolve_columns(X)
        cells = self._fit_codec(X, categorical, weight, start)
        rules = self._rules(X)  # fails early
        ends = ends_of(self._bounds(X), self._codec.scaling_)
        limits = self._limits(every, cells, bounds, used)[1]
        rows = Rows(cells.values, cells.observed, weight, limits)
        if limits is not None:
            n_levels = self._codec.n_levels_[self._codec.scaling_.kept_]
            rows = draw_limited(rows, n_levels, training_seed)
            drawn = self._codec.learn_drawn(cells, rows, self.keep_whole_numbers)
            rows = replace(rows, values=drawn)
        rows = self._fit_groups(cells, rows, groups, start)
        self._codec.reach(ends)
        check_derived(rules, cells.numbers, ~cells.missing)
        self._constraints(rules).learn(cells)
        self.indicator_ = None
        if self.add_indicator:
            self.indicator_ = MissingIndicator(error_on_new=False)
            self.indicator_.fit(np.where(cells.missing, np.nan, 0.0))
        kept, n_beside = self._codec.scaling_.kept_, rows.values.shape[1]
        n_beside -= len(kept)
        own = self._codec.scaling_.standardised(ends[None])[0]
        context = FitContext(
            plan=TrainingPlan.of(self, cells.values.shape, started, task),
            device=self.device_,
            seed=training_seed,
            size=self.model_size,
            groups=groups,
            n_bootstraps=self.n_bootstraps,
            self_masking=self.self_masking,
            settings=self._settings,
            ends=padded(own, n_beside, np.nan),
            ordered=padded(self._codec.is_ordered_[kept], n_beside),
            shards=None if shards_of is None else shards_of(self._codec),
        )
        self._fit_model(rows, modalities, context, start)

    def _resolve_columns(self, X):
        """Which columns are named as categorical, (d,), and those of modalities."""
        names = _check_feature_names_in(self, generate_names=True)
        categorical = np.zeros(self.n_features_in_, dtype=bool)
        if not isinstance(self.categorical_features, str):
            categorical = select_columns(
                self.categorical_features, X, names, "categorical_features"
            )
        self._resolved = {"categorical_features": np.flatnonzero(categorical).tolist()}
        modalities = {}
        if self.modalities is not None:
            modalities = resolve_modalities(self.modalities, X, names)
            own = {k: np.asarray(modalities[k]).tolist() for k in self.modalities}
            self._resolved["modalities"] = own
        return categorical, modalities

    def _fit_codec(self, X, categorical, weight, start):
        """Learn what columns hold, unless a model to start from knows it: the cells."""
        names = _check_feature_names_in(self, generate_names=True)
        if start is None:
            self._codec = TableCodec(self.missing_values)
            cells = self._codec.fit(X, names, categorical, weight)
        else:
            # A copy: a fit that fails leaves the imputer as it was.
            open_ends = np.full((self.n_features_in_, 2), np.nan)
            self._codec = self._codec.reaching(open_ends)
            cells = self._codec.read(X)
        self.categories_ = self._codec.categories()
        empty = names[self._codec.scaling_.empty_]
        warn_of_empty_columns(empty, self.keep_empty_features)
        return cells

    def _fit_model(self, rows, modalities, context, start):
        """Fit the model, where any column has a value, and what is reported of it."""
        self.model_, history, kept = None, [], self._codec.scaling_.kept_
        n_beside = rows.values.shape[1] - len(kept)
        if len(kept):
            shared = shared_positions(modalities, kept)
            self.model_, history = fit_model(
                rows,
                padded(self._codec.n_levels_[kept], n_beside),
                shared,
                context,
                encoders=given_encoders(self.encoders, modalities, shared, self._codec),
                start=start,
            )
        self.history_, self.n_epochs_ = summarise_history(history)
        report = Report() if self.model_ is None else self.model_.report()
        self.dependence_ = report.dependence
        self.self_masking_ = np.zeros(self.n_features_in_)
        own = np.broadcast_to(report.self_masking, rows.values.shape[1])
        self.self_masking_[kept] = own[: len(kept)]
        self.gaps_ = np.full((self.n_features_in_, 2), np.nan)
        own = np.broadcast_to(report.gaps, (rows.values.shape[1], 2))[: len(kept)]
        self.gaps_[kept] = self._codec.scaling_.in_own_units(own)

    def _fit_groups(self, cells, rows, groups, start):
        """Learn the effects of groups: the rows, with these beside them."""
        means = getattr(self, "_group_means", None) if start is not None else None
        if start is not None and (means is not None) != self.group_effects:
            raise ValueError("group_effects cannot be changed with warm_start.")
        self._group_means = means
        if not self.group_effects:
            return rows
        if groups is None:
            raise ValueError("group_effects=True needs groups: fit(X, groups=...).")
        codes = np.unique(groups, return_inverse=True)[1]
        n_levels = self._codec.n_levels_[self._codec.scaling_.kept_]
        own = rows.values, rows.observed
        if means is None:
            self._group_means = GroupMeans.fit(*own, n_levels, codes, rows.weight)
        beside = self._group_means(*own, codes)
        cells = replace(cells, values=own[0], observed=own[1], beside=beside)
        return rows_of(cells, weight=rows.weight)

    def _read(self, X, groups):
        """Cells of a table, and its groups' effects beside them."""
        cells = self._codec.read(X)
        means = getattr(self, "_group_means", None)
        if means is None:
            return cells
        if groups is None:
            raise ValueError(
                "This imputer was fitted with group_effects: the rows to complete need "
                "groups, too."
            )
        groups = check_groups(groups, X.shape[0])
        codes = np.unique(groups, return_inverse=True)[1]
        return replace(cells, beside=means(cells.values, cells.observed, codes))

    def _query(self, X, where=None, bounds=None, groups=None):
        """Check and read what is to be completed: a `Query`."""
        X = check_table(self, X, reset=False)
        stays = self._stays(X, where)
        cells = self._read(X, groups)
        limits, own = self._limits(X, cells, bounds)
        return Query(X, cells, stays, limits, rows_of(cells, own))

    def transform(
        self,
        X: Table,
        where: ArrayLike | None = None,
        bounds: CellBounds | None = None,
        groups: ArrayLike | None = None,
    ) -> ArrayOrFrame:
        """Complete the missing cells of X; observed cells stay as they are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with any pattern of missing values, which `fit` need not have seen.
        where : array-like of bool, of shape (n_samples, n_features), optional
            Cells to complete; other missing cells stay missing, such as the income of
            the dead. By default all are completed.
        bounds : tuple or dict, optional
            Limits between which single missing cells are known to lie, as in `fit`,
            which need not have had any. Their distribution given the rest of the row
            is cut to its limits, and what is known of them informs the other missing
            cells of the row. Cells of blocks (see Notes of the class) are moved to the
            nearer limit instead.
        groups : array-like of shape (n_samples,), optional
            Group of each row, with ``group_effects``. A group's rows inform each other
            if they are completed in one call.

        Returns
        -------
        X_completed : array or frame of shape (n_samples, n_features_out)
            The completed table. It is an array, of the dtype of X if X is an array
            whose dtype can hold the completed values; otherwise of floats, or of
            objects if X is mixed or has Decimals or whole numbers beyond 2**53. After
            ``set_output`` it is a frame, whose columns have the dtypes of the columns
            of X. Columns that were empty in `fit` are left out unless
            ``keep_empty_features``; the columns of the indicator come last.
        """
        container = _get_output_config("transform", self)["dense"]
        return self._transform(X, container, None, where, bounds, groups)

    def _transform(
        self, X, container="native", seed=None, where=None, bounds=None, groups=None
    ):
        """Complete X in the ``container`` of `_decode`; ``seed`` as in `row_keys`."""
        check_is_fitted(self)
        # The parameters that a fitted imputer reads; all of them take half of a
        # millisecond.
        names = ("strategy", "keep_whole_numbers", "keep_empty_features")
        validate_parameter_constraints(
            {name: self._parameter_constraints[name] for name in names},
            {name: getattr(self, name) for name in names},
            caller_name=type(self).__name__,
        )
        query = self._query(X, where, bounds, groups)
        agree = "means"
        if self.strategy == "sample":
            seed = self._sampling_seed if seed is None else seed
            values, agree = self._draw(query, 1, seed)[0], "draws"
        else:
            statistic = {"mean": "mean", "median": 0.5}[self.strategy]
            values = self._summarise(query, [statistic])[0]
        return self._decode(query, values, container, agree)

    @overload
    def sample(
        self,
        X: FrameT,
        n_draws: int = ...,
        random_state: RandomState = ...,
        where: ArrayLike | None = ...,
        bounds: CellBounds | None = ...,
        delta: Mapping[Any, Any] | None = ...,
        groups: ArrayLike | None = ...,
    ) -> list[FrameT]: ...

    @overload
    def sample(
        self,
        X: ArrayLike,
        n_draws: int = ...,
        random_state: RandomState = ...,
        where: ArrayLike | None = ...,
        bounds: CellBounds | None = ...,
        delta: Mapping[Any, Any] | None = ...,
        groups: ArrayLike | None = ...,
    ) -> np.ndarray: ...

    def sample(
        self,
        X: Table,
        n_draws: int = 5,
        random_state: RandomState = None,
        where: ArrayLike | None = None,
        bounds: CellBounds | None = None,
        delta: Mapping[Any, Any] | None = None,
        groups: ArrayLike | None = None,
    ) -> Any:
        """Joint draws of the missing cells of X from their posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with any pattern of missing values.
        n_draws : int, default=5
            Number of completed tables.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. None takes the seed drawn in `fit`, so that repeated
            calls agree.
        where : array-like of bool, of shape (n_samples, n_features), optional
            Cells to draw, as in `transform`.
        bounds : tuple or dict, optional
            Limits of single missing cells, as in `transform`.
        delta : dict, optional
            How missing cells depart from missing at random, by column: standard
            deviations that are added to their draws, as in ``{"income": 0.5}``; in a
            column of levels ``{level: log-odds}``, or for two levels what is added to
            the log-odds of the second. Arrays of shape (n_samples,) state it by row.
            The other missing cells of the row follow. Draws may leave the observed
            range so, but not ``bounds``; cells with limits of their own stay.
        groups : array-like of shape (n_samples,), optional
            Group of each row, as in `transform`.

        Returns
        -------
        draws : ndarray of shape (n_draws, n_samples, n_features_out) or list
            The completed tables; for a data frame, a list of ``n_draws`` data frames.
            The draws of a row depend on the row and the seed, not on the other rows of
            X. Equal rows have different draws.

        Raises
        ------
        ValueError
            If ``n_draws`` is not a positive int.
        """
        check_is_fitted(self)
        self._validate_params()
        if not isinstance(n_draws, Integral) or n_draws < 1:
            raise ValueError(f"n_draws must be an int of at least 1, got {n_draws!r}.")
        seed = self._seed_of(random_state)
        return self._sample(X, n_draws, seed, where, bounds, delta, groups)

    def _seed_of(self, random_state):
        """Seed of draws, an int."""
        if random_state is None:
            return self._sampling_seed
        return draw_seeds(check_random_state(random_state), 1)[0]

    def _sample(
        self, X, n_draws, seed, where=None, bounds=None, delta=None, groups=None
    ):
        """Draw; ``seed`` is one of all rows or of each, as in `row_keys`."""
        query, moved = self._query(X, where, bounds, groups), {}
        if delta is not None:
            names = _check_feature_names_in(self, generate_names=True)
            moved = resolve_delta(delta, query.X, names, self.categories_)
        drawn = self._draw(query, n_draws, seed, moved)
        draft = self
        if moved:  # of which draws may leave the observed ranges
            draft = copy.copy(self)
            draft._codec = self._codec.reaching(self._ends_moved(query.X, moved))
        return draft._decode_all(query, drawn, "draws")

    @overload
    def predict_quantiles(
        self,
        X: FrameT,
        quantiles: Sequence[float] | np.ndarray = ...,
        where: ArrayLike | None = ...,
        bounds: CellBounds | None = ...,
        groups: ArrayLike | None = ...,
    ) -> list[FrameT]: ...

    @overload
    def predict_quantiles(
        self,
        X: ArrayLike,
        quantiles: Sequence[float] | np.ndarray = ...,
        where: ArrayLike | None = ...,
        bounds: CellBounds | None = ...,
        groups: ArrayLike | None = ...,
    ) -> np.ndarray: ...

    def predict_quantiles(
        self,
        X: Table,
        quantiles: Sequence[float] | np.ndarray = (0.05, 0.5, 0.95),
        where: ArrayLike | None = None,
        bounds: CellBounds | None = None,
        groups: ArrayLike | None = None,
    ) -> Any:
        """Quantiles of the missing cells of X, of each cell by itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with any pattern of missing values.
        quantiles : sequence of float, default=(0.05, 0.5, 0.95)
            Probabilities of the quantiles, strictly between 0 and 1.
        where : array-like of bool, of shape (n_samples, n_features), optional
            Cells to complete, as in `transform`.
        bounds : tuple or dict, optional
            Limits of single missing cells, as in `transform`.
        groups : array-like of shape (n_samples,), optional
            Group of each row, as in `transform`.

        Returns
        -------
        values : ndarray of shape (n_quantiles, n_samples, n_features_out) or list
            The tables completed by each quantile; for a data frame, a list of
            ``n_quantiles`` data frames. Observed cells are their own quantiles;
            categorical cells have the most probable level, or that of the quantile
            where levels have an order (an ordered categorical of pandas, an Enum of
            polars).

        Raises
        ------
        ValueError
            If a probability is not strictly between 0 and 1.
        """
        check_is_fitted(self)
        probabilities = check_quantiles(quantiles)
        query = self._query(X, where, bounds, groups)
        return self._decode_all(query, self._summarise(query, probabilities), None)

    @available_if(_has_categories)
    def predict_proba(
        self, X: Table, column: str | int, groups: ArrayLike | None = None
    ) -> np.ndarray:
        """Probabilities of the levels of a categorical column.

        The method exists only after a `fit` to a table with a categorical column.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with any pattern of missing values.
        column : str or int
            Name or index of the column.
        groups : array-like of shape (n_samples,), optional
            Group of each row, as in `transform`.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_categories)
            Probabilities in the order of ``categories_[column]``. An observed level has
            probability 1. Where the cell is missing, or holds a level that did not
            occur in `fit`, the probabilities follow from the other cells of the row.

        Raises
        ------
        ValueError
            If there is no such column, or the column is not categorical.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, generate_names=True)
        X = check_table(self, X, reset=False)
        (j,) = np.flatnonzero(select_columns([column], X, names, "column"))
        if self.categories_[j] is None:
            raise ValueError(f"Column {column!r} is not categorical.")
        cells = self._read(X, groups)
        k = int(np.searchsorted(self._codec.scaling_.kept_, j))
        proba = self.model_.probabilities(rows_of(cells), k)
        numbers, known = self._codec.determined(cells)
        category_column = self._codec.columns_.columns_[j]
        return category_column.probabilities(proba, numbers[:, k], known[:, k])

    def attention(self, X: Table, groups: ArrayLike | None = None) -> pd.DataFrame:
        """Attention between the modalities while the missing modalities of X are drawn.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in which modalities may be missing.
        groups : array-like of shape (n_samples,), optional
            Group of each row, as in `transform`.

        Returns
        -------
        weights : DataFrame of shape (n_modalities, n_modalities)
            Mean attention weights over rows, heads and layers. A row holds the weights
            with which its modality attends to each modality, and sums to one. Columns
            outside the blocks are called ``"other columns"``. The regression of the
            anchor does not use attention: its counterpart is ``dependence_``.

        Raises
        ------
        AttributeError
            If no modality is a block.
        """
        check_is_fitted(self)
        if self.dependence_ is None:
            raise AttributeError("No modality is a block.")
        cells = self._read(check_table(self, X, reset=False), groups)
        return self.model_.attention(rows_of(cells))

    def get_feature_names_out(
        self, input_features: ArrayLike | None = None
    ) -> np.ndarray:
        """Names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the input columns. None takes the names seen in `fit`, or x0, x1,
            ..., if there were none.

        Returns
        -------
        feature_names_out : ndarray of str objects
            Names of the output columns. Where another column already has the name of an
            indicator, the indicator's name ends in ``_2``, ``_3``.
        """
        check_is_fitted(self, "n_features_in_")
        names_in = _check_feature_names_in(self, input_features)
        names = names_in[self._columns_out()]
        if self.indicator_ is None:
            return names
        flags = self.indicator_.get_feature_names_out(names_in)
        return with_distinct(names, flags)

    @property
    def memory_usage_(self) -> pd.DataFrame:
        """Bytes of the fitted model, and how many training rows it holds.

        One line for each part: ``bytes`` of its arrays, and ``rows``. A pickle or a
        file holds them; see `save` for how to leave the rows out.
        """
        check_is_fitted(self)
        found = {} if self.model_ is None else self.model_.memory()
        frame = pd.DataFrame.from_dict(found, orient="index", columns=["bytes", "rows"])
        return frame.astype(np.int64)

    def _columns_out(self):
        if self.keep_empty_features:
            return np.arange(self.n_features_in_)
        return self._codec.scaling_.kept_

    def _summarise(self, query, statistics):
        values = query.cells.values
        if self.model_ is None:
            return np.repeat(values[None], len(statistics), axis=0)
        return self.model_.summarise(query.rows, statistics)[..., : values.shape[1]]

    def _bounds(self, X):
        """Bounds of columns, (d, 2): infinite where open, NaN without any."""
        if not self.bounds:
            return np.full((self.n_features_in_, 2), np.nan)
        names = _check_feature_names_in(self, generate_names=True)
        return resolve_bounds(self.bounds, X, names, self._codec)

    def _within_bounds(self, X, ends):
        """Cut ends of columns, (d, 2), to the columns' bounds; NaN stays."""
        low, high = self._bounds(X).T
        within = np.fmax(ends[:, 0], low), np.fmin(ends[:, 1], high)
        return np.where(np.isnan(ends), np.nan, np.stack(within, -1))

    def _ends_moved(self, X, delta):
        """Find the ends of columns whose draws are moved, (d, 2), NaN elsewhere."""
        scaling = self._codec.scaling_
        ends = np.full((self.n_features_in_, 2), np.nan)
        for k, j in enumerate(scaling.kept_):
            if j in delta and delta[j].ndim == 1:
                far = np.array([min(0.0, delta[j].min()), max(0.0, delta[j].max())])
                ends[j] = far * scaling.scale_[k] + [scaling.low_[k], scaling.high_[k]]
        return self._within_bounds(X, ends)

    def _ends_limited(self, query, values):
        """Find the ends of columns with limited cells, (d, 2), NaN elsewhere.

        Where a limit is open, a completion may lie beyond the observed range.
        """
        scaling = self._codec.scaling_
        ends, limited = widest(query.limits), np.isfinite(query.limits).any(-1)
        limited = limited[:, scaling.kept_] & ~query.cells.observed
        own = values * scaling.scale_ + scaling.mean_
        some = limited.any(0)
        kept = scaling.kept_[some]
        low = np.where(limited, own, np.inf).min(0)[some]
        high = np.where(limited, own, -np.inf).max(0)[some]
        ends[kept, 0] = np.fmin(ends[kept, 0], low)
        ends[kept, 1] = np.fmax(ends[kept, 1], high)
        return self._within_bounds(query.X, ends)

    def _draw(self, query, n_draws, seed, delta=None):
        cells = query.cells
        if self.model_ is None:
            return np.repeat(cells.values[None], n_draws, axis=0)
        kept = self._codec.scaling_.kept_.tolist()
        moved = {kept.index(j): a for j, a in (delta or {}).items() if j in kept}
        drawn = self.model_.draw(query.rows, n_draws, self.n_steps, seed, moved)
        drawn = drawn[..., : cells.values.shape[1]]
        if not self.constraints:
            return drawn
        constraints = self._constraints()
        if n_groups := len(constraints.groups):
            keys = row_keys(cells.values, cells.observed, seed)
            noise = (
                row_uniforms(keys, n_groups, _GROUP_STREAM + k) for k in range(n_draws)
            )
            chance = constraints.chances(self.model_, rows_of(cells))
            constraints.choose_in_draws(drawn, cells, chance, noise)
        return drawn

    def _limits(self, X, cells, bounds, rows=slice(None)):
        """Limits of missing cells: (n, d, 2) in units, (n, n_kept, 2) standardised.

        Twice None where no missing cell has any. The cells are those of ``rows`` of X.
        """
        if bounds is None:
            return None, None
        names = _check_feature_names_in(self, generate_names=True)
        limits = cell_limits(bounds, X, names, self._codec)[rows]
        limits[~cells.missing] = -np.inf, np.inf
        if self.bounds:
            limits = intersected(limits, self._bounds(X), names)
        if not np.isfinite(limits).any():
            return None, None
        own = self._codec.scaling_.standardised(limits)
        return limits, np.where(np.isfinite(own), own.clip(-1e6, 1e6), own)

    def _rules(self, X):
        """List the `Derived` columns."""
        names = _check_feature_names_in(self, generate_names=True)
        return resolve_derived(self.derived or {}, X, names, self._codec.n_levels_)

    def _constraints(self, derived=()):
        """`Constraints` of the columns; none may be among the ``derived`` ones."""
        names = _check_feature_names_in(self, generate_names=True)
        targets = [rule.target for rule in derived]
        return Constraints(self.constraints or (), names, self._codec, targets)

    def _stays(self, X, where):
        """Cells that are not to be completed, bool (n, d), or None."""
        stays = None
        if not isinstance(self.impute_features, str):
            names = _check_feature_names_in(self, generate_names=True)
            chosen = select_columns(self.impute_features, X, names, "impute_features")
            stays = np.broadcast_to(~chosen, X.shape)
        if where is None:
            return stays
        where = np.asarray(where)
        if where.shape != tuple(X.shape) or where.dtype != bool:
            raise ValueError(
                f"where must be an array of bool of shape {tuple(X.shape)}; got "
                f"{where.dtype} of shape {where.shape}."
            )
        return ~where if stays is None else stays | ~where

    def _decode_all(self, query, completions, agree):
        """Fill X by each of (k, n, n_kept) values: an array, or a list of frames."""
        container = "native" if is_frame(query.X) else "default"
        tables = [self._decode(query, each, container, agree) for each in completions]
        return tables if is_frame(query.X) else np.stack(tables)

    def _decode(self, query, values, container, agree):
        """Fill X: an array, or a frame in the ``container`` library.

        ``agree`` is what completions have to agree with: see `TableCodec.complete`.
        """
        X, cells, codec, limits = query.X, query.cells, self._codec, query.limits
        if limits is not None:
            codec = codec.reaching(self._ends_limited(query, values))
        numbers = codec.complete(cells, values, self.keep_whole_numbers, agree)
        if limits is not None:
            whole = np.zeros(cells.missing.shape[1], dtype=bool)
            keep_whole = codec.keeps_whole(self.keep_whole_numbers)
            whole[codec.scaling_.kept_] = codec.scaling_.is_whole(keep_whole)
            numbers = within_limits(numbers, cells.missing, limits, whole)
        if self.derived or self.constraints:
            numbers = self._relate(X, cells, numbers, agree).astype(numbers.dtype)
        flags = None
        if self.indicator_ is not None:
            flags = self.indicator_.transform(np.where(cells.missing, np.nan, 0.0))
        numbers, cells = query.with_what_stays(numbers)
        keep = self._columns_out()
        if container == "default" or not is_frame(X):
            completed = codec.to_array(X, cells, numbers, keep)
            return completed if flags is None else np.hstack([completed, flags])
        names = self.get_feature_names_out()
        return codec.to_frame(X, cells, numbers, keep, flags, names, container)

    def _relate(self, X, cells, numbers, agree):
        """Completed numbers that fulfil what is derived, and the constraints."""
        rules, scaling = self._rules(X), self._codec.scaling_
        low, high = np.zeros((2, numbers.shape[1]))
        low[scaling.kept_], high[scaling.kept_] = scaling.low_, scaling.high_
        numbers = numbers.astype(np.float64)
        recompute(rules, numbers, cells.missing, low, high)
        constraints = self._constraints(rules)
        if constraints:
            constraints.apply(
                numbers,
                cells,
                self.keep_whole_numbers,
                constraints.chances(self.model_, rows_of(cells)),
                joint=agree is not None,
                fractions=agree == "means" and self.strategy == "mean",
            )
            # Parts have moved: what is derived from them follows, none is solved for.
            targets = np.zeros_like(cells.missing)
            for rule in rules:
                targets[:, rule.target] = cells.missing[:, rule.target]
            recompute(rules, numbers, targets, low, high)
        return numbers

    def __getstate__(self):
        state = super().__getstate__()
        if "device_" in state:
            state["device_"] = str(state["device_"])
        return packed(state, self._learnt)

    def __setstate__(self, state):
        super().__setstate__(unpacked(state))
        if hasattr(self, "device_"):
            settle(self, self.device_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = accepts_null(self.missing_values)
        tags.input_tags.string = tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
