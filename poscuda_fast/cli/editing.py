"""The commands that make keys, and that protect, restore and verify data."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import poscuda_fast
from poscuda_fast.cli.completing import BACKENDS, files
from poscuda_fast.cli.help_pages import Command
from poscuda_fast.cli.options import (
    JSON,
    KEY,
    PARTIAL,
    QUIET,
    SAMPLE_RATE,
    SHARE,
    SIDECAR,
    SKIP,
    SNR,
    label_options,
    progress_bar,
    read_label_files,
    recipe_options,
    refuse_array_options,
    refuse_audio_options,
    refuse_without_options,
    show,
    take_recipe,
)
from poscuda_fast.cli.printing import say
from poscuda_fast.results import table
from poscuda_fast.text import message, one_line

UNPROTECTED = 5  # exit code: all is done, but audio is left unprotected


@click.command(cls=Command, short_help="Write a new secret key.")
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Write a new secret key to FILE, which must not exist.

    Only its owner can read it (mode 0600). Keep it secret and back it up:
    without it nothing can be restored.

    \b
    Examples:
      poscuda keygen my.key
      poscuda keygen ~/keys/recordings.key
    """
    key = poscuda_fast.Key.generate()
    key.save(file)
    say(f"Wrote {one_line(str(file))} with fingerprint {key.fingerprint}. Keep it secret and back it up.")


@click.command(cls=Command, short_help="Protect a folder, a file or an array of clips.")
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", required=False, type=click.Path(path_type=Path))
@KEY
@click.option("--in-place", is_flag=True, help="Edit SRC itself instead of making a copy at DST.")
@label_options
@click.option("--label", help="The label of a single audio file.")
@SAMPLE_RATE
@recipe_options
@SNR
@SHARE
@click.option("--lossy-to-flac", is_flag=True, help="In a copy, turn MP3 and Ogg files into FLAC.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="What computes the marks; all give the same bits.",
)
@click.option("--threads", type=int, help="Threads to use; all cores by default.")
@SIDECAR
@click.option("--partial", is_flag=True, help=PARTIAL.format("protect"))
@SKIP
@click.option("--yes", is_flag=True, help="Do not ask about labels that look wrong.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
@JSON
@QUIET
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
) -> int:
    """Protect SRC as a copy at DST, or in place.

    SRC is a folder of audio, one audio file, or an array of clips (.npy or Zarr,
    with --labels). Publish the copy; SRC is its undo. If a run is stopped, the
    same command finishes it.

    \b
    Examples:
      poscuda protect recordings/ protected/ --key my.key
      poscuda protect digits/ out/ --key my.key --labels-from 'regex:^(\\d)_'
      poscuda protect recordings/ --in-place --key my.key
    \f
    Nothing that exists is overwritten, except SRC's samples with --in-place;
    what undo needs goes to a sealed sidecar first. The sidecar NAME.poscuda and
    the manifest NAME.poscuda.json are written beside the protected NAME; an
    array in place has no manifest. If files were added since, the same command
    protects those. What would not protect is refused, and a note tells what you
    should know before you publish; both are judged by some of the clips.
    --share marks only some of the clips, by which an ownership test can tell
    that they were used; a model still learns from the others.

    \b
    More examples:
      poscuda protect yes.wav protected-yes.wav --key my.key --label yes
      poscuda protect recordings/ --in-place --key my.key --dry-run
      poscuda protect recordings/ louder/ --key my.key --strength 2
      poscuda protect recordings/ quiet/ --key my.key --snr 20
      poscuda protect recordings/ paper/ --key my.key --blur 0.3
      poscuda protect recordings/ tagged/ --key my.key --share 0.05
      poscuda protect clips.npy --in-place --key my.key --labels labels.npy
      poscuda protect clips.zarr out.zarr --key my.key --labels labels.npy
    """
    if (dst is None) != in_place:
        raise click.UsageError("Give either DST, for a copy, or --in-place.")
    from poscuda_fast.arrays.opening import is_array  # noqa: PLC0415 - NumPy is not needed to print a help page

    key = poscuda_fast.Key.load(key_file)
    recipe, snr = take_recipe(options)
    common = {
        "recipe": recipe,
        "snr": snr,
        "share": 1.0 if options["share"] is None else options["share"],
        "backend": options["backend"],
        "threads": options["threads"],
        "sidecar": options["sidecar"],
        "partial": options["partial"],
        "dry_run": dry_run,
    }
    protect_this = _protect_array if is_array(src) else _protect_audio

    def run() -> poscuda_fast.Report:
        with progress_bar(src, quiet=quiet) as progress:
            return protect_this(src, dst, key, options, {**common, "progress": progress})

    report = _asked(run, yes=options["yes"], quiet=quiet)
    if not quiet:
        show(report, as_json=as_json)
    elif report.unprotected:
        say("\n".join(f"left unprotected: {one_line(line)}" for line in report.unprotected), err=True)
    if dry_run and not (as_json or quiet):
        say("No files were modified.")
    elif not (as_json or quiet):
        bare = len(report.unprotected) + len(report.left_out)
        say(_next_steps(src, dst, key_file, options["sidecar"], bare=bare))
    return UNPROTECTED if report.unprotected else 0


