"""Pickles that know which version of the package made them."""

from __future__ import annotations

import pickle

from sklearn.exceptions import InconsistentVersionWarning

from ._shared.caller_warnings import warn_caller
from ._version import __version__

VERSION_KEY = "_admc_sklearn_version"


class OtherVersionWarning(InconsistentVersionWarning):
    """A pickle was made by another release than the one that reads it."""

    def __init__(self, name, made_by):
        super().__init__(
            estimator_name=name,
            current_sklearn_version=__version__,
            original_sklearn_version=made_by,
        )

    def __str__(self):
        return (
            f"This pickle of {self.estimator_name} was made by admc_sklearn "
            f"{self.original_sklearn_version}, and is read by "
            f"{self.current_sklearn_version}: results may differ. Fit it again, or "
            f"install admc_sklearn {self.original_sklearn_version}."
        )


class VersionedPickle:
    """Mixin of estimators whose pickles are read by the release that made them.

    Patch releases, 1.2.3 and 1.2.4, read each other's pickles with a warning; others
    refuse them, since what `fit` leaves behind may have another form.
    """

    def __reduce__(self):
        # The version is checked before anything else is read, which may fail.
        return _blank, (type(self), __version__), self.__getstate__()

    def __getstate__(self):
        return {**super().__getstate__(), VERSION_KEY: __version__}

    def __setstate__(self, state):
        made_by = state.get(VERSION_KEY)
        _refuse(type(self), made_by)
        if made_by != __version__:
            name = type(self).__name__
            warn_caller(OtherVersionWarning(name, made_by))
        state = {key: value for key, value in state.items() if key != VERSION_KEY}
        super().__setstate__(state)


def _blank(cls, made_by):
    """Make an estimator without a state."""
    _refuse(cls, made_by)
    return object.__new__(cls)


def _refuse(cls, made_by):
    """Raise an error where a pickle's release is too far from this one."""
    if made_by is not None and _series(made_by) == _series(__version__):
        return
    made, remedy = f"admc_sklearn {made_by}", f", or install admc_sklearn {made_by}"
    if made_by is None:
        made, remedy = "an early admc_sklearn, which did not write its version", ""
    raise pickle.UnpicklingError(
        f"This pickle of {cls.__name__} was made by {made}, and cannot be read by "
        f"admc_sklearn {__version__}: fit it again{remedy}."
    )


def _series(version):
    return str(version).split(".")[:2]
