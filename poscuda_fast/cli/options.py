"""Options that several commands share, and how results and progress are shown."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Progress

KEY = click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), help="The key file.")
SIDECAR = click.option("--sidecar", type=click.Path(path_type=Path), help="Sidecar path; by default beside the data.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors.")


_PAPER = ("patch", "taps", "blur", "patches", "every", "identity")
RECIPE_FIELDS = ("paper", "strength", "sample_rate", *_PAPER)  # the options of `recipe_options`


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The fields of a recipe as options."""
    for option in (
        click.option("--identity", is_flag=True, default=None, help="Format 1: 1.0 on the filter's centre tap."),
        click.option("--patches", type=int, help="Format 1: patches per clip; 1 by default."),
        click.option("--blur", type=float, help="Format 1: taps are drawn from U(0, BLUR); 0.01 by default."),
        click.option("--taps", type=int, help="Format 1: filter length; 80 by default."),
        click.option("--every", type=int, help="Format 1: one patch per EVERY frames, instead of --patches."),
        click.option("--patch", type=int, help="Format 1: frames per patch; 240 by default."),
        click.option("--paper", is_flag=True, help="Format 1, the paper's method, which protects less."),
        click.option(
            "--sample-rate",
            type=int,
            help="Of the clips, Hz; it sets the mark's band. By default that of most files, 16000 for an array.",
        ),
        click.option("--strength", type=float, help="Level of the mark, in hundredths of full scale; 1 by default."),
    ):
        command = option(command)
    return command


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options for the labels of audio files, or the labels and lengths of an array's clips."""
    for option in (
        _path("--lengths", "For an array SRC: frames of each clip, .npy."),
        _path("--classes", "For --labels: class names, one per line."),
        _path("--labels", "For an array SRC: labels as .npy."),
        click.option(
            "--labels-from", metavar="SOURCE", default="folder", show_default=True,
            help="folder (the parent folder's name), csv:FILE (columns path,label) or regex:RE (its first group, on "
            "the file name).",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _path(name: str, text: str) -> Callable[..., Any]:
    return click.option(name, f"{name[2:]}_file", type=click.Path(path_type=Path), help=text)


def read_label_files(options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Labels, class names and lengths of an array's clips, None where not given."""
    from poscuda_fast.arrays.vectors import read_names, read_vector  # noqa: PLC0415 - NumPy, not needed for help

    readers = {"labels_file": read_vector, "classes_file": read_names, "lengths_file": read_vector}
    labels, classes, lengths = (options[name] and read(options[name]) for name, read in readers.items())
    return labels, classes, lengths


def take_recipe(options: dict[str, Any]) -> tuple[Recipe | None, float | None]:
    """The recipe that the options ask for, or None and the default's strength; removes them from `options`."""
    strong, paper = (
        {name: value for name in names if (value := options.pop(name)) is not None}
        for names in (("strength", "sample_rate"), _PAPER)
    )
    wants_paper = options.pop("paper") or bool(paper)
    if strong and wants_paper:
        mine, other = next(iter(strong)), next(iter(paper), "paper")
        raise click.UsageError(
            f"--{mine.replace('_', '-')} is of format 2 and --{other} of format 1; give options of one format only."
        )
    if wants_paper:
        return Recipe.paper(**paper), None
    return (Recipe.strong(**strong), None) if "sample_rate" in strong else (None, strong.get("strength"))


def refuse_array_options(options: dict[str, Any]) -> None:
    """UsageError if an option for arrays was given for audio files."""
    for name in ("labels_file", "classes_file", "lengths_file"):
        if options[name] is not None:
            raise click.UsageError(f"--{name[:-5]} is for an array SRC; audio files take --labels-from.")


def refuse_audio_options(options: dict[str, Any]) -> None:
    """UsageError if an option for audio files was given for an array, or if the array has no labels."""
    if options.get("label") is not None or options["labels_from"] != "folder":
        name = "labels-from" if options.get("label") is None else "label"
        raise click.UsageError(f"--{name} is for audio files; an array SRC takes --labels FILE.npy.")
    if options["labels_file"] is None:
        raise click.UsageError("An array SRC needs --labels FILE.npy with one label for each clip.")


def show(result: Any, *, as_json: bool) -> None:
    """Print a result as text or JSON."""
    click.echo(json.dumps(result.to_dict(), indent=1) if as_json else str(result))


@contextlib.contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress | None]:
    """A bar on stderr with rate and time left; nothing if stderr is not a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - rich takes longer to import than a small job
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rate="")

        def advance(done: int, total: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")

        yield advance
