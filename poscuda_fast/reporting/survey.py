"""Measure each clip of a run; keep counts over all of them, the ten clips with the lowest SNR, and a typical one."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import math
from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.arrays.originals import ArrayRun, CopiedArray
from poscuda_fast.files import layouts
from poscuda_fast.files.clips import FileClip
from poscuda_fast.files.copied import CopiedFiles
from poscuda_fast.files.encoded import decode
from poscuda_fast.files.originals import FilesRun
from poscuda_fast.files.records import WHOLE, Record
from poscuda_fast.kernels import FULL_SCALE
from poscuda_fast.mark import codings, snr
from poscuda_fast.mark.labels import label_of, token_of
from poscuda_fast.recipe import PaperRecipe
from poscuda_fast.results import Progress, Tally, Verdict
from poscuda_fast.secrecy import Secret
from poscuda_fast.undo.record import Run

WORST = 10  # clips that are shown
MOST_SECONDS = 10.0  # of a clip that is shown
NAMES_KEPT = 200  # of each list

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


class Measured(NamedTuple):
    """One clip: its state, its counts, and a function for its beginning before and after, (frames, channels).

    `clip` is its name, or its number in an array. `excerpt` gives samples of full scale 1. `frames` is the clip's
    length, or a lower bound if `at_least`. `snr_db` is what `_ratio` returns, or None if the clip is not protected now.
    """

    clip: str | int
    label: str | int
    verdict: Verdict
    frames: int
    at_least: bool
    patch_frames: int
    sample_rate: int
    snr_db: float | None
    tally: Tally
    short: bool
    excerpt: Callable[[], Pair]

    @property
    def name(self) -> str:
        return self.clip if isinstance(self.clip, str) else f"clip {self.clip}"

    def shown(self, ratio: float) -> Excerpt:
        """Its beginning, to see and to hear."""
        seconds = self.frames / self.sample_rate
        return Excerpt(self.name, self.label, ratio, seconds, self.at_least, self.sample_rate, *self.excerpt())


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Excerpt(Secret):
    """The beginning of a clip, before and after.

    Attributes
    ----------
    name, label
        Of the clip.
    snr_db : float
        Minus infinity if it was silent before.
    seconds : float
        Length of the clip.
    at_least : bool
        Whether the clip may be longer.
    sample_rate : int
        Hz.
    before, after : (frames, channels) float32
        Full scale is 1.
    """

    name: str
    label: str | int
    snr_db: float
    seconds: float
    at_least: bool
    sample_rate: int
    before: NDArray[np.float32]
    after: NDArray[np.float32]

    @property
    def difference(self) -> NDArray[np.float32]:
        """After minus before."""
        return self.after - self.before

    def cut(self, seconds: float) -> Excerpt:
        """The same, with at most `seconds` of samples."""
        end = max(1, int(seconds * self.sample_rate))
        return dataclasses.replace(self, before=self.before[:end], after=self.after[:end])


class Named:
    """Names, each with a remark; all are counted, the first `NAMES_KEPT` are kept."""

    def __init__(self) -> None:
        self.items: list[tuple[str, str]] = []
        self.total = 0

    def add(self, name: str, remark: str = "") -> None:
        self.total += 1
        if len(self.items) < NAMES_KEPT:
            self.items.append((name, remark))

    @property
    def more(self) -> int:
        """How many are counted but not kept."""
        return self.total - len(self.items)


class ClassRow(NamedTuple):
    """One class: its label, how many of its clips are protected, and their median SNR in dB, None if none has one."""

    label: str | int
    protected: int
    median_db: float | None


class Survey:
    """What was found in all clips that the run has recorded.

    Parameters
    ----------
    labels : sequence of str or int
        The run's classes.

    Attributes
    ----------
    clips : int
        How many were measured.
    verdicts : Counter
        Clips by their verdict now.
    patches, patch_frames, frames : int
        Of the clips that are protected now: in format 1 their patches and the frames in these; and all frames.
    at_least : bool
        Whether `frames` is only a lower bound, because some lengths are not known.
    silent_patches, saturated_samples, not_finite_samples : int
        Of the clips that are in their protected state.
    snr_db : list of float
        Of every clip that is protected now and has one.
    silent_before, not_finite : int
        Protected clips that have no SNR: those that were silent before, and those with samples that are not finite.
    silent, saturated, short, changed, unprotected : Named
        Clips with silent patches, with saturated samples, shorter than a patch, not in their protected state, and
        files without a record.
    worst : list of Excerpt
        Clips that were silent before, then those with the lowest SNR, lowest first.
    typical : Excerpt or None
        The clip that `nearest_the_median` is; None before `add_typical`, and if no clip has an SNR.
    """

    def __init__(self, labels: Sequence[str | int]) -> None:
        self.clips = self.patches = self.patch_frames = self.frames = 0
        self.at_least = False
        self.silent_patches = self.saturated_samples = self.not_finite_samples = 0
        self.verdicts: Counter[Verdict] = Counter()
        self.snr_db: list[float] = []
        self.typical: Excerpt | None = None
        self.silent_before = self.not_finite = 0
        self.silent, self.saturated, self.short, self.changed, self.unprotected = (Named() for _ in range(5))
        self._clips: list[str | int] = []  # of `snr_db`
        self._heap: list[tuple[float, int, Excerpt]] = []
        self._protected_of: Counter[str | int] = Counter()
        self._ratios_of: dict[str | int, list[float]] = {label: [] for label in labels}

    @property
    def worst(self) -> list[Excerpt]:
        return [excerpt for *_, excerpt in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]

    @property
    def classes(self) -> list[ClassRow]:
        """A row for each class, numbers before names, in order."""
        rows = []
        for label in sorted(self._ratios_of, key=lambda label: (isinstance(label, str), label)):
            ratios = self._ratios_of[label]
            rows.append(ClassRow(label, self._protected_of[label], float(np.median(ratios)) if ratios else None))
        return rows

    @property
    def nearest_the_median(self) -> str | int | None:
        """The clip whose SNR is nearest the median, of several the first by name or number; None if none has one."""
        if not self.snr_db:
            return None
        median = float(np.median(self.snr_db))
        # Two clips in the middle are as far from their median, but for its rounding.
        pairs = zip(self.snr_db, self._clips, strict=True)
        return min((round(abs(ratio - median), 9), clip) for ratio, clip in pairs)[1]

    def add_typical(self, clips: Generator[Measured]) -> None:
        """Keep the beginning of the clip that is nearest the median; `clips` are read until it comes."""
        wanted = self.nearest_the_median
        with contextlib.closing(clips):
            found = next((clip for clip in clips if clip.clip == wanted), None)
        if found is not None and found.snr_db is not None:  # or else another program changed it meanwhile
            self.typical = found.shown(found.snr_db)

    def add(self, clip: Measured) -> None:
        """Count one clip, and keep its beginning if it is among the worst so far."""
        self.clips += 1
        self.verdicts[clip.verdict] += 1
        if clip.short:
            self.short.add(clip.name, _number(clip.frames, "frame"))
        if clip.verdict.as_protected:
            self._add_found(clip)
        else:
            self.changed.add(clip.name, _REMARKS[clip.verdict])
        if clip.verdict is Verdict.PROTECTED:
            self._add_protected(clip)

    def _add_found(self, clip: Measured) -> None:
        """Count the silent patches and saturated samples of a clip."""
        self.silent_patches += clip.tally.silent_patches
        self.saturated_samples += clip.tally.saturated_samples
        self.not_finite_samples += clip.tally.not_finite_samples
        if clip.tally.silent_patches:
            self.silent.add(clip.name, _number(clip.tally.silent_patches, "silent patch", "silent patches"))
        if clip.tally.saturated_samples:
            self.saturated.add(clip.name, _number(clip.tally.saturated_samples, "saturated sample"))

    def _add_protected(self, clip: Measured) -> None:
        self.patches += clip.tally.patches
        self.patch_frames += clip.patch_frames
        self.frames += clip.frames
        self.at_least |= clip.at_least
        self._protected_of[clip.label] += 1
        if clip.snr_db is None:
            return
        if math.isnan(clip.snr_db):
            self.not_finite += 1
            return
        if math.isinf(clip.snr_db):
            self.silent_before += 1
        else:
            self.snr_db.append(clip.snr_db)
            self._clips.append(clip.clip)
            self._ratios_of[clip.label].append(clip.snr_db)
        self._rank(clip, clip.snr_db)

    def _rank(self, clip: Measured, ratio: float) -> None:
        """Keep the clips with the lowest ratio; of equal ones those that came first."""
        if len(self._heap) == WORST and -ratio <= self._heap[0][0]:
            return
        entry = (-ratio, -self.clips, clip.shown(ratio))
        (heapq.heapreplace if len(self._heap) == WORST else heapq.heappush)(self._heap, entry)


_REMARKS = {
    Verdict.ORIGINAL: "the original",
    Verdict.MISSING: "missing",
    Verdict.NEITHER: "changed: neither original nor protected",
    Verdict.TORN: "half written, or changed where it was marked",
}


def survey_files(run: FilesRun | CopiedFiles, progress: Progress | None) -> Survey:
    """Measure every file of a run."""
    found = Survey(run.labels)
    names = set()
    for file in _measure_files(run):
        found.add(file)
        names.add(file.name)
        _advance(progress, found, run.n_clips)
    for name in run.unprotected(names):
        found.unprotected.add(name)
    if found.snr_db:
        found.add_typical(_measure_files(run, [str(found.nearest_the_median)]))
    return found


def survey_array(run: ArrayRun | CopiedArray, sample_rate: int, progress: Progress | None) -> Survey:
    """Measure every clip of an array."""
    found = Survey(run.labels)
    for clip in _measure_clips(run, sample_rate):
        found.add(clip)
        _advance(progress, found, run.n_clips)
    if found.snr_db:
        found.add_typical(_measure_clips(run, sample_rate))
    return found


def _patch(run: Run) -> int:
    """Frames in a patch of format 1; 0 in format 2, which marks every frame."""
    return run.recipe.patch if isinstance(run.recipe, PaperRecipe) else 0


def _advance(progress: Progress | None, found: Survey, total: int) -> None:
    if progress is not None:
        progress(found.clips, total)


def _measure_files(run: FilesRun | CopiedFiles, names: Collection[str] | None = None) -> Generator[Measured]:
    patch = _patch(run)
    for clip in run.clips(names):
        yield _measure_file(clip, patch)


def _measure_file(clip: FileClip, patch: int) -> Measured:
    record = clip.record
    ratio, sample_rate = None, 1
    if clip.original is not None:
        samples, sample_rate = _samples(clip.original, record)
        if clip.verdict is Verdict.PROTECTED:
            ratio = _ratio(snr.energy(samples.reshape(-1)), clip.noise)

    def excerpt() -> Pair:
        before, after = (_samples(content or b"", record) for content in (clip.original, clip.now))
        return _beginning(before[0], sample_rate), _beginning(after[0], sample_rate)

    return Measured(
        clip=clip.name,
        label=label_of(token_of(clip.label)),
        verdict=clip.verdict,
        frames=record.frames,
        at_least=False,
        patch_frames=sum(record.sizes) if patch else 0,
        sample_rate=sample_rate,
        snr_db=ratio,
        tally=clip.tally,
        short=record.frames < patch,
        excerpt=excerpt,
    )


def _measure_clips(run: ArrayRun | CopiedArray, sample_rate: int) -> Generator[Measured]:
    patch = _patch(run)
    # In format 2 a clip ends where its mark does; to look for padding would read the sidecar once more.
    full = patch > 0 and run.is_full()
    for clip in run.clips():
        ratio = None
        if clip.verdict is Verdict.PROTECTED:
            with np.errstate(invalid="ignore"):  # infinity minus infinity, outside patches
                edit = clip.now.reshape(-1).astype(np.float64) - clip.original.reshape(-1)
            ratio = _ratio(snr.energy(clip.original.reshape(-1)), snr.energy(edit))
        short = clip.frames < patch
        known = not patch or short  # or else its last patch may lie before its end
        frames = len(clip.now) if full else clip.frames
        shown = slice(frames) if known else slice(None)

        def excerpt(original: NDArray[Any] = clip.original[shown], now: NDArray[Any] = clip.now[shown]) -> Pair:
            shape = len(original), -1
            return _beginning(original.reshape(shape), sample_rate), _beginning(now.reshape(shape), sample_rate)

        yield Measured(
            clip=clip.number,
            label=label_of(token_of(clip.label)),
            # An array's clips are compared only where they are marked.
            verdict=Verdict.TORN if clip.verdict is Verdict.NEITHER else clip.verdict,
            frames=frames,
            at_least=not known and frames < len(clip.now),
            patch_frames=clip.patch_frames,
            sample_rate=sample_rate,
            snr_db=ratio,
            tally=clip.tally,
            short=short,
            excerpt=excerpt,
        )


def _ratio(signal: float, noise: float) -> float | None:
    """SNR in dB; None if nothing changed, minus infinity if all was silent, NaN if a sample is not finite."""
    if noise == 0:
        return None
    if signal == 0:
        return -math.inf
    ratio = snr.ratio_db(signal, noise)
    return math.nan if ratio is None else ratio


def _samples(content: bytes, record: Record) -> tuple[NDArray[Any], int]:
    """Samples (frames, channels) of a recorded file as they are stored, and the sample rate."""
    if record.offset == WHOLE:
        decoded = decode(content, record.name)
        return decoded.samples, decoded.encoding.sample_rate
    layout = layouts.of_bytes(content, record.name)
    end = record.offset + record.frames * record.frame_bytes
    samples = codings.to_samples(memoryview(content)[record.offset : end], record.coding)
    return samples.reshape(-1, record.channels), layout.sample_rate


def _beginning(samples: NDArray[Any], sample_rate: int) -> NDArray[np.float32]:
    """A copy of the part of a clip that is shown."""
    shown = samples[: int(MOST_SECONDS * sample_rate)].astype(np.float64) / FULL_SCALE[samples.dtype]
    return shown.astype(np.float32)


def _number(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
