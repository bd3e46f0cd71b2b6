"""All implementations that can mark clips by either format; the same tables feed the benchmarks and their test.

Peers work on a whole class at a time, as their users would, and get for free what they would have to look up. By the
paper's recipe: where the patches are, the filters, and which clips are of one class; they filter in float32. By the
default recipe: clips that are sorted by class, and the mark of each class as long as a clip; their result is the same
to the bit. They work in place, in blocks that fit the cache, and need not count saturated samples, as ours do.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import Key, Recipe
from poscuda_fast.kernels import Engine
from poscuda_fast.mark.labels import integer_token
from poscuda_fast.mark.lines import Lines, draw_lines
from poscuda_fast.recipe import USUAL_RATE

KEY = Key(bytes(range(32)))
BLOCK_BYTES = 1 << 18  # a part of a class that stays in the cache while it is marked


@dataclasses.dataclass(frozen=True)
class Task:
    """One patch per clip: (n_clips, n_frames) `clips`, filtered in place."""

    clips: NDArray[Any]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]  # of each class, in frames
    taps: NDArray[np.float32]  # (n_classes, n_taps)
    patch: int

    @property
    def flat(self) -> NDArray[Any]:
        """The samples in one dimension."""
        return self.clips.reshape(-1)

    @property
    def places(self) -> NDArray[np.int64]:
        """The first sample of each patch in `flat`."""
        return np.arange(len(self.clips)) * self.clips.shape[1] + self.starts[self.rows]

    @property
    def multiply_adds(self) -> int:
        """How many multiply-adds the filters take."""
        return len(self.clips) * self.patch * self.taps.shape[1]

    def classes(self) -> list[tuple[NDArray[np.int64], slice, NDArray[np.float32]]]:
        """For each class: its clips, the frames of its patch, and its filter."""
        return [
            (np.flatnonzero(self.rows == row), slice(start, start + self.patch), taps)
            for row, (start, taps) in enumerate(zip(self.starts.tolist(), self.taps, strict=True))
        ]


def make_clips(dtype: Any, n_clips: int, n_frames: int) -> NDArray[Any]:
    """Noise at the level of speech."""
    block = np.random.default_rng(0).normal(0, 3000, (min(n_clips, 1000), n_frames))
    if dtype is np.float32:
        block /= 32768
    clips = np.empty((n_clips, n_frames), dtype)
    for first in range(0, n_clips, len(block)):
        part = clips[first : first + len(block)]
        part[:] = block[: len(part)]
    return clips


def make_task(
    dtype: Any, n_clips: int, n_frames: int, *, n_classes: int = 35, patch: int = 240, taps: int = 80
) -> Task:
    """Noise, and random places and filters."""
    rng = np.random.default_rng(0)
    return Task(
        make_clips(dtype, n_clips, n_frames),
        np.arange(n_clips) % n_classes,
        rng.integers(0, n_frames - patch + 1, n_classes),
        rng.uniform(0, 0.01, (n_classes, taps)).astype(np.float32),
        patch,
    )


def ours(backend: str) -> Callable[[Task, int], Callable[[], Any]]:
    """A backend of this library."""

    def prepare(task: Task, threads: int) -> Callable[[], Any]:
        engine, flat, places = Engine(backend, threads), task.flat, task.places
        sizes = np.full(len(places), task.patch)
        return lambda: engine.filter_patches(flat, places, sizes, task.rows, task.taps, 1)

    return prepare


def numpy_convolve(task: Task, threads: int) -> Callable[[], Any]:
    """Clip by clip; one thread."""
    del threads

    def run() -> None:
        for clip, row in zip(task.clips, task.rows.tolist(), strict=True):
            part = slice(task.starts[row], task.starts[row] + task.patch)
            _store(clip, part, np.convolve(clip[part].astype(np.float32), task.taps[row], "same"))

    return run


def scipy_fftconvolve(task: Task, threads: int) -> Callable[[], Any]:
    """A class at a time."""
    from scipy import fft, signal  # noqa: PLC0415 - only where it is asked for

    classes = task.classes()

    def run() -> None:
        with fft.set_workers(threads):
            for clips, part, taps in classes:
                block = task.clips[clips, part].astype(np.float32, copy=False)
                _store(task.clips, (clips, part), signal.fftconvolve(block, taps[None], "same", axes=1))

    return run


def scipy_oaconvolve(task: Task, threads: int) -> Callable[[], Any]:
    """A class at a time."""
    from scipy import fft, signal  # noqa: PLC0415

    classes = task.classes()

    def run() -> None:
        with fft.set_workers(threads):
            for clips, part, taps in classes:
                block = task.clips[clips, part].astype(np.float32, copy=False)
                _store(task.clips, (clips, part), signal.oaconvolve(block, taps[None], "same", axes=1))

    return run


def torch_conv1d(task: Task, threads: int) -> Callable[[], Any]:
    """A class at a time."""
    import torch  # noqa: PLC0415

    n_taps = task.taps.shape[1]
    centre = (n_taps - 1) // 2
    classes = [(clips, part, torch.from_numpy(taps[::-1].copy())[None, None]) for clips, part, taps in task.classes()]

    def run() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for clips, part, weight in classes:
                block = torch.from_numpy(task.clips[clips, part].astype(np.float32, copy=False))[:, None]
                padded = torch.nn.functional.pad(block, (n_taps - 1 - centre, centre))
                _store(task.clips, (clips, part), torch.nn.functional.conv1d(padded, weight)[:, 0].numpy())

    return run


def torchaudio_fftconvolve(task: Task, threads: int) -> Callable[[], Any]:
    """A class at a time."""
    import torch  # noqa: PLC0415
    from torchaudio.functional import fftconvolve  # noqa: PLC0415

    classes = [(clips, part, torch.from_numpy(taps)[None]) for clips, part, taps in task.classes()]

    def run() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for clips, part, taps in classes:
                block = torch.from_numpy(task.clips[clips, part].astype(np.float32, copy=False))
                _store(task.clips, (clips, part), fftconvolve(block, taps, mode="same").numpy())

    return run


def _store(clips: NDArray[Any], where: Any, wet: NDArray[Any]) -> None:
    if clips.dtype == np.int16:
        wet = np.clip(np.rint(wet), -32768, 32767)
    clips[where] = wet


@dataclasses.dataclass(frozen=True)
class LinesTask:
    """Whole clips, (n_clips, n_frames), sorted by class, to which lines are added in place."""

    clips: NDArray[Any]
    rows: NDArray[np.int64]
    lines: Lines

    @property
    def marks(self) -> NDArray[Any]:
        """(n_classes, n_frames): the mark of each class, as long as a clip."""
        table = self.lines.table(self.clips.dtype, 1)
        t = np.arange(self.clips.shape[1])
        marks: NDArray[Any] = table.values[table.firsts[:, None] + t % table.periods[:, None]]
        return marks

    def classes(self) -> list[NDArray[Any]]:
        """The clips of each class: a view."""
        edges = np.searchsorted(self.rows, np.arange(int(self.rows.max()) + 2))
        return [self.clips[first:end] for first, end in itertools.pairwise(edges)]

    def blocks(self, threads: int) -> list[tuple[NDArray[Any], int]]:
        """Parts of the classes for so many threads that fit the cache, each with its class."""
        step = max(1, threads * BLOCK_BYTES // self.clips[0].nbytes)
        return [
            (clips[first : first + step], row)
            for row, clips in enumerate(self.classes())
            for first in range(0, len(clips), step)
        ]


def make_lines_task(
    dtype: Any, n_clips: int, n_frames: int, *, n_classes: int = 35, strength: float = 1.0
) -> LinesTask:
    """Noise, and the lines of the first classes."""
    tokens = [integer_token(label) for label in range(n_classes)]
    lines = draw_lines(KEY, tokens, Recipe.strong(strength), (USUAL_RATE,))
    return LinesTask(make_clips(dtype, n_clips, n_frames), np.sort(np.arange(n_clips) % n_classes), lines)


def our_lines(backend: str) -> Callable[[LinesTask, int], Callable[[], Any]]:
    """A backend of this library."""

    def prepare(task: LinesTask, threads: int) -> Callable[[], Any]:
        engine, flat = Engine(backend, threads), task.clips.reshape(-1)
        n_clips, n_frames = task.clips.shape
        starts, sizes, phases = np.arange(n_clips) * n_frames, np.full(n_clips, n_frames), np.zeros(n_clips, np.int64)
        table = task.lines.table(task.clips.dtype, 1)
        return lambda: engine.add_lines(flat, starts, sizes, phases, task.rows, table, 1)

    return prepare


def spread(
    task: LinesTask, threads: int, run: Callable[[NDArray[Any], int, NDArray[Any]], Any], scratch: Any
) -> Callable[[], Any]:
    """A function of a block, its class and some scratch memory, over all blocks, in threads of NumPy's user."""
    blocks = task.blocks(1)

    def run_part(part: list[tuple[NDArray[Any], int]]) -> None:
        room = np.empty(len(blocks[0][0]) * task.clips.shape[1], scratch)
        for block, row in part:
            run(block, row, room[: block.size].reshape(block.shape))

    if threads == 1:
        return lambda: run_part(blocks)
    parts = [blocks[len(blocks) * k // threads : len(blocks) * (k + 1) // threads] for k in range(threads)]

    def run_all() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run_part, parts))

    return run_all


