"""Pieces are told by one kernel as by the steps apart: on every backend, instruction set and number of threads."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Any

import naive
import numpy as np
import pytest
from backends import each_backend, here
from hypothesis import given, settings
from hypothesis import strategies as st
from marked import Scene, samples_of

from poscuda_fast.kernels import (
    KEY_WORDS,
    MARKED,
    ORIGINAL,
    PIECE_BYTES,
    PIECES_PER_THREAD,
    WRAP,
    Engine,
    LineTable,
    why_missing,
)
from poscuda_fast.mark.codings import CODINGS, little, to_bytes, to_samples
from poscuda_fast.mark.forms import Answer, Forms

KEY = np.random.default_rng(9).integers(0, 2**64, KEY_WORDS, np.uint64)
DTYPES = {"PCM_16": np.int16, "PCM_24": np.uint8, "FLOAT": np.float32}
PERIODS = [WRAP, WRAP + 1, 200]
STATES = ["original", "marked", "torn", "half", "changed", "other mark"]

each_coding = pytest.mark.parametrize("coding", sorted(set(map(little, CODINGS))))


def some_table(coding: str) -> LineTable:
    """The middle row is so loud that samples saturate, and the last one is silent in part."""
    rng = np.random.default_rng(3)
    unit = {"PCM_16": 2**15, "PCM_24": 2**23, "FLOAT": 2**23}[coding]
    rows = [np.rint(unit * level * rng.uniform(-1, 1, n)) for level, n in zip((0.01, 0.5, 0.01), PERIODS, strict=True)]
    rows[2][20:] = 0
    wrapped = [np.concatenate([row, row[:WRAP]]) for row in rows]
    lengths = np.array([len(row) for row in wrapped])
    values = np.concatenate(wrapped) / (2.0**23 if coding == "FLOAT" else 1)
    dtype = np.int32 if coding == "PCM_24" else DTYPES[coding]
    return LineTable(values.astype(dtype), np.cumsum(lengths) - lengths, np.array(PERIODS))


@dataclasses.dataclass
class Pieces:
    """Pieces of samples in several states, and what tells them."""

    coding: str
    sizes: list[int]
    gaps: list[int]
    kind: str = "quiet"
    states: tuple[str, ...] = ("marked",)
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        n, self.width = len(self.sizes), CODINGS[self.coding]
        self.starts = (np.cumsum([0, *self.sizes])[:-1] + np.cumsum(self.gaps)).astype(np.int64)
        self.phases, self.rows = rng.integers(0, 2**40, n), rng.integers(0, 3, n)
        self.table = some_table(self.coding)
        total = sum(self.sizes) + sum(self.gaps) + 1  # a place behind the samples is refused, even of none
        self.sums = np.zeros(n, np.uint64)
        self.now = self.as_bytes(samples_of(self.kind, self.coding, total, self.seed))
        self.wanted, self.originals = [], []
        for number in range(n):
            state = self.states[number % len(self.states)]
            before = self.part(number).copy()
            self.sums[number] = naive.hash_piece(before.tobytes(), KEY.tolist())
            after = self.added(before, number, 1)
            k = int(rng.integers(0, len(before) + 1))
            self.part(number)[:] = {
                "original": before,
                "marked": after,
                "torn": np.concatenate([after[:k], before[k:]]),
                "half": np.where(rng.random(len(before)) < 0.5, before, after),
                "changed": before + np.uint8(3),
                "other mark": self.added(before, number, 1, self.rows[number] - 1),
            }[state]
            self.expect(number)

    def as_bytes(self, samples: np.ndarray) -> np.ndarray:
        narrow = samples.astype(np.int16) if self.coding == "PCM_16" else samples
        return np.frombuffer(to_bytes(narrow, self.coding), np.uint8).copy()

    def part(self, number: int) -> np.ndarray:
        start = self.starts[number] * self.width
        return self.now[start : start + self.sizes[number] * self.width]

    def added(self, content: np.ndarray, number: int, sign: int, row: int | None = None) -> np.ndarray:
        """Bytes with the mark of a piece, by the second implementation."""
        row = self.rows[number] if row is None else row
        first, period = self.table.firsts[row], self.table.periods[row]
        values = self.table.values[first : first + period].astype(np.float64)
        in_units = np.rint(values * (2.0**23 if self.coding == "FLOAT" else 1)).astype(int) * sign
        samples = to_samples(content.tobytes(), self.coding)
        wet, self.n_odd = naive.add_samples(samples, in_units.tolist(), int(self.phases[number]))
        return self.as_bytes(wet)

    def expect(self, number: int) -> None:
        """The state and the original, step by step."""
        now = self.part(number)
        undone = self.added(now, number, -1)
        fits = [naive.hash_piece(x.tobytes(), KEY.tolist()) == int(self.sums[number]) for x in (now, undone)]
        again, more = self.added(undone, number, 1), self.added(now, number, 1)
        state = 0
        if fits[1] and np.array_equal(again, now):
            state = MARKED | ORIGINAL * np.array_equal(undone, now)
        elif fits[0]:
            state = ORIGINAL | MARKED * np.array_equal(more, now)
        self.wanted.append(int(state))
        self.originals.append((undone if state & MARKED and fits[1] else now).tobytes())

    def arguments(self) -> tuple[Any, ...]:
        sizes = np.array(self.sizes, np.int64)
        return self.starts, sizes, self.phases, self.rows, self.table, self.sums, KEY

    def check(self, backend: str, threads: int = 1) -> None:
        samples = self.now.view(DTYPES[self.coding])
        samples.flags.writeable = False
        dry = np.zeros_like(samples)
        states = Engine(backend, threads).tell_pieces(samples, *self.arguments(), dry)
        self.compare(states, dry)

    def check_marking(self, backend: str, threads: int = 1) -> None:
        """What is there is taken as the originals."""
        samples = self.now.view(DTYPES[self.coding])
        wet = np.zeros_like(samples)
        starts, sizes, phases, rows, table, _, key = self.arguments()
        place = starts, sizes, phases, rows, table
        sums, odd = Engine(backend, threads).mark_and_hash(samples, *place, key, wet)
        self.compare_marked(sums, odd, wet)

    def compare_marked(self, sums: np.ndarray, odd: int, wet: np.ndarray) -> None:
        wanted, total = np.zeros_like(self.now), 0
        for n in range(len(self.sizes)):
            start = self.starts[n] * self.width
            wanted[start : start + len(self.part(n))] = self.added(self.part(n), n, 1)
            total += self.n_odd
        hashes = [naive.hash_piece(self.part(n).tobytes(), KEY.tolist()) for n in range(len(self.sizes))]
        assert (sums.tolist(), odd) == (hashes, total)
        assert type(odd) is int
        assert wet.tobytes() == wanted.tobytes()

    def compare(self, states: np.ndarray, dry: np.ndarray) -> None:
        assert states.dtype == np.uint8
        assert states.tolist() == self.wanted
        filled = np.zeros(self.now.size, np.bool_)
        for n, state in enumerate(self.wanted):
            start = self.starts[n] * self.width
            part = slice(start, start + self.sizes[n] * self.width)
            filled[part] = True
            if state:
                assert dry.view(np.uint8)[part].tobytes() == self.originals[n]
        assert not dry.view(np.uint8)[~filled].any()


@st.composite
def some_pieces(draw: st.DrawFn) -> Pieces:
    coding = draw(st.sampled_from(sorted(set(map(little, CODINGS)))))
    most = PIECE_BYTES // CODINGS[coding]
    sizes = draw(st.lists(st.integers(0, most) | st.just(most), max_size=8))
    gaps = draw(st.lists(st.integers(0, 40), min_size=len(sizes), max_size=len(sizes)))
    states = draw(st.lists(st.sampled_from(STATES), min_size=1, max_size=5))
    kind = draw(st.sampled_from(["quiet", "loud", "odd"]))
    return Pieces(coding, sizes, gaps, kind, tuple(states), draw(st.integers(0, 2**16)))


def every_size(coding: str, kind: str = "loud") -> Pieces:
    sizes = list(range(PIECE_BYTES // CODINGS[coding] + 1))
    return Pieces(coding, sizes, [n % 5 for n in sizes], kind, ("marked", "original", "marked", "torn", "marked"))


@pytest.mark.guards("I10")
@settings(max_examples=60, deadline=None)
@given(some_pieces())
def test_backends_agree(pieces: Pieces) -> None:
    for backend in here():
        pieces.check(backend)
        pieces.check_marking(backend)


@each_backend
@each_coding
@pytest.mark.parametrize("kind", ["quiet", "loud", "odd"])
def test_every_size_in_every_state(backend: str, coding: str, kind: str) -> None:
    pieces = every_size(coding, kind)
    assert set(pieces.wanted) >= ({0, ORIGINAL} if (coding, kind) == ("FLOAT", "odd") else {0, ORIGINAL, MARKED})
    pieces.check(backend)
    pieces.check_marking(backend)


@each_backend
@pytest.mark.parametrize(
    ("coding", "sample"),
    [
        ("PCM_16", 2**15 - 1),
        ("PCM_16", -(2**15)),
        ("PCM_24", 2**23 - 1),
        ("PCM_24", -(2**23)),
        ("FLOAT", np.nan),
        ("FLOAT", np.inf),
        ("FLOAT", 3e38),
        ("FLOAT", -0.0),
        ("FLOAT", 1e-41),
    ],
)
def test_samples_that_do_not_come_back(backend: str, coding: str, sample: float) -> None:
    """Saturated, rounded, not finite and subnormal ones; what the mark does not change at all is both."""
    pieces = every_size(coding)
    dtype = np.float32 if coding == "FLOAT" else np.int32
    content = pieces.as_bytes(np.full(PIECE_BYTES // pieces.width, sample, dtype))
    for sign in (0, 1):  # what is there is the original, or it with the mark
        pieces.wanted, pieces.originals = [], []
        for n, size in enumerate(pieces.sizes):
            before = content[: size * pieces.width]
            pieces.sums[n] = naive.hash_piece(before.tobytes(), KEY.tolist())
            pieces.part(n)[:] = pieces.added(before, n, 1) if sign else before
            pieces.expect(n)
        pieces.check(backend)
        assert ORIGINAL | MARKED in pieces.wanted
        pieces.now = pieces.now.copy()  # `check` makes it read-only


@each_backend
def test_saturated_samples_that_the_mark_does_not_change(backend: str) -> None:
    """Without the mark they are others, so that only the second look, at what is there, tells them."""
    samples = np.full(256, 32767, np.int16)
    table = LineTable(np.full(2 * WRAP, 5, np.int16), np.zeros(1, np.int64), np.full(1, WRAP))
    sums = np.array([naive.hash_piece(samples.tobytes(), KEY.tolist())], np.uint64)
    zero, dry = np.zeros(1, np.int64), np.zeros_like(samples)
    states = Engine(backend, 1).tell_pieces(samples, zero, zero + 256, zero, zero, table, sums, KEY, dry)
    assert states.tolist() == [ORIGINAL | MARKED]
    assert dry.tobytes() == samples.tobytes()


@each_backend
@each_coding
def test_marked_again_it_is_not_what_is_there(backend: str, coding: str) -> None:
    """Subtraction saturates, or rounds, to the original, but marking that gives something else: not marked."""
    if coding == "FLOAT":
        now, before, mark = np.float32(1e-41), np.float32(-0.5), np.float32(0.5)
    else:
        now, before, mark = (-(2**15) + 2, -(2**15), 5) if coding == "PCM_16" else (-(2**23) + 2, -(2**23), 5)
    pieces = every_size(coding)
    kind = np.float32 if coding == "FLOAT" else np.int32
    wet, dry = (pieces.as_bytes(np.full(100, x, kind)).view(DTYPES[coding]) for x in (now, before))
    values = np.full(2 * WRAP, mark, pieces.table.values.dtype)
    table = LineTable(values, np.zeros(1, np.int64), np.full(1, WRAP))
    sums = np.array([naive.hash_piece(dry.tobytes(), KEY.tolist())], np.uint64)
    zero = np.zeros(1, np.int64)
    states = Engine(backend, 1).tell_pieces(wet, zero, zero + 100, zero, zero, table, sums, KEY, np.zeros_like(wet))
    assert states.tolist() == [0]


@pytest.mark.guards("I10")
@pytest.mark.skipif(why_missing("native") is not None, reason="the native kernels are not installed")
@each_coding
@pytest.mark.parametrize("kind", ["quiet", "loud", "odd"])
def test_every_instruction_set_of_this_processor_tells_the_same(coding: str, kind: str) -> None:
    from poscuda_fast.kernels import _native

    pieces = every_size(coding, kind)
    samples = pieces.now.view(DTYPES[coding])
    for name in _native.instruction_sets():
        states, dry = np.full(len(pieces.sizes), 9, np.uint8), np.zeros_like(samples)
        starts, sizes, phases, rows, table, sums, key = pieces.arguments()
        _native.tell_pieces(samples, starts, sizes, phases, rows, *table, sums, key, dry, states, set=name)
        pieces.compare(states, dry)
        sums, wet = np.zeros(len(sizes), np.uint64), np.zeros_like(samples)
        odd = _native.mark_and_hash(samples, starts, sizes, phases, rows, *table, key, wet, sums, set=name)
        pieces.compare_marked(sums, odd, wet)


@pytest.mark.guards("I10")
@each_backend
@each_coding
def test_every_number_of_threads_tells_the_same(backend: str, coding: str) -> None:
    n = 3 * PIECES_PER_THREAD + 5 if backend != "reference" else 50
    few = Pieces(coding, [30 + k % 11 for k in range(50)], [0] * 50, "loud", ("marked", "original", "changed"))
    times = -(-n // 50)
    total = few.now.size // few.width
    starts = (few.starts + total * np.arange(times)[:, None]).reshape(-1)
    samples = np.tile(few.now, times).view(DTYPES[coding])
    _, sizes, phases, rows, table, sums, key = few.arguments()
    places = [np.tile(each, times) for each in (sizes, phases, rows)]
    before = None
    for threads in (1, 2, 3, None):
        wet = np.zeros_like(samples)
        hashes, odd = Engine(backend, threads).mark_and_hash(samples, starts, *places, table, key, wet)
        found = hashes.tolist(), odd, wet.tobytes()
        before = before or found
        assert found == before
        dry = np.zeros_like(samples)
        engine = Engine(backend, threads)
        states = engine.tell_pieces(samples, starts, *places, table, np.tile(sums, times), key, dry)
        assert states.tolist() == few.wanted * times
        for row in dry.reshape(times, -1)[:: max(1, times // 4)]:
            few.compare(np.array(few.wanted, np.uint8), np.ascontiguousarray(row))


@each_backend
def test_nothing_is_touched_beyond_the_samples(backend: str) -> None:
    """Samples that end, and originals that begin and end, where the next page may not be touched."""
    if sys.platform != "linux":
        pytest.skip("mprotect is called by Linux's numbers")
    code = f"""
