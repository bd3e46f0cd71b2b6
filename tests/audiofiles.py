"""Audio and array files written byte by byte, how they should look when protected, and trees of files to compare."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import signal
import stat
import struct
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from poscuda_fast import Key, Recipe
from poscuda_fast.kernels import Engine
from poscuda_fast.mark import codings
from poscuda_fast.mark.patches import Patches, packed_steps
from poscuda_fast.mark.plan import Plan, make_plan

CODES = {"PCM_16": (1, 16), "PCM_24": (1, 24), "FLOAT": (3, 32)}
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
DTYPES = {"PCM_16": np.int16, "PCM_24": np.int32, "FLOAT": np.float32}
UNKNOWN = 0xFFFFFFFF
_PIECE = 1 << 20
SECONDS = 5  # many times what any test here needs: only a hang takes longer


def noise(frames: int, channels: int = 1, coding: str = "PCM_16", seed: int = 0) -> np.ndarray:
    """Kernel samples (frames, channels) that fill the range of their coding."""
    rng = np.random.default_rng([seed, frames, channels])
    if coding == "FLOAT":
        return rng.uniform(-1, 1, (frames, channels)).astype(np.float32)
    top = 2 ** (CODES[coding][1] - 1)
    return rng.integers(-top, top, (frames, channels)).astype(DTYPES[coding])


def packed(samples: np.ndarray, coding: str) -> bytes:
    """Little-endian file bytes of kernel samples, one sample at a time."""
    flat = samples.reshape(-1).tolist()
    if coding == "FLOAT":
        return struct.pack(f"<{len(flat)}f", *flat)
    return b"".join(value.to_bytes(CODES[coding][1] // 8, "little", signed=True) for value in flat)


def chunk(tag: bytes, body: bytes = b"", size: int | None = None) -> bytes:
    """A RIFF chunk with its pad byte; `size` is what it claims to hold."""
    return tag + struct.pack("<I", len(body) if size is None else size) + body + bytes(len(body) % 2)


def format_body(
    coding: str = "PCM_16",
    channels: int = 1,
    rate: int = 16000,
    *,
    extensible: bool = False,
    valid: int | None = None,
    guid: bytes | None = None,
    **lies: int,
) -> bytes:
    """The body of a fmt chunk; `lies` replace code, channels, rate, byte_rate, align or bits."""
    code, bits = CODES[coding]
    align = channels * bits // 8
    said = {
        "code": 0xFFFE if extensible else code,
        "channels": channels,
        "rate": rate,
        "byte_rate": rate * align,
        "align": align,
        "bits": bits,
    } | lies
    body = struct.pack("<HHIIHH", *said.values())
    if extensible:
        body += struct.pack("<HHI", 22, bits if valid is None else valid, 0)
        body += struct.pack("<H", code) + GUID_TAIL if guid is None else guid
    return body


def riff(*chunks: bytes, form: bytes = b"RIFF", kind: bytes = b"WAVE", size: int | None = None) -> bytes:
    """A RIFF file of chunks; `size` is what its header claims."""
    body = kind + b"".join(chunks)
    return form + struct.pack("<I", len(body) if size is None else size) + body


def wav(
    samples: np.ndarray,
    coding: str = "PCM_16",
    rate: int = 16000,
    *,
    extensible: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A WAV file of kernel samples (frames, channels), with whole chunks `before` and `after` its data."""
    fmt = chunk(b"fmt ", format_body(coding, samples.shape[1], rate, extensible=extensible))
    return riff(fmt, before, chunk(b"data", packed(samples, coding)), after)


def rf64(samples: np.ndarray, coding: str = "PCM_16", rate: int = 16000, **lies: int) -> bytes:
    """An RF64 file; `lies` replace riff_size, data_size or frames of its ds64 chunk."""
    data = packed(samples, coding)
    fmt = chunk(b"fmt ", format_body(coding, samples.shape[1], rate))
    tail = fmt + b"data" + struct.pack("<I", UNKNOWN) + data + bytes(len(data) % 2)
    said = {"riff_size": 4 + 36 + len(tail), "data_size": len(data), "frames": len(samples)} | lies
    return riff(chunk(b"ds64", struct.pack("<QQQI", *said.values(), 0)), tail, form=b"RF64", size=UNKNOWN)


def encoded(path: Path, samples: np.ndarray, container: str, coding: str, rate: int = 16000, **tags: str) -> None:
    """A file written by libsndfile; tags are texts such as title."""
    # libsndfile keeps 24-bit samples in the upper bits of int32.
    wide = samples << 8 if coding == "PCM_24" else samples
    with soundfile.SoundFile(str(path), "w", rate, samples.shape[1], coding, format=container) as file:
        for tag, text in tags.items():
            setattr(file, tag, text)
        file.write(wide)


def lossy(path: Path, container: str, subtype: str, frames: int = 8000) -> None:
    """An MP3 or Ogg file of a faint tone."""
    tone = 0.1 * np.sin(0.05 * np.arange(frames))
    with soundfile.SoundFile(str(path), "w", 16000, 1, subtype, format=container) as file:
        for first in range(0, frames, 4096):  # libsndfile writes longer runs of Vorbis to the stack
            file.write(tone[first : first + 4096])


def read_samples(path: Path, coding: str) -> np.ndarray:
    """Kernel samples (frames, channels) of any audio file, as libsndfile reads them."""
    dtype = {"PCM_16": "int16", "PCM_24": "int32", "FLOAT": "float32"}[coding]
    samples, _ = soundfile.read(str(path), dtype=dtype, always_2d=True)
    return samples >> 8 if coding == "PCM_24" else samples