def numpy_add(task: LinesTask, threads: int) -> Callable[[], Any]:
    """float32: one addition. int16: samples are limited to where the sum fits, and then added."""
    marks = task.marks
    if task.clips.dtype == np.float32:
        return spread(task, threads, lambda block, row, _: np.add(block, marks[row], out=block), np.float32)
    lowest, highest = limits_of(marks)

    def run(block: NDArray[Any], row: int, _: NDArray[Any]) -> None:
        np.maximum(block, lowest[row], out=block)
        np.minimum(block, highest[row], out=block)
        np.add(block, marks[row], out=block)

    return spread(task, threads, run, np.int16)


def numpy_wide(task: LinesTask, threads: int) -> Callable[[], Any]:
    """int16: a sum in int32, clipped, and cast."""
    marks = task.marks

    def run(block: NDArray[Any], row: int, wide: NDArray[Any]) -> None:
        np.add(block, marks[row], out=wide, dtype=np.int32)
        np.clip(wide, -32768, 32767, out=wide)
        np.copyto(block, wide, casting="unsafe")

    return spread(task, threads, run, np.int32)


def numpy_repair(task: LinesTask, threads: int) -> Callable[[], Any]:
    """int16: a sum that wraps, repaired only in blocks where one did."""
    marks = task.marks
    signs = marks >> 15 ^ 32767

    def run(block: NDArray[Any], row: int, before: NDArray[Any]) -> None:
        np.copyto(before, block)
        np.add(block, marks[row], out=block)
        # The sum is lost where both terms have one sign and it has the other.
        np.bitwise_xor(before, block, out=before)
        before &= block ^ marks[row]
        if before.min() < 0:
            np.copyto(block, np.broadcast_to(signs[row], block.shape), where=before < 0)

    return spread(task, threads, run, np.int16)


