"""All implementations that can filter patches, behind one call; the same table feeds the benchmarks and their test.

Peers get for free where the patches are, the filters, and which clips are of one class. They work on a whole class at
a time, in float32, as their users would.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.kernels import Engine, Marks


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


def make_task(
    dtype: Any, n_clips: int, n_frames: int, *, n_classes: int = 35, patch: int = 240, taps: int = 80
) -> Task:
    """Noise at the level of speech, and random places and filters."""
    rng = np.random.default_rng(0)
    block = rng.normal(0, 3000, (min(n_clips, 1000), n_frames))
    if dtype is np.float32:
        block /= 32768
    clips = np.empty((n_clips, n_frames), dtype)
    for first in range(0, n_clips, len(block)):
        part = clips[first : first + len(block)]
        part[:] = block[: len(part)]
    return Task(
        clips,
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
        return lambda: engine.mark_patches(flat, places, sizes, task.rows, Marks(task.taps, added=False), 1)

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


OURS = {"native": ours("native"), "numba": ours("cpu")}
PEERS = {
    "scipy fftconvolve": ("scipy", scipy_fftconvolve),
    "scipy oaconvolve": ("scipy", scipy_oaconvolve),
    "torch conv1d": ("torch", torch_conv1d),
    "torchaudio fftconvolve": ("torchaudio", torchaudio_fftconvolve),
    "numpy convolve": ("numpy", numpy_convolve),
}


def available_peers() -> dict[str, Callable[[Task, int], Callable[[], Any]]]:
    """The peers whose packages can be imported here; a warning names the others."""
    found: dict[str, Callable[[Task, int], Callable[[], Any]]] = {}
    for name, (package, prepare) in PEERS.items():
        try:
            importlib.import_module(package)
        except (ImportError, OSError, RuntimeError) as error:  # torchaudio raises all of them
            warnings.warn(f"{name} does not take part: {error}", stacklevel=2)
        else:
            found[name] = prepare
    return found