def npy(header: str | bytes, data: bytes = b"", version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """A .npy file with any header; `length` is the header length that the file claims."""
    text = header.encode("latin1") if isinstance(header, str) else header
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", size) + text + data


def npy_header(descr: str = "'<i2'", order: str = "False", shape: str = "(2, 3)") -> str:
    """The text of a .npy header, from pieces of Python source."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def plan_of(frames: int, label: str | int, key: Key, recipe: Recipe = Recipe.paper(), rate: int = 16000) -> Plan:
    """The plan for one clip."""
    return make_plan(key, recipe, [label], None, np.array([frames]), rate)


def patches_of(frames: int, label: str | int, key: Key, recipe: Recipe = Recipe.paper()) -> Patches:
    """The patches of one clip."""
    return plan_of(frames, label, key, recipe).of_clip(0)


def protected(
    samples: np.ndarray, coding: str, label: str | int, key: Key, recipe: Recipe = Recipe.paper(), rate: int = 16000
) -> tuple[np.ndarray, int]:
    """Kernel samples (frames, channels) as protecting leaves them, and how many of them it saturates."""
    wet = samples.copy()
    plan = plan_of(len(samples), label, key, recipe, rate)
    patches = plan.of_clip(0)
    channels = samples.shape[1]
    steps = packed_steps(channels)
    odd = plan.marks.apply(Engine("reference"), wet.reshape(-1), patches.starts * channels, patches, steps)
    return wet, 0 if coding == "FLOAT" else odd


def patch_bytes(
    offset: int, samples: np.ndarray, coding: str, label: str | int, key: Key, recipe: Recipe = Recipe.paper()
) -> set[int]:
    """The offsets of all bytes of a WAV file that lie in patches, if its samples begin at `offset`."""
    frame = samples.shape[1] * codings.CODINGS[coding]
    places = patches_of(len(samples), label, key, recipe).places()
    return {offset + byte for _, start, size in places for byte in range(start * frame, (start + size) * frame)}


def write_tree(root: Path, files: dict[str, bytes]) -> None:
    """Write files below a folder, by their relative names."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def contents(root: Path, *, hidden: bool = False) -> dict[str, bytes]:
    """The bytes of every regular file below a folder, by relative name."""
    paths = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    named = {path.relative_to(root).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in named.items() if hidden or not _is_hidden(name)}


def snapshot(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Everything below a folder, hidden names included: kind, mode, links, size, time of change and content."""
    found: dict[bytes, tuple[Any, ...]] = {}
    for folder, folders, names in os.walk(os.fsencode(root)):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content: bytes | dict[int, bytes] | None = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = _read(path, status.st_size)
            found[path] = (status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns, content)
    return found


def _read(path: bytes, size: int) -> dict[int, bytes]:
    """Place -> content of each piece of a file that is not all zeros; where the system tells, holes are not read."""
    pieces: dict[int, bytes] = {}
    with open(path, "rb") as file:
        place = 0
        while place < size:
            if hasattr(os, "SEEK_DATA"):
                try:
                    place = os.lseek(file.fileno(), place, os.SEEK_DATA) // _PIECE * _PIECE
                except OSError as error:
                    if error.errno != errno.ENXIO:  # there is no data behind it
                        raise
                    break
            file.seek(place)
            piece = file.read(_PIECE)
            if piece.count(0) < len(piece):
                pieces[place] = piece
            place += _PIECE
    return pieces


@contextlib.contextmanager
def untouched(*roots: Path) -> Iterator[None]:
    """AssertionError if anything below the folders is not as it was."""
    before = [snapshot(root) for root in roots]
    yield
    assert [snapshot(root) for root in roots] == before


def wait_for_threads() -> None:
    """Wait for the threads of earlier calls to end: a fork copies the locks they hold, but not the threads."""
    others = [one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    for thread in others:
        thread.join(0.02)
    if any(thread.is_alive() for thread in others):
        gc.collect()  # a pool's threads end with the pool
        for thread in others:
            thread.join(1)


def start_child(work: Callable[[], object], *, beside_threads: bool = False) -> int:
    """The id of a forked process that does `work`; it prints a traceback if that raises, and an alarm ends a hang.

    The threads of earlier runs are waited for, unless the fork is to happen beside threads that are at work.
    """
    if not beside_threads:
        wait_for_threads()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; the child runs no code that waits for one.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        gc.freeze()  # a collection would copy every page of what the parent holds
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            work()
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            raise
        finally:
            os._exit(code)
    return child


def end_of_child(child: int) -> int:
    """How a child ended: 0 where its work returned, 1 where it raised, -SIGALRM where it hung, -SIGKILL ..."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(work: Callable[[], object], *, beside_threads: bool = False) -> int:
    """How `work` ended in a process of its own, as `end_of_child` says it; see `start_child`."""
    return end_of_child(start_child(work, beside_threads=beside_threads))


def kill_before(moment: int) -> None:
    """Make this process kill itself before call number `moment`, from 0, that opens, syncs or renames a file."""
    steps = itertools.count()

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if next(steps) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return step

    for name in ("open", "fsync", "replace"):
        setattr(os, name, deadly(getattr(os, name)))


def killer(at: int) -> Callable[[int, int], None]:
    """A progress callback that kills its own process, without any clean-up, at the given count."""

    def progress(done: int, total: int) -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
