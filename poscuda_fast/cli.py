"""The command line: words in, words out; the work is done elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import poscuda_fast
from poscuda_fast import help_pages
from poscuda_fast.errors import PoscudaError
from poscuda_fast.inplace import Progress
from poscuda_fast.recipe import Recipe

PROGRAM = "poscuda"
COMPLETE_VARIABLE = f"_{PROGRAM}_COMPLETE".upper()  # click's own name for it
REFUSED, STOPPED, INTERRUPTED = 2, 3, 130
MOST_USUAL_RATE = 16_000  # Hz, of arrays, which do not tell theirs
_REFUSALS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)


def main() -> None:
    """Run the command line and exit with a documented code."""
    try:
        code = cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(REFUSED)
    except (click.Abort, KeyboardInterrupt):
        click.echo("poscuda: interrupted; run the same command again to finish.", err=True)
        sys.exit(INTERRUPTED)
    except (PoscudaError, ValueError, TypeError, ImportError, *_REFUSALS) as error:
        click.echo(f"poscuda: {error}", err=True)
        sys.exit(REFUSED)
    except (OSError, MemoryError) as error:
        click.echo(f"poscuda: {error or type(error).__name__}\nRun the same command again to finish.", err=True)
        sys.exit(STOPPED)
    sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=help_pages.Group,
    epilog=help_pages.EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(poscuda_fast.__version__, prog_name=PROGRAM)
def cli() -> None:
    """Make audio data sets unlearnable in place, prove it, and undo it with the key."""


_KEY = click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), help="The key file.")
_SIDECAR = click.option("--sidecar", type=click.Path(path_type=Path), help="Where the sealed originals are kept.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors.")


_PAPER = ("patch", "taps", "blur", "patches", "every", "identity")


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The fields of a recipe as options."""
    for option in (
        click.option("--identity", is_flag=True, default=None, help="Format 1: 1.0 on the filter's centre tap."),
        click.option("--patches", type=int, help="Format 1: patches per clip; 1 by default."),
        click.option("--blur", type=float, help="Format 1: taps are in U(0, BLUR); 0.01 by default."),
        click.option("--taps", type=int, help="Format 1: filter length; 80 by default."),
        click.option("--every", type=int, help="Format 1: one patch for each EVERY frames, in place of --patches."),
        click.option("--patch", type=int, help="Format 1: frames per patch; 240 by default."),
        click.option("--paper", is_flag=True, help="Format 1, the paper's method, which protects less."),
        click.option(
            "--sample-rate",
            type=int,
            help="Of the clips, Hz, for the mark's band; by default that of most files, for an array 16000.",
        ),
        click.option("--strength", type=float, help="Level of the mark, in hundredths of full scale; 1 by default."),
    ):
        command = option(command)
    return command


