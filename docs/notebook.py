"""Writes the notebooks that are paired with an example anew, and runs them.

    python docs/notebook.py

Their pictures are kept in them, so that a page that shows notebooks and runs nothing
has them. The scripts, in jupytext's percent format, are what is edited by hand.
"""

import tempfile
from pathlib import Path

import jupytext
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"


def write(path):
    """Run the cells of a script as a notebook, and write that beside the script."""
    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # not at random: a new run changes outputs alone
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=300,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    jupytext.write(notebook, path.with_suffix(".ipynb"))


if __name__ == "__main__":
    for path in sorted(EXAMPLES.glob("plot_*.py")):
        if "formats: ipynb," in path.read_text():
            write(path)
            print(path.with_suffix(".ipynb").name)
