"""The commands that change none of your data: commit, evaluate, report, inspect, demo and doctor."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import poscuda_fast
from poscuda_fast import disk
from poscuda_fast.cli import completing
from poscuda_fast.cli.help_pages import Command
from poscuda_fast.cli.options import (
    JSON,
    KEY,
    QUIET,
    RATES,
    RECIPE_FIELDS,
    SAMPLE_RATE,
    SIDECAR,
    SNR,
    label_options,
    progress_bar,
    recipe_options,
    refuse_array_options,
    refuse_audio_options,
    refuse_sample_rate,
    take_recipe,
)
from poscuda_fast.cli.printing import say
from poscuda_fast.evaluation.names import NAMES
from poscuda_fast.results import table
from poscuda_fast.text import how_to_install, one_line

if TYPE_CHECKING:
    from poscuda_fast.evaluation import sources


@click.command(cls=Command, short_help="Test on your clips whether protection works.")
@click.argument("src", type=click.Path(path_type=Path))
@KEY
@click.option(
    "-o",
    "--out",
    default="evaluation.json",
    show_default=True,
    type=click.Path(path_type=Path),
    help="A new file for the result. The plot is written beside it, as .svg; finished trainings, until then, as "
    ".part.json.",
)
@label_options
@SAMPLE_RATE
@recipe_options
@SNR
@SIDECAR
@click.option(
    "--clips",
    type=click.IntRange(min=10),
    default=3000,
    show_default=True,
    help="Use at most this many, drawn class by class, at least 5 of each.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01),
    help="Use this much of each clip; by default what 95 % of them fit into, 1 to 4.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Choice(NAMES),
    help="May be given several times; m5, lstm and cnn by default.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Of each training; by default enough for each model.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings of each model.")
@click.option("--attacks/--no-attacks", default=True, show_default=True, help="Also train as an attacker might.")
@QUIET
def evaluate(src: Path, key_file: Path, out: Path, *, quiet: bool, **options: Any) -> None:
    """Train small models on SRC, clean and protected, to see whether protection works.

    SRC is only read. It says how long it takes once the first model is trained.
    If it is stopped, the same command goes on. Needs PyTorch.

    \b
    Examples:
      poscuda evaluate recordings/ --key my.key
      poscuda evaluate protected/ --key my.key --seeds 3 --no-attacks
    \f
    SRC is clean, or protected with its sidecar beside it, which then tells
    recipe and labels. Models train on four fifths of the clips and are tested
    on clean clips of the last fifth. Protection "works" if, with 95 %
    certainty, at most a quarter is left of what the best model learns from
    clean clips, and "works in part" up to 60 %. Models train on protected clips
    plainly and as most people do, with random shifts, noise and masks, and the
    better counts. An attack that looks for the marks is judged in the same way:
    if it earns a worse word, protection "works, but not against attacks", or
    only in part against them. Needs the extra "experiments".

    \b
    More examples:
      poscuda evaluate digits/ --key my.key --labels-from 'regex:^(\\d)_' -o digits.json
      poscuda evaluate clips.npy --key my.key --labels labels.npy --sample-rate 8000
    """
    plot, finished = _plot_beside(out), out.with_suffix(".part.json")
    key = poscuda_fast.Key.load(key_file)

    def tell(line: str) -> None:
        if not quiet:
            say(line, err=True)

    tell("Loading PyTorch.")
    try:
        from poscuda_fast.evaluation import finished as trainings  # noqa: PLC0415 - it needs torch, as the next do
        from poscuda_fast.evaluation import study, words  # noqa: PLC0415

        importlib.import_module("matplotlib")  # the plot is drawn last, when all has been trained
    except ImportError as error:
        raise ImportError(f"poscuda evaluate needs {error.name}: {how_to_install('experiments')}.") from None
    except OSError as error:  # torchaudio beside a torch that it was not built for
        raise ImportError(
            f"torch or torchaudio cannot be loaded ({error}); they must fit each other: in a fresh environment, "
            f"{how_to_install('experiments')}."
        ) from None
    trainings.refuse_other(finished)
    with contextlib.ExitStack() as stack:
        try:  # before hours of work
            file, picture = (stack.enter_context(disk.appearing(path, mode=None)) for path in (out, plot))
        except OSError as error:
            reason = error.strerror or error
            raise click.ClickException(
                f"{out} cannot be written ({reason}); choose another path for it with --out."
            ) from None
        tell(f"Reading {one_line(str(src))}.")
        source = _source(src, key, options)
        with progress_bar(src, quiet=quiet) as progress:
            found = study.evaluate(
                source,
                key,
                n_clips=options["clips"],
                seconds=options["seconds"],
                models=tuple(dict.fromkeys(options["models"])) or study.MODELS,
                epochs=options["epochs"],
                seeds=options["seeds"],
                attacks=options["attacks"],
                progress=progress,
                finished=finished,
                tell=tell,
            )
        if not quiet:
            say(words.text(found))
        file.write(words.stored(found))
        words.plot(found, picture)
    finished.unlink(missing_ok=True)
    if not quiet:
        say(f"Wrote {one_line(str(out))} and {one_line(str(plot))}.")


def _plot_beside(out: Path) -> Path:
    """The path of an evaluation's plot; an error if a result cannot be written to `out`."""
    _refuse_taken(out)
    plot = out.with_suffix(".svg")
    if out.suffix.lower() == plot.suffix:
        raise click.UsageError(
            f"--out {out} is a name for the plot, which is written beside the result; give a name such as "
            f"{out.with_suffix('.json')}."
        )
    if os.path.lexists(plot):
        raise FileExistsError(f"{plot} exists, and nothing is overwritten; choose another name with --out.")
    return plot


