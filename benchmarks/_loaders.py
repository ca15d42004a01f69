"""Features of one's own utterances (IEMOCAP, MIntRec, ...), one array a modality."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class ModalityData:
    """Rows whose features come in modalities.

    Attributes
    ----------
    modalities : dict of ndarray of shape (n_samples, n_features)
        float64, by name.
    label : ndarray of shape (n_samples,)
    split : ndarray of str of shape (n_samples,)
        "train", "test", or any other word for rows that are in neither.
    group : ndarray of shape (n_samples,) or None
        What must not be torn apart in cross-validation (a dialogue, a speaker).
    """

    modalities: dict
    label: np.ndarray
    split: np.ndarray
    group: np.ndarray | None = None


def load_modalities(path, modalities=None, *, group="group", trim=False):
    """Load one array a modality, with the rows' labels and split.

    Neither IEMOCAP nor MIntRec may be shipped. Extract features as you like and save
    them in this layout, all arrays having the same rows in the same order::

        np.savez(
            "iemocap.npz",
            text=text,      # float (n, d), or (n, time, d)
            audio=audio,    # any number of modalities, under any names
            video=video,
            label=label,    # (n,): integers or strings
            split=split,    # (n,): "train", "test"; other words are left out
            group=dialogue, # (n,), optional: rows that belong together
        )

    or, instead, a folder with ``text.npy``, ``audio.npy``, ``video.npy``,
    ``label.npy``, ``split.npy`` and ``group.npy`` in it. IEMOCAP's customary split
    tests on session 5, MIntRec's comes with it (its "dev" rows are then unused).

    Frames, or tokens, are pooled by their mean over time, feature by feature. NaN is a
    value that is not there: it does not count in that mean, and what is NaN throughout
    stays NaN. Sequences padded by NaN need nothing else; those padded by zeros need
    `trim`.

    Parameters
    ----------
    path : str or Path
        The file, or the folder.
    modalities : list of str, default=None
        Names of the arrays to load. None: all but label, split and group.
    group : str, default="group"
        Name of the array of groups; it need not exist.
    trim : bool, default=False
        Leave out time steps of zeros only, at either end of a sequence.

    Returns
    -------
    ModalityData

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        Naming the array that is missing, of another length or shape, not numeric,
        infinite, or saved as Python objects; or a split without "train" or "test".
    """
    with _open(Path(path)) as arrays:
        reserved = {"label", "split", "group", group}
        names = [n for n in arrays if n not in reserved]
        names = names if modalities is None else list(modalities)
        optional = [group] if group in arrays else []
        loaded = {
            name: _read(arrays, name, path)
            for name in [*names, "label", "split", *optional]
        }
    if not names:
        raise ValueError(f"{path} holds no modality beside {sorted(loaded)}")
    _check_lengths(loaded, path)
    return ModalityData(
        {name: pooled(loaded[name], name, trim=trim) for name in names},
        loaded["label"],
        _split(loaded["split"], path),
        loaded.get(group),
    )


def pooled(array, name="array", *, trim=False):
    """Means over time of an array (n, time, d); an array (n, d) as float64.

    Parameters
    ----------
    array : ndarray of shape (n_samples, n_features) or (n_samples, n_steps, n_features)
    name : str
        What errors call it.
    trim : bool
        Leave out time steps of zeros only, at either end.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
    """
    if array.ndim not in (2, 3):
        raise ValueError(
            f"a modality has shape (n, d) or (n, time, d); {name!r} has {array.shape}"
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name!r} must hold numbers; its dtype is {array.dtype}")
    if np.isinf(array).any():
        raise ValueError(f"{name!r} holds infinite values")
    array = array.astype(np.float64)
    if array.ndim == 2:
        return array
    counted = ~np.isnan(array)
    if trim:
        counted &= _inner(array)[:, :, None]
    total = np.where(counted, array, 0.0).sum(axis=1)
    n = counted.sum(axis=1)
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def _inner(array):
    """Find the steps from the first to the last that is not zero: (n, time)."""
    filled = (array != 0).any(axis=2)  # NaN is not zero
    begun = np.logical_or.accumulate(filled, axis=1)
    to_come = np.logical_or.accumulate(filled[:, ::-1], axis=1)[:, ::-1]
    return begun & to_come


class _open:
    """A mapping from names to arrays, of an .npz file or a folder of .npy files."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        if self.path.is_dir():
            self.file = None
            return _Folder(
                {file.stem: file for file in sorted(self.path.glob("*.npy"))}
            )
        if not self.path.exists():
            raise FileNotFoundError(f"no file or folder {self.path}")
        self.file = np.load(self.path)
        if not isinstance(self.file, np.lib.npyio.NpzFile):
            raise ValueError(f"{self.path} is a single array; save an .npz with savez")
        return self.file

    def __exit__(self, *exception):
        if self.file is not None:
            self.file.close()


class _Folder(dict):
    """Arrays by name, read when asked for."""

    def __getitem__(self, name):
        return np.load(super().__getitem__(name))


def _read(arrays, name, path):
    if name not in arrays:
        raise ValueError(f"{path} holds no array {name!r}, only {sorted(arrays)}")
    try:
        return arrays[name]
    except ValueError as error:
        raise ValueError(f"{name!r} of {path} cannot be read: {error}") from error


def _check_lengths(loaded, path):
    for name in set(loaded) & {"label", "split"}:
        if loaded[name].ndim != 1:
            raise ValueError(
                f"{name!r} must have one dimension, not {loaded[name].shape}"
            )
    lengths = {name: len(array) if array.ndim else 0 for name, array in loaded.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"arrays of {path} must have equally many rows; got {lengths}")


def _split(split, path):
    """Words, also where they were saved as bytes."""
    split = np.char.decode(split) if split.dtype.kind == "S" else split.astype(str)
    absent = {"train", "test"} - set(split)
    if absent:
        raise ValueError(
            f"'split' of {path} must have 'train' and 'test' rows; "
            f"got {sorted(set(split))}"
        )
    return split
