"""Tables and columns as users give them: checked, and named by position."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import numpy as np
import pandas as pd
from sklearn.utils.validation import FLOAT_DTYPES, check_array, validate_data

from ._columns import NUMBERS, is_frame
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
        The frame itself, a float copy of an array of numbers, or an array of objects.
    """
    if is_frame(X):
        if 0 in X.shape:
            kind = "sample" if X.shape[0] == 0 else "feature"
            raise ValueError(
                f"Found array with 0 {kind}(s) (shape={X.shape}) while a minimum of 1 "
                f"is required by {type(estimator).__name__}."
            )
        validate_data(estimator, X, skip_check_array=True, reset=reset)
        return X
    if _is_mixed(X):
        X = np.asarray(X) if hasattr(X, "dtype") else np.asarray(X, dtype=object)
        X = check_array(X, dtype=None, ensure_all_finite=False)
        validate_data(estimator, X, skip_check_array=True, reset=reset)
        return X.astype(object)
    marker = estimator.missing_values
    nan_like = marker is None or is_pandas_na(marker) or is_scalar_nan(marker)
    return validate_data(
        estimator,
        X,
        dtype=FLOAT_DTYPES,
        ensure_all_finite="allow-nan" if nan_like else True,
        copy=True,
        reset=reset,
    )


def _is_mixed(X):
    """Whether an array-like holds something else than numbers alone."""
    if hasattr(X, "dtype") and X.dtype.kind not in "OUSmM":
        return False
    if not isinstance(X, (list, tuple, np.ndarray)):
        return False
    try:
        cells = np.asarray(X, dtype=object)
    except ValueError:  # ragged: scikit-learn's own check says so
        return False
    if cells.ndim != 2 or not cells.size:
        return False
    kinds = {
        pd.api.types.infer_dtype(column[~pd.isna(column)], skipna=True)
        for column in cells.T
    }
    return not kinds <= NUMBERS | {"complex"}


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
