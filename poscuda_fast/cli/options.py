"""Options that several commands share, and how results and progress are shown."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import click

from poscuda_fast.cli import completing
from poscuda_fast.cli.printing import Patient, say
from poscuda_fast.cli.wording import of_command
from poscuda_fast.recipe import Recipe
from poscuda_fast.results import Progress, Report, Verification
from poscuda_fast.text import one_line

KEY = click.option(
    "--key", "key_file", required=True, type=click.Path(path_type=Path), shell_complete=completing.files(".key"),
    help="The key file.",
)  # fmt: skip
SIDECAR = click.option(
    "--sidecar", type=click.Path(path_type=Path), shell_complete=completing.files(".poscuda"),
    help="Sidecar path; by default beside the data.",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors.")
PARTIAL = "Leave out files or clips that are missing or were changed, and {} the others."
SKIP = click.option("--skip-unusable", is_flag=True, help="Leave audio that cannot be marked unprotected, and list it.")
SNR = click.option(
    "--snr", type=float, metavar="DB", shell_complete=completing.values(20, 25, 30),
    help="Set the strength so that the median clip has this SNR.",
)  # fmt: skip
SHARE = click.option(
    "--share", type=float, metavar="PART", shell_complete=completing.values(0.01, 0.05, 0.1),
    help="Mark only this share of the clips, such as 0.05: to prove use, not to make them unlearnable.",
)  # fmt: skip
RATES = completing.values(8000, 16_000, 22_050, 44_100, 48_000)
SAMPLE_RATE = click.option(
    "--sample-rate",
    type=int,
    shell_complete=RATES,
    help="For an array SRC: its sample rate, Hz; 16000 is assumed. Audio files have theirs.",
)

SECONDS_SHOWN = 0.1  # a progress bar is drawn again after this
_PAPER = ("patch", "taps", "blur", "patches", "every", "identity")
RECIPE_FIELDS = ("paper", "strength", "snr", *_PAPER)  # what `take_recipe` takes


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The fields of a recipe as options."""
    for option in (
        click.option("--identity", is_flag=True, default=None, help="Format 1: 1.0 on the filter's centre tap."),
        click.option("--patches", type=int, help="Format 1: patches per clip; 1 by default."),
        click.option(
            "--blur", type=float, shell_complete=completing.values(0.01, 0.3),
            help="Format 1: taps are drawn from U(0, BLUR); 0.01 by default.",
        ),
        click.option("--taps", type=int, help="Format 1: filter length; 80 by default."),
        click.option("--every", type=int, help="Format 1: one patch per EVERY frames, instead of --patches."),
        click.option("--patch", type=int, help="Format 1: frames per patch; 240 by default."),
        click.option("--paper", is_flag=True, help="Format 1, the paper's method, which protects less."),
        click.option(
            "--strength", type=float, shell_complete=completing.values(0.5, 1, 2, 4),
            help="Level of the mark, 0.01 to 50: 1, the default, is -46 dB, 2 is 6 dB more.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options for the labels of audio files, or the labels and lengths of an array's clips."""
    for option in (
        _path("--lengths", ".npy", "For an array SRC: frames of each clip, .npy."),
        _path("--classes", ".txt", "For --labels: class names, one per line."),
        _path("--labels", ".npy", "For an array SRC: labels as .npy."),
        click.option(
            "--labels-from", metavar="SOURCE", default="folder", show_default=True,
            shell_complete=completing.label_sources,
            help="folder (the parent folder's name), csv:FILE (columns path,label) or regex:RE (its first group, on "
            "the file name).",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _path(name: str, suffix: str, text: str) -> Callable[..., Any]:
    offered = completing.files(suffix)
    return click.option(name, f"{name[2:]}_file", type=click.Path(path_type=Path), shell_complete=offered, help=text)


def read_label_files(options: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Labels, class names and lengths of an array's clips, None where not given."""
    from poscuda_fast.arrays.vectors import read_names, read_vector  # noqa: PLC0415 - NumPy, not needed for help

    readers = {"labels_file": read_vector, "classes_file": read_names, "lengths_file": read_vector}
    labels, classes, lengths = (options[name] and read(options[name]) for name, read in readers.items())
    return labels, classes, lengths


def take_recipe(options: dict[str, Any]) -> tuple[Recipe, float | None]:
    """The recipe and the SNR that the options ask for; removes them from `options`."""
    strength, snr = options.pop("strength"), options.pop("snr", None)
    paper = {name: value for name in _PAPER if (value := options.pop(name)) is not None}
    if strength is not None and snr is not None:
        raise click.UsageError("--strength and --snr both set the level of the mark; give one of them.")
    if options.pop("paper") or paper:
        if strength is not None or snr is not None:
            mine, other = "snr" if strength is None else "strength", next(iter(paper), "paper")
            raise click.UsageError(
                f"--{mine} is of format 2 and --{other} of format 1; give options of one format only."
            )
        return Recipe.paper(**paper), None
    return Recipe.strong() if strength is None else Recipe.strong(strength), snr


def refuse_array_options(options: dict[str, Any]) -> None:
    """UsageError if an option for arrays was given for audio files."""
    for name in ("labels_file", "classes_file", "lengths_file"):
        if options[name] is not None:
            raise click.UsageError(f"--{name[:-5]} is for an array SRC; audio files take --labels-from.")
    refuse_sample_rate(options["sample_rate"])


def refuse_sample_rate(sample_rate: int | None) -> None:
    """UsageError if a sample rate was given for audio files."""
    if sample_rate is not None:
        raise click.UsageError("--sample-rate is for an array SRC; audio files have their own.")


def refuse_audio_options(options: dict[str, Any]) -> None:
    """UsageError if an option for audio files was given for an array, or if the array has no labels."""
    if options.get("label") is not None or options["labels_from"] != "folder":
        name = "labels-from" if options.get("label") is None else "label"
        raise click.UsageError(f"--{name} is for audio files; an array SRC takes --labels FILE.npy.")
    for name in ("skip_unusable", "lossy_to_flac"):
        if options.get(name):
            raise click.UsageError(f"--{name.replace('_', '-')} is for audio files, and SRC is an array.")
    if options["labels_file"] is None:
        raise click.UsageError("An array SRC needs --labels FILE.npy with one label for each clip.")


def refuse_without_options(dst: Path | None, options: dict[str, Any]) -> None:
    """UsageError if something was given that only --without-sidecar takes."""
    given = ["DST"] if dst is not None else []
    for name, value in options.items():
        if value not in (None, False, "folder"):
            given.append(f"--{name.removesuffix('_file').replace('_', '-')}")
    if given:
        raise click.UsageError(f"{given[0]} is for --without-sidecar; otherwise the sidecar tells it.")


def show(result: Report | Verification, *, as_json: bool) -> None:
    """Print a result as text or JSON; what a report tells of options is in the command's words."""
    if isinstance(result, Report):
        notes, left_out, unprotected = (
            tuple(map(of_command, told)) for told in (result.notes, result.left_out, result.unprotected)
        )
        result = dataclasses.replace(result, notes=notes, left_out=left_out, unprotected=unprotected)
    say(json.dumps(result.to_dict(), indent=1) if as_json else str(result))


@contextlib.contextmanager
def progress_bar(path: Path, *, quiet: bool) -> Iterator[Progress | None]:
    """On stderr a line, and then a bar with rate and time left; nothing if stderr is not a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - rich takes longer to import than a small job
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(file=cast("IO[str]", Patient(sys.stderr)))
    # Without a thread of its own, which a system may refuse.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task, shown = bar.add_task(f"Looking at {one_line(str(path))} ...", total=None, rate=""), 0.0
        bar.refresh()

        def advance(done: int, total: int) -> None:
            nonlocal shown
            speed = bar.tasks[task].speed
            rate = f"{speed:,.0f}/s" if speed else ""
            bar.update(task, description="", completed=done, total=total, rate=rate)
            now = time.monotonic()
            if done >= total or now - shown > SECONDS_SHOWN:
                bar.refresh()
                shown = now

        yield advance
