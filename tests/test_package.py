"""The package as a whole: quick to import, one direction of imports, and every public name documented."""

from __future__ import annotations

import ast
import builtins
import enum
import inspect
import json
import os
import re
import subprocess
import sys

import pytest
from backends import each_backend
from rooms import FLOOR_OF, PACKAGE, imported, modules, rooms_of

import poscuda_fast
from poscuda_fast.kernels import BACKENDS, load

# What `import poscuda_fast` must not cost; numpy alone is a tenth of a second.
HEAVY = {
    "cffi", "click", "cryptography", "cuda", "cupy", "jinja2", "llvmlite", "matplotlib", "numba", "numpy", "pandas",
    "rich", "scipy", "soundfile", "sqlite3", "torch",
}  # fmt: skip


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
import poscuda_fast.mark.plan, poscuda_fast.kernels, poscuda_fast.arrays.memory
print(json.dumps(sorted(sys.modules)))
"""
    loaded = {name.split(".")[0] for name in json.loads(python(code))}
    assert not loaded & {"numba", "llvmlite", "torch", "rich", "scipy", "soundfile", "click", "pandas"}


def test_the_reference_backend_needs_no_compiler() -> None:
    code = """
import json, sys
import numpy as np
from poscuda_fast import Key, protect
assert protect(np.ones((1, 300), np.int16), [0], Key(bytes(32)), backend="reference").frames_changed == 300
print(json.dumps(sorted(sys.modules)))
"""
    assert not {name.split(".")[0] for name in json.loads(python(code))} & {"numba", "llvmlite", "torch"}


# Public names.


def test_every_public_name_is_listed_and_loads() -> None:
    names = poscuda_fast.__all__
    assert names == sorted(set(names))
    assert dir(poscuda_fast) == sorted([*names, "__version__"])
    assert poscuda_fast.__doc__.startswith("Make audio data sets unlearnable")
    for name in names:
        value = getattr(poscuda_fast, name)
        assert value.__name__ == name.replace("_memmap", "_array")  # two names for one function
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


@pytest.mark.parametrize("name", ["adapters", "evaluation", "reporting"])
def test_rooms_that_readme_names_need_no_import_of_their_own(name) -> None:
    assert getattr(poscuda_fast, name).__name__ == f"poscuda_fast.{name}"


def test_errors_have_one_root() -> None:
    for name in poscuda_fast.__all__:
        value = getattr(poscuda_fast, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, (poscuda_fast.PoscudaError, UserWarning))


# Imports go down.


@pytest.mark.parametrize(("name", "tree"), TREES)
def test_imports_go_down_only(name, tree) -> None:
    own = name.split(".")[0]
    assert own in FLOOR_OF, f"{own} is on no floor: decide its place in tests/rooms.py"
    for room in rooms_of(tree) - {own}:
        assert FLOOR_OF[room] < FLOOR_OF[own], f"{name} imports from {room}, which is not below it"


def test_files_import_each_other_in_no_circle() -> None:
    trees = {f"poscuda_fast.{name}".removesuffix(".__init__"): tree for name, tree in ALL}
    waiting = {
        name: {other if other in trees else other.rpartition(".")[0] for other in imported(tree)}
        for name, tree in trees.items()
        if name != "poscuda_fast"
    }
    while waiting:
        free = {name for name, others in waiting.items() if not others & set(waiting)}
        assert free, f"a circle among {sorted(waiting)}"
        waiting = {name: others for name, others in waiting.items() if name not in free}


def test_compiled_kernels_are_loaded_by_name_only() -> None:
    assert {name: f"poscuda_fast.kernels.{name}" for name in BACKENDS} == BACKENDS
    assert set(BACKENDS) >= {"native", "cpu", "cuda", "reference"}
    compiled = set(BACKENDS.values()) - {BACKENDS["reference"]}
    for name, tree in ALL:
        named = {part for other in imported(tree) for part in (other, other.rpartition(".")[0])}
        assert not named & compiled, name


@each_backend
def test_backends_have_one_signature(backend) -> None:
    """Every kernel of the reference is in each backend, under the same name and with the same arguments."""
    reference, kernels = load("reference"), load(backend)
    functions = {
        name: function
        for name, function in inspect.getmembers(reference, inspect.isfunction)
        if function.__module__ == reference.__name__ and not name.startswith("_")
    }
    assert set(functions) == {
        "filter_patches", "add_lines", "survey_patches", "measure_patches", "hash_pieces", "mark_and_hash",
        "tell_pieces",
    }  # fmt: skip
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
    if not name.startswith(("kernels.cpu", "kernels.adding", "kernels.compiling", "kernels.cuda")):
        assert "numba" not in roots
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
    if isinstance(value, enum.EnumMeta):
        return  # its members are its documentation
    parameters = {name for name in inspect.signature(value).parameters if not name.startswith("_")}
    if inspect.isfunction(value):
        assert documented(parts["Parameters"]) == parameters
        assert (parts.get("Returns") or parts["Yields"]).strip()
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