def _refuse_taken(out: Path) -> None:
    """FileExistsError or FileNotFoundError if a result cannot be written to `out`."""
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists, and nothing is overwritten; choose another name with --out.")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder of {out} does not exist; make it, or choose another path with --out.")


def _source(src: Path, key: poscuda_fast.Key, options: dict[str, Any]) -> sources.Source:
    """The clips to evaluate; UsageError for options that do not fit them."""
    from poscuda_fast.arrays.opening import is_array  # noqa: PLC0415
    from poscuda_fast.evaluation import sources  # noqa: PLC0415

    source: sources.Source
    recipe, snr = take_recipe(options)
    fixed = set(RECIPE_FIELDS)
    if is_array(src):
        refuse_audio_options(options)
        source = sources.Array(
            src,
            key,
            options["labels_file"],
            classes=options["classes_file"],
            lengths=options["lengths_file"],
            recipe=recipe,
            snr=snr,
            sample_rate=options["sample_rate"],
            sidecar=options["sidecar"],
        )
    else:
        refuse_array_options(options)
        source = sources.Folder(
            src, key, recipe=recipe, snr=snr, labels_from=options["labels_from"], sidecar=options["sidecar"]
        )
        fixed = {*RECIPE_FIELDS, "labels_from"}
    if source.was_protected:
        _refuse_given(fixed)
    return source


def _refuse_given(names: set[str]) -> None:
    """UsageError if an option was given that has no effect on data that are protected already."""
    context = click.get_current_context()
    for name in sorted(names):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"SRC is protected already and is evaluated with the recipe and labels in its sidecar; leave out "
                f"--{name.replace('_', '-')}."
            )


@click.command(cls=Command, short_help="Make a private page to see and hear the mark.")
@click.argument("src", type=click.Path(path_type=Path))
@KEY
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The page, a new HTML file.")
@click.option(
    "--evaluation",
    type=click.Path(path_type=Path),
    shell_complete=completing.files(".json"),
    help="A result of poscuda evaluate, to show on the page.",
)
@click.option(
    "--sample-rate",
    type=int,
    shell_complete=RATES,
    help="For an array SRC in format 1, which records none: its sample rate, Hz.",
)
@SIDECAR
@QUIET
def report(
    src: Path,
    key_file: Path,
    *,
    out: Path,
    evaluation: Path | None,
    sample_rate: int | None,
    sidecar: Path | None,
    quiet: bool,
) -> None:
    """Write a private HTML page that shows what was protected in SRC.

    It shows and plays a typical clip and those with the lowest SNR, before,
    after and as the difference, and has a blind test of whether you hear it.
    Keep it as secret as the sidecar. Needs the extra "report".

    \b
    Examples:
      poscuda report protected/ --key my.key -o report.html
      poscuda report clips.npy --key my.key -o report.html
    \f
    The page needs no network.

    \b
    More examples:
      poscuda report protected/ --key my.key -o report.html --evaluation evaluation.json
    """
    from poscuda_fast import reporting  # noqa: PLC0415 - not needed for anything else
    from poscuda_fast.arrays.opening import is_array  # noqa: PLC0415 - not needed for anything else

    if not is_array(src):
        refuse_sample_rate(sample_rate)
    key = poscuda_fast.Key.load(key_file)
    with progress_bar(src, quiet=quiet) as progress:
        reporting.write_report(
            src,
            key,
            out,
            evaluation=evaluation,
            sample_rate=sample_rate,
            sidecar=sidecar,
            progress=progress,
        )
    if not quiet:
        say(f"Wrote {one_line(str(out))}. It shows the marks: keep it as secret as the sidecar.")


