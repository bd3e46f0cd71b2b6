"""The clips to evaluate, clean and protected, from a folder of audio files or from an array."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.arrays.memory import mark_batch
from poscuda_fast.arrays.opening import open_stored
from poscuda_fast.arrays.originals import open_array
from poscuda_fast.arrays.vectors import read_names, read_vector
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import DatasetError, SidecarError
from poscuda_fast.evaluation.decoding import UnusableError, decode
from poscuda_fast.evaluation.padded import FULL_SCALE
from poscuda_fast.files import listing, looking
from poscuda_fast.files.clips import mac_of_labels
from poscuda_fast.files.gathering import gather
from poscuda_fast.files.in_memory import Blob, protect_blobs
from poscuda_fast.files.originals import open_files
from poscuda_fast.files.paths import Paths
from poscuda_fast.kernels import Engine
from poscuda_fast.key import Key
from poscuda_fast.mark.judging import judged, look
from poscuda_fast.mark.plan import Plan, make_plan
from poscuda_fast.recipe import USUAL_RATE, PaperRecipe, Recipe, check_rate, chosen_recipe
from poscuda_fast.results import Verdict
from poscuda_fast.secrecy import discreet, discreet_steps
from poscuda_fast.undo import copies
from poscuda_fast.undo.journal import Journal, State
from poscuda_fast.undo.record import keyed_mac, recorded_share, refuse_protected, refuse_unless

CLIPS_PER_STEP = 64

Clips = NDArray[np.int16]  # (n, frames)
Ints = NDArray[np.int64]  # (n,)
Label = str | int


class Source(Protocol):
    """Where clips come from.

    Attributes
    ----------
    labels : sequence of str or int
        The class of each clip.
    seconds : (n,) float64
        Length of each clip.
    rates : (n,) int64
        Sample rate of each clip, Hz.
    recipe : Recipe
        Of the marks.
    labels_mac : str
        Keyed MAC of all labels and lengths, as in the header of a sidecar: it tells these clips from others.
    was_protected : bool
        Whether the clips were protected already.
    """

    labels: Sequence[Label]
    seconds: NDArray[np.float64]
    rates: Ints
    recipe: Recipe
    labels_mac: str
    was_protected: bool

    def clips(
        self, rows: Sequence[int], exchanged: Mapping[int, Label], rate: int, frames: int
    ) -> Iterator[tuple[int, list[Clips]]]:
        """Yield (row, [clean, protected, with the exchanged label's mark if it has one]), each (frames or fewer,)."""


class Folder:
    """A folder of audio files, clean, or protected with its sidecar beside it.

    The recipe and labels of protected files come from their sidecar, whatever is given here. `recipe`, `strength`,
    `snr` and `labels_from` are those of `protect_folder`.

    Raises
    ------
    ValueError
        The files are clean, and `protect_folder` would refuse to mark them so.
    SidecarError
        The sidecar that was given does not exist; a sidecar is damaged or of another key; the files are only a part
        of what was protected, or contain such a part; or they hold their marks already, and there is no sidecar.
    DatasetError
        Files are protected and have no sidecar; its run is not finished, or its undo was dropped; or labels cannot be
        found.
    """

    @discreet
    def __init__(
        self,
        src: PathLike,
        key: Key,
        *,
        recipe: Recipe | None = None,
        strength: float | None = None,
        snr: float | None = None,
        labels_from: str | Mapping[str, Label] = "folder",
        sidecar: PathLike | None = None,
    ) -> None:
        paths = Paths.of(Path(src), None, sidecar)
        self._paths, self._key, self._sidecar = paths, key, sidecar
        header = _recorded(paths.sidecar, key, "files", asked=sidecar is not None)
        self.was_protected = header is not None
        if header is None:
            recipe = chosen_recipe(recipe, strength)
            _refuse_protected(paths.data, paths.sidecars_around(), key)
            _refuse_listed(paths)
        else:
            labels_from = _recorded_labels(paths.data, key, sidecar)
            recipe = Recipe.from_dict(header["recipe"])
        self.recipe = recipe
        found = gather(paths, labels_from, recipe, lossy="flac", known=lambda _: True, skip_unusable=self.was_protected)
        self._files = found.files
        self.labels: Sequence[Label] = found.labels
        rates = np.array([file.layout.sample_rate for file in self._files], np.int64)
        lengths = np.array([file.frames for file in self._files], np.int64)
        self.rates = np.maximum(1, rates)
        self.seconds = lengths / self.rates
        if header is None:
            plan = make_plan(key, recipe, self.labels, None, lengths, rates)
            engine = Engine(threads=1)
            look_at = functools.partial(looking.look, paths.source, self._files, engine=engine)
            plan, _ = judged(plan, key, snr, look_at, names=self._files.names)
            self.recipe = plan.recipe
        self.labels_mac = mac_of_labels(key, dict(zip(self._files.names, self.labels, strict=True)))

    @discreet_steps
    def clips(
        self, rows: Sequence[int], exchanged: Mapping[int, Label], rate: int, frames: int
    ) -> Iterator[tuple[int, list[Clips]]]:
        engine = Engine(threads=1)

        def mark(blobs: list[Blob], labels: list[Label]) -> list[Blob]:
            return protect_blobs(blobs, labels, self._key, self.recipe, engine, lossy="flac") if blobs else []

        for chunk, clean, wet in self._pairs(rows, mark):
            wrong = {row: one for row, one in zip(chunk, clean, strict=True) if row in exchanged}
            turned = mark(list(wrong.values()), [exchanged[row] for row in wrong])
            miskeyed = dict(zip(wrong, turned, strict=True))
            for row, *forms in zip(chunk, clean, wet, strict=True):
                yield row, [_decoded(form, rate, frames) for form in (*forms, *_one(miskeyed.get(row)))]

    def _pairs(
        self, rows: Sequence[int], mark: Callable[[list[Blob], list[Label]], list[Blob]]
    ) -> Iterator[tuple[list[int], list[Blob], list[Blob]]]:
        """Yield rows, their clean files, and their protected ones."""
        if self.was_protected:
            yield from self._recorded_pairs(rows)
            return
        for first in range(0, len(rows), CLIPS_PER_STEP):
            chunk = list(rows[first : first + CLIPS_PER_STEP])
            names = [self._files[row].name for row in chunk]
            clean = [Blob(name, (self._paths.source / name).read_bytes()) for name in names]
            yield chunk, clean, mark(clean, [self.labels[row] for row in chunk])

    def _recorded_pairs(self, rows: Sequence[int]) -> Iterator[tuple[list[int], list[Blob], list[Blob]]]:
        numbers = {self._files[row].name: row for row in rows}
        with open_files(self._paths.data, self._key, self._sidecar) as run:
            for clip in run.clips(numbers.keys()):
                if clip.original is None or clip.now is None or not clip.verdict.as_protected:
                    raise DatasetError(_unmarked(clip.name, clip.verdict))
                yield [numbers[clip.name]], [Blob(clip.name, clip.original)], [Blob(clip.name, clip.now)]


class Array:
    """A .npy file or the folder of a Zarr array, clean or protected; labels, classes and lengths have their own files.

    The recipe of a protected array comes from its sidecar, whatever is given here. Labels, classes and lengths are
    files; `recipe`, `snr` and `sample_rate` are those of `protect_array`.

    Raises
    ------
    DatasetError
        There are no labels; labels, lengths or sample rate are not those it was protected with; or the run in its
        sidecar is not finished, or its undo was dropped.
    SidecarError
        The sidecar that was given does not exist; or a sidecar is damaged, of another key, or of files.
    TypeError, ValueError, AudioFileError
        It is not an array of clips, the labels or lengths do not fit, or the sample rate is out of range; or it is
        clean, and `protect_array` would refuse to mark it so.
    """

    @discreet
    def __init__(
        self,
        path: Path,
        key: Key,
        labels: Path | None,
        *,
        recipe: Recipe = Recipe.strong(),
        snr: float | None = None,
        classes: Path | None = None,
        lengths: Path | None = None,
        sample_rate: int | None = None,
        sidecar: Path | None = None,
    ) -> None:
        if labels is None:
            raise DatasetError("An array needs labels=FILE.npy with one label for each clip.")
        given = read_vector(labels)
        self._clips = open_stored(path, sidecar, lengths=None if lengths is None else read_vector(lengths))
        self._lengths = self._clips.lengths
        if given.shape != self._lengths.shape:
            raise ValueError(
                f"{labels} has shape {given.shape} for {len(self._lengths)} clips; give one label for each clip."
            )
        self._path, self._key, self._sidecar, self._engine = path, key, sidecar, Engine(threads=1)
        self._classes = None if classes is None else read_names(classes)
        header = _recorded(self._clips.sidecar, key, "array", asked=sidecar is not None)
        if header is None and sidecar is not None:
            _refuse_protected(path, [open_stored(path).sidecar], key)
        self.was_protected = header is not None
        if header is not None:
            recipe = Recipe.from_dict(header["recipe"])
        rate = _rate_of_array(path, recipe, header, sample_rate)
        plan = make_plan(key, recipe, given, self._classes, self._clips.lengths, rate)
        if header is None:
            plan, _ = judged(plan, key, snr, functools.partial(look, self._clips, engine=self._engine))
        self.recipe = plan.recipe
        self.labels: Sequence[Label] = given.tolist()
        self.labels_mac = _labels_mac(key, plan)
        if header is not None and self.labels_mac != header["labels"]:
            raise DatasetError(
                f"{path} was protected with other labels or lengths than these; give the files of "
                f"labels, classes and lengths that were given then."
            )
        self.rates = np.full(len(self._lengths), rate, np.int64)
        self.seconds = self._lengths / rate

    @discreet_steps
    def clips(
        self, rows: Sequence[int], exchanged: Mapping[int, Label], rate: int, frames: int
    ) -> Iterator[tuple[int, list[Clips]]]:
        for row, before, now in self._pairs(rows):
            forms = [before, now]
            if row in exchanged:
                forms.append(self._marked(before, row, exchanged[row]))
            # Resampled in the same way as the decoder of files does it.
            own = int(self.rates[row])
            yield row, [_as_clip(form[: self._lengths[row]], own, rate, frames) for form in forms]

    def _pairs(self, rows: Sequence[int]) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        if self.was_protected:
            yield from self._recorded_pairs(set(rows))
            return
        for row in rows:
            before = np.array(self._clips.clip(row))
            yield row, before, self._marked(before, row, self.labels[row])

    def _recorded_pairs(self, rows: set[int]) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
        with open_array(self._path, self._key, self._sidecar) as run:
            for clip in run.clips():
                if clip.number in rows:
                    if not clip.verdict.as_protected:
                        raise DatasetError(_unmarked(f"Clip {clip.number}", clip.verdict))
                    yield clip.number, clip.original, clip.now

    def _marked(self, clip: NDArray[Any], row: int, label: Label) -> NDArray[Any]:
        wet = clip[None].copy()
        mark_batch(
            wet,
            [label],
            self._key,
            recipe=self.recipe,
            engine=self._engine,
            sample_rate=int(self.rates[row]),
            lengths=[int(self._lengths[row])],
            classes=self._classes,
        )
        found: NDArray[Any] = wet[0]
        return found


def _rate_of_array(path: Path, recipe: Recipe, header: dict[str, Any] | None, given: int | None) -> int:
    """The sample rate of an array's clips in Hz: what was given, or else what its sidecar records."""
    rate = USUAL_RATE if given is None else check_rate(given)
    if header is None or isinstance(recipe, PaperRecipe):  # format 1 records none
        return rate
    (recorded,) = header["rates"]
    if given is not None and rate != recorded:
        raise DatasetError(
            f"{path} was protected at a sample rate of {recorded:,} Hz, not {rate:,}; leave sample_rate out, or "
            f"restore the array and protect it again."
        )
    return int(recorded)


def _recorded(sidecar: Path, key: Key, kind: str, *, asked: bool) -> dict[str, Any] | None:
    """The header of a finished run; None if there is no sidecar and none was asked for, or if the run was undone."""
    if not os.path.lexists(sidecar):
        if asked:
            raise SidecarError(
                f"There is no sidecar {sidecar}; give the one that was written when the data were protected, or, if "
                f"they are clean, leave sidecar=PATH out."
            )
        return None
    with Journal(sidecar, key) as journal:
        if journal.state is State.UNDONE:
            return None
        if journal.state is not State.COMPLETE:
            raise DatasetError(
                f"The run in {sidecar} is in state {journal.state.value}; evaluate clean files, or a finished run "
                f"whose undo was not dropped."
            )
        if copies.is_copy(journal):
            kind = copies.COPY
        refuse_unless(journal, kind)
        if recorded_share(journal) is not None:
            raise DatasetError(
                f"Only a share of the clips is marked, according to {sidecar}: that is to prove use, and there is "
                f"nothing to evaluate. Evaluate clean files."
            )
        return journal.header


def _recorded_labels(data: Path, key: Key, sidecar: PathLike | None) -> dict[str, Label]:
    """Label by file name, from the sidecar; the manifest may be missing."""
    with open_files(data, key, sidecar) as run:
        return run.labels_by_name()


def _labels_mac(key: Key, plan: Plan) -> str:
    """The MAC that `describe` puts into the header of a sidecar."""
    return keyed_mac(key, b"labels", plan.digest())


def _refuse_protected(data: Path, sidecars: Iterable[Path], key: Key) -> None:
    """SidecarError if a sidecar says that the data, a folder above them or a part of them is protected."""
    try:
        refuse_protected(data, sidecars, key)
    except SidecarError as error:
        raise type(error)(f"{error} To evaluate protected data, give all that was protected together.") from None


def _refuse_listed(paths: Paths) -> None:
    """DatasetError if a manifest beside, above or below the files says that they are protected."""
    problems = [
        f"{file} is protected according to {manifest}"
        for manifest, _, files in paths.protected_files()
        for file in files
    ]
    listing.refuse(problems, "Protected files are not evaluated without their sidecar; give it (sidecar=PATH)")


def _unmarked(name: str, verdict: Verdict) -> str:
    """The message for a clip of a run that is not in its protected state."""
    words = {Verdict.ORIGINAL: "is the original again", Verdict.MISSING: "is missing"}
    return (
        f"{name} {words.get(verdict, 'is neither the original nor the protected clip')}; put the protected one back, "
        f"or restore all of them and evaluate the clean clips."
    )


def _decoded(blob: Blob, rate: int, frames: int) -> Clips:
    try:
        return decode(io.BytesIO(blob.data), rate, frames).samples
    except UnusableError as error:
        raise DatasetError(f"{blob.name} cannot be decoded: {error}.") from None


def _as_clip(samples: NDArray[Any], rate: int, wanted: int, frames: int) -> Clips:
    """One clip of an array as 16-bit mono at another rate."""
    scaled = samples / FULL_SCALE if samples.dtype.kind == "i" else samples.astype(np.float64)
    mono = scaled.mean(axis=1) if scaled.ndim == 2 else scaled
    if rate != wanted:
        import soxr  # noqa: PLC0415 - not needed at this rate

        mono = soxr.resample(mono, rate, wanted, quality="HQ")
    clip: Clips = np.clip(np.rint(mono[:frames] * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return clip


def _one(blob: Blob | None) -> tuple[Blob, ...]:
    return () if blob is None else (blob,)
