"""Tables and columns as users give them: checked, and named by position."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import column_or_1d
from sklearn.utils.validation import (
    FLOAT_DTYPES,
    check_array,
    check_is_fitted,
    validate_data,
)

from .._shared.caller_warnings import warn_caller
from .column_selection import find_columns
from .containers import as_table, is_frame, rows_of
from .missing_markers import accepts_null

# Weights, relative to their mean, whose logarithms and inverses stay finite.
LEAST_WEIGHT = 1e-30


@contextmanager
def all_or_nothing(estimator):
    """Copy of an estimator to fit, which the estimator becomes if nothing fails.

    An exception in between, Ctrl-C included, leaves the estimator as it was: not
    fitted, or with all of its earlier fit.
    """
    draft = object.__new__(type(estimator))
    draft.__dict__.update(estimator.__dict__)
    yield draft
    # All attributes change in one step, which an interrupt cannot divide.
    estimator.__dict__ = draft.__dict__


def check_table(estimator, X, reset):
    """Check X and the estimator's features: a frame, an array of floats or of objects.

    Parameters
    ----------
    estimator : BaseEstimator
        With a parameter ``missing_values``.
    X : array-like of shape (n_samples, n_features)
    reset : bool
        Whether the features are learnt or compared.

    Returns
    -------
    frame or ndarray
        The frame itself, a copy of an array of floats, or an array of whole numbers,
        dates, durations or objects. Masked cells are missing.
    """
    if isinstance(X, np.ma.MaskedArray) and not accepts_null(estimator.missing_values):
        X = X.astype(object)  # NaN would not be missing beside a marker
    X = as_table(X)
    if is_frame(X):
        if 0 in X.shape:
            kind = "sample" if X.shape[0] == 0 else "feature"
            raise ValueError(
                f"Found array with 0 {kind}(s) (shape={X.shape}) while a minimum of 1 "
                f"is required by {type(estimator).__name__}."
            )
        validate_data(estimator, X, skip_check_array=True, reset=reset)
        return X
    if getattr(getattr(X, "dtype", None), "kind", "f") in "iuOmM":
        X = check_array(X, dtype=None, ensure_all_finite=False, estimator=estimator)
        validate_data(estimator, X, skip_check_array=True, reset=reset)
        return X
    has_null = accepts_null(estimator.missing_values)
    try:
        return validate_data(
            estimator,
            X,
            dtype=FLOAT_DTYPES,
            ensure_all_finite="allow-nan" if has_null else True,
            copy=True,
            reset=reset,
        )
    except ValueError as error:
        if not has_null and "contains NaN" in str(error):
            raise ValueError(
                "Input X contains NaN, which is not among missing_values="
                f"{estimator.missing_values!r}: where NaN is missing too, give a list "
                "that has np.nan besides."
            ) from error
        if "contains infinity" not in str(error):
            raise
        columns = np.flatnonzero(np.isinf(X).any(axis=0))
        names = ", ".join(f"'x{j}'" for j in columns)
        raise ValueError(f"{error} It is in the columns {names}.") from error


def check_groups(groups, n_rows):
    """Labels of the groups of rows, an array (n,).

    Raises
    ------
    ValueError
        If there is not one for each row.
    """
    found = np.asarray(groups)
    if found.ndim == 0:
        raise ValueError(
            f"groups must hold one label for each of {n_rows} rows; got {groups!r}."
        )
    found = column_or_1d(groups)
    if len(found) != n_rows:
        raise ValueError(
            f"groups must hold one label for each of {n_rows} rows; got {len(found)}."
        )
    missing = int(pd.isna(found).sum())
    if missing:
        raise ValueError(f"groups: {missing} rows have none.")
    return found


def rows_by_weight(X, groups, weight):
    """Rows of a table that count, their groups, and their weights.

    Parameters
    ----------
    X : frame or ndarray
        As `check_table` returns it.
    groups : array of shape (n_samples,) or None
    weight : float64 array of shape (n_samples,)
        Not negative, and finite.

    Returns
    -------
    X, groups
        Without the rows of weight 0.
    weight : float32 array of shape (n_left,) or None
        With a mean of 1. None where all are equal.

    Raises
    ------
    ValueError
        If all weights are 0.
    """
    if not weight.any():  # before scikit-learn 1.9
        raise ValueError("Sample weights must contain at least one non-zero number.")
    counts = weight > 0
    if not counts.all():
        X, weight = rows_of(X, counts), weight[counts]
        groups = None if groups is None else groups[counts]
    if np.ptp(weight) == 0:
        return X, groups, None
    weight = weight / weight.max()  # sums of very large weights overflow
    weight = weight / weight.mean()
    return X, groups, np.maximum(weight, LEAST_WEIGHT).astype(np.float32)


def select_columns(columns, X, names, where):
    """Mask of the columns that users mean; parameters and errors of `find_columns`.

    Returns
    -------
    bool array of shape (d,)
    """
    selected = np.zeros(len(names), dtype=bool)
    selected[find_columns(columns, X, names, where)] = True
    return selected


def with_distinct(names, more):
    """Names and more of them: one that is taken ends in ``_2``, ``_3``, an array."""
    names = list(names)
    for name in more:
        free = (f"{name}_{k}" if k > 1 else name for k in count(1))
        names.append(next(each for each in free if each not in names))
    return np.array(names, dtype=object)


def check_quantiles(quantiles):
    """List of the probabilities of quantiles, each strictly between 0 and 1."""
    found = np.asarray(quantiles, dtype=np.float64)
    if found.ndim != 1 or not found.size or not ((found > 0) & (found < 1)).all():
        raise ValueError(f"quantiles must be between 0 and 1, got {quantiles!r}.")
    return found.tolist()


def warn_of_empty_columns(names, are_kept):
    """Warn the caller of `fit` of columns without any observed value."""
    if len(names):
        action = "filled with a constant" if are_kept else "dropped"
        warn_caller(
            f"Columns without a single observed value are {action}: {names.tolist()}."
        )


def check_encoder(encoder, modality, n_columns):
    """Check a user's encoder of a modality of ``n_columns`` columns.

    Returns
    -------
    label : str
        The encoder and its modality, for errors.
    learn : callable or None
        Fits it to rows of shape (n, n_columns) by a seed; None where it is fitted.

    Raises
    ------
    TypeError
        If it is a class, or lacks a method.
    ValueError
        If it was fitted to another number of columns, or is frozen and not fitted.
    """
    label = f"encoders: {_name_of(encoder)} of modality {modality!r}"
    if isinstance(encoder, type):
        raise TypeError(f"{label} is a class: pass an instance, {encoder.__name__}().")
    for method in ("transform", "inverse_transform"):
        if not hasattr(encoder, method):
            raise TypeError(
                f"{label} has no {method}: take a transformer that has both, such as "
                "PCA, or leave this modality out of encoders."
            )
    # Objects that scikit-learn cannot clone are used as they are.
    if hasattr(encoder, "fit") and hasattr(encoder, "get_params"):
        try:
            check_is_fitted(encoder)
        except NotFittedError as error:
            if not isinstance(encoder, FrozenEstimator):
                return label, _fitted_clone
            raise ValueError(
                f"{label} is frozen, but not fitted: fit it first, or pass it without "
                "FrozenEstimator to have it fitted to the modality's complete rows."
            ) from error
    n_features = getattr(encoder, "n_features_in_", n_columns)
    if n_features != n_columns:
        raise ValueError(
            f"{label} was fitted to {n_features} columns, and the modality has "
            f"{n_columns}: fit it to these, or pass it unfitted."
        )
    return label, None


def _name_of(encoder):
    """Name of a transformer's class, and of the one that is frozen."""
    if isinstance(encoder, type):
        return encoder.__name__
    if isinstance(encoder, FrozenEstimator):
        return f"FrozenEstimator({type(encoder.estimator).__name__})"
    return type(encoder).__name__


def _fitted_clone(encoder, rows, seed):
    """Fit a clone to rows; each of its ``random_state`` that is None gets the seed."""
    encoder = clone(encoder)
    seeds = {
        name: seed
        for name, value in encoder.get_params().items()
        if name.split("__")[-1] == "random_state" and value is None
    }
    encoder.set_params(**seeds).fit(rows)
    return encoder