def torch_add(task: LinesTask, threads: int) -> Callable[[], Any]:
    """As `numpy_add`; torch spreads each operation over its own threads."""
    import torch  # noqa: PLC0415

    marks = torch.from_numpy(task.marks)
    if task.clips.dtype == np.float32:
        return torch_run(task, threads, lambda block, row: block.add_(marks[row]), whole=True)
    lowest, highest = map(torch.from_numpy, limits_of(task.marks))

    def run(block: Any, row: int) -> None:
        torch.clamp(block, lowest[row], highest[row], out=block)
        block.add_(marks[row])

    return torch_run(task, threads, run)


def torch_wide(task: LinesTask, threads: int) -> Callable[[], Any]:
    """int16: a sum in int32, clamped, and copied."""
    import torch  # noqa: PLC0415

    marks = torch.from_numpy(task.marks).to(torch.int32)

    def run(block: Any, row: int) -> None:
        block.copy_(torch.add(block, marks[row]).clamp_(-32768, 32767))

    return torch_run(task, threads, run)


def torch_run(
    task: LinesTask, threads: int, run: Callable[[Any, int], Any], *, whole: bool = False
) -> Callable[[], Any]:
    """A function of a block, as a tensor, and its class, over all blocks, or over whole classes."""
    import torch  # noqa: PLC0415

    arrays = [(clips, row) for row, clips in enumerate(task.classes())] if whole else task.blocks(threads)
    blocks = [(torch.from_numpy(block), row) for block, row in arrays]

    def run_all() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for block, row in blocks:
                run(block, row)

    return run_all


def limits_of(marks: NDArray[np.int16]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Between which values samples may be so that int16 holds their sum with a mark."""
    wide = marks.astype(np.int32)
    return np.maximum(-32768 - wide, -32768).astype(np.int16), np.minimum(32767 - wide, 32767).astype(np.int16)


Prepare = Callable[[Any, int], Callable[[], Any]]  # a task and threads -> a function that marks the task's clips


OURS: dict[str, Prepare] = {"native": ours("native"), "numba": ours("cpu")}
OUR_LINES: dict[str, Prepare] = {"native": our_lines("native"), "numba": our_lines("cpu")}
PEERS: dict[str, tuple[str, Prepare]] = {
    "scipy fftconvolve": ("scipy", scipy_fftconvolve),
    "scipy oaconvolve": ("scipy", scipy_oaconvolve),
    "torch conv1d": ("torch", torch_conv1d),
    "torchaudio fftconvolve": ("torchaudio", torchaudio_fftconvolve),
    "numpy convolve": ("numpy", numpy_convolve),
}
LINES_PEERS: dict[str, tuple[str, Prepare]] = {"numpy": ("numpy", numpy_add), "torch": ("torch", torch_add)}
INT16_PEERS: dict[str, tuple[str, Prepare]] = {
    "numpy int32": ("numpy", numpy_wide),
    "numpy repair": ("numpy", numpy_repair),
    "torch int32": ("torch", torch_wide),
}


def lines_peers(dtype: Any) -> dict[str, tuple[str, Prepare]]:
    """The peers of the default recipe for one kind of sample."""
    return {**LINES_PEERS, **INT16_PEERS} if np.dtype(dtype) == np.int16 else LINES_PEERS


def available(peers: dict[str, tuple[str, Prepare]]) -> dict[str, Prepare]:
    """The peers whose packages can be imported here; a warning names the others."""
    found: dict[str, Prepare] = {}
    for name, (package, prepare) in peers.items():
        try:
            importlib.import_module(package)
        except (ImportError, OSError, RuntimeError) as error:  # torchaudio raises all of them
            warnings.warn(f"{name} does not take part: {error}", stacklevel=2)
        else:
            found[name] = prepare
    return found
