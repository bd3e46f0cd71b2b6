"""A user's clips as arrays of one rate and length: clean, protected, and with the mark of a wrong class."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from poscuda_fast.errors import DatasetError
from poscuda_fast.evaluation.sources import Clips, Ints, Label, Source
from poscuda_fast.recipe import Recipe, StrongRecipe

TEST_SHARE = 0.2
MOST_SIDE = 400  # test clips for the mis-keyed test, at most
FEWEST_A_CLASS = 5
MOST_RATE = 16_000  # Hz: models get no higher rate
SHORTEST, LONGEST = 1.0, 4.0  # seconds of a clip that models get; M5 needs most of a second
CERTAIN = 5.0  # standard errors


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """What models are trained and tested on.

    Attributes
    ----------
    clean, protected : (n, L) int16
        The same clips before and after protection, zero-padded; mapped from files that are already unlinked.
    miskeyed : (m, L) int16
        The first m test clips, each with the mark of the class after its own.
    labels, lengths : (n,) int64
        Each clip's index in `classes`, and its true frames.
    classes : tuple
        The labels, sorted.
    training, testing : (k,) int64
        Rows of the clips to train and to test on, drawn class by class.
    sample_rate : int
        Of the arrays, Hz.
    file_rates : (n,) int64
        Sample rate of each clip's file, Hz.
    recipe : Recipe
        Of the marks.
    labels_mac : str
        See `Source`.
    seconds : float
        The most that is kept of a clip.
    cut : int
        How many clips were cut to that.
    was_protected : bool
        Whether the clips were protected already; if so, the clean ones come from the sidecar.
    """

    clean: Clips
    protected: Clips
    miskeyed: Clips
    labels: Ints
    lengths: Ints
    classes: tuple[Label, ...]
    training: Ints
    testing: Ints
    sample_rate: int
    file_rates: Ints
    recipe: Recipe
    labels_mac: str
    seconds: float
    cut: int
    was_protected: bool


def gather(
    source: Source, work: Path, *, most: int, seconds: float | None, progress: Callable[[int, int], None] | None
) -> Corpus:
    """Decode at most `most` of a source's clips into arrays in the folder `work`.

    Raises
    ------
    DatasetError
        Fewer than two classes have `FEWEST_A_CLASS` clips; `most` is too few for that many of each class; a clip
        cannot be decoded; or clips that should be clean already carry the marks of format 2 under this key.
    """
    counts = Counter(label for label, some in zip(source.labels, source.seconds > 0, strict=True) if some)
    classes = tuple(sorted((label for label, n in counts.items() if n >= FEWEST_A_CLASS), key=str))
    if len(classes) < 2:
        raise DatasetError(
            f"There are {len(classes)} classes with at least {FEWEST_A_CLASS} clips, of {len(counts)} in all; models "
            f"need two or more to tell apart. Check where labels come from."
        )
    if most < FEWEST_A_CLASS * len(classes):
        raise DatasetError(
            f"{most} clips are too few for {len(classes)} classes; take {FEWEST_A_CLASS} for each, "
            f"{FEWEST_A_CLASS * len(classes)} or more (n_clips=NUMBER), or give fewer classes."
        )
    index = {label: number for number, label in enumerate(classes)}
    rng = np.random.default_rng(0)
    heard = zip(source.labels, source.seconds > 0, strict=True)
    chosen, testing = _draw([index.get(label, -1) if some else -1 for label, some in heard], len(classes), most, rng)
    usual_rate, _ = Counter(source.rates.tolist()).most_common(1)[0]
    rate = min(usual_rate, MOST_RATE)
    length = seconds or float(np.clip(np.percentile(source.seconds[chosen], 95), SHORTEST, LONGEST))
    frames = max(1, round(length * rate))
    width = max(frames, round(SHORTEST * rate))
    labels = np.array([index[source.labels[row]] for row in chosen], np.int64)
    side = {int(chosen[place]): classes[(labels[place] + 1) % len(classes)] for place in testing[:MOST_SIDE]}
    clean, protected = (_new(work / f"{name}.npy", len(chosen), width) for name in ("clean", "protected"))
    miskeyed = _new(work / "miskeyed.npy", len(side), width)
    lengths = np.zeros(len(chosen), np.int64)
    place_of = {int(row): place for place, row in enumerate(chosen)}
    side_of = {row: place for place, row in enumerate(side)}
    for done, (row, forms) in enumerate(source.clips(chosen.tolist(), side, rate, frames), 1):
        place = place_of[row]
        lengths[place] = len(forms[0])
        clean[place, : len(forms[0])], protected[place, : len(forms[1])] = forms[:2]
        for form in forms[2:]:
            miskeyed[side_of[row], : len(form)] = form
        if progress is not None:
            progress(done, len(chosen))
    if not source.was_protected and isinstance(source.recipe, StrongRecipe):
        _refuse_marked(clean, protected)
    return Corpus(
        clean,
        protected,
        miskeyed,
        labels,
        lengths,
        classes,
        training=np.setdiff1d(np.arange(len(chosen)), testing),
        testing=testing,
        sample_rate=rate,
        file_rates=source.rates[chosen],
        recipe=source.recipe,
        labels_mac=source.labels_mac,
        seconds=frames / rate,
        cut=int((source.seconds[chosen] * rate > frames + 1).sum()),
        was_protected=source.was_protected,
    )


def _new(path: Path, n: int, frames: int) -> Clips:
    """A mapped array whose file is unlinked at once, so that a killed process leaves no originals behind."""
    made: Clips = np.lib.format.open_memmap(path, "w+", np.dtype(np.int16), (n, frames))
    with contextlib.suppress(OSError):  # Windows keeps the name of a file that is mapped
        path.unlink()
    return made


def _refuse_marked(clean: Clips, protected: Clips) -> None:
    """DatasetError if the clips almost certainly held their marks before these were added."""
    held = []
    for before, after in zip(clean, protected, strict=True):
        mark = after.astype(np.float64) - before
        energy = float(mark @ mark)
        if energy > 0:
            held.append(float(before @ mark) / energy)  # 1 if the clip was marked before, else 0 on average
    mean, error = np.mean(held or [0.0]), np.std(held or [0.0]) / max(1, len(held)) ** 0.5
    if mean > max(0.5, CERTAIN * error):
        raise DatasetError(
            "These clips are protected with this key: they already hold the marks of their classes. Give the sidecar "
            "with their originals (sidecar=PATH), or clean clips."
        )


def _draw(labels: Sequence[int], n_classes: int, most: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Row numbers, ascending, and the indexes among them of the test clips, in random order.

    Each class gives `FEWEST_A_CLASS` clips, and the same share of its others.
    """
    rows_of = [np.flatnonzero(np.array(labels) == number) for number in range(n_classes)]
    others = sum(len(rows) - FEWEST_A_CLASS for rows in rows_of)
    free = min(others, most - FEWEST_A_CLASS * n_classes)
    chosen, tested = [], []
    for rows in rows_of:
        n = FEWEST_A_CLASS + free * (len(rows) - FEWEST_A_CLASS) // max(1, others)
        mine = rng.permutation(rows)[:n]
        chosen.append(mine)
        tested.append(mine[: max(1, round(TEST_SHARE * n))])
    all_rows = np.sort(np.concatenate(chosen))
    return all_rows, rng.permutation(np.searchsorted(all_rows, np.concatenate(tested)))
