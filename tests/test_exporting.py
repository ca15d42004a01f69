"""Exported graphs: onnxruntime completes as `transform` does, without torch."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from admc_sklearn import ADMCImputer
from admc_sklearn._cells.anchor.choose_coordinates import CoordinateSettings
from admc_sklearn._cells.settings import CellSettings
from tests._export.test_dense import curved_blocks, trained_far
from tests._export.test_row_corrections import mixed_frame, with_every_correction
from tests.conftest import BLOCKS_ALONE, ROOT, gaussian_table

NEEDED = ("onnx", "onnxscript", "onnxruntime")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(find_spec, NEEDED)), reason="onnx or onnxruntime is not installed"
    ),
]


def options():
    import onnxruntime

    found = onnxruntime.SessionOptions()
    found.intra_op_num_threads = 1
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An imputer of a mixed frame, and its graph's path."""
    path = tmp_path_factory.mktemp("graphs") / "model.onnx"
    with pytest.warns(UserWarning, match="empty"):
        imputer = with_every_correction(mixed_frame(), add_indicator=True)
    about = imputer.export_onnx(path, probabilities=True)
    assert about["bytes"] == path.stat().st_size
    assert about["held_out_error"] == imputer.model_.held_out_errors[0]
    return imputer, path


def codes_of(table):
    """The frame as numbers: codes for levels."""
    codes = table.copy()
    codes["level"] = codes["level"].map({"x": 0.0, "y": 1.0})
    return codes.to_numpy(np.float32)


def test_onnxruntime_completes_as_transform_does(exported):
    import onnxruntime

    imputer, path = exported
    session = onnxruntime.InferenceSession(path, options())
    X = codes_of(mixed_frame())
    names = [output.name for output in session.get_outputs()]
    assert names == ["X_completed", "proba_level"]
    completed, share = session.run(None, {"X": X})
    expected = imputer.set_output(transform="pandas").transform(mixed_frame())
    flags = [name for name in expected if name.startswith("missingindicator")]
    d = X.shape[1]
    np.testing.assert_array_equal(completed[:, d:], expected[flags])
    expected = codes_of(expected[list(mixed_frame())])
    spread = np.nanstd(X, axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    np.testing.assert_allclose(completed[:, :d] / spread, expected / spread, atol=1e-4)
    known = ~np.isnan(X)
    np.testing.assert_array_equal(completed[:, :d][known], X[known])
    np.testing.assert_allclose(
        share, imputer.predict_proba(mixed_frame(), "level"), atol=1e-4
    )
    # What determines another cell exactly does so here.
    line = known[:, 0] & ~known[:, 1]
    np.testing.assert_allclose(completed[line, 1], 2 * X[line, 0] + 1, atol=1e-6)
    assert (completed[:, 2] == np.rint(completed[:, 2])).all()
    # Any number of rows, none as well; each is completed for itself.
    one = session.run(["X_completed"], {"X": X[5:6]})[0]
    np.testing.assert_allclose(one, completed[5:6], atol=1e-4)
    assert session.run(["X_completed"], {"X": X[:0]})[0].shape == (0, d + len(flags))


def test_levels_that_fit_did_not_see_stay(exported):
    import onnxruntime

    _, path = exported
    session = onnxruntime.InferenceSession(path, options())
    X = codes_of(mixed_frame())[3:6]
    X[:, 3] = 7.0
    X[:, 0] = np.nan
    completed, share = session.run(None, {"X": X})
    assert (completed[:, 3] == 7).all()
    assert np.isfinite(completed[:, 0]).all()
    np.testing.assert_allclose(share.sum(1), 1, atol=1e-5)


def test_metadata_say_what_the_numbers_mean(exported):
    import onnxruntime

    _, path = exported
    session = onnxruntime.InferenceSession(path, options())
    about = session.get_modelmeta().custom_metadata_map
    columns = json.loads(about["columns"])
    assert [column["name"] for column in columns] == list(mixed_frame())
    assert columns[3] == {"name": "level", "kind": "levels", "levels": ["x", "y"]}
    assert about["strategy"] == "mean"


def test_the_edge_needs_neither_torch_nor_scikit_learn(exported, tmp_path):
    """The example runs in an environment of onnxruntime and numpy alone."""
    imputer, path = exported
    site = tmp_path / "site"
    site.mkdir()
    for name in ("numpy", "numpy.libs", "onnxruntime", "flatbuffers", "google"):
        for folder in map(Path, sys.path):
            if (folder / name).is_dir() and not (site / name).exists():
                (site / name).symlink_to(folder / name)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    absent = "import importlib.util as u; print(u.find_spec('torch'), "
    absent += "u.find_spec('sklearn'), u.find_spec('admc_sklearn'))"
    python = [sys.executable, "-S", "-P"] if sys.version_info >= (3, 11) else None
    python = python or [sys.executable, "-S"]

    def run(*words):
        return subprocess.run(
            [*python, *words],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        ).stdout

    assert run("-c", absent).split() == ["None"] * 3
    table = mixed_frame()
    table.to_csv(tmp_path / "given.csv", index=False)
    script = str(ROOT / "examples" / "deploy" / "edge.py")
    run(script, str(path), "given.csv", "completed.csv")
    found = pd.read_csv(tmp_path / "completed.csv")
    expected = imputer.set_output(transform="pandas").transform(table)
    assert found["level"].tolist() == expected["level"].tolist()
    np.testing.assert_allclose(found["a"], expected["a"], atol=1e-4)
    assert "1 rows of 8 columns" in run(script, str(path))


def test_an_imputer_that_learnt_nothing(tmp_path):
    import onnxruntime

    X = np.full((4, 2), np.nan)
    with pytest.warns(UserWarning, match="without a single"):
        imputer = ADMCImputer().fit(X)
    imputer.export_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options())
    (found,) = session.run(None, {"X": X.astype(np.float32)})
    np.testing.assert_array_equal(found, np.zeros((4, 2)))


