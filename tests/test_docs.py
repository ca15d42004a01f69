"""Documents: what the README is, what lists what, and that all code in them runs."""

import re
import runpy
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from admc_sklearn._shared.training import TrainingPlan
from tests.brief import brief_plan_of
from tests.conftest import ROOT

EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").glob("*.py")
    if not path.with_suffix(".ipynb").exists()  # run by test_notebook
)
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "benchmarks" / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.rst")), *sorted((DOCS / "guide").glob("*.rst"))]


def _rst_blocks(path):
    """Code blocks of a page: the indented lines below each directive."""
    pattern = r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)"
    return [textwrap.dedent(block) for block in re.findall(pattern, path.read_text())]


RST_BLOCKS = {path: _rst_blocks(path) for path in PAGES}


def _train_briefly(monkeypatch):
    monkeypatch.setattr(TrainingPlan, "of", brief_plan_of())


def _run(blocks, name):
    """In one namespace, top to bottom, as a reader would."""
    namespace = {}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)


def test_readme_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _train_briefly(monkeypatch)
    (block,) = BLOCKS
    assert len(block.splitlines()) <= 20
    _run(BLOCKS, "README.md")


def _write_boys(path):
    """A stand-in for the table that readers export from R: the same columns."""
    rng = np.random.default_rng(0)
    age = rng.uniform(8, 20, 60)
    grown = np.clip((age - 8) / 2.5, 0, 4).astype(int)
    hgt = 80 + 5 * age + rng.normal(0, 5, 60)
    wgt = 18 * (hgt / 100) ** 2 + rng.normal(0, 3, 60)
    boys = {"age": age, "hgt": hgt, "wgt": wgt, "bmi": wgt / (hgt / 100) ** 2}
    boys |= {"hc": 45 + 0.6 * age, "tv": 1 + 5 * grown}
    boys |= {
        name: [f"{name[0].upper()}{1 + k}" for k in grown] for name in ("gen", "phb")
    }
    boys = pd.DataFrame(boys).mask(rng.random((60, 8)) < 0.2).assign(reg="north")
    boys.assign(age=age).to_csv(path, index=False)


@pytest.mark.parametrize(
    "path",
    [p for p, blocks in RST_BLOCKS.items() if blocks],
    ids=lambda path: path.stem,
)
def test_code_of_the_guide_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _train_briefly(monkeypatch)
    _write_boys(tmp_path / "boys.csv")
    _run(RST_BLOCKS[path], path.name)


