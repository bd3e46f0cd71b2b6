"""Turn a folder of audio into arrays that train and measure fast.

    python -m experiments.data SRC DST [--rate HZ] [--seconds S] [--name NAME] [--jobs N]

SRC has one of the layouts of experiments.data.layouts: Speech Commands', FSDD's, or a folder for each class. DST must
not exist, and gets the files that experiments.data.dataset describes.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.asking import parser_of, sentences
from experiments.data.dataset import SPLITS
from experiments.data.prepare import SECONDS, OnProgress, prepare

SAID = ("cut", "downmixed", "resampled", "background_noise_left_out", "list_entries_without_file")


@contextlib.contextmanager
def _bar() -> Iterator[OnProgress | None]:
    """A bar on stderr; nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@sentences
def main(arguments: list[str] | None = None) -> None:
    """Make the data set DST from the folder of audio SRC."""
    parser = parser_of(__doc__)
    parser.add_argument("src", type=Path)
    parser.add_argument("dst", type=Path)
    parser.add_argument("--rate", type=int, help="sample rate in Hz; that of the first readable file by default")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the length of every clip; default: %(default)s")
    parser.add_argument("--name", help="the data set's name; that of DST by default")
    parser.add_argument("--jobs", type=int, help="threads that decode; all cores by default")
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    with _bar() as progress:
        dataset = prepare(progress=progress, **options)
    n_clips, frames = dataset.clips.shape
    splits = ", ".join(f"{dataset.rows(number).size:,} {split}" for number, split in enumerate(SPLITS))
    about = json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8"))
    print(
        f"{dataset.name}: {n_clips:,} clips of {frames:,} frames at {dataset.sample_rate:,} Hz, "
        f"{len(dataset.classes)} classes, {len(about['speakers']):,} speakers; {splits}"
    )
    for fact in SAID:
        if about[fact]:
            print(f"{fact.replace('_', ' ')}: {about[fact]:,}")


if __name__ == "__main__":
    main()
