"""The hash of a piece: every backend, instruction set and number of threads gives what the format says, to the bit."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import naive
import numpy as np
import pytest
from backends import each_backend, here
from hypothesis import given, settings
from hypothesis import strategies as st

import poscuda_fast
from poscuda_fast.kernels import KEY_WORDS, PIECE_BYTES, PIECES_PER_THREAD, Engine, why_missing

FORMAT = Path(poscuda_fast.__file__).parent / "FORMAT.md"
KEY = np.random.default_rng(9).integers(0, 2**64, KEY_WORDS, np.uint64)
SIZES = [*range(74), 127, 128, 129, 248, 255, 256, 257, 504, 505, 511, 512]


def some_bytes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, n, np.uint8)


def hashed(data, places, key=KEY, backend="reference", threads=1) -> list[int]:
    """The hash of each piece; `places` is a list of (start, bytes)."""
    starts, sizes = np.array(places, np.int64).reshape(-1, 2).T
    before = data.tobytes()
    hashes = Engine(backend, threads).hash_pieces(data, starts, sizes, key)
    assert hashes.dtype == np.uint64
    assert data.tobytes() == before
    return hashes.tolist()


def expected(data, places, key=KEY) -> list[int]:
    """The same by the second implementation."""
    return [naive.hash_piece(data[start : start + size].tobytes(), key.tolist()) for start, size in places]


def vectors() -> Iterator[tuple[int, int]]:
    section = FORMAT.read_text("utf-8").split("\n## Hash of a piece\n")[1].split("\n## ")[0]
    for size, value in re.findall(r"^\| (\d+) \| ([0-9a-f]{16}) \|$", section, flags=re.MULTILINE):
        yield int(size), int(value, 16)


@each_backend
def test_vectors_of_the_format(backend) -> None:
    key = np.array([(i + 1) * 0x9E3779B97F4A7C15 % 2**64 for i in range(KEY_WORDS)], np.uint64)
    data = np.arange(PIECE_BYTES).astype(np.uint8)
    wanted = list(vectors())
    assert [size for size, _ in wanted] == [0, 1, 8, 100, 511, 512]
    for found in (hashed, expected):
        arguments = {"backend": backend} if found is hashed else {}
        assert found(data, [(0, size) for size, _ in wanted], key, **arguments) == [value for _, value in wanted]


@each_backend
def test_every_size_at_every_alignment(backend) -> None:
    data = some_bytes(700)
    places = [(start, size) for size in SIZES for start in (0, 1, 3, 8, 60, 63, 64, 700 - size)]
    places = [(start, size) for start, size in places if start + size <= 700]
    assert hashed(data, places, backend=backend) == expected(data, places)


@pytest.mark.guards("I10")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, PIECE_BYTES)), max_size=12),
    st.sampled_from([0, 255, None]),
    st.integers(0, 2**16),
)
def test_backends_agree(places, fill, seed) -> None:
    """Pieces may overlap; keys and data of ones carry from each half of a word."""
    data = some_bytes(1500 + PIECE_BYTES, seed) if fill is None else np.full(1500 + PIECE_BYTES, fill, np.uint8)
    key = np.random.default_rng(seed).integers(0, 2**64, KEY_WORDS, np.uint64)
    key[seed % KEY_WORDS :: 3] = 2**64 - 1
    wanted = expected(data, places, key)
    for backend in here():
        assert hashed(data, places, key, backend) == wanted


@pytest.mark.guards("I10")
@pytest.mark.skipif(why_missing("native") is not None, reason="the native kernels are not installed")
def test_every_instruction_set_of_this_processor_gives_the_same_hashes() -> None:
    from poscuda_fast.kernels import _native

    data = some_bytes(1300, 1)
    places = [(start, size) for size in SIZES for start in (0, 5, 777, 1300 - size)]
    wanted = expected(data, places)
    starts, sizes = np.array(places, np.int64).T.copy()
    for name in _native.instruction_sets():
        hashes = np.zeros(len(places), np.uint64)
        _native.hash_pieces(data, starts, sizes, KEY, hashes, set=name)
        assert hashes.tolist() == wanted


@pytest.mark.guards("I10")
@each_backend
def test_every_number_of_threads_gives_the_same_hashes(backend) -> None:
    n = 3 * PIECES_PER_THREAD + 5 if backend != "reference" else 50
    data = some_bytes(40 * n, 2)
    places = [(40 * i, 30 + i % 11) for i in range(n)]
    one = hashed(data, places, backend=backend)
    assert one[:5] == expected(data, places[:5])
    for threads in (2, 3, None):
        assert hashed(data, places, backend=backend, threads=threads) == one


@each_backend
def test_every_bit_counts(backend) -> None:
    """Of all pieces that differ in one bit, or in their length alone, no two have one hash."""
    n = 512 if backend != "reference" else 40
    piece = some_bytes(n, 3)
    flipped = np.repeat(piece[None], 8 * n + 1, axis=0)
    bits = np.arange(8 * n)
    flipped[bits, bits // 8] ^= (1 << bits % 8).astype(np.uint8)
    found = hashed(flipped.reshape(-1), [(n * i, n) for i in range(8 * n + 1)], backend=backend)
    assert len(set(found)) == 8 * n + 1
    for fill in (0, 255):  # zeros are what a piece is padded with
        found = hashed(np.full(PIECE_BYTES, fill, np.uint8), [(0, i) for i in range(PIECE_BYTES + 1)], backend=backend)
        assert len(set(found)) == PIECE_BYTES + 1


@each_backend
def test_every_word_of_the_key_counts(backend) -> None:
    data = some_bytes(PIECE_BYTES, 4)
    found = set()
    for word in range(KEY_WORDS + 1):
        key = KEY.copy()
        key[word : word + 1] ^= np.uint64(1) << np.uint64(word % 64)
        found.update(hashed(data, [(0, PIECE_BYTES)], key, backend))
    assert len(found) == KEY_WORDS + 1


def test_half_of_the_bits_change_with_any_bit() -> None:
    """On average over 4,096 flips, each of the 64 bits changes in 50 % of them, give or take five standard errors."""
    piece = some_bytes(PIECE_BYTES, 5)
    bits = np.arange(8 * PIECE_BYTES)
    flipped = np.repeat(piece[None], len(bits), axis=0)
    flipped[bits, bits // 8] ^= (1 << bits % 8).astype(np.uint8)
    starts, sizes = PIECE_BYTES * bits, np.full(len(bits), PIECE_BYTES)
    found = Engine("cpu", 1).hash_pieces(flipped.reshape(-1), starts, sizes, KEY)
    changed = found ^ np.uint64(hashed(piece, [(0, PIECE_BYTES)])[0])
    rates = np.unpackbits(changed.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.abs(rates - 0.5).max() < 5 * 0.5 / np.sqrt(len(bits))


@each_backend
def test_nothing_is_read_beyond_the_data(backend) -> None:
    """Data that end at a page's end, of which the next may not be read: a read beyond would end the process."""
    code = f"""
import ctypes, mmap, sys
import numpy as np
from poscuda_fast.kernels import Engine
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 3 * page)
data = np.frombuffer(memory, np.uint8)
data[:] = 7
address = data.ctypes.data
for guard in (address, address + 2 * page):
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
inside, engine = data[page : 2 * page], Engine({backend!r}, 1)
key = np.arange(130, dtype=np.uint64)
sizes = np.arange(513)
ends = engine.hash_pieces(inside, page - sizes, sizes, key)
begins = engine.hash_pieces(inside, np.zeros(513, np.int64), sizes, key)
assert (ends == begins).all()
print("read")
"""
    if sys.platform != "linux":
        pytest.skip("mprotect is called by Linux's numbers")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, env={**os.environ}
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr


