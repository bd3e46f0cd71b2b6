"""Turn a folder of audio into arrays that train and measure fast.

    python -m experiments.prepare SRC DST [--rate HZ] [--seconds S] [--name NAME] [--jobs N]

SRC in one of the layouts of experiments.layouts; DST, which must not exist, is made as experiments.dataset
says. Clips are mixed down to mono, resampled where their rate differs, and cut or zero-padded to one length;
16-bit mono clips of the right rate keep their samples exactly. Files that cannot be read are left out, and named.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments import layouts
from experiments.dataset import PER_CLIP, SPLITS, Dataset, load
from poscuda_fast import DatasetError

SECONDS = 1.0
FULL_SCALE = 32768
BATCH_BYTES = 2**21
BATCHES_PER_JOB = 2  # one that is decoded, and one that waits to be written
# Resampled beyond the cut, so that its last frames see what followed them.
MARGIN_SECONDS = 0.25
SKIPPED_SHOWN = 10


class UnusableError(Exception):
    """Why a file is left out."""


class Decoded(NamedTuple):
    """One file's clip, or why there is none."""

    file: str
    problem: str = ""
    clip: NDArray[np.int16] | None = None  # (frames,), at most L
    rate: int = 0
    channels: int = 0
    cut: bool = False


@dataclass
class Counts:
    """What was done to the files of a data set."""

    cut: int = 0
    downmixed: int = 0
    rates: Counter[int] = field(default_factory=Counter)