def test_all_code_of_the_guide_is_found():
    for path, blocks in RST_BLOCKS.items():
        assert len(blocks) == path.read_text().count("code-block:: python"), path
    assert sum(map(len, RST_BLOCKS.values())) >= 8


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_saves_its_picture(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _train_briefly(monkeypatch)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    pictures = list((tmp_path / "results").glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size > 10_000 for picture in pictures)


def test_readme_is_two_screens():
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    lines = prose.splitlines()
    table = [line for line in lines if line.startswith("|")]
    words = " ".join(line for line in lines if not line.startswith("|")).split()
    assert len(words) <= 700
    assert len(table) <= 12
    assert README.count("\n|---") == 1
    assert len(re.findall(r"!\[", README)) == 1


def test_readme_names_make_and_python():
    bash = re.search(r"```bash\n(.*?)```", README, re.DOTALL).group(1)
    targets = re.findall(r"^make (\S+)", bash, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test", "docs"} <= set(targets)
    assert all(f"\n{target}:" in makefile for target in targets)
    (oldest,) = re.findall(
        r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert f"Python {oldest}" in README


@pytest.mark.parametrize(
    "name", ["README.md", "benchmarks/README.md", "docs/index.rst"]
)
def test_first_sentence_on_gpus_says_that_none_was_measured(name):
    text = " ".join((ROOT / name).read_text().replace("*", "").split())
    first = re.search(r"[^.:]*\b(?:GPUs?|CUDA)\b[^.]*\.", text).group()
    assert re.search(r"(?i)\bno (?:GPU|figure)", first), first


@pytest.mark.parametrize(
    "name", ["README.md", "benchmarks/README.md", "CONTRIBUTING.md"]
)
def test_links_lead_to_files(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s#]+)\)", page.read_text())
    links = [link for link in links if not re.match(r"https?:", link)]
    assert links
    for link in links:
        assert (page.parent / link).exists(), link


def test_picture_of_the_readme_is_small_and_the_first_page_has_it():
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert 10_000 < (ROOT / picture).stat().st_size < 150_000
    assert picture.removeprefix("docs/") in (DOCS / "index.rst").read_text()


def test_results_list_every_program():
    programs = {
        path.stem
        for path in (ROOT / "benchmarks").glob("[!_]*.py")
        if "__main__" in path.read_text()
    }
    rows = re.findall(
        r"^\| `benchmarks\.(\w+)` \| .+? \| `(.+?)` \|$", RESULTS, re.MULTILINE
    )
    assert {name for name, _ in rows} == programs
    shared = (ROOT / "benchmarks" / "_protocol.py").read_text()
    for name, command in rows:
        assert command.startswith(f"python -m benchmarks.{name}")
        source = (ROOT / "benchmarks" / f"{name}.py").read_text()
        for option in re.findall(r"--[a-z-]+", command):
            assert f'"{option}"' in source + shared, (name, option)


def _numbers(text):
    """Decimal numbers and percentages."""
    return set(re.findall(r"\d+\.\d+|\d+ %", text))


def test_figures_of_the_readme_and_the_first_page_are_among_the_results():
    prose = README.split("## How well it does")[1].split("## Read on")[0]
    figures = (DOCS / "index.rst").read_text().split("list-table")[1]
    figures = figures.split("code-block")[0]
    assert len(_numbers(prose)) > 30
    assert _numbers(prose) <= _numbers(RESULTS)
    assert _numbers(figures) <= _numbers(RESULTS)
    for share in ("56 of 60", "3 ms"):
        assert share in figures
        assert share in RESULTS


def _first_column(text):
    """First cells of the rows of the list tables of a page."""
    return re.findall(r"^   \* - (.+)$", text, re.MULTILINE)


def test_every_mechanism_has_a_reason_and_a_figure():
    text = (DOCS / "guide" / "how_it_works.rst").read_text()
    table = text.split("The mechanisms and their gains")[1].split("\nColumns\n---")[0]
    cell = r"((?:.+\n(?:       .+\n)*))"
    rows = re.findall(
        rf"^   \* - (.+)\n     - {cell}     - {cell}", table, re.MULTILINE
    )
    rows = [row for row in rows if row[0] != "Mechanism"]
    assert len(rows) == len(_first_column(table)) - 2  # two headers
    names = " ".join(name.lower() for name, _, _ in rows)
    for name in (
        "power transforms, median distances, level scores, anchor, attention, landmark "
        "regression, donor rows, self-masking, exact relations, bootstraps, encoders, "
        "kernel features, denoiser, cross-fit"
    ).split(", "):
        assert name in names, name
    notes = (ROOT / "benchmarks" / "NOTES.md").read_text() + RESULTS
    notes = notes.replace("RMSE .", "RMSE 0.")
    for name, _, gained in rows:
        figures = re.findall(r"\d\.\d{3,}|\d+ %", gained)
        assert figures or gained.strip() == "not measured alone", name
        for figure in figures:
            assert figure in notes, (name, figure)


def test_formulas_are_mathml(monkeypatch):
    """A command of TeX that is not known would end the build of the pages."""
    pytest.importorskip("docutils")
    monkeypatch.syspath_prepend(str(DOCS))
    to_mathml = __import__("mathml").to_mathml
    text = (DOCS / "guide" / "how_it_works.rst").read_text()
    formulas = re.findall(r":math:`([^`]+)`", text)
    formulas += re.findall(r"\.\. math::\n\n((?:   .+\n)+)", text)
    assert len(formulas) > 15
    for formula in formulas:
        assert to_mathml(formula, "inline").startswith('<math display="inline"')
    assert "mathjax" not in (DOCS / "conf.py").read_text()


def test_every_example_has_a_thumbnail():
    source = (DOCS / "thumbnails.py").read_text()
    panels = re.findall(r'^    "(plot_\w+)": (\w+),$', source, re.MULTILINE)
    scripts = {path.stem for path in (ROOT / "examples").glob("plot_*.py")}
    assert {example for example, _ in panels} == scripts
    assert all(f"\ndef {function}(axis, names)" in source for _, function in panels)