import ctypes, mmap
import numpy as np
from poscuda_fast.kernels import Engine, LineTable
page, engine = mmap.PAGESIZE, Engine({backend!r}, 1)
key = np.random.default_rng(1).integers(0, 2**64, 130, np.uint64)

def inside():
    memory = np.frombuffer(mmap.mmap(-1, 3 * page), np.uint8)
    for guard in (memory.ctypes.data, memory.ctypes.data + 2 * page):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
    return memory[page : 2 * page]

for dtype, values, width in ((np.int16, np.int16, 2), (np.uint8, np.int32, 3), (np.float32, np.float32, 4)):
    now, dry = inside(), inside()
    end = page - page % width
    now, dry = now[page - end :], dry[page - end :]
    now, dry = now.view(dtype), dry.view(dtype)
    table = LineTable(np.ones(128, values), np.zeros(1, np.int64), np.full(1, 64))
    for size in range(1, 512 // width + 1):
        for start in (0, end // width - size):
            place = [np.array([x]) for x in (start, size, 3, 0)]
            now[:] = 7
            part = now.view(np.uint8)[start * width : (start + size) * width]
            sums = engine.hash_pieces(part, np.zeros(1, int), np.array([size * width]), key)
            assert engine.tell_pieces(now, *place, table, sums, key, dry)[0] == 1, (dtype, size)
            engine.add_lines(now, *place, table, 1)
            assert engine.tell_pieces(now, *place, table, sums, key, dry)[0] == 2, (dtype, size)
            engine.tell_pieces(now, *place, table, sums + np.uint64(1), key, dry)
            engine.mark_and_hash(now, *place, table, key, dry)
print("told")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False, env={**os.environ}
    )
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr


@each_backend
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"samples": np.zeros(600, np.int32)}, TypeError, "dry has dtype"),
        ({"samples": np.zeros(600, np.int32), "dry": np.zeros(600, np.int32)}, TypeError, "expected one of"),
        ({"samples": np.zeros((2, 300), np.int16)}, TypeError, "samples has shape"),
        ({"samples": np.zeros(1200, np.int16)[::2]}, TypeError, "samples has shape"),
        ({"dry": np.zeros(1200, np.int16)[::2]}, TypeError, "dry has shape"),
        ({"dry": np.zeros(599, np.int16)}, TypeError, "dry has dtype"),
        ({"dry": np.broadcast_to(np.zeros(1, np.int16), 600)}, TypeError, "dry has shape"),
        ({"sizes": [257]}, IndexError, "257 samples; expected up to 256"),
        ({"sizes": [-1]}, IndexError, "outside"),
        ({"starts": [590]}, IndexError, "outside"),
        ({"starts": [-1]}, IndexError, "outside"),
        ({"starts": [0, 100]}, IndexError, "2 starts, 1 sizes"),
        ({"phases": [-1]}, IndexError, "phases"),
        ({"phases": [1, 2]}, IndexError, "2 phases for 1"),
        ({"rows": [3]}, IndexError, "of no class"),
        ({"sums": np.zeros(2, np.uint64)}, TypeError, "sums has dtype"),
        ({"sums": np.zeros(1, np.int64)}, TypeError, "sums has dtype"),
        ({"key": KEY[:129]}, TypeError, "key has dtype"),
    ],
)
def test_wrong_arguments_are_refused(
    backend: str, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {
        "samples": np.zeros(600, np.int16),
        "starts": [5],
        "sizes": [20],
        "phases": [0],
        "rows": [0],
        "table": some_table("PCM_16"),
        "sums": np.zeros(1, np.uint64),
        "key": KEY,
        "dry": np.zeros(600, np.int16),
    }
    Engine(backend).tell_pieces(**{k: np.array(v) if isinstance(v, list) else v for k, v in given.items()})
    with pytest.raises(error, match=message):
        Engine(backend).tell_pieces(
            **{k: np.array(v) if isinstance(v, list) else v for k, v in {**given, **change}.items()}
        )


@each_backend
def test_originals_need_memory_of_their_own(backend: str) -> None:
    pieces = every_size("PCM_16")
    samples = pieces.now.view(np.int16)
    still = np.zeros_like(samples)
    still.flags.writeable = False
    *place, _, key = pieces.arguments()
    for other in (samples, still):
        with pytest.raises(ValueError, match="dry is read-only or shares memory"):
            Engine(backend).tell_pieces(samples, *pieces.arguments(), other)
        with pytest.raises(ValueError, match="wet is read-only or shares memory"):
            Engine(backend).mark_and_hash(samples, *place, key, other)


def test_the_kernel_runs_without_its_compiler() -> None:
    code = """
import numpy as np
from poscuda_fast.kernels import LineTable, cpu, reference
rng = np.random.default_rng(1)
key = rng.integers(0, 2**64, 130, np.uint64)
zero, sizes = np.zeros(3, np.int64), np.array([3, 77, 100])
starts = np.array([0, 100, 200])
for dtype, values, width in ((np.int16, np.int16, 2), (np.uint8, np.int32, 3), (np.float32, np.float32, 4)):
    table = LineTable(np.full(128, 5, values), zero[:1], zero[:1] + 64)
    now = rng.integers(0, 250, 300 * (width if dtype is np.uint8 else 1)).astype(dtype)
    sums = reference.hash_pieces(now.view(np.uint8), starts * width, sizes * width, key)
    reference.add_lines(now, starts[1:], sizes[1:], zero[1:], zero[1:], table, 1)
    found = [(each.tell_pieces(now, starts, sizes, zero, zero, table, sums, key, np.zeros_like(now))).tolist()
             for each in (cpu, reference)]
    print(type(cpu.tell_pieces).__name__, *found)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "function [1, 2, 2] [1, 2, 2]\n" * 3)


# In use.


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(set(map(little, CODINGS)))),
    st.integers(0, 1030),
    st.sampled_from(["quiet", "loud", "odd"]),
    st.integers(1, 3),
)
def test_a_batch_is_marked_as_by_the_steps_apart(coding: str, first: int, kind: str, channels: int) -> None:
    scene = Scene(coding, channels, [60, 300, 1], [first, 40_000 + first, 90_000], kind, first % 50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forms, "_whole", lambda *_: None)
        other = Scene(coding, channels, [60, 300, 1], [first, 40_000 + first, 90_000], kind, first % 50)
    assert scene.fresh.digests.tolist() == other.fresh.digests.tolist()
    assert scene.fresh.content == other.fresh.content
    assert scene.wet.tobytes() == other.wet.tobytes()
    assert scene.tally == other.tally


def told_apart(scene: Scene, now: np.ndarray, torn: dict[int, bytes]) -> Answer:
    """What the steps apart say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forms, "_tell", lambda *_: None)
        return scene.examine(now, torn)