BLOCKS = {"first": list(range(6)), "second": list(range(6, 12))}


def completed_blocks(imputer, X, path, **options_of_export):
    """What a graph of an imputer with two blocks makes of rows."""
    import onnxruntime

    about = imputer.export_onnx(path, **options_of_export)
    session = onnxruntime.InferenceSession(path, options())
    return session.run(None, {"X": X.astype(np.float32)})[0], about


def test_medians_of_blocks_beside_cells(tmp_path):
    X = curved_blocks(150).drop(columns="level").to_numpy()
    imputer = ADMCImputer(
        modalities=BLOCKS, strategy="median", max_epochs=1, random_state=0
    )
    parts = ("forests", "landmarks", "donors", "patterns")
    few = CoordinateSettings(max_coordinates=0, max_coordinates_at_random=0)
    settings = {"coordinates": few, "mean_head": False, **dict.fromkeys(parts)}
    cells = CellSettings(max_networks=1, **settings)
    imputer._settings = replace(BLOCKS_ALONE, cells=cells)
    imputer.fit(X)
    trained_far(imputer.model_.blocks)
    X[20:40, 1:4] = X[30:50, 7:11] = np.nan  # parts of blocks are left
    path = tmp_path / "model.onnx"
    found, _ = completed_blocks(imputer, X, path, strategy="median")
    np.testing.assert_allclose(found, imputer.transform(X), atol=2e-4)


def test_blocks_without_training_rows(tmp_path):
    """They are completed as by an imputer that was saved without them."""
    X = curved_blocks(150).to_numpy()[:, :12].astype(float)
    imputer = ADMCImputer(modalities=BLOCKS, max_epochs=1, random_state=0)
    imputer._settings = BLOCKS_ALONE
    imputer.fit(X)
    imputer.save(tmp_path / "model", include_rows=False)
    plain = ADMCImputer.load(tmp_path / "model")
    path = tmp_path / "model.onnx"
    found, about = completed_blocks(imputer, X, path, include_rows=False)
    np.testing.assert_allclose(found, plain.transform(X), atol=2e-4)
    assert np.abs(found - imputer.transform(X)).max() > 0.05
    errors = [about["error_with_rows"], about["held_out_error"]]
    assert errors == list(imputer.model_.held_out_errors)
    imputer.set_params(encoders={"first": PCA(2)})
    with pytest.raises(ValueError, match="encoders: a graph cannot hold"):
        imputer.export_onnx(path)


def test_what_a_graph_cannot_hold_is_refused(tmp_path):
    imputer = ADMCImputer(max_epochs=0).fit(gaussian_table(60, 3, 3)[0])
    with pytest.raises(ValueError, match="strategy"):
        imputer.export_onnx(tmp_path / "model.onnx", strategy="sample")
    assert not list(tmp_path.iterdir())
