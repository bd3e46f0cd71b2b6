"""Turn a folder of audio into arrays that train and measure fast.

The folder has one of the layouts of experiments.data.layouts, and the arrays are those of experiments.data.dataset.
Clips are mixed down to mono, resampled if their rate differs, and cut or zero-padded to one length; 16-bit mono clips
of the right rate keep their samples exactly. Files that cannot be read are left out, and named.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from experiments.data.dataset import PER_CLIP, Dataset, load
from experiments.data.decoding import decode_all, rate_of
from experiments.data.layouts import Listing, find
from poscuda_fast import DatasetError
from poscuda_fast.evaluation.decoding import Decoded, UnusableError

SECONDS = 1.0
SKIPPED_SHOWN = 10

OnProgress = Callable[[int, int], None]


def prepare(
    src: Path | str,
    dst: Path | str,
    *,
    rate: int | None = None,
    seconds: float = SECONDS,
    name: str | None = None,
    jobs: int | None = None,
    progress: OnProgress | None = None,
) -> Dataset:
    """Make a data set from a folder of audio.

    Files are decoded in parallel and written in the order of their paths: the result does not depend on `jobs`, nor
    the memory for clips on their number.

    Parameters
    ----------
    src : path
        A folder in one of the layouts of `experiments.data.layouts`.
    dst : path
        The folder to make. Its name ends in ".part" until it is complete.
    rate : int, optional
        Sample rate in Hz; that of the first readable file by default.
    seconds : float
        The length of every clip: longer ones are cut, and counted in dataset.json, shorter ones zero-padded.
    name : str, optional
        The data set's name; that of `dst` by default.
    jobs : int, optional
        Threads that decode; all cores by default.
    progress : callable, optional
        Called with (files done, files in all) after each batch.

    Returns
    -------
    Dataset
        The data set, opened. Files left out are named on stderr, and in its dataset.json under "skipped".

    Raises
    ------
    DatasetError
        `src` has no known layout, or none of its files can be read.
    FileExistsError
        `dst` or its ".part" exists.
    FileNotFoundError
        The parent folder of `dst` does not exist.
    ValueError
        `rate`, `seconds` or `jobs` is not positive.
    """
    src, dst = Path(src), Path(dst)
    for argument, value in {"rate": rate, "seconds": seconds, "jobs": jobs}.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{argument} is {value}; expected a positive number.")
    if os.path.lexists(dst):
        raise FileExistsError(f"{dst} exists; give a new name, or remove it first.")
    listing = find(src)
    rate = rate or _first_rate(src, listing)
    frames = max(1, round(seconds * rate))
    part = _make_part(dst)
    try:
        about = _write(src, part, listing, rate, frames, jobs or os.cpu_count() or 1, progress)
        about = {"name": name or dst.name, **about}
        (part / "dataset.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        load(part)
        part.rename(dst)
    except BaseException:
        shutil.rmtree(part)
        raise
    _tell_skipped(about["skipped"])
    return load(dst)


def _make_part(dst: Path) -> Path:
    part = dst.with_name(dst.name + ".part")
    try:
        part.mkdir()
    except FileExistsError:
        raise FileExistsError(f"{part} exists: another process makes it, or was killed; if so, remove it.") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no folder {dst.parent} to make {dst.name} in; make it first.") from None
    return part


def _first_rate(src: Path, listing: Listing) -> int:
    problems = []
    for clip in listing.clips:
        try:
            return rate_of(src / clip.file)
        except UnusableError as problem:
            problems.append((clip.file, str(problem)))
    raise _none_readable(src, problems)


def _none_readable(src: Path, problems: list[tuple[str, str]]) -> DatasetError:
    file, problem = problems[0]
    return DatasetError(f"None of the {len(problems):,} audio files in {src} can be read; {file}: {problem}.")


def _write(
    src: Path, part: Path, listing: Listing, rate: int, frames: int, jobs: int, progress: OnProgress | None
) -> dict[str, Any]:
    """Make the arrays and files.txt; returns what dataset.json says about them."""
    files = [clip.file for clip in listing.clips]
    with contextlib.closing(decode_all(src, files, rate, frames, jobs)) as batches:
        lengths, problems, counts, rates = _write_clips(part / "clips.npy", batches, len(files), frames, progress)
    unreadable = [(files[number], problem) for number, problem in problems.items()]
    if len(unreadable) == len(files):
        raise _none_readable(src, unreadable)
    kept = np.flatnonzero(lengths)
    classes, labels = _numbered([clip.label for clip in listing.clips])
    speakers, speaker = _numbered([clip.speaker for clip in listing.clips])
    split = np.array([clip.split for clip in listing.clips])
    arrays = {"labels": labels, "lengths": lengths, "split": split, "speaker": speaker}
    for name, dtype in PER_CLIP.items():
        np.save(part / f"{name}.npy", arrays[name][kept].astype(dtype))
    (part / "files.txt").write_text("".join(f"{files[row]}\n" for row in kept), encoding="utf-8", newline="\n")
    return {
        "classes": classes,
        "speakers": speakers,
        "sample_rate": rate,
        "frames": frames,
        "source layout": listing.layout,
        "source_rates": {str(each): rates[each] for each in sorted(rates)},
        "resampled": rates.total() - rates[rate],
        "downmixed": counts["downmixed"],
        "cut": counts["cut"],
        "background_noise_left_out": listing.noise,
        "list_entries_without_file": listing.unmatched,
        "not_audio": dict(sorted(listing.not_audio.items())),
        "skipped": [{"file": file, "reason": problem} for file, problem in sorted(listing.skipped + unreadable)],
    }


def _write_clips(
    path: Path, batches: Iterable[list[Decoded | UnusableError]], n_files: int, frames: int, progress: OnProgress | None
) -> tuple[NDArray[np.int64], dict[int, str], Counter[str], Counter[int]]:
    """Write clips one after another; returns each file's frames (0: left out), problems by file, counts and rates."""
    lengths = np.zeros(n_files, np.int64)
    problems: dict[int, str] = {}
    counts: Counter[str] = Counter()
    rates: Counter[int] = Counter()
    done = 0
    with open(path, "wb") as file:
        samples_at = _write_header(file, n_files, frames)
        for batch in batches:
            clips = np.zeros((len(batch), frames), np.int16)
            n_clips = 0
            for number, decoded in enumerate(batch, done):
                if isinstance(decoded, UnusableError):
                    problems[number] = str(decoded)
                    continue
                lengths[number] = decoded.samples.size
                clips[n_clips, : decoded.samples.size] = decoded.samples
                n_clips += 1
                counts["cut"] += decoded.cut
                counts["downmixed"] += decoded.channels > 1
                rates[decoded.rate] += 1
            file.write(clips[:n_clips].data)
            done += len(batch)
            if progress is not None:
                progress(done, n_files)
        # The number of rows is known only now; NumPy leaves room for any number in a header.
        file.seek(0)
        if _write_header(file, n_files - len(problems), frames) != samples_at:
            raise AssertionError("The size of the header of clips.npy changed.")
    return lengths, problems, counts, rates


def _numbered(names: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The different names, sorted, and the index of each name among them."""
    ordered = sorted(set(names))
    numbers = {name: number for number, name in enumerate(ordered)}
    return ordered, np.array([numbers[name] for name in names])


def _write_header(file: BinaryIO, n_clips: int, frames: int) -> int:
    """Write the header of int16 (n_clips, frames); returns where the samples begin."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<i2", "fortran_order": False, "shape": (n_clips, frames)})
    return file.tell()


def _tell_skipped(skipped: list[dict[str, str]]) -> None:
    if skipped:
        shown = "; ".join(f"{each['file']}: {each['reason']}" for each in skipped[:SKIPPED_SHOWN])
        more = "; ..." if len(skipped) > SKIPPED_SHOWN else ""
        print(f"Left out {len(skipped):,} files, all named in dataset.json: {shown}{more}", file=sys.stderr)
