"""Saving estimators to files that run no code, and loading them."""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from ._shared.contract import Rows
from ._shared.devices import resolve_device
from ._storage.container import BadFile, read, write
from ._storage.values import Reader, Writer
from ._version import __version__

# How far a loaded model's completion of two rows may be from the saved one's, in
# standard deviations: float32 differs that much between devices.
TOLERANCE = 1e-2
# Where a pickle's state has what was learnt.
PACKED = "_packed"


class Stored:
    """Mixin of estimators with `save` and `load`.

    A class names its fitted attributes in ``_learnt``, and other estimators that its
    instances hold in ``_estimators``.
    """

    _learnt: tuple = ()
    _estimators: tuple = ()

    def save(self, path: str | os.PathLike, include_rows: bool = True) -> pd.Series:
        """Save the fitted estimator to one file that holds no code.

        The file is a safetensors file: every array of the model by name, and all else
        as JSON in its header. Unlike a pickle it can be loaded whoever it comes from.

        Parameters
        ----------
        path : str or path
            The file. One that is there is replaced, as a whole or not at all.
        include_rows : bool, default=True
            Whether training rows are stored, of which donors, landmarks and
            regressions of patterns complete others. Without them these are left out,
            and curved features of modalities are replaced by straight ones: the file
            then holds no training row, but statistics of the columns, single values
            (the levels, the values of columns with few of them, extremes), and shares
            of values in the leaves of forests.

        Returns
        -------
        about : Series
            ``bytes`` of the file; ``training_rows`` in it; ``held_out_error`` of the
            model as it is stored and ``error_with_rows`` of the whole one: root mean
            squared errors of hidden cells in rows held out in `fit`, in standardised
            units, NaN where they were not measured.

        Raises
        ------
        ValueError
            If a parameter or an encoder is an object or function that only its own code
            can make. The message names it and says what to do.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        OSError
            If the file cannot be written.
        """
        check_is_fitted(self)
        writer = Writer(_named(self))
        about = {"held_out_error": np.nan, "error_with_rows": np.nan}
        imputer = _imputer_of(self)
        if imputer.model_ is not None:
            whole = imputer.model_
            model = whole if include_rows else whole.without_rows()
            errors = whole.held_out_errors
            about["error_with_rows"] = errors[0]
            about["held_out_error"] = errors[0 if include_rows else 1]
            imputer = _with(imputer, model_=model)
        is_imputer = _imputer_of(self) is self
        stored = imputer if is_imputer else _with(self, imputer_=imputer)
        content = {"made": writer.write(stored, "")}
        content["probe"] = writer.write(_probe(imputer), "probe")
        write(path, writer.arrays, content, __version__)
        n_rows = max(imputer.memory_usage_["rows"], default=0)
        about = {"training_rows": int(n_rows), **about}
        return pd.Series({"bytes": Path(path).stat().st_size, **about}, dtype=object)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        device: str | None = None,
        *,
        derived: Mapping[Any, Any] | None = None,
    ):
        """Load an estimator from a file that `save` wrote.

        Nothing in the file is run, and nothing is imported on its word. It is checked
        before anything is allocated: a file that is damaged, or made to do harm, is
        refused. That says nothing about who wrote it: a model that completes badly on
        purpose is a valid file.

        Parameters
        ----------
        path : str or path
        device : str, optional
            Torch device to run on. By default that of the ``device`` parameter, or the
            CPU where this machine does not have it.
        derived : dict, optional
            The parameter of that name of the saved imputer, whose functions no file
            holds.

        Returns
        -------
        estimator
            It completes as the saved one did, bit for bit on a machine of the same
            kind.

        Raises
        ------
        ValueError
            If the file is damaged, not one of this class, or of an unknown format.
        OSError
            If the file cannot be opened.
        """
        arrays, content = read(path)
        reader = Reader(arrays, _named(cls), os.path.getsize(path))
        try:
            name = content["made"]["is"]
            if name != cls.__name__:
                raise BadFile(
                    f"{path} holds {name[:50]}, not {cls.__name__}: load it by "
                    "the class that saved it."
                )
            made = reader.read(content["made"])
            made._validate_params()
            imputer = _imputer_of(made)
            imputer._validate_params()
            _hand_over(imputer, derived, path)
            if device is not None:
                resolve_device(device)  # a device that is asked for has to be there
                imputer.device = str(device)
            settle(imputer, imputer.device)
            _compare(_probe(imputer), reader.read(content["probe"]))
        except BadFile:
            raise
        except MemoryError:
            raise BadFile(f"{path} asks for more memory than there is.") from None
        except Exception as error:
            # What is inside is not trusted: whatever fails is a fault of the file.
            raise BadFile(
                f"{path} does not describe an estimator of admc_sklearn "
                f"{__version__} ({type(error).__name__}: {error})."
            ) from error
        return made

    @classmethod
    def _defaults(cls):
        """Parameters that an older file may lack, with their defaults."""
        known = inspect.signature(cls).parameters
        return {k: p.default for k, p in known.items() if p.default is not p.empty}

    @classmethod
    def _attributes(cls):
        """Attributes that a file may hold."""
        known = inspect.signature(cls).parameters
        return {*known, *cls._learnt, "_sklearn_output_config"}

    def _parts_to_store(self):
        """Attributes to store, by name, checked."""
        for name in inspect.signature(type(self)).parameters:
            if name != "derived":  # of which `load` is given the functions
                _refuse_functions(self, name, getattr(self, name))
        known = self._attributes()
        own = {k: v for k, v in vars(self).items() if k in known}
        if own.get("derived"):
            own["derived"] = dict.fromkeys(own["derived"])
        return own


