"""What is measured of each clip of a run, and what is kept of all of them: counts, and the ten that changed most."""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import pcm, snr
from poscuda_fast.discretion import Secret
from poscuda_fast.encoded import decode
from poscuda_fast.inplace import Progress
from poscuda_fast.originals import ArrayRun, FileClip, FilesRun
from poscuda_fast.records import WHOLE, Record
from poscuda_fast.report import Tally

WORST = 10  # clips that are shown
MOST_SECONDS = 10.0  # of a clip that is shown
NAMES_KEPT = 200  # of each list
PROTECTED = {"protected", "equal"}  # what an edit can be measured in
AS_LEFT = PROTECTED | {"original"}
_FULL_SCALE = {"PCM_16": 2.0**15, "PCM_24": 2.0**23, "FLOAT": 1.0}

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


class Measured(NamedTuple):
    """One clip: what it is, its counts, and how to get its beginning before and after (frames, channels), full scale 1.

    `snr_db` is None where nothing changed, or where the clip is not protected now.
    """

    name: str
    label: str | int
    verdict: str
    frames: int
    sample_rate: int
    snr_db: float | None
    tally: Tally
    short: bool
    excerpt: Callable[[], Pair]


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Excerpt(Secret):
    """The beginning of a clip, before and after.

    Attributes
    ----------
    name, label, snr_db
        Of the clip.
    seconds : float
        Its length.
    sample_rate : int
        Hz.
    before, after : (frames, channels) float32
        Full scale is 1.
    """

    name: str
    label: str | int
    snr_db: float
    seconds: float
    sample_rate: int
    before: NDArray[np.float32]
    after: NDArray[np.float32]

    def cut(self, seconds: float) -> Excerpt:
        """No more than so much of it."""
        end = max(1, int(seconds * self.sample_rate))
        return dataclasses.replace(self, before=self.before[:end], after=self.after[:end])


class Named:
    """Names with something to say of each; the first are kept, all are counted."""

    def __init__(self) -> None:
        self.items: list[tuple[str, str]] = []
        self.total = 0

    def add(self, name: str, remark: str = "") -> None:
        self.total += 1
        if len(self.items) < NAMES_KEPT:
            self.items.append((name, remark))

    @property
    def more(self) -> int:
        """How many are counted only."""
        return self.total - len(self.items)


class ClassRow(NamedTuple):
    """One class: its label, its clips, and their median SNR in dB, None if nothing changed in them."""

    label: str | int
    clips: int
    median_db: float | None


