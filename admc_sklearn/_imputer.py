"""ADMCImputer: parameters, validation, pickling; the maths is elsewhere."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.impute import MissingIndicator
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ._combined.fit import fit_model
from ._combined.partition import given_encoders
from ._compat import (
    Interval,
    MissingValues,
    StrOptions,
    _check_feature_names_in,
    _fit_context,
    _get_output_config,
)
from ._pickling import VersionedPickle
from ._shared.contract import FitContext, Report, Rows
from ._shared.devices import resolve_device
from ._shared.noise import draw_seeds
from ._shared.training import TrainingPlan, summarise_history
from ._table.codec import TableCodec
from ._table.column_selection import resolve_modalities, shared_places
from ._table.containers import is_frame
from ._table.missing_markers import accepts_null
from ._table.validation import (
    all_or_nothing,
    check_quantiles,
    check_table,
    select_columns,
    warn_of_empty_columns,
    with_distinct,
)

_COUNT = Interval(Integral, 1, None, closed="left")


def _has_categories(imputer):
    """Whether a fitted imputer has a categorical column: AttributeError if not."""
    return any(levels is not None for levels in getattr(imputer, "categories_", ()))


def _rows(cells):
    """Give the model's part of a table's cells."""
    return Rows(cells.values, cells.observed)


class ADMCImputer(VersionedPickle, TransformerMixin, BaseEstimator):
    """Complete missing values by an anchored, attention-based diffusion model.

    Tables may be mixed: numbers, whole numbers, truth values, categories, dates and
    durations. A Gaussian over all columns, fitted to the incomplete table by
    expectation-maximisation, anchors a network with attention between columns. The
    network is trained as a masked diffusion model: it predicts hidden cells from the
    cells that are left, for every pattern at once, and starts out as the Gaussian. One
    fitted model completes unseen rows with any pattern of missing values.

    Parameters
    ----------
    modalities : dict or None, default=None
        Names of modalities and their columns, as names, indices, slices, masks or a
        `make_column_selector`; columns left out are modalities of their own, as all
        are for None. A modality of numeric columns that is present or absent as a
        whole in most rows is completed as a block: see Notes.

    encoders : dict or None, default=None
        Transformers with ``inverse_transform`` by the names of modalities, in the place
        of principal components: what is completed are their latents. One that is not
        fitted is cloned, and the clone fitted to the rows in which its modality is
        complete, in the columns' own units. A fitted one is used as it is; but
        :func:`sklearn.base.clone`, hence every cross-validation, takes away what it
        learnt, and then it is fitted anew. `sklearn.frozen.FrozenEstimator` around it
        prevents that. What is passed is not changed.

    strategy : {"mean", "median", "sample"}, default="mean"
        What a missing cell becomes: the mean of its posterior (lowest squared error),
        its median (lowest absolute error), both by one network call, or one joint draw
        of all the row's missing cells. Categorical cells become the most probable
        level, or the draw; whole numbers (see `keep_whole_numbers`) and dates are
        rounded. May be changed on a fitted imputer.

    n_steps : int, default=8
        Rounds in which a draw reveals a row's missing cells. One round ignores how
        they depend on each other; as many rounds as missing cells is exact. May be
        changed on a fitted imputer.

    n_bootstraps : int, default=0
        Draws take turns with so many versions of the anchor, fitted to resampled rows:
        proper multiple imputation, for estimates that are pooled by
        :func:`~admc_sklearn.pooling.pool_estimates`. 0 draws as if the model were
        known, which is too narrow for some hundred rows. Take about as many as draws.

    missing_values : float, int, str, np.nan, None, pandas.NA, list or dict, \
            default=np.nan
        The placeholder of missing values; several in a list, such as
        ``[-99, -88, "?"]``; by column in a dict, such as
        ``{"age": 0, "income": [-99, -88]}``, names or indices being its keys. In
        frames, arrays of objects and with a dict, ``np.nan``, ``None``, ``pandas.NA``
        and ``pandas.NaT`` are missing besides; an array of floats with NaN is refused
        where it is not listed. A number does not match text, nor 0 False.

    keep_whole_numbers : bool or "from_frame", default="from_frame"
        Whether a column of floats is completed by whole numbers, whatever the
        statistic, where `fit` saw three or more cells of it, all of them whole.
        ``"from_frame"`` does so where `fit` got a data frame, as frames hold integers
        with gaps as floats; True in arrays too; False never, which leaves the mean
        with its lower squared error. Columns of integers by dtype are always completed
        by whole numbers. May be changed on a fitted imputer.

    categorical_features : "from_dtype", array-like or callable, default="from_dtype"
        Which columns are categorical. By dtype: categories, enumerations, text, truth
        values, and columns of objects other than numbers and dates. Names, indices, a
        mask or a `make_column_selector` name columns that are categorical besides.

    self_masking : bool or "auto", default="auto"
        Whether a cell's own value may have decided that it is missing: its log-odds
        of being missing linear in it, or other for every level. Its distribution is
        tilted accordingly. ``"auto"`` does so where this tells who is missing better
        than the rows' observed cells do; True always does, False never. Rows completed
        are taken to lose cells as those of `fit` did, so that cells which are hidden
        at random to measure an imputer call for False. Not beside blocks.

    add_indicator : bool, default=False
        Append a :class:`~sklearn.impute.MissingIndicator` of the columns that had
        missing values in `fit`.

    keep_empty_features : bool, default=True
        Keep columns without a single observed value in `fit`, their missing cells
        filled with 0 (the epoch for dates, False, the first category of a categorical
        dtype, ``"missing_value"`` for text); otherwise drop them.

    max_epochs : int, default=60
        Passes over the training rows at most; 0 leaves the Gaussian alone. Fewer are
        made where the error of held-out cells falls by less than `tol`, see there:
        then the learning rate falls to zero in a fourth of the epochs made so far.

    max_time : float, default=None
        Seconds after which `fit` stops with the best weights so far, all that it does
        included, within 20 % or two seconds, whichever is more; the learning rate is
        brought down in time. Of the time half at most is for the choice of coordinates
        and the Gaussian, and 15 % of what they leave are for what follows the epochs.
        What there is no time for is left out: warps, epochs, the memory, similar rows,
        self-masking, curved features of modalities. Reading the table and one pass
        of each Gaussian are never cut short: of a table of many millions of cells they
        may take longer.

    batch_size : int or "auto", default="auto"
        Rows a training step at most: an epoch's rows are dealt into as few batches of
        one size as hold them. ``"auto"`` takes 512 for up to 16 columns, 256 for 32 and
        more, and fewer for tables of less than sixteen times as many rows.

    learning_rate : float, default=2e-3
        Of AdamW, for batches of up to 256 rows; larger ones take it times the square
        root of ``batch_size / 256``. Level at first, brought down to zero at the end.

    validation_fraction : float, default=0.1
        Share of the rows held out of training, to decide when to stop; at most 10,000.

    n_iter_no_change : int, default=15
        Epochs without a better validation figure after which `fit` stops.

    tol : float, default=0.01
        The learning rate begins to fall, and training to end, once 125 steps (at least
        five epochs) lower the validation error by less than this share. 0 trains for
        all of ``max_epochs``: errors of a large table then fall by up to 4 %, in up to
        three times as long.

    model_size : {"auto", "small", "medium", "large"}, default="auto"
        Size of the network; ``"auto"`` chooses by the number of observed cells.

    device : str, default="auto"
        A torch device. ``"auto"`` takes CUDA, then MPS, then the CPU.

    warm_start : bool, default=False
        Whether `fit` goes on training the network that it finds, for ``max_epochs``
        more; columns, units, levels and atoms stay those of the first `fit`, the
        Gaussian is fitted anew. Rows held out are the same as long as the seed and
        the number of rows are.

    verbose : int, default=0
        1 shows a progress bar with the validation figure.

    random_state : int, RandomState instance or None, default=None
        Seeds training and draws. Repeated calls of a fitted imputer agree whatever
        it is.

    Attributes
    ----------
    history_ : pandas.DataFrame
        One row an epoch: ``epoch``, ``train_loss`` and ``valid_loss`` (nats a cell),
        ``valid_rmse`` (standardised units, cells hidden in held-out rows; categorical
        cells by their Brier score, 1 for the frequencies alone), ``seconds`` since
        training began. Epoch 0 is the Gaussian alone. Empty where there were
        too few cells to hold any out: then the Gaussian alone is used.

    n_epochs_ : int
        The epoch whose weights are kept: that with the lowest ``valid_rmse``.

    device_ : torch.device
        Where the network is.

    model_ : torch.nn.Module
        The fitted network.

    categories_ : list of `n_features_in_` arrays or None
        Levels of each categorical column that `fit` saw; None for other columns.

    self_masking_ : ndarray of shape (`n_features_in_`,)
        What a standard deviation of a column's value adds to the log-odds of a cell's
        being missing; of a categorical column the standard deviation of its levels'
        log-odds. 0 where self-masking is not taken into account.

    dependence_ : pandas.DataFrame or None
        For every modality that is completed as a block, the share of its variance (row)
        that each other one alone explains (column), in training rows that the model
        had not seen; NaN where it was not measured.

    indicator_ : MissingIndicator or None
        Fitted if ``add_indicator``.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of columns seen in `fit`, where all are strings.

    See Also
    --------
    sklearn.impute.KNNImputer : Means of the nearest rows.
    sklearn.impute.IterativeImputer : Round-robin regression of the columns.

    Notes
    -----
    A pickle holds the parameters, the network's weights, the columns' statistics and
    atoms (for columns with few distinct values, those values), and completed training
    rows, which are the landmarks of kernels: up to 800 rows of cells, and the latents
    of blocks in up to 1500. It opens on machines without the device it was made on, by
    the release of this package that made it, and with a warning by others of the same
    minor version; other releases refuse it in a sentence.

    Means of numbers come from the network and from a kernel ridge regression on the
    completed rest of the row (a Laplace kernel with landmarks, the kernel of a forest
    of random cuts [3]_), followed as far as held-out cells approve. Means, quantiles
    and draws are read from one distribution; blocks do without this regression.

    A cell that one other, observed cell determines exactly (the same quantity in
    other units, a copy, a ratio or a power, a level's code) is computed from it; its
    quantiles and draws are that value. Beyond the range observed it may lie where the
    relation held in 100 rows or more.

    A modality is a block if it has at least five columns, all of numbers, and at most
    a fifth of the rows that hold it hold but a part of it, or if it has an encoder.
    Blocks are completed in their encoders' latents (principal components of 99.95 % of
    the variance): by regression on curved features of the modalities that are there,
    corrected by attention between modalities, and drawn by a Gaussian diffusion in
    ``n_steps`` calls. Their posterior is taken for normal, so that their median is
    their mean. ``n_bootstraps`` and ``validation_fraction`` concern cells alone. The
    columns of other modalities are cells, which training hides together at times.

    Rounds of a draw (``n_steps``) against how well gradient boosting tells completed
    rows from complete ones (AUC, 0.5 where it cannot; 30 % missing, unseen rows, one
    CPU thread): 0.521, 0.525, 0.515, 0.509, 0.509, 0.509 on magic and 0.561, 0.540,
    0.519, 0.521, 0.521, 0.521 on california for 1, 2, 4, 8, 16, 32 rounds, in 0.16,
    0.25, 0.4, 0.8, 0.9, 0.9 s a draw of 6000 rows. Cells are revealed in random order;
    other orders made no difference.

    On a CPU the same seed gives the same imputer, with any number of threads, except
    under ``max_time``, where the speed of the machine decides how much is learnt.

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

    def __init__(
        self,
        *,
        modalities=None,
        encoders=None,
        strategy="mean",
        n_steps=8,
        n_bootstraps=0,
        missing_values=np.nan,
        keep_whole_numbers="from_frame",
        categorical_features="from_dtype",
        self_masking="auto",
        add_indicator=False,
        keep_empty_features=True,
        max_epochs=60,
        max_time=None,
        batch_size="auto",
        learning_rate=2e-3,
        validation_fraction=0.1,
        n_iter_no_change=15,
        tol=0.01,
        model_size="auto",
        device="auto",
        warm_start=False,
        verbose=0,
        random_state=None,
    ):
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
    def fit(self, X, y=None, *, groups=None):
        """Fit the imputer to an incomplete table.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            A pandas or polars frame, or an array; missing where it is
            ``missing_values``, and where an array is masked.
        y : None
            Ignored.
        groups : array-like of shape (n_samples,), optional
            Rows of one group, the utterances of one video for example, are held out
            together, where rows of unseen groups are what is to be completed.

        Returns
        -------
        self : ADMCImputer

        Notes
        -----
        A fit that ends in an exception leaves the imputer as it was: not fitted, or
        with all of an earlier fit. Ctrl-C in the epochs ends training, with a warning:
        the best weights so far are kept, and what follows is cut short. At any other
        moment, and when it comes again within ten seconds, it is an exception. So
        one Ctrl-C in a grid search ends the fit that is running, two end the search.
        """
        with all_or_nothing(self) as draft:
            draft._fit(X, groups)
        return self

    def _fit(self, X, groups):
        """Fit; see `fit`, which has this done to a copy of the imputer."""
        started = time.monotonic()
        start = getattr(self, "model_", None) if self.warm_start else None
        X = check_table(self, X, reset=start is None)
        self.device_ = resolve_device(self.device)
        seeds = draw_seeds(check_random_state(self.random_state), 2)
        training_seed, self._sampling_seed = seeds
        names = _check_feature_names_in(self, generate_names=True)
        categorical = np.zeros(self.n_features_in_, dtype=bool)
        if not isinstance(self.categorical_features, str):
            categorical = select_columns(
                self.categorical_features, X, names, "categorical_features"
            )
        if groups is not None:
            groups = column_or_1d(groups)
            check_consistent_length(X, groups)
        modalities = {}
        if self.modalities is not None:
            modalities = resolve_modalities(self.modalities, X, names)
        if start is None:
            self._codec = TableCodec(self.missing_values)
            cells = self._codec.fit(X, names, categorical)
        else:
            cells = self._codec.read(X)
        self.categories_ = self._codec.categories()
        self.indicator_ = None
        if self.add_indicator:
            self.indicator_ = MissingIndicator(error_on_new=False)
            self.indicator_.fit(np.where(cells.missing, np.nan, 0.0))
        empty = names[self._codec.scaling_.empty_]
        warn_of_empty_columns(empty, self.keep_empty_features)
        self.model_, history = None, []
        kept = self._codec.scaling_.kept_
        shared = shared_places(modalities, kept)
        if len(kept):
            context = FitContext(
                plan=TrainingPlan.of(self, cells.values.shape, started),
                device=self.device_,
                seed=training_seed,
                size=self.model_size,
                groups=groups,
                n_bootstraps=self.n_bootstraps,
                self_masking=self.self_masking,
            )
            self.model_, history = fit_model(
                _rows(cells),
                self._codec.n_levels_[kept],
                shared,
                context,
                encoders=given_encoders(self.encoders, modalities, shared, self._codec),
                start=start,
            )
        self.history_, self.n_epochs_ = summarise_history(history)
        report = Report() if self.model_ is None else self.model_.report()
        self.dependence_ = report.dependence
        self.self_masking_ = np.zeros(self.n_features_in_)
        self.self_masking_[kept] = report.self_masking

    def transform(self, X):
        """Complete the missing cells of X; observed cells stay as they are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with any pattern of missing values, seen in `fit` or not.

        Returns
        -------
        X_completed : array or frame of shape (n_samples, n_features_out)
            An array: in the dtype of X where that is an array whose dtype holds what
            is completed; else of floats, or of objects where X is mixed or has
            Decimals or whole numbers beyond 2**53. After ``set_output`` a frame, whose
            columns have the dtypes of those of X. Columns empty in `fit` are missing
            from it if not ``keep_empty_features``; the indicator's columns come last.
        """
        check_is_fitted(self)
        self._validate_params()
        X = check_table(self, X, reset=False)
        cells = self._codec.read(X)
        agree = "means"
        if self.strategy == "sample":
            values, agree = self._draw(cells, 1, self._sampling_seed)[0], "draws"
        else:
            statistic = {"mean": "mean", "median": 0.5}[self.strategy]
            values = self._summarise(cells, [statistic])[0]
        container = _get_output_config("transform", self)["dense"]
        return self._decode(X, cells, values, container, agree)

    def sample(self, X, n_draws=5, random_state=None):
        """Joint draws of the missing cells of X from their posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        n_draws : int, default=5
        random_state : int, RandomState instance or None, default=None
            None takes the seed drawn in `fit`: repeated calls agree.

        Returns
        -------
        draws : ndarray of shape (n_draws, n_samples, n_features_out) or list
            For a data frame, a list of ``n_draws`` data frames. A row's draws depend
            on the row and the seed, not on the rows beside it; equal rows have
            draws of their own.
        """
        check_is_fitted(self)
        self._validate_params()
        if not isinstance(n_draws, Integral) or n_draws < 1:
            raise ValueError(f"n_draws must be an int of at least 1, got {n_draws!r}.")
        X = check_table(self, X, reset=False)
        seed = self._sampling_seed
        if random_state is not None:
            (seed,) = draw_seeds(check_random_state(random_state), 1)
        cells = self._codec.read(X)
        return self._decode_all(X, cells, self._draw(cells, n_draws, seed), "draws")

    def predict_quantiles(self, X, quantiles=(0.05, 0.5, 0.95)):
        """Quantiles of the missing cells of X, each cell by itself.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        quantiles : sequence of float, default=(0.05, 0.5, 0.95)
            Levels strictly between 0 and 1.

        Returns
        -------
        values : ndarray of shape (n_quantiles, n_samples, n_features_out) or list
            For a data frame, a list of ``n_quantiles`` data frames. Observed cells are
            their own quantiles; categorical cells have the most probable level.
        """
        check_is_fitted(self)
        levels = check_quantiles(quantiles)
        X = check_table(self, X, reset=False)
        cells = self._codec.read(X)
        return self._decode_all(X, cells, self._summarise(cells, levels))

    @available_if(_has_categories)
    def predict_proba(self, X, column):
        """Probabilities of the levels of a categorical column.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        column : str or int
            Name or index of the column.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_categories)
            In the order of ``categories_[column]``. A level that is observed has 1;
            where it was not there in `fit`, as where it is missing, the row's other
            cells decide.

        Raises
        ------
        ValueError
            If there is no such column, or it is not categorical. Before `fit`, and
            where no column is categorical, there is no such method.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, generate_names=True)
        X = check_table(self, X, reset=False)
        (j,) = np.flatnonzero(select_columns([column], X, names, "column"))
        if self.categories_[j] is None:
            raise ValueError(f"Column {column!r} is not categorical.")
        cells = self._codec.read(X)
        k = int(np.searchsorted(self._codec.scaling_.kept_, j))
        proba = self.model_.probabilities(_rows(cells), k)
        numbers, known = self._codec.determined(cells)
        column = self._codec.columns_.columns_[j]
        return column.probabilities(proba, numbers[:, k], known[:, k])

    def attention(self, X):
        """Attention of the modalities to each other while those missing in X are drawn.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        weights : DataFrame of shape (n_modalities, n_modalities)
            Mean over rows, heads and layers; a row sums to one and says what its
            modality attends to. The columns that are no block are ``"other columns"``.
            What the anchor knows does not pass through it: see ``dependence_``.

        Raises
        ------
        AttributeError
            If no modality is completed as a block.
        """
        check_is_fitted(self)
        if self.dependence_ is None:
            raise AttributeError("No modality is completed as a block.")
        cells = self._codec.read(check_table(self, X, reset=False))
        return self.model_.attention(_rows(cells))

    def get_feature_names_out(self, input_features=None):
        """Names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the input columns; those seen in `fit`, or x0, x1, ..., if None.

        Returns
        -------
        feature_names_out : ndarray of str objects
            An indicator's name that is taken by another column ends in ``_2``, ``_3``.
        """
        check_is_fitted(self, "n_features_in_")
        input_features = _check_feature_names_in(self, input_features)
        names = input_features[self._columns_out()]
        if self.indicator_ is None:
            return names
        flags = self.indicator_.get_feature_names_out(input_features)
        return with_distinct(names, flags)

    def _columns_out(self):
        if self.keep_empty_features:
            return np.arange(self.n_features_in_)
        return self._codec.scaling_.kept_

    def _summarise(self, cells, statistics):
        if self.model_ is None:
            return np.repeat(cells.values[None], len(statistics), axis=0)
        return self.model_.summarise(_rows(cells), statistics)

    def _draw(self, cells, n_draws, seed):
        if self.model_ is None:
            return np.repeat(cells.values[None], n_draws, axis=0)
        return self.model_.draw(_rows(cells), n_draws, self.n_steps, seed)

    def _decode_all(self, X, cells, completions, agree=None):
        """Fill X by each of (k, n, n_kept) values: an array, or a list of frames."""
        container = "native" if is_frame(X) else "default"
        tables = [
            self._decode(X, cells, values, container, agree) for values in completions
        ]
        return tables if is_frame(X) else np.stack(tables)

    def _decode(self, X, cells, values, container, agree):
        """Fill X: an array, or a frame in the ``container`` library."""
        numbers = self._codec.complete(cells, values, self.keep_whole_numbers, agree)
        flags = None
        if self.indicator_ is not None:
            flags = self.indicator_.transform(np.where(cells.missing, np.nan, 0.0))
        keep = self._columns_out()
        if container == "default" or not is_frame(X):
            completed = self._codec.to_array(X, cells, numbers, keep)
            return completed if flags is None else np.hstack([completed, flags])
        names = self.get_feature_names_out()
        return self._codec.to_frame(X, cells, numbers, keep, flags, names, container)

    def __getstate__(self):
        state = super().__getstate__()
        if state.get("model_") is not None:
            state["model_"] = copy.deepcopy(state["model_"]).move_to("cpu")
            state["device_"] = str(state["device_"])
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if getattr(self, "model_", None) is not None:
            try:
                self.device_ = resolve_device(self.device_)
            except ValueError:  # made on a device that this machine does not have
                self.device_ = resolve_device("cpu")
            self.model_.move_to(self.device_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = accepts_null(self.missing_values)
        tags.input_tags.string = tags.input_tags.categorical = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