def _recipe(options: dict[str, Any]) -> tuple[Recipe | None, float]:
    """The recipe that the options ask for, or None and a strength for the default; they are taken out of `options`."""
    strong, paper = (
        {name: value for name in names if (value := options.pop(name)) is not None}
        for names in (("strength", "sample_rate"), _PAPER)
    )
    wants_paper = options.pop("paper") or bool(paper)
    if strong and wants_paper:
        mine, other = next(iter(strong)), next(iter(paper), "paper")
        raise click.UsageError(
            f"--{mine.replace('_', '-')} is of format 2 and --{other} of format 1; give options of one of them."
        )
    if wants_paper:
        return Recipe.paper(**paper), 1.0
    return Recipe.strong(**strong) if "sample_rate" in strong else None, strong.get("strength", 1.0)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Write a new secret key to FILE, which must not exist.

    Only its owner can read it (mode 0600). Keep it secret and backed up: without it there is no undo and no verify.

    \b
    Examples:
      poscuda keygen my.key
      poscuda keygen ~/keys/recordings.key
    """
    key = poscuda_fast.Key.generate()
    key.save(file)
    click.echo(f"Wrote {file} with fingerprint {key.fingerprint}. Keep it secret and backed up.")


@cli.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", required=False, type=click.Path(path_type=Path))
@_KEY
@click.option("--in-place", is_flag=True, help="Edit SRC itself instead of making a copy at DST.")
@click.option(
    "--labels-from",
    metavar="SOURCE",
    default="folder",
    show_default=True,
    help="folder (the parent folder's name), csv:FILE (columns path,label) or regex:RE (its first group, on the "
    "file name).",
)
@click.option("--label", help="The label of a single audio file.")
@click.option("--labels", "labels_file", type=click.Path(path_type=Path), help="For a .npy SRC: labels as .npy.")
@click.option(
    "--classes", "classes_file", type=click.Path(path_type=Path), help="For --labels: class names, a line each."
)
@click.option(
    "--lengths", "lengths_file", type=click.Path(path_type=Path), help="For a .npy SRC: frames of each clip, .npy."
)
@_recipe_options
@click.option("--lossy-to-flac", is_flag=True, help="In a copy, turn MP3 and Ogg files into FLAC.")
@click.option("--backend", default="auto", show_default=True, help="auto, native, cpu, reference or cuda; same bits.")
@click.option("--threads", type=int, help="Threads to use; all cores by default.")
@_SIDECAR
@click.option("--dry-run", is_flag=True, help="Tell what would be done; write nothing.")
@_JSON
@_QUIET
def protect(
    src: Path,
    dst: Path | None,
    key_file: Path,
    *,
    in_place: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Protect SRC as a copy at DST, or in place.

    SRC is a folder of audio, one audio file, or a .npy array of clips with --labels. A copy leaves SRC as it is.
    Nothing that exists is ever overwritten, but SRC's patches with --in-place; their originals go to a sealed
    sidecar first. Sidecar and manifest are written beside the protected data. A run that was stopped is finished
    by the same command.

    \b
    Examples:
      poscuda protect recordings/ protected/ --key my.key
      poscuda protect digits/ out/ --key my.key --labels-from 'regex:^(\\d)_'
      poscuda protect yes.wav yes-protected.wav --key my.key --label yes
      poscuda protect recordings/ --in-place --key my.key --dry-run
      poscuda protect recordings/ louder/ --key my.key --strength 2
      poscuda protect recordings/ paper/ --key my.key --blur 0.3
      poscuda protect clips.npy --in-place --key my.key --labels labels.npy
    """
    if (dst is None) != in_place:
        raise click.UsageError("Give either DST, for a copy, or --in-place.")
    key = poscuda_fast.Key.load(key_file)
    recipe, strength = _recipe(options)
    with _progress(quiet=quiet) as progress:
        common = {
            "backend": options["backend"],
            "threads": options["threads"],
            "sidecar": options["sidecar"],
            "progress": progress,
            "dry_run": dry_run,
        }
        if src.suffix == ".npy":
            report = _protect_npy(src, dst, key, options, common | {"recipe": recipe or Recipe.strong(strength)})
        else:
            report = _protect_audio(src, dst, key, options, common | {"recipe": recipe, "strength": strength})
    if not quiet:
        _show(report, as_json=as_json)
        if report.classes == 1 and report.clips > 1:
            click.echo("Note: all clips are of one class; is that what the labels should say?", err=True)
    if dry_run and not as_json:
        click.echo("No files were modified.")


def _protect_audio(
    src: Path, dst: Path | None, key: poscuda_fast.Key, options: dict[str, Any], common: dict[str, Any]
) -> poscuda_fast.Report:
    for name in ("labels_file", "classes_file", "lengths_file"):
        if options[name] is not None:
            raise click.UsageError(f"--{name[:-5]} is for a .npy SRC; use --labels-from or --label for audio files.")
    labels_from: Any = options["labels_from"]
    if options["label"] is not None:
        if src.is_dir():
            raise click.UsageError("--label is for a single audio file; use --labels-from for a folder.")
        labels_from = {src.name: options["label"]}
    lossy = "flac" if options["lossy_to_flac"] else "refuse"
    return poscuda_fast.protect_folder(src, dst, key, labels_from=labels_from, lossy=lossy, **common)


