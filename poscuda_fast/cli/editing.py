"""The commands that make keys, and that protect, restore and verify data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

import poscuda_fast
from poscuda_fast.cli.help_pages import Command
from poscuda_fast.cli.options import (
    JSON,
    KEY,
    QUIET,
    SAMPLE_RATE,
    SIDECAR,
    SNR,
    label_options,
    progress_bar,
    read_label_files,
    recipe_options,
    refuse_array_options,
    refuse_audio_options,
    show,
    take_recipe,
)
from poscuda_fast.cli.printing import say
from poscuda_fast.text import one_line


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Write a new secret key to FILE, which must not exist.

    Only its owner can read it (mode 0600). Keep it secret and back it up: without it nothing can be restored.

    \b
    Examples:
      poscuda keygen my.key
      poscuda keygen ~/keys/recordings.key
    """
    key = poscuda_fast.Key.generate()
    key.save(file)
    say(f"Wrote {one_line(str(file))} with fingerprint {key.fingerprint}. Keep it secret and back it up.")


@click.command(cls=Command)
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", required=False, type=click.Path(path_type=Path))
@KEY
@click.option("--in-place", is_flag=True, help="Edit SRC itself instead of making a copy at DST.")
@label_options
@click.option("--label", help="The label of a single audio file.")
@SAMPLE_RATE
@recipe_options
@SNR
@click.option("--lossy-to-flac", is_flag=True, help="In a copy, turn MP3 and Ogg files into FLAC.")
@click.option("--backend", default="auto", show_default=True, help="auto, native, cpu, reference or cuda; same bits.")
@click.option("--threads", type=int, help="Threads to use; all cores by default.")
@SIDECAR
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
) -> None:
    """Protect SRC as a copy at DST, or in place.

    SRC is a folder of audio, one audio file, or, with --labels, an array of clips: a .npy file or the folder of a Zarr
    array. A copy leaves SRC unchanged. Nothing that exists is ever overwritten, except SRC's samples with --in-place;
    what undo needs goes to a sealed sidecar first. The sidecar, and for audio a manifest, are written beside the
    protected data. If a run is stopped, the same command finishes it. What would not protect is refused, and what
    should be known before the data are published is told as a note; both are judged by some of the clips.

    \b
    Examples:
      poscuda protect recordings/ protected/ --key my.key
      poscuda protect digits/ out/ --key my.key --labels-from 'regex:^(\\d)_'
      poscuda protect yes.wav yes-protected.wav --key my.key --label yes
      poscuda protect recordings/ --in-place --key my.key --dry-run
      poscuda protect recordings/ louder/ --key my.key --strength 2
      poscuda protect recordings/ quiet/ --key my.key --snr 20
      poscuda protect recordings/ paper/ --key my.key --blur 0.3
      poscuda protect clips.npy --in-place --key my.key --labels labels.npy --sample-rate 8000
      poscuda protect clips.zarr protected.zarr --key my.key --labels labels.npy
    """
    if (dst is None) != in_place:
        raise click.UsageError("Give either DST, for a copy, or --in-place.")
    from poscuda_fast.arrays.opening import is_array  # noqa: PLC0415 - NumPy is not needed to print a help page

    key = poscuda_fast.Key.load(key_file)
    recipe, snr = take_recipe(options)
    with progress_bar(quiet=quiet) as progress:
        common = {
            "recipe": recipe,
            "snr": snr,
            "backend": options["backend"],
            "threads": options["threads"],
            "sidecar": options["sidecar"],
            "progress": progress,
            "dry_run": dry_run,
        }
        if is_array(src):
            report = _protect_array(src, dst, key, options, common)
        else:
            report = _protect_audio(src, dst, key, options, common)
    if not quiet:
        show(report, as_json=as_json)
    if dry_run and not (as_json or quiet):
        say("No files were modified.")


def _protect_audio(
    src: Path, dst: Path | None, key: poscuda_fast.Key, options: dict[str, Any], common: dict[str, Any]
) -> poscuda_fast.Report:
    refuse_array_options(options)
    labels_from: Any = options["labels_from"]
    if options["label"] is not None:
        if src.is_dir():
            raise click.UsageError("--label is for a single audio file; use --labels-from for a folder.")
        labels_from = {src.name: options["label"]}
    lossy = "flac" if options["lossy_to_flac"] else "refuse"
    return poscuda_fast.protect_folder(src, dst, key, labels_from=labels_from, lossy=lossy, **common)


