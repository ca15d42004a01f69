"""The house: seven floors, each importing only from those below, and two walls."""

import ast
from pathlib import Path

import pytest

import admc_sklearn

PACKAGE = Path(admc_sklearn.__file__).parent
FLOORS = [
    {"_shared"},
    {"_table"},
    {"_cells", "_blocks"},
    {"_combined"},
    {"_storage", "_export"},
    {"missingness", "pooling", "evaluation", "_display"},
    {"_version", "_compat", "_pickling", "_storing", "_exporting", "_imputer"}
    | {"_callbacks", "_cross_modal", "_reporting", "__init__", "distributed"},
]
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(parts):
    """Room of a file or module, by its place in the package."""
    return parts[0].removesuffix(".py") if parts else "__init__"


def imports(path):
    """(top-level modules of others, rooms of the package) that a file imports."""
    outside, rooms = set(), set()
    package = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1]
            module = (*above, *(node.module or "").split("."))
            module = [part for part in module if part]
            rooms |= {room_of(module)} if module else {a.name for a in node.names}
    return outside, rooms


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_from_itself_and_from_the_floors_below(path):
    room = room_of(path.relative_to(PACKAGE).parts)
    floor = next(k for k, rooms in enumerate(FLOORS) if room in rooms)
    below = set().union(*FLOORS[:floor], {room})
    if floor >= 5:  # what users import has no wall between its rooms
        below |= FLOORS[floor]
    _, rooms = imports(path)
    assert rooms <= below


@pytest.mark.parametrize("room", ["_table", "_display", "evaluation"])
def test_what_users_give_is_read_without_torch(room):
    for path in (PACKAGE / room).glob("*.py"):
        assert "torch" not in imports(path)[0], path


@pytest.mark.parametrize("room", ["_shared", "_cells", "_blocks", "_combined"])
def test_models_know_no_estimators(room):
    """Trees are the exception: they are scikit-learn's, and arrays once they stand."""
    for path in (PACKAGE / room).rglob("*.py"):
        if path.name != "forests.py":
            assert "sklearn" not in imports(path)[0], path


def test_only_compat_touches_private_scikit_learn():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "sklearn"
            ):
                private = [a.name for a in node.names if a.name.startswith("_")]
                private += [p for p in node.module.split(".") if p.startswith("_")]
                assert not private or path.name == "_compat.py", (path, private)
