"""Export of imputers to graphs that need neither torch nor scikit-learn."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from ._table.column_kinds import TimeColumn
from ._version import __version__

# What common runtimes have.
OPSET = 18
# A graph holds the regressions of all patterns of blocks.
MAX_BLOCKS = 8
STATISTICS = {"mean": "mean", "median": 0.5}


class Exported:
    """Mixin of imputers with `export_onnx`."""

    def export_onnx(
        self,
        path: str | os.PathLike,
        strategy: Literal["mean", "median"] = "mean",
        *,
        probabilities: bool = False,
        include_rows: bool = True,
    ) -> pd.Series:
        """Export the fitted imputer as one ONNX graph.

        The graph needs neither torch nor scikit-learn: ``onnxruntime`` and numpy run
        it. Input ``X``, float32 of shape (n, `n_features_in_`), holds NaN where a cell
        is missing, codes for levels and steps for dates; output ``X_completed``,
        float32, is the table that `transform` gives, in the same terms. Columns,
        levels and units are JSON in the graph's metadata, under ``"columns"``.

        The graph completes as `transform` does, within 0.0002 standard deviations.
        Donors, landmarks, rows of patterns and of blocks are training rows, and are in
        the file.

        Parameters
        ----------
        path : str or path
        strategy : {"mean", "median"}, default="mean"
            As the parameter of the imputer; its own is not used.
        probabilities : bool, default=False
            Whether the graph has a further output for each categorical column,
            ``proba_<column>`` of shape (n, n_levels).
        include_rows : bool, default=True
            Whether the graph holds training rows. Without them it is smaller and
            completes as an imputer does that was saved so; see `save`.

        Returns
        -------
        about : Series
            ``bytes`` of the file, ``held_out_error`` of what it computes and
            ``error_with_rows`` of the imputer itself; see `save`.

        Raises
        ------
        ImportError
            If ``onnx`` and ``onnxscript`` are not installed: ``pip install
            admc_sklearn[onnx]``.
        ValueError
            If the strategy is unknown, or for what a graph does not hold: encoders of
            users, derived columns, bounds, constraints, effects of groups, more than
            eight blocks, and columns of more than a thousand levels.
        """
        check_is_fitted(self)
        if strategy not in STATISTICS:
            raise ValueError(f"strategy must be 'mean' or 'median'; got {strategy!r}.")
        _refuse(self)
        try:
            import onnx
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "export_onnx needs onnx and onnxscript: pip install admc_sklearn[onnx]"
            ) from error
        model = self.model_
        if model is not None and not include_rows:
            model = model.without_rows()
        graph, outputs = _graph(self, model, strategy, probabilities)
        model = _traced(graph, self.n_features_in_, outputs)
        model.doc_string = "An imputer of admc_sklearn."
        model.producer_name, model.producer_version = "admc_sklearn", __version__
        described = {"columns": json.dumps(_columns(self)), "strategy": strategy}
        for key, value in described.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.checker.check_model(model)
        Path(path).write_bytes(model.SerializeToString())
        about = {"bytes": Path(path).stat().st_size}
        errors = (np.nan, np.nan)
        if self.model_ is not None:
            errors = self.model_.held_out_errors
        about["held_out_error"] = errors[0 if include_rows else 1]
        about["error_with_rows"] = errors[0]
        return pd.Series(about, dtype=object)


def _refuse(imputer):
    """Raise an error where the graph cannot hold what the imputer does."""
    if imputer.derived:
        raise ValueError(
            f"derived: a graph cannot hold the functions of {list(imputer.derived)}: "
            "set_params(derived=None) and compute these columns after it."
        )
    if imputer.bounds:
        raise ValueError(
            f"bounds: a graph keeps to the observed ranges, not to bounds of "
            f"{list(imputer.bounds)}: set_params(bounds=None) and fit again."
        )
    if imputer.group_effects:
        raise ValueError(
            "group_effects: a graph completes every row by itself. Fit without them."
        )
    if imputer.constraints:
        raise ValueError(
            "constraints: a graph completes every cell by itself and cannot make cells "
            "fulfil them: save the imputer, or set_params(constraints=None)."
        )
    partition = getattr(imputer.model_, "partition", None)
    if partition is not None and imputer.encoders:
        raise ValueError(
            "encoders: a graph cannot hold objects of other packages. Fit without them."
        )
    if partition is not None and len(partition.blocks) > MAX_BLOCKS:
        raise ValueError(
            f"A graph holds up to {MAX_BLOCKS} modalities that are completed as "
            f"blocks, not {len(partition.blocks)}: save the imputer instead."
        )
    names = imputer._codec.columns_.names_
    for name, column in zip(names, imputer._codec.columns_.columns_, strict=True):
        if getattr(column, "rare", None) is not None:
            raise ValueError(
                f"Column {name!r} has {len(column.levels)} levels, more than a graph "
                "holds: group the rare ones before the imputer, or save it."
            )


def _graph(imputer, model, strategy, probabilities):
    """`Graph` of an imputer and its model, and the names of its outputs."""
    from ._export.graph import Graph

    codec = imputer._codec
    flags = [] if imputer.indicator_ is None else imputer.indicator_.features_
    kept = codec.scaling_.kept_
    probable = []
    if probabilities:
        probable = np.flatnonzero(codec.n_levels_[kept] > 0).tolist()
    stays = np.zeros(len(codec.n_levels_), dtype=bool)
    if not isinstance(imputer.impute_features, str):
        names = getattr(imputer, "feature_names_in_", None)
        row = np.zeros((1, len(stays)))
        row = row if names is None else pd.DataFrame(row, columns=names)
        stays = imputer._stays(row, None)[0]
    graph = Graph(
        codec,
        model,
        STATISTICS[strategy],
        codec.keeps_whole(imputer.keep_whole_numbers),
        stays,
        flags,
        imputer._columns_out(),
        probable,
    )
    names = [f"proba_{codec.columns_.names_[kept[k]]}" for k in probable]
    return graph.eval(), ["X_completed", *names]


def _traced(graph, n_columns, outputs):
    """ONNX model of a graph, with a dynamic number of rows."""
    import torch
    from onnxscript import optimizer

    example = torch.zeros(3, n_columns)
    example[1, ::2] = torch.nan
    example[2] = torch.nan
    rows = torch.export.Dim("rows")
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (example,),
                input_names=["X"],
                output_names=outputs,
                opset_version=OPSET,
                dynamic_shapes=({0: rows},),
                dynamo=True,
                verbose=False,
                optimize=False,
            )
            # The optimiser tries many rules on every node, constants included. Without
            # them it takes half as long, for the same graph.
            optimizer.fold_constants(program.model)
            optimizer.remove_unused_nodes(program.model)
            optimizer.optimize(program.model)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    return program.model_proto


def _columns(imputer):
    """Say what the numbers of every column mean: a list of dicts."""
    codec, found = imputer._codec, []
    for name, column in zip(
        codec.columns_.names_, codec.columns_.columns_, strict=True
    ):
        about = {"name": str(name)}
        if column.n_levels:
            about |= {"kind": "levels", "levels": [str(v) for v in column.levels]}
        elif isinstance(column, TimeColumn):
            about |= {"kind": "time", "unit": str(column.dtype)}
            about |= {"start": column.start, "step": column.step}
        else:
            about["kind"] = "number"
        found.append(about)
    return found
