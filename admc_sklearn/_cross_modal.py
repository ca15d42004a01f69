"""CrossModalFeatures: the counterpart of every modality, generated from the others."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils.validation import check_is_fitted

from ._compat import Interval, _check_feature_names_in, _fit_context, _get_output_config
from ._imputer import ADMCImputer
from ._pickling import VersionedPickle
from ._storing import Stored
from ._table.column_selection import resolve_modalities
from ._table.containers import as_table, is_frame
from ._table.missing_markers import accepts_null, placeholder
from ._table.remove_cells import Table as CellTable
from ._table.types import ArrayOrFrame, Table
from ._table.validation import all_or_nothing


class CrossModalFeatures(Stored, VersionedPickle, TransformerMixin, BaseEstimator):
    """Append the counterpart of every modality, generated from the other modalities.

    A modality that is observed can gain from its generated counterpart as well. For
    each modality, the counterpart is generated from the other modalities alone and
    appended to the table. Missing cells are completed in the same step.

    Parameters
    ----------
    imputer : ADMCImputer
        The imputer that completes the table and generates the counterparts, one for
        each of its ``modalities``. If these are None, every column is a modality. The
        imputer is cloned and not changed.

    cv : int, default=5
        Number of parts into which `fit_transform` splits the training rows. The
        counterparts of one part come from an imputer fitted to the other parts, so that
        they are no closer to the truth than the counterparts of unseen rows, and do not
        mislead a model that is trained on them. 0 generates them by the imputer of all
        rows.

    Attributes
    ----------
    imputer_ : ADMCImputer
        The imputer, fitted to all rows.

    modalities_ : dict
        Columns of every modality, as int arrays.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns seen in `fit`, if all of them are strings.

    See Also
    --------
    ADMCImputer : Completes missing modalities.

    Notes
    -----
    As in `sklearn.preprocessing.TargetEncoder`, ``fit_transform(X)`` is not
    ``fit(X).transform(X)`` unless ``cv=0``. Pipelines use the former for training rows.

    References
    ----------
    .. [1] "ADMC: Attention-based Diffusion Model for Missing Modalities Feature
       Completion", 2025, arXiv:2507.05624, the full-modality gain.

    Examples
    --------
    >>> import numpy as np
    >>> from admc_sklearn import ADMCImputer, CrossModalFeatures
    >>> X = np.arange(30.0)[:, None] * [1.0, 2.0, 3.0]
    >>> features = CrossModalFeatures(ADMCImputer(random_state=0), cv=2)
    >>> features.fit_transform(X).shape
    (30, 6)
    """

    imputer_: ADMCImputer
    modalities_: dict[str, np.ndarray]
    n_features_in_: int
    feature_names_in_: np.ndarray

    _parameter_constraints = {  # noqa: RUF012
        "imputer": "no_validation",
        "cv": [Interval(Integral, 0, None, closed="left")],
    }

    _learnt = ("imputer_", "n_features_in_", "feature_names_in_", "modalities_")
    _estimators = (ADMCImputer,)

    def __init__(self, imputer: ADMCImputer, *, cv: int = 5) -> None:
        self.imputer = imputer
        self.cv = cv

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self, X: Table, y: Any = None, *, groups: ArrayLike | None = None
    ) -> CrossModalFeatures:
        """Fit the imputer to all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Table with missing cells, as in `ADMCImputer.fit`.
        y : None
            Ignored.
        groups : array-like of shape (n_samples,), optional
            Group of each row. Rows of one group are held out together.

        Returns
        -------
        self : CrossModalFeatures
            The fitted transformer.

        Notes
        -----
        A fit that ends in an exception leaves the estimator as it was, as
        `ADMCImputer.fit` does.
        """
        with all_or_nothing(self) as draft:
            draft._fit(X, groups)
        return self

    def _fit(self, X, groups):
        X = as_table(X)
        self.imputer_ = self._fitted(X, groups)
        self.n_features_in_ = self.imputer_.n_features_in_
        if hasattr(self.imputer_, "feature_names_in_"):
            self.feature_names_in_ = self.imputer_.feature_names_in_
        names = _check_feature_names_in(self.imputer_, generate_names=True)
        self.modalities_ = resolve_modalities(self.imputer.modalities, X, names)

    def _fitted(self, X, groups=None):
        imputer = clone(self.imputer)
        if not imputer.keep_empty_features or imputer.add_indicator:
            imputer.set_params(keep_empty_features=True, add_indicator=False)
        return imputer.fit(X, groups=groups)

    @_fit_context(prefer_skip_nested_validation=False)
    def fit_transform(
        self, X: Table, y: Any = None, *, groups: ArrayLike | None = None
    ) -> ArrayOrFrame:
        """Fit to X, and generate its counterparts by cross-validation.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Table with missing cells, as in `ADMCImputer.fit`.
        y : None
            Ignored.
        groups : array-like of shape (n_samples,), optional
            Group of each row. Rows of one group are in one part of the ``cv`` parts.

        Returns
        -------
        X_out : array or frame of shape (n_samples, 2 * n_features)
            The completed columns and their counterparts, in the form in which
            `transform` returns them.
        """
        with all_or_nothing(self) as draft:
            return draft._fit_transform(X, groups)

    def _fit_transform(self, X, groups):
        X = as_table(X)
        self._fit(X, groups)
        n = X.shape[0]
        n_folds = min(self.cv, n if groups is None else len(np.unique(groups)))
        if n_folds < 2:
            return self._generate(self.imputer_, X)
        seed = self.imputer.random_state
        splitter = GroupKFold(n_folds)
        if groups is None:
            seed = seed if isinstance(seed, int) else 0
            splitter = KFold(n_folds, shuffle=True, random_state=seed)
        parts, order = [], []
        for train, test in splitter.split(np.zeros(n), groups=groups):
            own = None if groups is None else np.asarray(groups)[train]
            imputer = self._fitted(_rows(X, train), own)
            parts.append(self._generate(imputer, _rows(X, test)))
            order.append(test)
        back = np.argsort(np.concatenate(order))
        if isinstance(parts[0], np.ndarray):
            return np.concatenate(parts)[back]
        return _rows(_stacked(parts), back)

    def transform(self, X: Table) -> ArrayOrFrame:
        """Complete X and append the counterparts of its modalities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with any pattern of missing values.

        Returns
        -------
        X_out : array or frame of shape (n_samples, 2 * n_features)
            The completed columns, and then the counterpart of each column, generated
            from the other modalities alone. It is a frame after ``set_output``.
        """
        check_is_fitted(self)
        X = as_table(X)
        return self._generate(self.imputer_, X)

    def _generate(self, imputer, X):
        container = _get_output_config("transform", self)["dense"]
        imputer.set_output(transform=container)
        completed = imputer.transform(X)
        # Counterparts are features: to round them would only take from them.
        counterpart = object.__new__(type(imputer))  # shares all that was learnt
        vars(counterpart).update(vars(imputer), keep_whole_numbers=False)
        generated = [None] * completed.shape[1]
        for columns in self.modalities_.values():
            lacking = _lacking(X, columns, imputer.missing_values)
            found = counterpart.transform(lacking)
            for j in columns:
                generated[j] = _column(found, j)
        if isinstance(completed, np.ndarray):
            return np.hstack([completed, np.column_stack(generated)])
        names = self.get_feature_names_out()[len(generated) :]
        if isinstance(completed, pd.DataFrame):
            generated = pd.concat(generated, axis=1).set_axis(names, axis=1)
            return pd.concat([completed, generated], axis=1)
        return completed.hstack(
            [column.rename(name) for column, name in zip(generated, names, strict=True)]
        )

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
            Names of the columns, followed by ``gen_<column>`` for each column.
        """
        check_is_fitted(self)
        names = self.imputer_.get_feature_names_out(input_features)
        return np.concatenate([names, np.array([f"gen_{n}" for n in names], object)])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def _lacking(X, columns, missing_values):
    """Copy of X without any cell of the given columns."""
    removed = np.zeros(X.shape, dtype=bool)
    removed[:, columns] = True
    without = CellTable(X).without(removed)
    if not is_frame(X) and not accepts_null(missing_values):
        without[removed] = placeholder(missing_values)
    return without


def _column(table, j):
    if isinstance(table, np.ndarray):
        return table[:, j]
    return table.iloc[:, j] if isinstance(table, pd.DataFrame) else table.to_series(j)


def _rows(X, rows):
    if isinstance(X, pd.DataFrame):
        return X.iloc[rows]
    return X[rows]


def _stacked(frames):
    if isinstance(frames[0], pd.DataFrame):
        return pd.concat(frames)
    out = frames[0]
    for frame in frames[1:]:
        out = out.vstack(frame)
    return out