@settings(max_examples=150)
@given(st.data())
def test_a_batch_is_told_as_by_the_steps_apart(data: st.DataObject) -> None:
    coding = data.draw(st.sampled_from(sorted(set(map(little, CODINGS)))))
    width = CODINGS[coding]
    sizes = data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=4))
    firsts = [
        data.draw(st.integers(0, 600)) * (512 if coding == "PCM_24" else width) + n * 9_999_360
        for n in range(len(sizes))
    ]
    kind = data.draw(st.sampled_from(["quiet", "quiet", "loud", "odd"]))
    channels = data.draw(st.integers(1, 3))
    if coding == "PCM_24":  # samples lie in two pieces unless a patch lies in one block
        sizes = [min(size, 170 // channels) for size in sizes]
    scene = Scene(coding, channels, sizes, firsts, kind, data.draw(st.integers(0, 99)))
    now = scene.dry.copy()
    states = ["original", "marked"] if data.draw(st.booleans()) else ["marked", "original", "torn", "changed"]
    for part in scene.parts:
        state = data.draw(st.sampled_from(states))
        if state in ("marked", "torn"):
            end = part.stop if state == "marked" else data.draw(st.integers(part.start, part.stop))
            now[part.start : end] = scene.wet[part.start : end]
        elif state == "changed":
            now[part.start] ^= 1
    torn = {n: scene.dry[part].tobytes() for n, part in enumerate(scene.parts) if data.draw(st.integers(0, 5)) == 0}
    one, other = scene.examine(now, torn), told_apart(scene, now, torn)
    for field in ("original", "protected", "torn"):
        assert getattr(one, field).tolist() == getattr(other, field).tolist()
    assert one.found == other.found
    assert one.verdicts().tolist() == other.verdicts().tolist()
    known = one.original | one.protected | one.torn
    for part in (part for part, held in zip(scene.parts, known, strict=True) if held):
        assert one.dry[part].tobytes() == other.dry[part].tobytes()
        assert one.wet[part].tobytes() == other.wet[part].tobytes()
    if known.all():
        assert one.odd == other.odd


@each_coding
def test_ordinary_data_are_told_in_one_pass(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the record's samples nor the marked form are looked at unless somebody asks."""
    scene = (
        Scene(coding, 2, [80, 64, 80], [0, 512, 1024]) if coding == "PCM_24" else Scene(coding, 2, [900, 77], [0, 8192])
    )
    if coding == "FLOAT":
        scene.dry = (np.round(scene.dry.view(np.float32) * 2**15) / 2**15).astype(np.float32).view(np.uint8)
        scene.fresh = scene.forms.fresh(scene.dry, scene.stretches, scene.tally)
        scene.wet = scene.fresh.wet
    marked: list[int] = []
    mark = Forms.mark
    monkeypatch.setattr(Forms, "mark", lambda self, *rest: marked.append(1) or mark(self, *rest))
    monkeypatch.setattr(Forms, "unmark", lambda *_: pytest.fail("the slow way"))
    for now in (scene.wet, scene.dry):
        answer = scene.examine(now)
        assert answer.dry.tobytes() == scene.dry.tobytes()
        assert not answer.torn.any()
        assert marked == []
        assert (answer.wet.tobytes(), answer.odd) == (scene.wet.tobytes(), 0)
        assert answer.wet is answer.wet
        assert marked == [1]
        marked.clear()