@each_backend
def test_read_only_and_mapped_data(backend, tmp_path) -> None:
    data = some_bytes(3 * mmap.PAGESIZE + 100, 6)
    (tmp_path / "x").write_bytes(data.tobytes())
    places = [(512 * i, 512) for i in range(20)]
    wanted = expected(data, places)
    mapped = np.memmap(tmp_path / "x", np.uint8, "r")
    data.flags.writeable = False
    for each in (data, mapped, np.asarray(mapped)):
        assert hashed(each, places, backend=backend) == wanted
    assert hashed(data[13:], places, backend=backend) == expected(data[13:], places)
    assert hashed(np.empty(0, np.uint8), [], backend=backend) == []
    assert hashed(np.empty(0, np.uint8), [(0, 0)], backend=backend) == expected(data, [(0, 0)])


@each_backend
@pytest.mark.parametrize(
    ("starts", "sizes", "error", "message"),
    [
        ([-1], [5], IndexError, "outside the data"),
        ([96], [5], IndexError, "outside the data"),
        ([0, 101], [0, 0], IndexError, "outside the data"),
        ([2**63 - 1], [5], IndexError, "outside the data"),
        ([0, 0], [-1, 5], IndexError, "-1 to 5 bytes; expected 0 to 512"),
        ([0], [513], IndexError, "513 to 513 bytes"),
        ([0, 1], [5], IndexError, "2 starts, 1 sizes"),
        ([0.0], [5], TypeError, "are integers"),
    ],
)
def test_pieces_that_would_reach_outside_are_refused(backend, starts, sizes, error, message) -> None:
    with pytest.raises(error, match=message):
        Engine(backend).hash_pieces(some_bytes(100), np.array(starts), np.array(sizes), KEY)


@each_backend
def test_other_data_and_keys_are_refused(backend) -> None:
    data, places = some_bytes(600), (np.array([0]), np.array([5]))
    for other in (data.view(np.int16), data.reshape(2, 300), data[::2], data.astype(np.int8)):
        with pytest.raises(TypeError, match="data has dtype"):
            Engine(backend).hash_pieces(other, *places, KEY)
    for other in (KEY[:129], KEY.astype(np.int64), KEY.reshape(2, 65), np.repeat(KEY, 2)[::2]):
        with pytest.raises(TypeError, match=r"key has dtype .* expected 130 flat uint64"):
            Engine(backend).hash_pieces(data, *places, other)


def test_the_kernel_runs_without_its_compiler() -> None:
    code = """
import numpy as np
from poscuda_fast.kernels import cpu, reference
data, key = np.full(600, 251, np.uint8), np.full(130, 2**64 - 3, np.uint64)
sizes = np.array([0, 3, 8, 77, 512])
found = cpu.hash_pieces(data, sizes, np.minimum(sizes, 88), key)
print(type(cpu.hash_pieces).__name__, (found == reference.hash_pieces(data, sizes, np.minimum(sizes, 88), key)).all())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "function True\n")
