"""The README's code blocks and every example run."""

import re
import runpy
import sys
import time
from dataclasses import replace

import pytest

from admc_sklearn._shared.training import TrainingPlan

from .conftest import ROOT

EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").glob("*.py")
    if not path.with_suffix(".ipynb").exists()  # run by test_notebook
)
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def _train_briefly(monkeypatch):
    """Fits of an epoch or two, and of a few seconds: each shows what it showed."""
    plan_of = TrainingPlan.of

    def brief(*arguments):
        plan = plan_of(*arguments)
        deadline = min(plan.deadline, time.monotonic() + 3)
        return replace(plan, max_epochs=min(2, plan.max_epochs), deadline=deadline)

    monkeypatch.setattr(TrainingPlan, "of", brief)


def test_readme_code_runs(tmp_path, monkeypatch):
    """In one namespace, top to bottom, as a reader would."""
    monkeypatch.chdir(tmp_path)
    _train_briefly(monkeypatch)
    assert len(BLOCKS) >= 3
    namespace = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_saves_its_picture(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _train_briefly(monkeypatch)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    pictures = list((tmp_path / "results").glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size > 10_000 for picture in pictures)


def test_readme_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).exists(), name