def _asked(run: Callable[[], poscuda_fast.Report], *, yes: bool, quiet: bool) -> poscuda_fast.Report:
    """What a run reports; before it writes anything, a question if its labels are doubtful."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if yes else "error", poscuda_fast.LabelWarning)
        try:
            return run()
        except poscuda_fast.LabelWarning as doubt:
            doubtful = message(str(doubt))
    if sys.stdin is not None and sys.stdin.isatty() and not quiet:
        if not _confirmed(f"{doubtful} Go on?"):
            raise click.ClickException("Nothing was written; --labels-from or --labels give other labels.")
    elif not quiet:
        say(f"Warning: {doubtful}", err=True)
    return _asked(run, yes=True, quiet=quiet)


def _next_steps(src: Path, dst: Path | None, key_file: Path, sidecar: Path | None, *, bare: int) -> str:
    """What a person does next: how to check, to undo, and what may be published."""
    from poscuda_fast.undo.journal import manifest_of, sidecar_of  # noqa: PLC0415 - it needs NumPy

    data = src if dst is None else dst
    named = Path(os.path.realpath(data))
    beside = sidecar_of(named) if sidecar is None else sidecar
    option = "" if sidecar is None else f" --sidecar {_quoted(sidecar)}"
    key = f"--key {_quoted(key_file)}{option}"
    undo = f"poscuda restore {_quoted(src)} {key}" if dst is None else f"{_quoted(src)} is the undo: keep it"
    first = f"first see to what is left unprotected above ({bare:,}), then " * bool(bare)
    manifest = manifest_of(named)
    mine = [key_file, beside, *[manifest] * os.path.lexists(manifest)]
    publish = f"{first}{_quoted(data)} alone; for you only: {', '.join(map(_quoted, mine))}"
    return table((("to check", f"poscuda verify {_quoted(data)} {key}"), ("to undo", undo), ("to publish", publish)))


def _quoted(path: Path) -> str:
    return one_line(shlex.quote(str(path)))


def _protect_audio(
    src: Path, dst: Path | None, key: poscuda_fast.Key, options: dict[str, Any], common: dict[str, Any]
) -> poscuda_fast.Report:
    labels_from = _of_audio(src, options)
    if options["lossy_to_flac"] and dst is None:
        raise click.UsageError("--lossy-to-flac is for a copy: in place a file stays what it is.")
    lossy = "flac" if options["lossy_to_flac"] else "refuse"
    skip = options["skip_unusable"]
    return poscuda_fast.protect_folder(
        src, dst, key, labels_from=labels_from, lossy=lossy, skip_unusable=skip, **common
    )


def _of_audio(src: Path, options: dict[str, Any]) -> Any:
    """`labels_from` as the options give it."""
    if options["labels_file"] is not None and src.is_file():
        from poscuda_fast.files.layouts import describe  # noqa: PLC0415 - it needs NumPy

        problem = describe(str(src))
        if problem is not None:
            raise click.UsageError(
                f"--labels is for an array SRC, a .npy file or the folder of a Zarr array. {src} is neither: {problem}."
            )
    refuse_array_options(options)
    if options["label"] is None:
        return options["labels_from"]
    if src.is_dir():
        raise click.UsageError("--label is for a single audio file; use --labels-from for a folder.")
    return {src.name: options["label"]}


def _protect_array(
    src: Path, dst: Path | None, key: poscuda_fast.Key, options: dict[str, Any], common: dict[str, Any]
) -> poscuda_fast.Report:
    about = _of_array(options)
    return poscuda_fast.protect_array(src, about.pop("labels"), key, dst=dst, **about, **common)


def _of_array(options: dict[str, Any]) -> dict[str, Any]:
    """What the options say of an array's clips."""
    refuse_audio_options(options)
    labels, classes, lengths = read_label_files(options)
    return {"labels": labels, "classes": classes, "lengths": lengths, "sample_rate": options["sample_rate"]}