def packed(state, names):
    """State of an estimator for a pickle, what was learnt as in a file.

    So a pickle, and what skops writes, holds arrays and text where it can. What only
    its own code can make, a user's encoder, is pickled as it is.

    Parameters
    ----------
    state : dict
    names : sequence of str
        What was learnt.
    """
    learnt = {name: state[name] for name in names if name in state}
    writer = Writer({})
    try:
        content = json.dumps(writer.write(learnt, ""))
    except ValueError:
        if learnt.get("model_") is not None:
            learnt["model_"] = copy.deepcopy(learnt["model_"]).move_to("cpu")
        return {**state, **learnt}
    state = {name: value for name, value in state.items() if name not in learnt}
    return {**state, PACKED: {"content": content, "arrays": writer.arrays}}


def unpacked(state):
    """State of an estimator from that of `packed`."""
    if PACKED not in state:
        return state
    found = state[PACKED]
    reader = Reader(found["arrays"], {}, math.inf)
    learnt = reader.read(json.loads(found["content"]))
    state = {name: value for name, value in state.items() if name != PACKED}
    return {**state, **learnt}


def _named(cls):
    """Classes of estimators by the names that files have for them."""
    cls = cls if isinstance(cls, type) else type(cls)
    return {kind.__name__: kind for kind in (cls, *cls._estimators)}


def _imputer_of(estimator):
    """Imputer that an estimator is, or holds."""
    return getattr(estimator, "imputer_", estimator)


def _with(estimator, **changes):
    """Shallow copy of an estimator with other attributes."""
    copied = object.__new__(type(estimator))
    vars(copied).update(vars(estimator), **changes)
    return copied


def _refuse_functions(estimator, name, value):
    """Raise an error where a parameter is, or holds, what no file can hold."""
    if name == "encoders" and value is not None:
        raise ValueError(
            f"encoders of {type(estimator).__name__} are objects of other packages, "
            "which a file that runs no code cannot hold. Fit without them, or keep the "
            "imputer as a pickle or by skops."
        )
    parts = value.items() if isinstance(value, dict) else [(None, value)]
    for key, part in parts:
        if not callable(part):
            continue
        where = name if key is None else f"{name}[{key!r}]"
        found = getattr(estimator, "_resolved", {}).get(name)
        advice = "give the columns themselves"
        if found is not None:
            advice = f"set_params({name}={found}), the columns that it chose in `fit`"
        raise ValueError(
            f"{where} is a function, which a file that runs no code cannot hold: "
            f"{advice}, and save again."
        )


def _hand_over(imputer, derived, path):
    """Give a loaded imputer the functions that its file does not hold."""
    needed = list(imputer.derived or {})
    if sorted(map(str, needed)) != sorted(map(str, derived or {})):
        raise BadFile(
            f"{path} was saved with derived columns {needed}, whose functions no file "
            "holds: hand them over, load(path, derived={...}); got "
            f"{list(derived or {})}."
        )
    imputer.derived = derived


def settle(imputer, device):
    """Put a loaded imputer on a device, or on the CPU where it is not there."""
    try:
        imputer.device_ = resolve_device(device)
    except ValueError:
        imputer.device_ = resolve_device("cpu")
    if imputer.model_ is not None:
        imputer.model_.move_to(imputer.device_)


def _probe(imputer):
    """Completions of two rows, one of them empty: loading is checked by them."""
    if imputer.model_ is None:
        return np.zeros((0, 0), np.float32)
    means = getattr(imputer, "_group_means", None)
    d = len(imputer._codec.scaling_.kept_) + (
        0 if means is None else len(means.columns)
    )
    observed = np.zeros((2, d), dtype=bool)
    observed[1, ::2] = True
    rows = Rows(np.zeros((2, d), np.float32), observed)
    return imputer.model_.summarise(rows, ["mean"])[0]


def _compare(found, expected):
    if found.shape != expected.shape or not np.allclose(
        found, expected, atol=TOLERANCE, rtol=TOLERANCE, equal_nan=True
    ):
        raise ValueError("it does not complete as it did when it was saved")
