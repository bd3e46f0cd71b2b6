"""The package as a whole: quick to import, one direction of imports, and every public name documented."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import each_backend

import poscuda_fast
from poscuda_fast.kernels import BACKENDS, load

PACKAGE = Path(poscuda_fast.__file__).parent

# A module imports only from levels above its own line.
LEVELS = [
    {"errors", "discretion", "recipe", "durability", "snr", "synth", "extras"},
    {"key", "labels", "kernels", "vectors"},
    {"marks", "workers"},
    {"plan"},
    {"dense"},
    {"arrays"},
    {"device_arrays"},
    {"report", "verification"},
    {"memory"},
    {"ownership", "journal"},
    {"inplace", "runs"},
    {"mapping"},
    {"pages"},
    {"array_target"},
    {"array_runs"},
    {"memmap", "sharded"},
    {"array_copy"},
    {"pcm", "encoded"},
    {"listing", "manifest", "records", "stored"},
    {"place", "filtering", "staging", "tar_samples", "wavedit", "reencode"},
    {"edits", "inspection"},
    {"blobs", "files", "final"},
    {"protector"},
    {"adapters"},  # none of which imports another
    {"folder"},
    {"originals"},
    {"poscuda_fast"},  # the public names
    {"demo", "doctor"},
    {"evaluation.decoding", "evaluation.models", "evaluation.padded", "evaluation.verdict", "evaluation.words"},
    {"evaluation.sources", "evaluation.quality", "evaluation.training"},
    {"evaluation.corpus"},
    {"evaluation.attacks"},
    {"evaluation.study"},
    {"evaluation"},
    {"reporting.survey", "reporting.evaluation", "reporting.histogram"},
    {"reporting.pictures", "reporting.sounds"},
    {"reporting.page"},
    {"reporting"},
    {"cli.help_pages", "cli.options"},
    {"cli.editing", "cli.looking"},
    {"cli"},
]
LEVEL = {module: level for level, modules in enumerate(LEVELS) for module in modules}


def place_of(name: str) -> str:
    """The entry of a module in the table: its own, or that of the package it is in."""
    return name if name in LEVEL else name.partition(".")[0]


# What `import poscuda_fast` must not cost; numpy alone is a tenth of a second.
HEAVY = {
    "cffi", "click", "cryptography", "cuda", "cupy", "jinja2", "llvmlite", "matplotlib", "numba", "numpy", "pandas",
    "rich", "scipy", "soundfile", "sqlite3", "torch",
}  # fmt: skip


def modules() -> list[tuple[str, ast.Module]]:
    """("plan", its syntax tree) for each file; a kernel is "kernels.cpu", a package's own file its name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found.append((name, ast.parse(path.read_text(encoding="utf-8"), str(path))))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that a file names in an import, at any depth of the code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            if node.module == "poscuda_fast":
                public = poscuda_fast.__all__
                yield from ("poscuda_fast" if a.name in public else f"poscuda_fast.{a.name}" for a in node.names)
            else:
                yield str(node.module)


def own_imports(tree: ast.Module) -> set[str]:
    """The package's modules among them, without its prefix."""
    return {name.removeprefix("poscuda_fast.") for name in imported(tree) if name.split(".")[0] == "poscuda_fast"}


ALL = modules()
TREES = [pytest.param(name, tree, id=name) for name, tree in ALL]


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


# Importing.


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = """
import json, sys
before = set(sys.modules)
import poscuda_fast
assert poscuda_fast.__version__ and dir(poscuda_fast) and poscuda_fast.__all__
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    loaded = json.loads(python(code))
    assert not {name.split(".")[0] for name in loaded} & HEAVY
    assert [name for name in loaded if name.startswith("poscuda_fast")] == ["poscuda_fast"]


def test_keys_and_recipes_need_no_compiler_and_no_audio_library() -> None:
    code = """
import json, sys
from poscuda_fast import Key, Recipe
import poscuda_fast.plan, poscuda_fast.kernels, poscuda_fast.memory
print(json.dumps(sorted(sys.modules)))
"""
    loaded = {name.split(".")[0] for name in json.loads(python(code))}
    assert not loaded & {"numba", "llvmlite", "torch", "rich", "scipy", "soundfile", "click", "pandas"}


def test_the_reference_backend_needs_no_compiler() -> None:
    code = """
