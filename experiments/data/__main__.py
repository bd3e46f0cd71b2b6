"""Turn a folder of audio into arrays that train and measure fast.

    python -m experiments.data SRC DST [--rate HZ] [--seconds S] [--name NAME] [--jobs N]

SRC has one of the layouts of experiments.data.layouts: Speech Commands', FSDD's, or a folder for each class. DST must
not exist, and gets the files that experiments.data.dataset describes. Clips are mixed down to mono, resampled if their
rate differs, and cut or zero-padded to one length; 16-bit mono clips of the right rate keep their samples exactly.
Files that cannot be read are left out, and named.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import Progress

from experiments.asking import parser_of, sentences
from experiments.data.dataset import PER_CLIP, SPLITS, Dataset, load
from experiments.data.layouts import Clip, find
from poscuda_fast import DatasetError
from poscuda_fast.disk import Workers
from poscuda_fast.evaluation.decoding import BROKEN, Decoded, UnusableError, decode

SHOWN = 10  # files left out that are named on stderr


def prepare(
    src: Path | str,
    dst: Path | str,
    *,
    rate: int | None = None,
    seconds: float = 1.0,
    name: str | None = None,
    jobs: int | None = None,
) -> Dataset:
    """Make a data set from a folder of audio; the result does not depend on `jobs`, the threads that decode.

    `rate` is in Hz, that of the first readable file by default. Longer clips than `seconds` are cut. `dst` is the
    folder to make; its name ends in ".part" until it is complete. Files left out are named on stderr, and in
    dataset.json under "skipped". What is wrong with the arguments or the folder is raised as ValueError or OSError.
    """
    src, dst = Path(src), Path(dst)
    part = dst.with_name(dst.name + ".part")
    for argument, value in {"rate": rate, "seconds": seconds, "jobs": jobs}.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{argument} is {value}; expected a positive number.")
    if os.path.lexists(dst):
        raise FileExistsError(f"{dst} exists; give a new name, or remove it first.")
    if not dst.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {dst.parent} to make {dst.name} in; make it first.")
    layout, clips, left_out = find(src)
    rate = rate or _first_rate(src, clips)
    try:
        part.mkdir()
    except FileExistsError:
        raise FileExistsError(f"{part} exists: another process makes it, or was killed; if so, remove it.") from None
    try:
        about = _write(src, part, clips, left_out, rate, max(1, round(seconds * rate)), jobs or os.cpu_count() or 1)
        about = {"name": name or dst.name, "source layout": layout, **about}
        (part / "dataset.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        part.rename(dst)
    except BaseException:
        shutil.rmtree(part)
        raise
    if left_out:
        shown = "; ".join(f"{each['file']}: {each['reason']}" for each in about["skipped"][:SHOWN])
        more = "; ..." if len(left_out) > SHOWN else ""
        print(f"Left out {len(left_out):,} files, all named in dataset.json: {shown}{more}", file=sys.stderr)
    return load(dst)


def _first_rate(src: Path, clips: list[Clip]) -> int:
    for clip in clips:
        with contextlib.suppress(*BROKEN):
            info = soundfile.info(src / clip.file)
            if info.frames > 0:
                return int(info.samplerate)
    raise DatasetError(f"None of the {len(clips):,} audio files in {src} can be read.")


def _write(
    src: Path, part: Path, clips: list[Clip], left_out: dict[str, str], rate: int, frames: int, jobs: int
) -> dict[str, Any]:
    """Make the arrays and files.txt, and add to what was left out; returns what dataset.json says about them."""

    def work(clip: Clip) -> Decoded | UnusableError:
        try:
            return decode(src / clip.file, rate, frames)
        except UnusableError as problem:
            return problem

    lengths = np.zeros(len(clips), np.int64)
    counts = Counter(cut=0, downmixed=0, resampled=0)
    with (
        open(part / "clips.npy", "wb") as file,
        Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar,
        Workers(jobs) as workers,
    ):
        _write_header(file, len(clips), frames)
        for row, decoded in enumerate(bar.track(workers.map(work, clips), total=len(clips))):
            if isinstance(decoded, UnusableError):
                left_out[clips[row].file] = str(decoded)
                continue
            lengths[row] = decoded.samples.size
            file.write(np.pad(decoded.samples, (0, frames - decoded.samples.size)).tobytes())
            counts.update(cut=decoded.cut, downmixed=decoded.channels > 1, resampled=decoded.rate != rate)
        kept = np.flatnonzero(lengths)
        file.seek(0)  # NumPy leaves room for any number of rows in a header
        _write_header(file, len(kept), frames)
    if not len(kept):
        raise DatasetError(f"None of the {len(clips):,} audio files in {src} can be read.")
    classes, labels = np.unique([clip.label for clip in clips], return_inverse=True)
    speakers, speaker = np.unique([clip.speaker for clip in clips], return_inverse=True)
    arrays = {"labels": labels, "lengths": lengths, "split": np.array([c.split for c in clips]), "speaker": speaker}
    for name, dtype in PER_CLIP.items():
        np.save(part / f"{name}.npy", arrays[name][kept].astype(dtype))
    (part / "files.txt").write_text("".join(f"{clips[row].file}\n" for row in kept), encoding="utf-8", newline="\n")
    return {
        "classes": classes.tolist(),
        "speakers": speakers.tolist(),
        "sample_rate": rate,
        "frames": frames,
        **{name: int(count) for name, count in counts.items()},
        "skipped": [{"file": file, "reason": problem} for file, problem in sorted(left_out.items())],
    }


def _write_header(file: BinaryIO, n_clips: int, frames: int) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<i2", "fortran_order": False, "shape": (n_clips, frames)})


@sentences
def main(arguments: list[str] | None = None) -> None:
    """Make the data set DST from the folder of audio SRC."""
    parser = parser_of(__doc__)
    parser.add_argument("src", type=Path)
    parser.add_argument("dst", type=Path)
    parser.add_argument("--rate", type=int, help="sample rate in Hz; that of the first readable file by default")
    parser.add_argument("--seconds", type=float, default=1.0, help="the length of every clip; default: %(default)s")
    parser.add_argument("--name", help="the data set's name; that of DST by default")
    parser.add_argument("--jobs", type=int, help="threads that decode; all cores by default")
    dataset = prepare(**vars(parser.parse_args(arguments)))
    n_clips, frames = dataset.clips.shape
    splits = ", ".join(f"{dataset.rows(number).size:,} {split}" for number, split in enumerate(SPLITS))
    about = json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8"))
    print(
        f"{dataset.name}: {n_clips:,} clips of {frames:,} frames at {dataset.sample_rate:,} Hz, "
        f"{len(dataset.classes)} classes, {len(about['speakers']):,} speakers; {splits}; {about['cut']:,} cut, "
        f"{about['downmixed']:,} mixed down, {about['resampled']:,} resampled"
    )


if __name__ == "__main__":
    main()