@click.command(cls=Command, short_help="Put back the originals.")
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", required=False, type=click.Path(path_type=Path))
@KEY
@SIDECAR
@click.option("--partial", is_flag=True, help=PARTIAL.format("restore"))
@click.option("--without-sidecar", is_flag=True, help="Subtract the mark of format 2, where the sidecar is lost.")
@label_options
@click.option("--label", help="The label of a single audio file.")
@SAMPLE_RATE
@recipe_options
@SHARE
@JSON
@QUIET
def restore(
    src: Path,
    dst: Path | None,
    key_file: Path,
    sidecar: Path | None,
    *,
    partial: bool,
    without_sidecar: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Put back the original bytes of SRC, which was protected in place.

    SRC is a folder, an audio file or an array. The sidecar beside it has what
    undo needs. A copy keeps no originals: the error says where they are.

    \b
    Examples:
      poscuda restore recordings/ --key my.key
      poscuda restore protected/ found/ --key my.key --without-sidecar
    \f
    If files or clips are missing or were changed since, nothing is written;
    --partial restores the others.

    If the sidecar is lost, --without-sidecar subtracts the mark, in SRC or in a
    copy at DST. It takes the labels, the recipe and the share that protect was
    given. Samples that were saturated may differ from the original; they are
    counted.

    \b
    More examples:
      poscuda restore recordings/ --key my.key --sidecar safe/my.poscuda
      poscuda restore recordings/ --key my.key --partial
      poscuda restore clips.npy --key my.key
      poscuda restore digits/ --key my.key --without-sidecar --labels-from 'regex:^(\\d)_' --strength 2
      poscuda restore clips.npy --key my.key --without-sidecar --labels labels.npy
    """
    from poscuda_fast.arrays.opening import is_array  # noqa: PLC0415

    if not without_sidecar:
        refuse_without_options(dst, options)
    key = poscuda_fast.Key.load(key_file)
    with progress_bar(src, quiet=quiet) as progress:
        common: dict[str, Any] = {"sidecar": sidecar, "partial": partial, "progress": progress}
        if without_sidecar:
            recipe, _ = take_recipe(options)
            common |= {"without_sidecar": True, "recipe": recipe, "dst": dst, "share": options["share"]}
        if is_array(src):
            report = poscuda_fast.restore_array(src, key, **common, **(_of_array(options) if without_sidecar else {}))
        else:
            labels = {"labels_from": _of_audio(src, options)} if without_sidecar else {}
            report = poscuda_fast.restore_folder(src, key, **common, **labels)
    if not quiet:
        show(report, as_json=as_json)


def _confirmed(question: str) -> bool:
    if sys.stdin is None or sys.stderr is None:  # nobody can see the question, or answer
        return False
    try:
        return click.confirm(question, err=True)
    except (click.Abort, OSError):  # likewise
        return False


@click.command("drop-undo", cls=Command, short_help="Make protection in place final.")
@click.argument("src", type=click.Path(path_type=Path))
@KEY
@SIDECAR
@click.option("--yes", is_flag=True, help="Do not ask.")
@JSON
@QUIET
def drop_undo(src: Path, key_file: Path, sidecar: Path | None, *, yes: bool, as_json: bool, quiet: bool) -> None:
    """Destroy what undo needs of SRC, so that its protection in place is final.

    The data are not changed, and nothing is destroyed unless all of them are
    protected.

    \b
    Examples:
      poscuda drop-undo recordings/ --key my.key
      poscuda drop-undo clips.npy --key my.key --yes
    \f
    Afterwards nobody can open what the sidecar kept, with or without the key.
    Whoever has the key can still subtract the mark of format 2; to end that
    too, destroy the key.
    """
    key = poscuda_fast.Key.load(key_file)
    question = f"{one_line(str(src))} can then not be restored by its sidecar, not even with the key. Go on?"
    if not (yes or _confirmed(question)):
        raise click.ClickException("The undo was not dropped; --yes drops it without asking.")
    with progress_bar(src, quiet=quiet):
        _refuse_unprotected(src, key, sidecar)
        report = poscuda_fast.drop_undo(src, key, sidecar=sidecar)
    if not quiet:
        show(report, as_json=as_json)


def _refuse_unprotected(src: Path, key: poscuda_fast.Key, sidecar: Path | None) -> None:
    """ClickException if a finished run is not what its sidecar says: what was changed may still need its original."""
    from poscuda_fast.undo import copies  # noqa: PLC0415 - other commands need no NumPy
    from poscuda_fast.undo.journal import Journal, State, sidecar_of  # noqa: PLC0415

    data = Path(os.path.realpath(src))
    with Journal(sidecar_of(data) if sidecar is None else sidecar, key) as journal:
        if journal.state is not State.COMPLETE or copies.is_copy(journal):
            return  # `drop_undo` says why, or finishes what was begun
    found = _verifier_of(src)(src, key, sidecar=sidecar)
    if not found.ok or found.original:
        raise click.ClickException(
            f"The undo was not dropped, because not all of {one_line(str(src))} is protected: poscuda verify lists "
            f"what is not. Restore or protect it first; to drop the undo all the same, call poscuda_fast.drop_undo."
        )


def _verifier_of(src: Path) -> Callable[..., poscuda_fast.Verification]:
    from poscuda_fast.arrays.opening import is_array  # noqa: PLC0415

    return poscuda_fast.verify_array if is_array(src) else poscuda_fast.verify_folder


@click.command(cls=Command, short_help="Tell originals from protected clips.")
@click.argument("src", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path),
    shell_complete=files(".key"),
    help="The key file; without it only the manifest is used.",
)
@SIDECAR
@click.option(
    "--source", type=click.Path(path_type=Path), help="For a copy: what it was made of, to mark that again and compare."
)
@JSON
@QUIET
def verify(
    src: Path, key_file: Path | None, sidecar: Path | None, source: Path | None, *, as_json: bool, quiet: bool
) -> int:
    """Show which files or clips of SRC are original, protected, or neither.

    Nothing is written. Without a key, the manifest beside SRC tells it.

    \b
    Examples:
      poscuda verify protected/
      poscuda verify protected/ --key my.key
      poscuda verify protected/ --key my.key --source recordings/
    \f
    Exit code 0: no run is open, and every file or clip is there, all of them
    original or all protected. 5: the same of what is recorded, and there is
    other audio that is not protected. 1: anything else.

    \b
    More examples:
      poscuda verify clips.npy --key my.key --json
    """
    if source is not None and key_file is None:
        raise click.UsageError("--source is compared by marking it again, which needs --key.")
    key = None if key_file is None else poscuda_fast.Key.load(key_file)
    with progress_bar(src, quiet=quiet):
        verified = _verifier_of(src)(src, key, sidecar=sidecar, source=source)
    if not quiet:
        show(verified, as_json=as_json)
    if verified.recorded_ok and verified.unprotected:
        return UNPROTECTED
    return 0 if verified.ok else 1
