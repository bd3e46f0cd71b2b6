"""The two forms of marked samples: each made from the other, and told apart.

A record of some patches says how to tell their original: a keyed hash of each piece, and the samples that cannot be
computed from marked ones; or, where nothing can be computed, the original itself (FORMAT.md, "Batches").
"""

from __future__ import annotations

import dataclasses
import functools
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.errors import SidecarError
from poscuda_fast.kernels import MARKED, ORIGINAL, Engine, Ints, LineTable
from poscuda_fast.key import Key
from poscuda_fast.mark import packed
from poscuda_fast.mark.codings import as_samples, is_big, to_bytes, to_samples
from poscuda_fast.mark.lines import Lines
from poscuda_fast.mark.marks import Marks
from poscuda_fast.mark.patches import packed_steps
from poscuda_fast.mark.stretches import Bytes, Stretches
from poscuda_fast.mark.torn import Torn, original_of_torn
from poscuda_fast.mark.unmarking import Doubts, Unmarking, lines_of
from poscuda_fast.results import Tally, Verdict
from poscuda_fast.secrecy import Secret

KEY_WORDS = 130
_SMALL = 255  # differences from here on are written apart
_COUNT = struct.Struct("<I")


@dataclasses.dataclass(repr=False)
class Answer(Secret):
    """What some patches are now, piece by piece, and both of their forms.

    Attributes
    ----------
    forms : Forms
        Makes the marked form when it is asked for.
    stretches : Stretches
    dry : (n_bytes,) uint8
        Original; not meaningful in pieces that are neither.
    original, protected, torn : (n_pieces,) bool
        What each piece is now; a piece may be both of the first two. Neither of all three: changed by somebody.
    found : dict
        The originals of torn pieces that were found by trying, by the number of the piece.
    """

    forms: Forms
    stretches: Stretches
    dry: Bytes
    original: NDArray[np.bool_]
    protected: NDArray[np.bool_]
    torn: NDArray[np.bool_]
    found: dict[int, bytes]

    @functools.cached_property
    def marked(self) -> tuple[Bytes, int]:
        """`wet` and `odd`, computed when either is asked for: only protecting needs them."""
        wet = self.dry.copy()
        return wet, self.forms.mark(wet, self.stretches)

    @property
    def wet(self) -> Bytes:
        """(n_bytes,) uint8: marked; not meaningful in pieces that are neither."""
        return self.marked[0]

    @property
    def odd(self) -> int:
        """What marking the originals returned."""
        return self.marked[1]

    def held(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """(original, protected, known): for each patch, whether all of its pieces are; all (n_patches,)."""
        every = self.stretches.pieces.every
        return every(self.original), every(self.protected), every(self.original | self.protected | self.torn)

    def verdicts(self) -> NDArray[np.uint8]:
        """(n_patches,) a `Verdict` on each patch."""
        return verdicts_of(*self.held())


def verdicts_of(
    original: NDArray[np.bool_], protected: NDArray[np.bool_], known: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Verdicts on clips whose parts are all original, all protected, or each one of these or half written."""
    whole = Verdict.ORIGINAL * original + Verdict.PROTECTED * protected
    return np.where(whole > 0, whole, np.where(known, Verdict.TORN, Verdict.NEITHER)).astype(np.uint8)


class Fresh(NamedTuple):
    """Patches that are marked for the first time.

    Attributes
    ----------
    digests : (n_patches,) uint64
        They tell the originals.
    content : bytes
        The record.
    wet : (n_bytes,) uint8
        Marked.
    """

    digests: NDArray[np.uint64]
    content: bytes
    wet: Bytes


class Forms(Secret):
    """Makes and tells the forms of samples under some marks; threads may share it."""

    def __init__(self, key: Key, marks: Marks, engine: Engine) -> None:
        self.marks, self.engine = marks, engine
        self._key = np.frombuffer(key.derive(b"sidecar", b"pieces", length=8 * KEY_WORDS), "<u8").astype(np.uint64)

    def mark(self, dense: Bytes, stretches: Stretches) -> int:
        """Mark a dense buffer in place; returns what `Marks.apply` does."""
        return self._change(dense, stretches, self.marks.apply)

    def unmark(self, dense: Bytes, stretches: Stretches) -> int:
        """Subtract the marks of format 2 from a dense buffer, in place; returns what `Lines.remove` does."""
        if not isinstance(self.marks, Lines):
            raise TypeError("filters cannot be taken off")
        return self._change(dense, stretches, self.marks.remove)

    def undone(self, wet: Bytes, stretches: Stretches, doubts: Doubts) -> tuple[Bytes, NDArray[np.bool_]]:
        """(originals, which patches marking them gives): of marked samples of format 2 without a record."""
        unmarking = Unmarking(lines_of(self.marks))
        dry = wet.copy()
        self._change(dry, stretches, unmarking.apply)
        doubts.saturated += unmarking.saturated
        doubts.rounded |= stretches.is_float
        again = dry.copy()
        self.mark(again, stretches)
        return dry, stretches.pieces.every(stretches.pieces.alike(again, wet))

    def count(self, tally: Tally, dense: Bytes, stretches: Stretches, odd: int | None = None) -> None:
        """Add some originals to a tally; `odd` is what marking them returned, if they were marked."""
        if self.marks.steady:
            tally.frames_changed += stretches.patches.n_frames
        else:
            samples, _ = _samples(dense, stretches.coding, packed_24=False)
            flags = packed.survey_dense(samples, stretches.patches, stretches.channels, self.engine)
            packed.count_patches(tally, stretches.patches, flags)
        if odd is not None:
            packed.count_odd(tally, np.dtype(np.float32 if stretches.is_float else np.int16), odd)

    def fresh(self, dry: Bytes, stretches: Stretches, tally: Tally) -> Fresh:
        """The record and the marked form of originals."""
        wet, sums, odd = self._mark_and_hash(dry, stretches)
        self.count(tally, dry, stretches, odd)
        digests = _of_patches(sums, stretches)
        if not stretches.computed:
            return Fresh(digests, dry.tobytes(), wet)
        return Fresh(digests, sums.astype("<u8").tobytes() + self._kept(dry, wet, stretches, odd), wet)

    def digests(self, now: Bytes, stretches: Stretches) -> NDArray[np.uint64]:
        """What `Fresh.digests` is if these are originals."""
        return _of_patches(self._sums(now, stretches), stretches)

    def examine(self, now: Bytes, stretches: Stretches, content: memoryview, torn: Mapping[int, bytes]) -> Answer:
        """What is there now, by its record; `torn` has the originals of pieces that were found torn before."""
        if not stretches.computed:
            return self._compare(now, stretches, np.frombuffer(content, np.uint8))
        n_pieces = len(stretches.pieces.starts)
        sums = np.frombuffer(content, "<u8", n_pieces).astype(np.uint64)
        told = self._tell(now, stretches, sums)
        return self._try(now, stretches, sums, content[8 * n_pieces :], torn) if told is None else told

    def _try(
        self, now: Bytes, stretches: Stretches, sums: NDArray[np.uint64], kept: memoryview, torn: Mapping[int, bytes]
    ) -> Answer:
        """What is there by its hashes and all that is kept; step by step, over all patches."""
        pieces = stretches.pieces
        dry = now.copy()
        self.unmark(dry, stretches)
        exact = _put_kept(dry, stretches, kept)
        original = self._sums(now, stretches) == sums
        back = self._sums(dry, stretches) == sums
        undone = dry
        if not back.all():
            undone = dry.copy()
            dry = np.where(pieces.spread(original & ~back), now, dry)
        found: dict[int, bytes] = {}
        unknown = np.flatnonzero(~(original | back)).tolist()
        for number in unknown:
            known = torn.get(number)
            if known is None:
                known = self._find(number, now, undone, stretches, exact, sums)
                if known is None:
                    continue
                found[number] = known
            dry[pieces.of(number)] = np.frombuffer(known, np.uint8)
        if unknown:
            _put(dry, stretches, stretches.straddlers, _explicit(stretches, kept)[0])
        answer = Answer(self, stretches, dry, original, original, original, found)
        wet = answer.wet
        answer.protected = protected = (original | back) & pieces.alike(wet, now)
        answer.torn = half = np.zeros(len(pieces.starts), np.bool_)
        for number in np.flatnonzero(~(original | protected)).tolist():
            part = pieces.of(number)
            if back[number] or number in torn or number in found:
                half[number] = bool(((now[part] == dry[part]) | (now[part] == wet[part])).all())
            if back[number] and half[number] and number not in torn:  # only kept samples are not marked yet
                found[number] = dry[part].tobytes()
        return answer

    def _tell(self, now: Bytes, stretches: Stretches, sums: NDArray[np.uint64]) -> Answer | None:
        """The answer if no piece takes more than its own bytes to tell; otherwise None.

        Those that take more have samples of which a part lies in another piece, were torn or changed, or lost samples
        that the record keeps.
        """
        whole = self._whole(now, stretches)
        if whole is None:
            return None
        dry = np.empty_like(now)
        states = self.engine.tell_pieces(*whole, sums, self._key, _samples(dry, stretches.coding, packed_24=True)[0])
        if not states.all():
            return None
        original, protected = states & ORIGINAL != 0, states & MARKED != 0
        return Answer(self, stretches, dry, original, protected, np.zeros_like(original), {})

    def _mark_and_hash(self, dry: Bytes, stretches: Stretches) -> tuple[Bytes, NDArray[np.uint64], int]:
        """The marked form of originals, the hash of each piece, and what marking returns; in one pass if it can."""
        whole = self._whole(dry, stretches) if self.marks.steady else None
        if whole is None:
            wet = dry.copy()
            odd = self.mark(wet, stretches)
            return wet, self._sums(dry, stretches), odd
        wet = np.empty_like(dry)
        sums, odd = self.engine.mark_and_hash(*whole, self._key, _samples(wet, stretches.coding, packed_24=True)[0])
        return wet, sums, odd

    def _whole(
        self, dense: Bytes, stretches: Stretches
    ) -> tuple[NDArray[Any], Ints, Ints, Ints, Ints, LineTable] | None:
        """A buffer's samples, and its pieces as kernels take them; None where a sample lies in two pieces."""
        pieces, width, n = stretches.pieces, stretches.sample_bytes, stretches.channels
        samples, shared = _samples(dense, stretches.coding, packed_24=True)
        if not shared or len(stretches.straddlers):
            return None
        starts, sizes = pieces.starts // width, pieces.sizes // width
        phases = starts + (stretches.patches.starts * n - stretches.starts // width)[pieces.owners]
        rows = stretches.patches.rows[pieces.owners]
        return samples, starts, sizes, phases, rows, lines_of(self.marks).table(samples.dtype, n)

    def _compare(self, now: Bytes, stretches: Stretches, dry: Bytes) -> Answer:
        """By originals that are kept whole: where a piece is neither form, each byte must be one of them."""
        pieces = stretches.pieces
        half = np.zeros(len(pieces.starts), np.bool_)
        answer = Answer(self, stretches, dry, pieces.alike(now, dry), half, half, {})
        wet = answer.wet
        answer.protected = pieces.alike(now, wet)
        either = answer.original | answer.protected
        if not either.all():
            answer.torn = np.logical_and.reduceat((now == dry) | (now == wet), pieces.starts) & ~either
        return answer

    def _find(
        self, number: int, now: Bytes, undone: Bytes, stretches: Stretches, exact: Ints, sums: NDArray[np.uint64]
    ) -> bytes | None:
        """The original of a piece that was stored in part, found by trying every place where that may have ended."""
        part = stretches.pieces.of(number)
        owner = int(stretches.pieces.owners[number])
        first = int(stretches.starts[owner])
        patch = stretches.patches.some(slice(owner, owner + 1))
        one = dataclasses.replace(stretches, patches=patch, firsts=stretches.firsts[owner : owner + 1])
        values = np.zeros(one.n_bytes, np.uint8)
        if not stretches.is_float:
            self.mark(values, one)  # marking silence gives the mark itself
        truth = exact * stretches.sample_bytes - part.start
        torn = Torn(
            now[part],
            undone[part],
            stretches.coding,
            first - part.start,
            values[part.start - first :],
            set(truth.tolist()),
        )
        return original_of_torn(torn, lambda tried: self._hash(tried) == sums[number])

    def _hash(self, rows: Bytes) -> NDArray[np.uint64]:
        """The hash of each row."""
        n, size = rows.shape
        starts = np.arange(n, dtype=np.int64) * size
        return self.engine.hash_pieces(np.ascontiguousarray(rows).reshape(-1), starts, np.full(n, size), self._key)

    def _sums(self, dense: Bytes, stretches: Stretches) -> NDArray[np.uint64]:
        """(n_pieces,) the hash of each piece."""
        starts, sizes, _ = stretches.pieces
        return self.engine.hash_pieces(dense, starts, sizes, self._key)

    def _kept(self, dry: Bytes, wet: Bytes, stretches: Stretches, odd: int) -> bytes:
        """The samples that subtraction does not bring back, and those that lie in two pieces."""
        wrong = np.empty(0, np.int64)
        coded = b""
        if stretches.is_float:
            undone = wet.copy()
            self.unmark(undone, stretches)
            coded = _pack_differences(_bits(dry, stretches) - _bits(undone, stretches))
        elif odd:
            undone = wet.copy()
            self.unmark(undone, stretches)
            wrong = np.flatnonzero((_by_sample(undone, stretches) != _by_sample(dry, stretches)).any(axis=1))
        straddling = _by_sample(dry, stretches)[stretches.straddlers].tobytes()
        lost = _COUNT.pack(len(wrong)) + wrong.astype("<u4").tobytes() + _by_sample(dry, stretches)[wrong].tobytes()
        return straddling + lost + coded

    def _change(self, dense: Bytes, stretches: Stretches, change: Any) -> int:
        samples, shared = _samples(dense, stretches.coding, packed_24=self.marks.steady)
        places = packed.offsets(stretches.patches, stretches.channels)
        odd = int(change(self.engine, samples, places, stretches.patches, packed_steps(stretches.channels)))
        if not shared:
            dense[:] = np.frombuffer(to_bytes(samples, stretches.coding), np.uint8)
        return odd


def _samples(dense: Bytes, coding: str, *, packed_24: bool) -> tuple[NDArray[Any], bool]:
    """Bytes as kernel samples, and whether these share the memory."""
    samples = as_samples(dense.data, coding, packed=packed_24)
    return (to_samples(dense.data, coding), False) if samples is None else (samples, True)


def _bits(dense: Bytes, stretches: Stretches) -> NDArray[np.int32]:
    """(n_samples,) the bits of floats as numbers, which share the memory."""
    return dense.view(">i4" if is_big(stretches.coding) else "<i4")


def _by_sample(dense: Bytes, stretches: Stretches) -> Bytes:
    """(n_samples, bytes) of a dense buffer."""
    return dense.reshape(-1, stretches.sample_bytes)


def _put(dense: Bytes, stretches: Stretches, samples: Ints, content: memoryview | bytes) -> None:
    """Replace some samples."""
    _by_sample(dense, stretches)[samples] = np.frombuffer(content, np.uint8).reshape(-1, stretches.sample_bytes)


def _explicit(stretches: Stretches, kept: memoryview) -> tuple[memoryview, Ints, memoryview, memoryview]:
    """The parts of what is kept: straddling samples, the places and bytes of lost ones, and coded differences."""
    size = stretches.sample_bytes
    middle = len(stretches.straddlers) * size
    (n,) = _COUNT.unpack_from(kept, middle)
    places = middle + _COUNT.size
    samples, end = places + 4 * n, places + (4 + size) * n
    return kept[:middle], np.frombuffer(kept, "<u4", n, places).astype(np.int64), kept[samples:end], kept[end:]


def _put_kept(dense: Bytes, stretches: Stretches, kept: memoryview) -> Ints:
    """Complete what subtraction gave; returns the samples whose originals are kept whole."""
    straddling, places, lost, coded = _explicit(stretches, kept)
    if coded:
        _bits(dense, stretches)[:] += _unpack_differences(coded, len(dense) // 4)
    _put(dense, stretches, places, lost)
    _put(dense, stretches, stretches.straddlers, straddling)
    return np.concatenate([stretches.straddlers, places])


def _pack_differences(differences: NDArray[np.int32]) -> bytes:
    """Differences in units of the last place, most of which are small; nothing if all are zero."""
    if not differences.any():
        return b""
    zigzag = (differences << 1 ^ differences >> 31).view(np.uint32)
    large = zigzag >= _SMALL
    small = zlib.compress(np.where(large, _SMALL, zigzag).astype(np.uint8).tobytes(), 1)
    return _COUNT.pack(len(small)) + small + zigzag[large].astype("<u4").tobytes()


def _unpack_differences(coded: memoryview, n: int) -> NDArray[np.int32]:
    (size,) = _COUNT.unpack_from(coded)
    unpacker = zlib.decompressobj()
    zigzag = np.frombuffer(unpacker.decompress(coded[4 : 4 + size], n), np.uint8).astype(np.uint32)
    if len(zigzag) != n:
        raise SidecarError("A record of the sidecar does not fit its data; restore a backup of it.")
    zigzag[zigzag == _SMALL] = np.frombuffer(coded[4 + size :], "<u4")
    return (zigzag >> 1).view(np.int32) ^ -(zigzag & 1).view(np.int32)


def _of_patches(sums: NDArray[np.uint64], stretches: Stretches) -> NDArray[np.uint64]:
    """One number for each patch from the hashes of its pieces."""
    if not len(sums):
        return sums
    edges = stretches.pieces.edges
    numbers = np.arange(len(sums)) - np.repeat(edges, np.diff(np.append(edges, len(sums))))
    found: NDArray[np.uint64] = np.add.reduceat(sums * (2 * numbers + 1).astype(np.uint64), edges)
    return found