def prepare(
    src: Path | str,
    dst: Path | str,
    *,
    rate: int | None = None,
    seconds: float = SECONDS,
    name: str | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Make a data set of a folder of audio.

    Files are decoded in parallel and written in the order of their paths, a batch at a time: the result
    does not depend on `jobs`, nor the memory on the number of files.

    Parameters
    ----------
    src : path
        A folder in one of the layouts of `experiments.layouts`.
    dst : path
        The folder to make. It appears when it is complete; until then it is `dst` with ".part".
    rate : int, optional
        Sample rate in Hz; that of the first readable file by default.
    seconds : float
        Length of every clip: longer ones are cut (and counted in dataset.json), shorter ones zero-padded.
    name : str, optional
        The data set's name; that of `dst` by default.
    jobs : int, optional
        Threads that decode; all cores by default.
    progress : callable, optional
        Called with (files done, files).

    Returns
    -------
    Dataset
        The data set, opened. Files left out are in its dataset.json under "skipped", and named on stderr.

    Raises
    ------
    DatasetError
        `src` has no layout that is known, or no file that can be read.
    FileExistsError
        `dst` or its ".part" exists.
    ValueError
        `rate`, `seconds` or `jobs` is not positive.
    """
    src, dst = Path(src), Path(dst)
    for argument, value in {"rate": rate, "seconds": seconds, "jobs": jobs}.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{argument} is {value}; expected a positive number.")
    if os.path.lexists(dst):
        raise FileExistsError(f"{dst} exists; give a new name, or remove it first.")
    listing = layouts.find(src)
    rate = rate or _first_rate(src, listing)
    frames = max(1, round(seconds * rate))
    part = dst.with_name(dst.name + ".part")
    try:
        part.mkdir()
    except FileExistsError:
        raise FileExistsError(f"{part} exists: another run is at work, or was killed; if so, remove it.") from None
    try:
        about = _build(src, part, listing, rate, frames, jobs or os.cpu_count() or 1, progress)
        (part / "dataset.json").write_text(json.dumps({"name": name or dst.name, **about}, indent=1) + "\n")
        load(part)
        part.rename(dst)
    except BaseException:
        shutil.rmtree(part)
        raise
    _tell_skipped(about["skipped"])
    return load(dst)


def decode(path: Path | str, rate: int, frames: int) -> tuple[NDArray[np.int16], soundfile.SoundFile, bool]:
    """The first `frames` frames of a file as mono 16-bit samples at a rate.

    Returns
    -------
    tuple
        The samples, int16, at most `frames`; the (closed) file, for its rate and channels; whether it was longer.

    Raises
    ------
    UnusableError
        The file cannot be read to that point, is empty or holds NaN or infinity.
    """
    try:
        with soundfile.SoundFile(path) as file:
            wanted = min(
                file.frames, -(-frames * file.samplerate // rate) + round(MARGIN_SECONDS * file.samplerate) + 1
            )
            samples = file.read(wanted, dtype="float64", always_2d=True)  # (frames, channels)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise UnusableError(_reason(error)) from None
    if not len(samples):
        raise UnusableError("it holds no frames")
    if len(samples) < wanted:
        raise UnusableError(f"it ends after {len(samples)} frames; its header says {file.frames}")
    if not np.isfinite(samples).all():
        raise UnusableError("it holds NaN or infinity")
    mono = samples.mean(axis=1)
    if file.samplerate != rate:
        mono = soxr.resample(mono, file.samplerate, rate, quality="HQ")
    if not mono.size:
        raise UnusableError(f"its {len(samples)} frames at {file.samplerate} Hz are less than one at {rate} Hz")
    # A 16-bit sample is a multiple of 1 / FULL_SCALE, which float64 holds exactly: it comes out as it was.
    scaled = np.rint(mono[:frames] * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16), file, mono.size > frames


def _reason(error: Exception) -> str:
    return getattr(error, "error_string", None) or str(error) or type(error).__name__


def _first_rate(src: Path, listing: layouts.Listing) -> int:
    reason = ""
    for clip in listing.clips:
        try:
            info = soundfile.info(src / clip.file)
        except (soundfile.SoundFileError, OSError, ValueError) as error:
            reason = reason or f"{clip.file}: {_reason(error)}"
            continue
        if info.frames:
            return int(info.samplerate)
        reason = reason or f"{clip.file}: it holds no frames"
    raise DatasetError(f"None of the {len(listing.clips):,} audio files in {src} can be read ({reason}).")


def _build(
    src: Path,
    part: Path,
    listing: layouts.Listing,
    rate: int,
    frames: int,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Write the arrays and files.txt; returns the fields of dataset.json."""
    classes = sorted({clip.label for clip in listing.clips})
    speakers = sorted({clip.speaker for clip in listing.clips})
    class_ids = {name: number for number, name in enumerate(classes)}
    speaker_ids = {name: number for number, name in enumerate(speakers)}
    skipped = list(listing.skipped)
    counts = Counts()
    rows: list[tuple[int, int, int, int]] = []  # label, length, split, speaker
    done = 0
    with open(part / "clips.npy", "wb") as file, open(part / "files.txt", "w", encoding="utf-8", newline="\n") as names:
        begin = _write_header(file, len(listing.clips), frames)
        for batch in _decoded(src, listing.clips, rate, frames, jobs):
            clips = np.zeros((len(batch), frames), np.int16)
            n_clips = 0
            for clip, decoded in batch:
                if decoded.clip is None:
                    skipped.append((clip.file, decoded.problem))
                    continue
                clips[n_clips, : decoded.clip.size] = decoded.clip
                n_clips += 1
                rows.append((class_ids[clip.label], decoded.clip.size, clip.split, speaker_ids[clip.speaker]))
                names.write(clip.file + "\n")
                counts.cut += decoded.cut
                counts.downmixed += decoded.channels > 1
                counts.rates[decoded.rate] += 1
            file.write(clips[:n_clips].data)
            done += len(batch)
            if progress is not None:
                progress(done, len(listing.clips))
        if not rows:
            raise DatasetError(f"None of the {len(listing.clips):,} audio files in {src} can be read ({skipped[0]}).")
        # How many rows there are is known now; NumPy leaves room in a header for any number.
        file.seek(0)
        if _write_header(file, len(rows), frames) != begin:
            raise AssertionError("The header of clips.npy changed its size.")
    for (name, dtype), values in zip(PER_CLIP.items(), np.array(rows).T, strict=True):
        np.save(part / f"{name}.npy", values.astype(dtype))
    return {
        "classes": classes,
        "speakers": speakers,
        "sample_rate": rate,
        "frames": frames,
        "source layout": listing.layout,
        "cut": counts.cut,
        "downmixed": counts.downmixed,
        "resampled": sum(number for each, number in counts.rates.items() if each != rate),
        "source_rates": {str(each): number for each, number in sorted(counts.rates.items())},
        "background_noise_left_out": listing.noise,
        "list_entries_without_file": listing.unmatched,
        "not_audio": dict(sorted(listing.not_audio.items())),
        "skipped": [{"file": file, "reason": reason} for file, reason in sorted(skipped)],
    }


def _write_header(file: Any, n_clips: int, frames: int) -> int:
    """The header of a (n_clips, frames) int16 array; returns where its samples begin."""
    layout = {"descr": "<i2", "fortran_order": False, "shape": (n_clips, frames)}
    np.lib.format.write_array_header_1_0(file, layout)
    return int(file.tell())


def _decoded(
    src: Path, clips: list[layouts.Clip], rate: int, frames: int, jobs: int
) -> Iterator[list[tuple[layouts.Clip, Decoded]]]:
    """All files in order, decoded in threads: libsndfile and soxr let others run while they work."""
    size = min(256, max(1, BATCH_BYTES // (2 * frames)))
    batches = (clips[first : first + size] for first in range(0, len(clips), size))

    def work(batch: list[layouts.Clip]) -> list[tuple[layouts.Clip, Decoded]]:
        return [(clip, _try(src, clip.file, rate, frames)) for clip in batch]

    pool = ThreadPoolExecutor(jobs)
    try:
        waiting: deque[Future[list[tuple[layouts.Clip, Decoded]]]] = deque(
            pool.submit(work, batch) for batch in islice(batches, BATCHES_PER_JOB * jobs)
        )
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, batch) for batch in islice(batches, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _try(src: Path, name: str, rate: int, frames: int) -> Decoded:
    try:
        samples, file, cut = decode(src / name, rate, frames)
    except UnusableError as problem:
        return Decoded(name, str(problem))
    return Decoded(name, "", samples, file.samplerate, file.channels, cut)


def _tell_skipped(skipped: list[dict[str, str]]) -> None:
    if skipped:
        shown = "; ".join(f"{each['file']}: {each['reason']}" for each in skipped[:SKIPPED_SHOWN])
        more = " ..." if len(skipped) > SKIPPED_SHOWN else ""
        print(f"{len(skipped):,} files left out (all are in dataset.json): {shown}{more}", file=sys.stderr)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@click.command(help=__doc__.replace("\n\n    python", "\n\n\b\n    python"))
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option("--rate", type=int, help="Sample rate in Hz; that of the first readable file by default.")
@click.option("--seconds", type=float, default=SECONDS, show_default=True, help="Length of every clip.")
@click.option("--name", help="The data set's name; that of DST by default.")
@click.option("--jobs", type=int, help="Threads that decode; all cores by default.")
def main(src: Path, dst: Path, **options: Any) -> None:
    """Prepare a folder and say what came of it."""
    try:
        with _bar() as progress:
            dataset = prepare(src, dst, progress=progress, **options)
    except (DatasetError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    about = json.loads((dst / "dataset.json").read_text())
    n_clips, frames = dataset.clips.shape
    print(
        f"{dataset.name}: {n_clips:,} clips of {frames:,} frames at {dataset.sample_rate:,} Hz, "
        f"{len(dataset.classes)} classes, {len(about['speakers']):,} speakers; "
        + ", ".join(f"{dataset.rows(number).size:,} {split}" for number, split in enumerate(SPLITS))
    )
    for key in ("cut", "downmixed", "resampled", "background_noise_left_out", "list_entries_without_file"):
        if about[key]:
            print(f"{key.replace('_', ' ')}: {about[key]:,}")


if __name__ == "__main__":
    main()
