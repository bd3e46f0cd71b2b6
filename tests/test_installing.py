"""What a user meets first: the extras that a page names, help whose examples are real, completion, types."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import readme
from packaging.requirements import Requirement

import poscuda_fast
from poscuda_fast.cli import cli, help_pages
from poscuda_fast.kernels import why_missing

ROOT = Path(__file__).parents[1]
PAGES = {"": cli, **cli.commands}


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """An environment in which the `poscuda` of these tests' Python is the first on the path."""
    return readme.with_poscuda(tmp_path)


def run(*command: object, **options: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def table() -> dict[str, str]:
    """The table of extras: name -> what it brings."""
    page = (ROOT / "poscuda_fast" / "docs" / "installing.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"^\| extra \| for \| brings \|\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in rows.splitlines()]
    return {name.strip("`"): brings for name, _, brings in cells}


def test_the_page_names_every_extra_and_what_it_brings() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python has it from 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = table()
    assert set(rows) == set(project["optional-dependencies"])
    for extra, lines in project["optional-dependencies"].items():
        for line in lines:
            asked = Requirement(line)
            needed = asked.extras if asked.name == project["name"] else [asked.name]
            assert not [each for each in needed if not re.search(rf"(?<![\w-]){each}(?![\w-])", rows[extra])], extra


# Help.


def examples(command: click.Command) -> list[str]:
    """The lines of the examples on a command's help pages."""
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    blocks = re.findall(r"^(?:More e|E)xamples:\n((?:  .*\n?)+)", text, re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines()]


def parse(line: str) -> click.Context:
    """The context of a command that is parsed and not run."""
    program, name, *arguments = shlex.split(re.sub(r'^eval "\$\((.*)\)"$|(.*) \| source$', r"\1\2", line))
    assert program == "poscuda", line
    return cli.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("name", list(cli.commands))
def test_the_examples_of_a_help_page_are_real(name: str) -> None:
    lines = examples(cli.commands[name])
    assert lines
    for line in lines:
        assert parse(line).info_name == name


def test_what_is_wrong_in_an_example_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        parse("poscuda verify protected/ --fast")
    with pytest.raises(click.MissingParameter):
        parse("poscuda restore protected/")


@pytest.mark.parametrize("name", PAGES)
def test_help_fits_a_screen(program, name: str) -> None:
    lines = run("poscuda", *name.split(), "--help", env=program).splitlines()
    assert lines[0].startswith("Usage: poscuda")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any("--help-all" in line for line in lines)
    assert any("my.key" in line or "poscuda " in line for line in lines[1:])  # an example


@pytest.mark.parametrize("name", PAGES)
def test_help_all_shows_every_option_and_all_examples(program, name: str) -> None:
    shown = run("poscuda", *name.split(), "--help-all", env=program)
    assert shown.startswith("Usage: poscuda")
    for line in examples(PAGES[name]):
        assert f"{line}\n" in shown
    for parameter in PAGES[name].params:
        if isinstance(parameter, click.Option):
            assert re.search(rf"^  (-\w, )?{parameter.opts[-1]}\b", shown, re.MULTILINE), parameter.opts
    if not name:
        assert all(word in shown for word in ("Exit codes:", "Environment:", "poscuda.json", "the sidecar"))


def test_every_command_says_which_options_come_first() -> None:
    for name, command in cli.commands.items():
        options = {one.name for one in command.params if isinstance(one, click.Option)}
        first = help_pages.FIRST.get(name, ())
        assert options >= set(first)
        assert first or not options


def test_poscuda_alone_says_what_to_type_next(program) -> None:
    lines = run("poscuda", env=program).splitlines()
    assert len(lines) <= 8
    for line in lines[1:]:
        command = line.split("   ")[0].strip()
        assert command == "poscuda --help" or parse(command)


def test_version_tells_name_and_version(program) -> None:
    assert run("poscuda", "--version", env=program) == f"poscuda, version {poscuda_fast.__version__}\n"


# Completion.


def complete(program: dict[str, str], words: str) -> list[str]:
    """What bash would be told at the end of the words."""
    asked = {"_POSCUDA_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    return run("poscuda", env=program | asked).split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("poscuda pro", ["plain,protect"]),
        ("poscuda protect --label", ["plain,--labels-from", "plain,--labels", "plain,--label"]),
        ("poscuda completion ", ["plain,bash", "plain,zsh", "plain,fish"]),
        ("poscuda inspect rec", ["file,rec"]),
        ("poscuda verify protected --key my", ["file,my"]),
    ],
)
def test_words_are_completed(program, words: str, expected: list[str]) -> None:
    assert complete(program, words) == expected


ASK = {
    "bash": """
        eval "$(poscuda completion bash)"
        COMP_WORDS=(poscuda pro) COMP_CWORD=1
        _poscuda_completion poscuda
        echo "${COMPREPLY[@]}"
    """,
    "zsh": """
        autoload -Uz compinit && compinit -u -D
        eval "$(poscuda completion zsh)"
        [ "$_comps[poscuda]" = _poscuda_completion ] && echo protect
    """,
    "fish": """
        poscuda completion fish | source
        complete -C "poscuda pro" | string split -f1 \\t
    """,
}


@pytest.mark.parametrize("shell", ASK)
def test_a_shell_takes_what_is_printed_for_it(program, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert run(shell, "-c", ASK[shell], env=program | {"HOME": str(tmp_path)}).strip() == "protect"


# Types.


def test_the_stub_of_the_compiled_module_is_what_it_says_of_itself() -> None:
    problem = why_missing("native")
    if problem is not None:
        pytest.skip(problem)
    from poscuda_fast.kernels import _native

    stub = ast.parse((Path(poscuda_fast.__file__).parent / "kernels" / "_native.pyi").read_text(encoding="utf-8"))
    functions = [node for node in stub.body if isinstance(node, ast.FunctionDef)]
    stubbed = {node.name: [argument.arg for argument in node.args.args] for node in functions}
    compiled = {
        name: re.findall(r"(\w+): ", value.__nb_signature__[0][0])
        for name, value in vars(_native).items()
        if not name.startswith("_")
    }
    assert stubbed == compiled


def test_native_kernels_that_are_older_than_their_sources_say_so(tmp_path: Path, monkeypatch) -> None:
    """Where there are no sources, as in a wheel, nothing is said."""
    problem = why_missing("native")
    if problem is not None:
        pytest.skip(problem)
    from poscuda_fast.kernels import native

    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    native._warn_if_stale()
    (tmp_path / "patches.cpp").write_text("// other")
    with pytest.warns(RuntimeWarning, match=r"built before their sources in .* changed: run pip install -e \. again"):
        native._warn_if_stale()
