"""The only importer of scikit-learn's private helpers."""

from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, MissingValues, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import _check_feature_names_in

__all__ = [
    "Interval",
    "MissingValues",
    "StrOptions",
    "_check_feature_names_in",
    "_fit_context",
    "_get_output_config",
]