def _protect_npy(
    src: Path, dst: Path | None, key: poscuda_fast.Key, options: dict[str, Any], common: dict[str, Any]
) -> poscuda_fast.Report:
    from poscuda_fast import npyfile  # noqa: PLC0415 - NumPy is not needed to print a help page

    if options["label"] is not None or options["labels_from"] != "folder":
        raise click.UsageError("--label and --labels-from are for audio files; a .npy SRC takes --labels FILE.npy.")
    if options["labels_file"] is None:
        raise click.UsageError("A .npy SRC needs --labels FILE.npy with one label for each clip.")
    return npyfile.protect_npy(
        src,
        dst,
        npyfile.read_vector(options["labels_file"]),
        key,
        classes=None if options["classes_file"] is None else npyfile.read_names(options["classes_file"]),
        lengths=None if options["lengths_file"] is None else npyfile.read_vector(options["lengths_file"]),
        **common,
    )


@cli.command()
@click.argument("src", type=click.Path(path_type=Path))
@_KEY
@_SIDECAR
@click.option("--partial", is_flag=True, help="Restore the rest although some files are missing or were changed.")
@_JSON
@_QUIET
def restore(src: Path, key_file: Path, sidecar: Path | None, *, partial: bool, as_json: bool, quiet: bool) -> None:
    """Put the original bytes of SRC back: a protected folder, audio file or .npy array.

    Only the patches are written, from the sidecar, which the key opens. Where files are missing or were changed
    since, it is refused, and --partial restores the rest.

    \b
    Examples:
      poscuda restore protected/ --key my.key
      poscuda restore protected/ --key my.key --sidecar safe/protected.poscuda
      poscuda restore protected/ --key my.key --partial
      poscuda restore clips.npy --key my.key
    """
    key = poscuda_fast.Key.load(key_file)
    with _progress(quiet=quiet) as progress:
        if src.suffix == ".npy":
            from poscuda_fast import npyfile  # noqa: PLC0415

            if partial:
                raise click.UsageError("--partial is for audio files; an array is restored whole.")
            report = npyfile.restore_npy(src, key, sidecar=sidecar, progress=progress)
        else:
            report = poscuda_fast.restore_folder(src, key, sidecar=sidecar, partial=partial, progress=progress)
    if not quiet:
        _show(report, as_json=as_json)


@cli.command("drop-undo")
@click.argument("src", type=click.Path(path_type=Path))
@_KEY
@_SIDECAR
@click.option("--yes", is_flag=True, help="Do not ask.")
@_JSON
@_QUIET
def drop_undo(src: Path, key_file: Path, sidecar: Path | None, *, yes: bool, as_json: bool, quiet: bool) -> None:
    """Destroy the originals kept for SRC, so that its protection is final.

    The data stay as they are. Nobody can open the originals in the sidecar afterwards, with or without the key.

    \b
    Examples:
      poscuda drop-undo protected/ --key my.key
      poscuda drop-undo clips.npy --key my.key --yes
    """
    key = poscuda_fast.Key.load(key_file)
    if not (yes or click.confirm(f"{src} can then never be restored, not even with the key. Go on?", err=True)):
        raise click.ClickException("The undo was not dropped.")
    report = poscuda_fast.drop_undo(src, key, sidecar=sidecar)
    if not quiet:
        _show(report, as_json=as_json)


@cli.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path), help="The key file; without it only the manifest is used."
)
@_SIDECAR
@_JSON
@_QUIET
def verify(src: Path, key_file: Path | None, sidecar: Path | None, *, as_json: bool, quiet: bool) -> int:
    """Tell which files of SRC are original, which are protected, and which are neither.

    Nothing is written. Exit code 0 means that everything is there and is wholly one or the other, else 1.

    \b
    Examples:
      poscuda verify protected/
      poscuda verify protected/ --key my.key
      poscuda verify clips.npy --key my.key --json
    """
    key = None if key_file is None else poscuda_fast.Key.load(key_file)
    if src.suffix == ".npy":
        from poscuda_fast import npyfile  # noqa: PLC0415

        if key is None:
            raise click.UsageError("A .npy array is verified against its sidecar, which needs --key.")
        verified = npyfile.verify_npy(src, key, sidecar=sidecar)
    else:
        verified = poscuda_fast.verify_folder(src, key, sidecar=sidecar)
    if not quiet:
        _show(verified, as_json=as_json)
    return 0 if verified.ok else 1


