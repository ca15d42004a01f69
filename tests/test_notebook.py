"""The notebook holds the cells of its script, and runs from the first to the last."""

import jupytext
import nbformat
import pytest
from jupytext.compare import compare_notebooks
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# Comes before the first cell, in a kernel that knows no tests.
BRIEFLY = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.brief import TrainingPlan, brief_plan_of
TrainingPlan.of = brief_plan_of()
"""


def test_there_is_one():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_and_script_hold_the_same_cells(path):
    """`make notebook` writes the notebook anew where they do not."""
    script = jupytext.read(path.with_suffix(".py"))
    notebook = jupytext.read(path)
    compare_notebooks(notebook, script, "py:percent")
    assert script.metadata["jupytext"]["formats"] == "ipynb,py:percent"
    assert notebook.metadata["jupytext"]["formats"] == "ipynb,py:percent"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_shows_its_picture_and_is_small(path):
    """On a page that shows notebooks and runs nothing."""
    assert path.stat().st_size < 150_000
    assert ["image/png" in data for data in _shown(nbformat.read(path, 4))].count(True)
    assert str(ROOT) not in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    """In Jupyter's kernel, not warning, and leaving no file behind."""
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    notebook.cells.insert(0, nbformat.v4.new_code_cell(BRIEFLY))
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, resources=resources).execute()
    assert any("image/png" in data for data in _shown(notebook))
    texts = [o for c in notebook.cells for o in c.get("outputs", ()) if "text" in o]
    assert {o.name for o in texts} == {"stdout"}
    assert not list(tmp_path.iterdir())


def _shown(notebook):
    """What its outputs display, by type."""
    return [o.get("data", {}) for c in notebook.cells for o in c.get("outputs", ())]
