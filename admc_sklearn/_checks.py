"""Tables and columns as users give them: checked, and named by position."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import numpy as np
from sklearn.utils.validation import FLOAT_DTYPES, check_array, validate_data

from ._columns import as_table, is_frame
from ._compat import is_pandas_na, is_scalar_nan
from ._modalities import find_columns


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
    if isinstance(X, np.ma.MaskedArray) and not is_nan_like(estimator.missing_values):
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
    nan_like = is_nan_like(estimator.missing_values)
    try:
        return validate_data(
            estimator,
            X,
            dtype=FLOAT_DTYPES,
            ensure_all_finite="allow-nan" if nan_like else True,
            copy=True,
            reset=reset,
        )
    except ValueError as error:
        if "contains infinity" not in str(error):
            raise
        columns = np.flatnonzero(np.isinf(X).any(axis=0))
        names = ", ".join(f"'x{j}'" for j in columns)
        raise ValueError(f"{error} It is in the columns {names}.") from error


def is_nan_like(marker):
    """Whether a placeholder of missing values is NaN by one of its names."""
    return marker is None or is_pandas_na(marker) or is_scalar_nan(marker)


def select_columns(columns, X, names, where):
    """Mask of the columns that users mean; parameters and errors of `find_columns`.

    Returns
    -------
    bool array of shape (d,)
    """
    selected = np.zeros(len(names), dtype=bool)
    selected[find_columns(columns, X, names, where)] = True
    return selected


def warn_of_empty_columns(names, are_kept):
    """Say to who called `fit` what becomes of columns without any observed value."""
    if len(names):
        action = "filled with a constant" if are_kept else "dropped"
        warnings.warn(
            f"Columns without a single observed value are {action}: {names.tolist()}.",
            UserWarning,
            stacklevel=5,
        )