@click.command(cls=Command, short_help="State what is protected, before you publish.")
@click.argument("protected", type=click.Path(path_type=Path))
@KEY
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A new JSON file for the statement.")
@click.option("--hide-labels", is_flag=True, help="State labels so that only the key's owner can tell them.")
@SIDECAR
@JSON
@QUIET
def commit(
    protected: Path,
    key_file: Path,
    *,
    out: Path,
    hide_labels: bool,
    sidecar: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a dated statement of what is protected in PROTECTED.

    A later ownership test that refers to it shows that key and labels were not
    chosen after the fact. It has no secret. Publish its digest before the data.

    \b
    Examples:
      poscuda commit protected/ --key my.key -o statement.json
    \f
    PROTECTED is a folder, an audio file or an array, protected in place or a
    copy, with its sidecar. The statement has the date, the recipe, the labels,
    digests of the protected clips, and what commits to the key without telling
    it. The date is only as good as its witness: publish the digest, or have it
    time-stamped by somebody else, before the data are out.

    \b
    More examples:
      poscuda commit protected/ --key my.key -o statement.json --hide-labels
      poscuda commit clips.npy --key my.key -o statement.json
    """
    _refuse_taken(out)
    key = poscuda_fast.Key.load(key_file)
    with progress_bar(protected, quiet=quiet):
        statement = poscuda_fast.ownership_statement(protected, key, sidecar=sidecar, hide_labels=hide_labels)
    statement.save(out)
    if quiet:
        return
    if as_json:
        say(json.dumps(statement.to_dict(), indent=1))
        return
    say(str(statement))
    say(
        f"Wrote {one_line(str(out))}, which has no secret. It proves a date only if others saw its digest then: "
        f"publish the digest, or have it time-stamped by somebody else, before you release the data."
    )


@click.command(cls=Command, short_help="Show what a file or folder is.")
@click.argument("file", type=click.Path(path_type=Path))
@SAMPLE_RATE
@recipe_options
@JSON
def inspect(file: Path, *, sample_rate: int | None, as_json: bool, **fields: Any) -> None:
    """Show what FILE is, and what protecting it would do.

    FILE is audio, an array, or a folder of audio. Nothing is written, and no key
    is needed.

    \b
    Examples:
      poscuda inspect recordings/
      poscuda inspect protected/yes/a.wav
      poscuda inspect clips.npy --json
    \f
    A sidecar and a manifest beside FILE, or beside a folder that it lies in,
    are named; whether it is protected now, verify tells. Files that cannot be
    marked are counted, and listed by --json.

    \b
    More examples:
      poscuda inspect recordings/ --strength 2
      poscuda inspect clips.npy --sample-rate 8000
    """
    from poscuda_fast.cli import describing, inspection  # noqa: PLC0415

    recipe, _ = take_recipe(fields)
    with progress_bar(file, quiet=as_json):
        facts = inspection.inspect(file, recipe, sample_rate)
    if as_json:
        say(json.dumps(facts, indent=1))
    else:
        say(table(describing.of_inspection(facts)))


@click.command(cls=Command, short_help="See it at work on generated sounds, in seconds.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A new folder for the demo's files; default: a temporary one."
)
def demo(out: Path | None) -> int:
    """Protect, verify and restore generated sounds, and let a toy learn from them.

    Everything is written to a new folder. Exit code 1 means that something was
    not as promised.

    \b
    Examples:
      poscuda demo
      poscuda demo --out demo
    """
    from poscuda_fast.cli import demo as show  # noqa: PLC0415

    return 0 if show.run(out, say) else 1


@click.command(cls=Command, short_help="Show what this installation can do.")
@JSON
def doctor(*, as_json: bool) -> int:
    """Show what this installation can do here, and why something is missing.

    Versions, cores, backends and extras. Nothing is written. Exit code 1 means
    that a backend gives wrong bits or that none works; a missing extra is not an
    error.

    \b
    Examples:
      poscuda doctor
      poscuda doctor --json
    """
    from poscuda_fast.cli import describing  # noqa: PLC0415
    from poscuda_fast.cli import doctor as practice  # noqa: PLC0415

    found = practice.examine()
    say(json.dumps(found, indent=1) if as_json else table(describing.of_examination(found), 22))
    return 0 if found["ok"] else 1