class Survey:
    """What was found in all clips.

    Attributes
    ----------
    tally : Tally
        Counts of all clips and patches that the run has recorded.
    frames : int
        In all these clips.
    verdicts : Counter
        Clips by what they are now.
    snr_db : list of float
        Of every clip that is protected and changed.
    silent, saturated, short, changed, unlisted : Named
        Clips with silent patches, with saturated samples, shorter than a patch, not as the run left them, and files
        unknown to it.
    worst : list of Excerpt
        Of the clips with the lowest SNR, lowest first.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self.frames = 0
        self.verdicts: Counter[str] = Counter()
        self.snr_db: list[float] = []
        self.silent, self.saturated, self.short, self.changed, self.unlisted = (Named() for _ in range(5))
        self._heap: list[tuple[float, int, Excerpt]] = []
        self._of_class: dict[str | int, list[float | None]] = defaultdict(list)

    @property
    def worst(self) -> list[Excerpt]:
        return [excerpt for *_, excerpt in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]

    @property
    def classes(self) -> list[ClassRow]:
        """A row for each class, numbers before names, in order."""
        rows = []
        for label in sorted(self._of_class, key=lambda label: (isinstance(label, str), label)):
            ratios = [ratio for ratio in self._of_class[label] if ratio is not None]
            median = float(np.median(ratios)) if ratios else None
            rows.append(ClassRow(label, len(self._of_class[label]), median))
        return rows

    def add(self, clip: Measured) -> None:
        """Count one clip, and keep its beginning if it is among the worst so far."""
        self.tally.add(clip.tally)
        self.tally.clips += 1
        self.tally.short_clips += clip.short
        self.frames += clip.frames
        self.verdicts[clip.verdict] += 1
        self._of_class[clip.label].append(clip.snr_db)
        self.tally.classes = len(self._of_class)
        if clip.tally.silent_patches:
            self.silent.add(clip.name, _number(clip.tally.silent_patches, "silent patch", "silent patches"))
        if clip.tally.saturated_samples:
            self.saturated.add(clip.name, _number(clip.tally.saturated_samples, "saturated sample"))
        if clip.short:
            self.short.add(clip.name, _number(clip.frames, "frame"))
        if clip.verdict not in AS_LEFT:
            self.changed.add(clip.name, _REMARKS[clip.verdict])
        if clip.snr_db is not None:
            self.snr_db.append(clip.snr_db)
            self._rank(clip, clip.snr_db)

    def _rank(self, clip: Measured, ratio: float) -> None:
        """Keep the lowest; of equal ones those that came first."""
        if len(self._heap) == WORST and -ratio <= self._heap[0][0]:
            return
        seconds = clip.frames / clip.sample_rate
        excerpt = Excerpt(clip.name, clip.label, ratio, seconds, clip.sample_rate, *clip.excerpt())
        entry = (-ratio, -self.tally.clips, excerpt)
        (heapq.heapreplace if len(self._heap) == WORST else heapq.heappush)(self._heap, entry)


_REMARKS = {
    "missing": "missing",
    "neither": "changed: neither original nor protected",
    "torn": "half written, only inside patches",
}


def survey_files(run: FilesRun, progress: Progress | None) -> Survey:
    """Measure every file of a run."""
    found = Survey()
    names = set()
    for clip in run.clips():
        found.add(_measure_file(clip, run.recipe.patch))
        names.add(clip.name)
        _advance(progress, found, run.n_clips)
    for name in run.unlisted(names):
        found.unlisted.add(name)
    return found


def survey_array(run: ArrayRun, sample_rate: int, progress: Progress | None) -> Survey:
    """Measure every clip of an array."""
    found = Survey()
    for clip in _measure_clips(run, sample_rate):
        found.add(clip)
        _advance(progress, found, run.n_clips)
    return found


def _advance(progress: Progress | None, found: Survey, total: int) -> None:
    if progress is not None:
        progress(found.tally.clips, total)


def _measure_file(clip: FileClip, patch: int) -> Measured:
    record = clip.record
    ratio, sample_rate = None, 1
    if clip.original is not None:
        samples, sample_rate = _samples(clip.original, record)
        if clip.verdict in PROTECTED:
            ratio = snr.ratio_db(snr.energy(samples.reshape(-1)), clip.noise)

    def excerpt() -> Pair:
        before, after = (_samples(content or b"", record) for content in (clip.original, clip.now))
        full = _FULL_SCALE[record.coding]
        return _beginning(before[0], sample_rate, full), _beginning(after[0], sample_rate, full)

    short = record.frames < patch
    return Measured(clip.name, clip.label, clip.verdict, record.frames, sample_rate, ratio, clip.tally, short, excerpt)


def _measure_clips(run: ArrayRun, sample_rate: int) -> Iterator[Measured]:
    for clip in run.clips():
        ratio = None
        if clip.verdict in PROTECTED:
            edit = clip.now.reshape(-1).astype(np.float64) - clip.original.reshape(-1)
            ratio = snr.ratio_db(snr.energy(clip.original.reshape(-1)), snr.energy(edit))

        def excerpt(original: NDArray[Any] = clip.original, now: NDArray[Any] = clip.now) -> Pair:
            full = 1.0 if original.dtype.kind == "f" else _FULL_SCALE["PCM_16"]
            shape = len(original), -1
            return (
                _beginning(original.reshape(shape), sample_rate, full),
                _beginning(now.reshape(shape), sample_rate, full),
            )

        yield Measured(
            f"clip {clip.number}",
            clip.label,
            clip.verdict,
            clip.frames,
            sample_rate,
            ratio,
            clip.tally,
            clip.frames < run.recipe.patch,
            excerpt,
        )


def _samples(content: bytes, record: Record) -> tuple[NDArray[Any], int]:
    """Samples (frames, channels) of a recorded file as they are kept, and the sample rate."""
    if record.offset == WHOLE:
        decoded = decode(content, record.name)
        return decoded.samples, decoded.encoding.sample_rate
    layout = pcm.parse_wav(content, len(content), record.name)
    end = record.offset + record.frames * record.frame_bytes
    samples = pcm.to_samples(memoryview(content)[record.offset : end], record.coding)
    return samples.reshape(-1, record.channels), layout.sample_rate


def _beginning(samples: NDArray[Any], sample_rate: int, full_scale: float) -> NDArray[np.float32]:
    """A copy of what is shown of a clip."""
    shown = samples[: int(MOST_SECONDS * sample_rate)].astype(np.float64) / full_scale
    return shown.astype(np.float32)


def _number(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