def _protect_array(
    src: Path, dst: Path | None, key: poscuda_fast.Key, options: dict[str, Any], common: dict[str, Any]
) -> poscuda_fast.Report:
    refuse_audio_options(options)
    labels, classes, lengths = read_label_files(options)
    return poscuda_fast.protect_array(
        src,
        labels,
        key,
        dst=dst,
        classes=classes,
        lengths=lengths,
        sample_rate=options["sample_rate"],
        **common,
    )


@click.command(cls=Command)
@click.argument("src", type=click.Path(path_type=Path))
@KEY
@SIDECAR
@click.option("--partial", is_flag=True, help="Restore the rest even if files or clips are missing or were changed.")
@JSON
@QUIET
def restore(src: Path, key_file: Path, sidecar: Path | None, *, partial: bool, as_json: bool, quiet: bool) -> None:
    """Put back the original bytes of SRC, a protected folder, audio file or array.

    The originals come from the sidecar, which the key opens. If files or clips are missing or were changed since,
    nothing is written; --partial restores the rest.

    \b
    Examples:
      poscuda restore protected/ --key my.key
      poscuda restore protected/ --key my.key --sidecar safe/protected.poscuda
      poscuda restore protected/ --key my.key --partial
      poscuda restore clips.npy --key my.key
    """
    from poscuda_fast.arrays.opening import is_array  # noqa: PLC0415

    key = poscuda_fast.Key.load(key_file)
    with progress_bar(quiet=quiet) as progress:
        if is_array(src):
            report = poscuda_fast.restore_array(src, key, sidecar=sidecar, partial=partial, progress=progress)
        else:
            report = poscuda_fast.restore_folder(src, key, sidecar=sidecar, partial=partial, progress=progress)
    if not quiet:
        show(report, as_json=as_json)


def _is_sure(src: Path) -> bool:
    if sys.stdin is None or sys.stderr is None:  # nobody can see the question, or answer
        return False
    try:
        return click.confirm(
            f"{one_line(str(src))} can then never be restored, not even with the key. Go on?", err=True
        )
    except (click.Abort, OSError):  # likewise
        return False


@click.command("drop-undo", cls=Command)
@click.argument("src", type=click.Path(path_type=Path))
@KEY
@SIDECAR
@click.option("--yes", is_flag=True, help="Do not ask.")
@JSON
@QUIET
def drop_undo(src: Path, key_file: Path, sidecar: Path | None, *, yes: bool, as_json: bool, quiet: bool) -> None:
    """Destroy the originals kept for SRC, so that its protection is final.

    The data are not changed. Afterwards nobody can open the originals in the sidecar, with or without the key.

    \b
    Examples:
      poscuda drop-undo protected/ --key my.key
      poscuda drop-undo clips.npy --key my.key --yes
    """
    key = poscuda_fast.Key.load(key_file)
    if not (yes or _is_sure(src)):
        raise click.ClickException("The undo was not dropped; --yes drops it without asking.")
    report = poscuda_fast.drop_undo(src, key, sidecar=sidecar)
    if not quiet:
        show(report, as_json=as_json)


@click.command(cls=Command)
@click.argument("src", type=click.Path(path_type=Path))
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path), help="The key file; without it only the manifest is used."
)
@SIDECAR
@JSON
@QUIET
def verify(src: Path, key_file: Path | None, sidecar: Path | None, *, as_json: bool, quiet: bool) -> int:
    """Show which files of SRC are original, which are protected, and which are neither.

    Nothing is written. Exit code 0 means that every file or clip is there, wholly original or wholly protected, else 1.

    \b
    Examples:
      poscuda verify protected/
      poscuda verify protected/ --key my.key
      poscuda verify clips.npy --key my.key --json
    """
    from poscuda_fast.arrays.opening import is_array  # noqa: PLC0415

    key = None if key_file is None else poscuda_fast.Key.load(key_file)
    if is_array(src):
        if key is None:
            raise click.UsageError("An array is verified against its sidecar, which needs --key.")
        verified = poscuda_fast.verify_array(src, key, sidecar=sidecar)
    else:
        verified = poscuda_fast.verify_folder(src, key, sidecar=sidecar)
    if not quiet:
        show(verified, as_json=as_json)
    return 0 if verified.ok else 1