@cli.command()
@click.argument("src", type=click.Path(path_type=Path))
@_KEY
@click.option(
    "-o",
    "--out",
    default="evaluation.json",
    show_default=True,
    type=click.Path(path_type=Path),
    help="A new file for the result; the plot is written beside it, as .svg.",
)
@click.option("--labels-from", metavar="SOURCE", default="folder", show_default=True, help="As for protect.")
@click.option("--labels", "labels_file", type=click.Path(path_type=Path), help="For a .npy SRC: labels as .npy.")
@click.option("--lengths", "lengths_file", type=click.Path(path_type=Path), help="For a .npy SRC: frames of each clip.")
@_recipe_options
@_SIDECAR
@click.option("--clips", default=3000, show_default=True, help="Use at most so many, drawn class by class.")
@click.option("--seconds", type=float, help="What is used of a clip; by default what 95 % of them fit into, at most 4.")
@click.option(
    "--model", "models", multiple=True, help="m5, lstm, cnn or transformer, once for each; the first three by default."
)
@click.option("--epochs", type=int, help="Of each training; by default enough for each model.")
@click.option("--seeds", default=1, show_default=True, help="Trainings of each model.")
@click.option("--attacks/--no-attacks", default=True, show_default=True, help="Also train as an attacker might.")
@_QUIET
def evaluate(src: Path, key_file: Path, out: Path, *, quiet: bool, **options: Any) -> None:
    """Tell whether protection works on SRC: train small models on its clips, clean and protected, and test them.

    SRC is clean, or protected with its sidecar beside it; it is only read. Models learn from four fifths of the
    clips and are tested on clean clips of the last fifth. Needs the extra "experiments" (PyTorch); 3,000 clips of
    a second take about ten minutes on two cores.

    \b
    Examples:
      poscuda evaluate recordings/ --key my.key
      poscuda evaluate digits/ --key my.key --labels-from 'regex:^(\\d)_' -o digits.json
      poscuda evaluate protected/ --key my.key --seeds 3 --no-attacks
    """
    plot = out.with_suffix(".svg")
    for path in (out, plot):
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists, and nothing is overwritten; choose another name with --out.")
    key = poscuda_fast.Key.load(key_file)
    try:
        from poscuda_fast.evaluation import corpus, study, words  # noqa: PLC0415 - they need torch
    except ImportError as error:
        raise ImportError(f"poscuda evaluate needs {error.name}: pip install 'poscuda-fast[experiments]'.") from None
    rate = options["sample_rate"] or MOST_USUAL_RATE
    recipe, strength = _recipe(options)
    sidecar = options["sidecar"]
    source: corpus.Source
    if src.suffix == ".npy":
        source = corpus.open_npy(
            src, key, options["labels_file"], options["lengths_file"], recipe or Recipe.strong(strength), rate, sidecar
        )
    else:
        source = corpus.Folder(
            src, key, recipe=recipe, strength=strength, labels_from=options["labels_from"], sidecar=sidecar
        )
    with _progress(quiet=quiet) as progress:
        found = study.evaluate(
            source,
            key,
            clips=options["clips"],
            seconds=options["seconds"],
            models=options["models"] or study.MODELS,
            epochs=options["epochs"],
            seeds=options["seeds"],
            with_attacks=options["attacks"],
            progress=progress,
            tell=None if quiet else lambda line: click.echo(line, err=True),
        )
    words.store(found, out)
    words.plot(found, plot)
    if not quiet:
        click.echo(words.text(found))
        click.echo(f"Wrote {out} and {plot}.")


