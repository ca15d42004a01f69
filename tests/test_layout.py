"""The walls between files: imports point one way, libraries stay where they belong."""

import ast
from pathlib import Path

import pytest

import admc_sklearn

PACKAGE = Path(admc_sklearn.__file__).parent
# A file may import only from files above it.
ORDER = [
    "_version",
    "_compat",
    "_pickling",
    "_runtime",
    "_capture",
    "_progress",
    "_kinds",
    "_modalities",
    "_markers",
    "_containers",
    "_filling",
    "_columns",
    "_joining",
    "missingness",
    "pooling",
    "_checks",
    "_scaling",
    "_relations",
    "_table",
    "_metrics",
    "_results",
    "_comparison",
    "evaluation",
    "_linalg",
    "_warp",
    "_folds",
    "_scores",
    "_gaussian",
    "_factors",
    "_anchor",
    "_coordinates",
    "_atoms",
    "_diffusion",
    "_validation",
    "_encoders",
    "_denoiser",
    "_posterior",
    "_network",
    "_bootstrap",
    "_pair_regression",
    "_selection",
    "_memory",
    "_recall",
    "_retrieval",
    "_epochs",
    "_linkage",
    "_trainer",
    "_training",
    "_completion",
    "_blocks",
    "_layout",
    "_joint",
    "_imputer",
    "_cross_modal",
    "_display",
    "__init__",
]
TORCH_FREE = {"_version", "_compat", "_imputer", "_cross_modal", "__init__"}
TORCH_FREE |= {"_pickling"}
TORCH_FREE |= {
    "_kinds",
    "_modalities",
    "_markers",
    "_joining",
    "missingness",
    "pooling",
    "_containers",
    "_filling",
    "_columns",
    "_checks",
    "_scaling",
    "_relations",
    "_table",
    "_metrics",
    "_results",
    "_comparison",
    "evaluation",
}
SKLEARN_USERS = {"_compat", "missingness", "_checks", "_imputer", "_cross_modal"}
SKLEARN_USERS |= {"_comparison", "evaluation", "_pickling"}


def imports(name):
    """(top-level modules of others, modules of the package) that a file imports."""
    outside, inside = set(), set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.startswith("_blocks."):
                module = "_blocks"
            inside |= {module} if module else {a.name for a in node.names}
    return outside, inside


def test_pictures_need_neither_torch_nor_the_model():
    for path in (PACKAGE / "_display").glob("*.py"):
        outside, inside = imports(f"_display/{path.stem}")
        assert "torch" not in outside
        own = {"_data", "_layout", "_panels", "_table"}
        assert inside <= {"_columns", "_containers", "_markers"} | own


def test_every_file_has_its_place():
    files = {path.stem for path in PACKAGE.glob("*.py")} | {"_display", "_blocks"}
    assert files == set(ORDER)


FILES = [name for name in ORDER if name not in ("_display", "_blocks")]
# Files of the model of modalities, in their own order.
BLOCKS = [
    "_encoder",
    "_features",
    "_anchor",
    "_cross_fit",
    "_diffusion",
    "_denoiser",
    "_model",
    "_training",
    "_completion",
]


@pytest.mark.parametrize("name", BLOCKS)
def test_files_of_the_blocks_import_one_way(name):
    outside, inside = imports(f"_blocks/{name}")
    assert "sklearn" not in outside
    above = set(ORDER[: ORDER.index("_blocks")])
    assert inside <= above | set(BLOCKS[: BLOCKS.index(name)])


def test_every_file_of_the_blocks_has_its_place():
    files = {path.stem for path in (PACKAGE / "_blocks").glob("*.py")}
    assert files - {"__init__"} == set(BLOCKS)


@pytest.mark.parametrize("name", FILES)
def test_imports_point_one_way(name):
    outside, inside = imports(name)
    assert inside <= set(ORDER[: ORDER.index(name)])
    assert "torch" not in outside or name not in TORCH_FREE
    assert "sklearn" not in outside or name in SKLEARN_USERS


def test_only_compat_touches_private_scikit_learn():
    for name in FILES:
        for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "sklearn"
            ):
                private = [a.name for a in node.names if a.name.startswith("_")]
                private += [p for p in node.module.split(".") if p.startswith("_")]
                assert not private or name == "_compat", (name, node.module, private)


@pytest.mark.parametrize("name", FILES + [f"_blocks/{name}" for name in BLOCKS])
def test_files_and_functions_stay_readable(name):
    text = (PACKAGE / f"{name}.py").read_text()
    assert len(text.splitlines()) - n_documented(text) <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = [n for n in node.body if not _is_docstring(n)]
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 55, (name, node.name, length)


def n_documented(text):
    """Lines of docstrings of classes and functions."""
    documented = (ast.ClassDef, ast.FunctionDef)
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, documented)]
    strings = [n.body[0] for n in nodes if _is_docstring(n.body[0])]
    return sum(s.end_lineno - s.lineno + 1 for s in strings)


def _is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
