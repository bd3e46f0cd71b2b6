"""Errors use the words of whoever reads them: arguments in Python, options on the command line."""

from __future__ import annotations

import ast
import errno
import inspect
import re
from pathlib import Path

import click
import pytest

import poscuda_fast
from poscuda_fast import system_errors
from poscuda_fast.cli import cli, wording
from poscuda_fast.cli.wording import of_command
from poscuda_fast.text import HEAD_SHOWN, MOST_SHOWN, TAIL_SHOWN, message

PACKAGE = Path(poscuda_fast.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z]")
OF_OTHER_PROGRAMS = re.compile(r"pip install|poscuda doctor|poscuda report")


def texts(path: Path) -> list[str]:
    """The strings of a file that are not docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


@pytest.mark.parametrize("path", [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "cli"], ids=str)
def test_the_library_names_no_option_of_the_command(path: Path) -> None:
    assert [text for text in texts(path) if OPTION.search(text) and not OF_OTHER_PROGRAMS.search(text)] == []


@pytest.mark.parametrize(
    ("python", "command"),
    [
        ("go on with the others alone (partial=True):\n  a.wav", "go on with the others alone (--partial):\n  a.wav"),
        ("or leave it unprotected (skip_unusable=True)", "or leave it unprotected (--skip-unusable)"),
        ("give its path (sidecar=PATH); if", "give its path (--sidecar PATH); if"),
        ("restore by it, without without_sidecar=True, or", "restore by it, without --without-sidecar, or"),
        (
            "undo first (restore_array or restore_folder with without_sidecar=True).",
            "undo first (poscuda restore --without-sidecar).",
        ),
        ("to edit in place, give dst=None.", "to edit in place, give --in-place."),
        ("a new path for a copy (dst=PATH)", "a new path for a copy (DST)"),
        ("turn it into FLAC (lossy='flac'), or", "turn it into FLAC (--lossy-to-flac), or"),
        ("take 10 or more (n_clips=NUMBER), or", "take 10 or more (--clips NUMBER), or"),
        ("Recipe.strength is 51; it must be", "--strength is 51; it must be"),
        ("labels[3] is 'x', but classes has 2 names.", "--labels[3] is 'x', but --classes has 2 names."),
        ("labels_from is 'x'; expected", "--labels-from is 'x'; expected"),
        ("snr was given, but the clips", "--snr was given, but the clips"),
        ("share is 2.0; it must be above 0", "--share is 2.0; it must be above 0"),
        ("dst is the root of all folders", "DST is the root of all folders"),
        ("it is 8,000 Hz; leave sample_rate out, or", "it is 8,000 Hz; leave --sample-rate out, or"),
    ],
)
def test_arguments_become_options(python: str, command: str) -> None:
    assert of_command(python) == command
    assert of_command(command) == command


@pytest.mark.parametrize(
    "text",
    [
        "/data/partial=True/labels is.wav has no label",
        "'sidecar=PATH' is a label",
        "the labels of files",
        "dst=Nonesuch",
    ],
)
def test_data_that_look_like_arguments_stay_as_they_are(text: str) -> None:
    assert of_command(text) == text


def test_the_words_are_those_of_functions_and_commands() -> None:
    arguments = {
        name
        for function in ("protect_folder", "protect_array", "restore_folder", "restore_array", "verify_folder")
        for name in inspect.signature(getattr(poscuda_fast, function)).parameters
    }
    options = {
        word
        for command in cli.commands.values()
        for option in command.params
        if isinstance(option, click.Option)
        for word in option.opts
    }
    for name in {*wording._SWITCHES, *wording._VALUES, *wording._SUBJECTS}:
        assert name in arguments
        assert wording._option(name) in options
    for name in wording._FIELDS:
        assert name in {**poscuda_fast.Recipe.paper().to_dict(), **poscuda_fast.Recipe.strong().to_dict()}
        assert wording._option(name) in options
    assert {"--in-place", "--lossy-to-flac", "--clips"} <= options


def test_what_the_system_refuses_is_told_with_the_path_and_advice() -> None:
    given = (Path("in"), Path("out"))
    named = OSError(errno.EACCES, "Permission denied", "a.wav")
    assert system_errors.sentence(named, given).startswith("a.wav: Permission denied; change its permissions")
    unnamed = OSError(errno.ENOSPC, "No space left on device")
    assert system_errors.sentence(unnamed, given) == "in or out: No space left on device; make room on that disk."
    moved = OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b")
    assert system_errors.sentence(moved, given) == (
        "a and b: Invalid cross-device link; see that it can be read and written."
    )


@pytest.mark.parametrize("value", ["x" * 10**6, repr(bytes(10**6)), "\x1b" * 10**6, "\U0010ffff" * 10**6])
def test_a_value_of_any_length_is_shown_in_part(value: str) -> None:
    found = message(f"labels[0] is {value}; labels are names.\n  a.wav")
    first, second = found.split("\n")
    assert len(first) <= MOST_SHOWN
    assert first.startswith("labels[0] is ")
    assert first.endswith("; labels are names.")
    assert second == "  a.wav"
    assert message(found) == found
    assert HEAD_SHOWN + TAIL_SHOWN + 100 <= MOST_SHOWN
    assert message("y" * MOST_SHOWN) == "y" * MOST_SHOWN