@cli.command()
@click.argument("src", type=click.Path(path_type=Path))
@_KEY
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The page, a new HTML file.")
@click.option(
    "--evaluation", type=click.Path(path_type=Path), help="What poscuda evaluate stored, to be shown on the page."
)
@click.option("--sample-rate", type=int, help="Of a .npy SRC, Hz; 16000 by default.")
@_SIDECAR
@_QUIET
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
    """Write a private HTML page that shows what was protected in SRC, for its owner.

    It shows the clips that changed most, before and after, to see and to hear, and opens without a network. Keep it
    as secret as the sidecar. It needs pip install 'poscuda-fast[report]'.

    \b
    Examples:
      poscuda report protected/ --key my.key -o report.html
      poscuda report clips.npy --key my.key -o report.html --sample-rate 8000
      poscuda report protected/ --key my.key -o report.html --evaluation evaluation.json
    """
    from poscuda_fast import reporting  # noqa: PLC0415 - not needed for anything else

    if sample_rate is not None and src.suffix != ".npy":
        raise click.UsageError("--sample-rate is for a .npy SRC; audio files tell their own.")
    key = poscuda_fast.Key.load(key_file)
    with _progress(quiet=quiet) as progress:
        reporting.write_report(
            src,
            key,
            out,
            evaluation=evaluation,
            sample_rate=reporting.SAMPLE_RATE if sample_rate is None else sample_rate,
            sidecar=sidecar,
            progress=progress,
        )
    if not quiet:
        click.echo(f"Wrote {out}. It shows where the patches are: keep it as secret as the sidecar.")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@_recipe_options
@_JSON
def inspect(file: Path, *, as_json: bool, **fields: Any) -> None:
    """Tell what FILE is (audio, .npy, or a folder of audio) and what protecting it would do.

    Nothing is written, and no key is needed.

    \b
    Examples:
      poscuda inspect protected/yes/a.wav
      poscuda inspect recordings/ --strength 2
      poscuda inspect clips.npy --sample-rate 8000 --json
    """
    from poscuda_fast import inspection  # noqa: PLC0415

    facts = inspection.inspect(file, *_recipe(fields))
    if as_json:
        click.echo(json.dumps(facts, indent=1))
    else:
        click.echo("\n".join(f"{name:<18} {value}" for name, value in facts.items()))


@cli.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="A new folder for the demo's files; default: a temporary one."
)
def demo(out: Path | None) -> int:
    """Protect, verify and restore a small speech-like data set that is made on the spot.

    Everything is written to a folder of its own; exit code 1 means that a byte was not as promised.

    \b
    Examples:
      poscuda demo
      poscuda demo --out demo
    """
    from poscuda_fast import demo as show  # noqa: PLC0415

    return 0 if show.run(out, click.echo) else 1


@cli.command()
@_JSON
def doctor(*, as_json: bool) -> int:
    """Tell what this installation can do here: versions, cores, backends, extras, and why something is missing.

    Nothing is written. Exit code 1 means that a backend gives wrong bits or that none works; an extra that is not
    installed is no failure.

    \b
    Examples:
      poscuda doctor
      poscuda doctor --json
    """
    from poscuda_fast import doctor as practice  # noqa: PLC0415

    found = practice.examine()
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return 0 if found["ok"] else 1
    for name, value in found.items():
        if isinstance(value, dict):
            for part, state in value.items():
                click.echo(f"{name[:-1] + ' ' + part:<22} {state}")
        else:
            click.echo(f"{name:<22} {value}")
    return 0 if found["ok"] else 1


@cli.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and paths.

    Nothing is written. Put the line for your shell into its start-up file: ~/.bashrc, ~/.zshrc (after compinit) or
    ~/.config/fish/config.fish.

    \b
    Examples:
      eval "$(poscuda completion bash)"
      eval "$(poscuda completion zsh)"
      poscuda completion fish | source
    """
    from click import shell_completion  # noqa: PLC0415

    maker = shell_completion.get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"SHELL is {shell!r}, which this version of click does not know; upgrade click.")
    click.echo(maker(cli, {}, PROGRAM, COMPLETE_VARIABLE).source())


def _show(result: Any, *, as_json: bool) -> None:
    click.echo(json.dumps(result.to_dict(), indent=1) if as_json else str(result))


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress | None]:
    """A bar on stderr with rate and time left; nothing where stderr is not a terminal."""
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
