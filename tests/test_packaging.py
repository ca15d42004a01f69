"""What is published: its version, what it declares, what users' tools see of it."""

import inspect
import re
import typing
from functools import cached_property

import pytest

import admc_sklearn
from admc_sklearn import distributed, evaluation, missingness, pooling
from tests.conftest import ROOT

MODULES = [admc_sklearn, distributed, evaluation, missingness, pooling]


def _public_callables():
    """Functions, and the methods and properties that classes define, by name."""
    for module in MODULES:
        for name in module.__all__:
            public = getattr(module, name)
            if inspect.isfunction(public):
                yield f"{module.__name__}.{name}", public
            elif inspect.isclass(public):
                for member, value in vars(public).items():
                    if isinstance(value, property | cached_property):
                        yield f"{name}.{member}", value.fget
                    elif member == "__init__" or not member.startswith("_"):
                        value = getattr(public, member)
                        # scikit-learn makes set_fit_request and its like.
                        if callable(value) and not member.endswith("_request"):
                            yield f"{name}.{member}", value


CALLABLES = dict(_public_callables())


@pytest.fixture
def project():
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", CALLABLES)
def test_every_public_signature_is_annotated_and_can_be_resolved(name):
    function = CALLABLES[name]
    parameters = inspect.signature(function).parameters
    annotated = typing.get_type_hints(inspect.unwrap(function)).keys()
    own = {p for p in parameters if p not in ("self", "cls")}
    assert own | {"return"} <= annotated


def test_all_kinds_of_public_callables_are_found():
    assert {
        "ADMCImputer.__init__",
        "ADMCImputer.fit",
        "ADMCImputer.predict_proba",
        "ImputationDisplay.from_imputer",
        "PooledEstimates.p_value",
        "admc_sklearn.join_modalities",
        "admc_sklearn.missingness.ampute",
    } <= CALLABLES.keys()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_dir_shows_public_names_alone(module):
    assert set(module.__all__) <= set(dir(module))
    shown = {name for name in dir(module) if not name.startswith("_")}
    submodules = {"distributed", "evaluation", "missingness", "pooling"}
    assert shown <= {*module.__all__, *submodules}


def test_the_changes_of_this_version_are_written_down():
    text = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert released[0] == admc_sklearn.__version__


def test_declared_versions_of_python_begin_with_the_lowest(project):
    declared = re.findall(r":: (3\.\d+)", "\n".join(project["classifiers"]))
    assert f">={declared[0]}" == project["requires-python"]
    assert declared == sorted(declared, key=lambda v: int(v.split(".")[1]))


def test_the_package_says_that_it_is_typed(project):
    assert "Typing :: Typed" in project["classifiers"]
    assert (ROOT / "admc_sklearn" / "py.typed").exists()


@pytest.mark.parametrize("folder", ["tests", "examples"])
def test_the_source_distribution_has_what_the_tests_need(folder):
    lines = (ROOT / "MANIFEST.in").read_text().splitlines()
    assert f"graft {folder}" in lines