import json, sys
import numpy as np
from poscuda_fast import Key, protect
assert protect(np.ones((1, 300), np.int16), [0], Key(bytes(32)), backend="reference").patches == 2
print(json.dumps(sorted(sys.modules)))
"""
    assert not {name.split(".")[0] for name in json.loads(python(code))} & {"numba", "llvmlite", "torch"}


# Public names.


def test_every_public_name_is_listed_and_loads() -> None:
    names = poscuda_fast.__all__
    assert names == sorted(set(names))
    assert set(names) <= set(dir(poscuda_fast))
    assert "__version__" in dir(poscuda_fast)
    for name in names:
        value = getattr(poscuda_fast, name)
        assert value.__name__ == name
        assert value.__module__.startswith("poscuda_fast.")
        assert getattr(poscuda_fast, name) is value


def test_the_names_for_type_checkers_are_the_public_names() -> None:
    tree = dict(ALL)["__init__"]
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    listed = {}
    for node in guarded.body:
        assert isinstance(node, ast.ImportFrom)
        (alias,) = node.names
        assert alias.asname == alias.name  # the form that exports a name
        listed[alias.name] = node.module
    assert sorted(listed) == poscuda_fast.__all__
    assert all(getattr(poscuda_fast, name).__module__ == module for name, module in listed.items())


def test_star_import() -> None:
    code = "from poscuda_fast import *\nprint(sorted(name for name in dir() if not name.startswith('__')))"
    assert python(code).strip() == str(poscuda_fast.__all__)


@pytest.mark.parametrize("name", ["Protect", "torch", "numba", "unprotect", "_secret"])
def test_an_unknown_name_is_an_attribute_error(name) -> None:
    with pytest.raises(AttributeError, match=f"module 'poscuda_fast' has no attribute '{name}'"):
        getattr(poscuda_fast, name)


def test_errors_have_one_root() -> None:
    for name in poscuda_fast.__all__:
        value = getattr(poscuda_fast, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, poscuda_fast.PoscudaError)


# Imports go one way.


def test_every_module_has_a_level() -> None:
    """A new module is entered in the table above, where its place among the others is decided."""
    named = {place_of(name) for name, _ in ALL} - {"__init__"}
    assert named | {"poscuda_fast"} == set(LEVEL)
    assert len(LEVEL) == sum(map(len, LEVELS))


@pytest.mark.parametrize(("name", "tree"), TREES)
def test_imports_go_down_only(name, tree) -> None:
    if name == "__init__":
        return  # it imports by name, on first use; its names for type checkers are tested above
    if name.startswith("kernels"):
        # Its compiled half is in the same package.
        assert own_imports(tree) <= {"kernels.native": {"kernels"}, "kernels": {"discretion"}}.get(name, set())
        return
    for other in own_imports(tree):
        assert other in LEVEL, f"{name} imports {other}; a kernel is loaded by poscuda_fast.kernels only"
        assert LEVEL[other] < LEVEL[place_of(name)], f"{name} imports {other}, which is not below it"


def test_there_are_no_import_cycles() -> None:
    waiting = {name: own_imports(tree) for name, tree in ALL if name != "__init__"}
    waiting = {name: {other for other in others if other in waiting} for name, others in waiting.items()}
    while waiting:
        free = {name for name, others in waiting.items() if not others}
        assert free, f"a cycle among {sorted(waiting)}"
        waiting = {name: others - free for name, others in waiting.items() if name not in free}


def test_kernels_are_loaded_by_name_only() -> None:
    assert set(BACKENDS.values()) <= {f"poscuda_fast.{name}" for name, _ in ALL}
    for name, tree in ALL:
        assert not any(other.startswith("kernels.") for other in own_imports(tree)), name


@each_backend
def test_backends_have_one_signature(backend) -> None:
    """Whatever is public in the reference is in each backend, under the same name and with the same arguments."""
    reference, kernels = load("reference"), load(backend)
    functions = {
        name: function
        for name, function in inspect.getmembers(reference, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == reference.__name__
    }
    assert len(functions) >= 3
    for name, function in functions.items():
        kernel = getattr(kernels, name)
        assert kernel.__name__ == name
        assert inspect.signature(kernel) == inspect.signature(function), name


# Habits.


@pytest.mark.parametrize(("name", "tree"), TREES)
def test_habits(name, tree) -> None:
    """No print, no torch, no pickle, no guessable randomness, a docstring on the module and all that is public."""
    roots = {other.split(".")[0] for other in imported(tree)}
    assert not roots & {"cupy", "pandas", "pickle", "marshal", "shelve", "random"}
    assert "torch" not in roots or name.startswith("evaluation.")
    if name not in {"kernels.cpu", "kernels.cuda"}:
        assert "numba" not in roots or name == "doctor"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "eval", "exec", "input", "breakpoint"}, f"line {node.lineno}"
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


def sections(text: str) -> dict[str, str]:
    """A docstring's numpydoc sections."""
    parts = re.split(r"^(\w+)\n-{3,}$", inspect.cleandoc(text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section: str) -> set[str]:
    """The names that a section describes: "a, b : int" at the beginning of a line, or "a, b" alone."""
    found = set()
    for line in section.splitlines():
        if line and not line[0].isspace():
            found |= {name.strip() for name in line.split(":")[0].split(",")}
    return found


@pytest.mark.parametrize("name", poscuda_fast.__all__)
def test_public_names_are_documented(name) -> None:
    """Functions and classes describe each of their parameters, and functions what comes back and each error."""
    value = getattr(poscuda_fast, name)
    text = inspect.getdoc(value)
    assert text
    if isinstance(value, type) and issubclass(value, Exception):
        return
    parts = sections(text)
    parameters = set(inspect.signature(value).parameters)
    if inspect.isfunction(value):
        assert documented(parts["Parameters"]) == parameters
        assert parts["Returns"].strip()
        assert documented(parts["Raises"])
    else:
        described = documented(parts.get("Parameters", "")) | documented(parts.get("Attributes", ""))
        assert parameters <= described
        for method_name, method in vars(value).items():
            if not method_name.startswith("_") and (
                inspect.isfunction(method) or isinstance(method, classmethod | property)
            ):
                assert inspect.getdoc(getattr(value, method_name)), method_name


@pytest.mark.parametrize("name", poscuda_fast.__all__)
def test_documented_errors_exist(name) -> None:
    for error in documented(sections(inspect.getdoc(getattr(poscuda_fast, name))).get("Raises", "")):
        kind = getattr(builtins, error, None) or getattr(poscuda_fast, error)
        assert issubclass(kind, Exception)


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    for name in poscuda_fast.__all__:
        value = getattr(poscuda_fast, name)
        if inspect.isfunction(value):
            hints = inspect.get_annotations(value)
            assert set(hints) == {*inspect.signature(value).parameters, "return"}
