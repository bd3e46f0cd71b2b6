"""Data of every kind that can be protected in place: the one suite of proofs is tried over all of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import audiofiles
import numpy as np
import pytest
from audiofiles import chunk, format_body, packed, riff, wav, write_tree

from poscuda_fast import (
    Key,
    Recipe,
    SidecarError,
    Verification,
    protect_folder,
    protect_memmap,
    restore_folder,
    restore_memmap,
    verify_folder,
    verify_memmap,
)
from poscuda_fast.arrays import mapped
from poscuda_fast.files import pieces
from poscuda_fast.files import target as files
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.containers import riff as wav_headers
from poscuda_fast.mark import plan
from poscuda_fast.undo.journal import SIDECAR

if TYPE_CHECKING:
    from typing_extensions import Self

KEY = Key(bytes(range(32)))
SMALL = Recipe.paper(patch=40, taps=8, blur=0.3)
STRONG = Recipe.strong(3.0)
BATCH_BYTES = 700

State = dict[str, bytes]


@contextlib.contextmanager
def small_batches() -> Iterator[None]:
    """Several batches, and several pieces of a file, in very small data."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(plan, "BATCH_BYTES", BATCH_BYTES)
        patching.setattr(mapped, "FEW_RUNS", 7)  # of patches in format 1 there are more
        patching.setattr(files, "BATCH_BYTES", BATCH_BYTES)
        patching.setattr(files, "PIECES_PER_BATCH", 2)
        patching.setattr(files, "KEPT_BYTES", 2000)
        patching.setattr(pieces, "PIECE_BYTES", 1100)
        patching.setattr(wav_headers, "_any", _odd_layout)
        yield


def _odd_layout(reader: Any) -> Uncompressed:
    """No WAV file has samples at an odd byte, since chunks are padded; what is edited need not be one."""
    layout = _any_layout(reader)
    if "odd" not in reader._name:
        return layout
    return layout._replace(offset=layout.offset + 1, frames=layout.frames - 1)


_any_layout = wav_headers._any


class Scene:
    """Some data in a folder of its own, which also holds the sidecar.

    Attributes
    ----------
    original, protected : dict
        The files of the data by name, in either form.
    """

    recipe: ClassVar[Recipe] = STRONG
    data: ClassVar[str]  # the name of the file or the folder

    def __init__(self, root: Path) -> None:
        self._place(root)
        self.make()
        self.original = self.bytes()
        self.protect()
        self.protected = self.bytes()
        assert self.protected != self.original
        self.reset()

    @classmethod
    def of(cls, root: Path, original: State, protected: State) -> Self:
        """A scene whose forms are known, before its data are written."""
        scene = cls.__new__(cls)
        scene._place(root)
        scene.original, scene.protected = original, protected
        return scene

    def _place(self, root: Path) -> None:
        self.root = root
        self._grains: dict[str, tuple[int, int]] = {}
        self.path = root / self.data
        self.sidecar = root / f"{self.data}{SIDECAR}"

    def make(self) -> None:
        """Write the data."""
        raise NotImplementedError

    def protect(self, **options: Any) -> str:
        """The state that the verb reports."""
        raise NotImplementedError

    def restore(self) -> str:
        raise NotImplementedError

    def verify(self) -> Verification:
        raise NotImplementedError

    def bytes(self) -> State:
        """The files of the data as they are."""
        if self.path.is_file():
            return {self.data: self.path.read_bytes()}
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

    def grain(self, name: str) -> tuple[int, int]:
        """(first byte, width) of units in a file that are stored at once: float samples, else bytes."""
        return 0, 1

    def reset(self) -> None:
        """Back to the original, and nothing beside it."""
        for entry in self.root.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        write_tree(self.root, self.original)

    def run(self, verb: str) -> str:
        """A verb by name. Restoring what was never begun is none."""
        if verb == "protect":
            return self.protect()
        try:
            return self.restore()
        except SidecarError as error:
            if "does not exist" in str(error) and not self.sidecar.exists():
                return "never begun"
            raise

    def form(self, verb: str) -> State:
        """What the data are after a verb."""
        return self.protected if verb == "protect" else self.original

    def wrong_after(self, verb: str) -> str | None:
        """What is wrong, if anything, with the data after a verb."""
        now, wanted = self.bytes(), self.form(verb)
        names = [name for name in {*now, *wanted} if now.get(name) != wanted.get(name)]
        return f"after {verb} {', '.join(sorted(names))} is not as it should be" if names else None


def noise(frames: int, channels: int = 1, coding: str = "PCM_16", seed: int = 0) -> np.ndarray:
    """Samples that nearly fill the range of their coding: a few are limited as they are marked."""
    loud = audiofiles.noise(frames, channels, coding, seed)
    return (loud * 0.985).astype(loud.dtype)


# Arrays


def clips(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Quiet and loud samples, saturated ones, and floats of every kind."""
    samples = rng.normal(0, 3000, shape).clip(-32768, 32767).astype(np.int16)
    loud = rng.random(shape) < 0.006
    samples[loud] = rng.choice(np.array([-32768, 32767, 32700, -32700], np.int16), int(loud.sum()))
    if dtype == "<i2":
        return samples
    floats = (samples / np.float32(32768)).astype("<f4")
    odd = rng.random(shape) < 0.1
    kinds = np.array([0.0, -0.0, 1e-40, np.nan, np.inf, -np.inf, 1.7, 1e-9, 0.1], np.float32)
    floats[odd] = rng.choice(kinds, int(odd.sum()))
    floats[0, 5:9] = 3.4e38 if len(floats) < 10 else 3.0  # a peak that few clips have
    return floats


class RawArray(Scene):
    """A raw memmap behind some bytes, with padding and lengths."""

    data = "clips.raw"
    dtype = "<i2"
    offset = 44
    shape: ClassVar[tuple[int, ...]] = (4, 300)
    lengths: ClassVar[Any] = (300, 211, 1, 288)
    order = "C"

    def make(self) -> None:
        rng = np.random.default_rng(4)
        samples = np.asarray(clips(rng, self.shape, self.dtype), order=self.order)
        self.path.write_bytes(rng.bytes(self.offset) + samples.tobytes("A") + rng.bytes(33))

    def array(self, mode: str = "r+") -> np.ndarray:
        return np.memmap(self.path, self.dtype, mode, self.offset, self.shape, self.order)

    def grain(self, name: str) -> tuple[int, int]:
        return (self.offset, 4) if self.dtype == "<f4" else (0, 1)

    def protect(self, **options: Any) -> str:
        arr = self.array()
        labels = np.arange(self.shape[0] if isinstance(arr, Path) else len(arr)) % 3
        options = {"recipe": self.recipe, "lengths": self.lengths, "sample_rate": 8000, "threads": 1, **options}
        return protect_memmap(arr, labels, KEY, **options).state

    def restore(self) -> str:
        return restore_memmap(self.array(), KEY, threads=1).state

    def verify(self) -> Verification:
        return verify_memmap(self.array("r"), KEY)


class FloatArray(RawArray):
    dtype = "<f4"
    shape: ClassVar = (3, 200)
    lengths: ClassVar = None


class NpyArray(RawArray):
    """A .npy file; two channels."""

    data = "clips.npy"
    shape: ClassVar = (3, 170, 2)
    lengths: ClassVar = None

    def make(self) -> None:
        np.save(self.path, clips(np.random.default_rng(5), self.shape, self.dtype))

    def array(self, mode: str = "r+") -> np.ndarray:
        return np.load(self.path, mmap_mode=mode)


class FortranArray(RawArray):
    """In Fortran order: frames of a clip do not lie one behind the other."""

    shape: ClassVar = (3, 250)
    lengths: ClassVar = None
    order = "F"


class StridedArray(RawArray):
    """Every second clip, and all but the first frames, of a mapped array."""

    shape: ClassVar = (7, 300)
    lengths: ClassVar = None

    def array(self, mode: str = "r+") -> np.ndarray:
        return super().array(mode)[1::2, 20:]


class SharedArray(RawArray):
    """A share of the clips is marked."""

    shape: ClassVar = (9, 200)
    lengths: ClassVar = None

    def protect(self, **options: Any) -> str:
        return super().protect(**{"share": 0.5, **options})


class Format1Array(NpyArray):
    """Format 1: a patch of each clip."""

    recipe = SMALL
    shape: ClassVar = (11, 160)


class Format1FloatArray(FloatArray):
    recipe = SMALL
    shape: ClassVar = (11, 120)

    def make(self) -> None:
        samples = np.random.default_rng(6).normal(0, 0.2, self.shape).astype("<f4")
        self.path.write_bytes(bytes(range(self.offset)) + samples.tobytes())


class ZarrArray(RawArray):
    """A Zarr array with shards; a shard is replaced by a whole one."""

    data = "clips.zarr"
    shape: ClassVar = (6, 120)
    lengths: ClassVar = None

    def make(self) -> None:
        zarr = pytest.importorskip("zarr")
        array = zarr.create_array(
            self.path, shape=self.shape, dtype="int16", chunks=(1, 60), shards=(2, 60), fill_value=0
        )
        array[:] = clips(np.random.default_rng(7), self.shape, "<i2")

    def array(self, mode: str = "r+") -> Any:
        return self.path


# Files


class WavFolder(Scene):
    """WAV files of 16 and 24 bits and float; one is long, and samples begin at many offsets."""

    data = "set"

    def make(self) -> None:
        rng = np.random.default_rng(8)
        plain = clips(rng, (240, 1), "<i2")
        floats = clips(rng, (190, 1), "<f4")
        made = {
            "yes/a.wav": wav(plain),
            "yes/long.wav": wav(clips(rng, (600, 2), "<i2"), before=chunk(b"LIST", b"INFO" + bytes(11))),
            "no/b.wav": wav(noise(210, 1, "PCM_24"), "PCM_24"),
            "no/c.wav": wav(floats, "FLOAT", 8000, before=chunk(b"fact", struct.pack("<I", 190))),
            "no/d.wav": wav(floats[:150], "FLOAT", before=chunk(b"LIST", b"INFO" + bytes(2))),
            "about.txt": b"about",
        }
        write_tree(self.path, made)

    def grain(self, name: str) -> tuple[int, int]:
        if name not in self._grains:
            self._grains[name] = self._grain(name)
        return self._grains[name]

    def _grain(self, name: str) -> tuple[int, int]:
        content = (self.root / name).read_bytes() if name.endswith(".wav") else b""
        if content[20:22] == b"\x03\0":
            return content.index(b"data") + 8, 4
        return 0, 1

    def protect(self, **options: Any) -> str:
        options = {"recipe": self.recipe, "threads": 1, **self.labels, **options}
        return protect_folder(self.path, None, KEY, **options).state

    @property
    def labels(self) -> dict[str, Any]:
        return {}

    def restore(self) -> str:
        return restore_folder(self.path, KEY).state

    def verify(self) -> Verification:
        return verify_folder(self.path, KEY)


class OneWav(WavFolder):
    """One file of 24 bits, in several pieces."""

    data = "one.wav"

    def make(self) -> None:
        self.path.write_bytes(wav(noise(900, 1, "PCM_24", 3), "PCM_24"))

    @property
    def labels(self) -> dict[str, Any]:
        return {"labels_from": {self.data: "yes"}}


class OddWav(OneWav):
    """Samples of 16 bits from byte 45 on, so that some lie in two blocks; see `_odd_layout`."""

    data = "odd.wav"

    def make(self) -> None:
        self.path.write_bytes(wav(clips(np.random.default_rng(10), (900, 1), "<i2"), after=chunk(b"LIST", b"INFO")))


class FloatWav(OneWav):
    """One float file as most programs write it: samples from byte 58 on, so that some lie in two blocks."""

    data = "float.wav"

    def make(self) -> None:
        samples = clips(np.random.default_rng(9), (500, 1), "<f4")
        fmt = chunk(b"fmt ", format_body("FLOAT") + bytes(2))
        fact = chunk(b"fact", struct.pack("<I", 500))
        self.path.write_bytes(riff(fmt, fact, chunk(b"data", samples.tobytes())))
        assert self.grain(self.data) == (58, 4)


class BigEndian(WavFolder):
    """AU files with the highest byte of each sample first, from odd bytes on, so that some lie in two blocks."""

    data = "set"
    offsets: ClassVar = {"yes/a.au": 45, "no/b.au": 55, "no/c.au": 58, "yes/long.au": 47}

    def make(self) -> None:
        rng = np.random.default_rng(11)
        made = {
            "yes/a.au": (3, 1, clips(rng, (260, 1), "<i2").astype(">i2").tobytes()),
            "no/b.au": (4, 1, _turned(packed(noise(230, 1, "PCM_24"), "PCM_24"), 3)),
            "no/c.au": (6, 1, clips(rng, (190, 1), "<f4").astype(">f4").tobytes()),
            "yes/long.au": (3, 2, clips(rng, (600, 2), "<i2").astype(">i2").tobytes()),
        }
        for name, (encoding, channels, sound) in made.items():
            offset = self.offsets[name]
            head = b".snd" + struct.pack(">5I", offset, len(sound), encoding, 16000, channels)
            write_tree(self.path, {name: head.ljust(offset, b"x") + sound})

    def _grain(self, name: str) -> tuple[int, int]:
        return (58, 4) if name.endswith("c.au") else (0, 1)


def _turned(content: bytes, width: int) -> bytes:
    return b"".join(content[n : n + width][::-1] for n in range(0, len(content), width))


class EncodedFolder(WavFolder):
    """FLAC and AIFF files, one of which is kept in several records, and a WAV file between them."""

    def make(self) -> None:
        write_tree(self.path, {"yes/b.wav": wav(noise(130))})
        (self.path / "no").mkdir()
        audiofiles.encoded(self.path / "no/a.flac", noise(200), "FLAC", "PCM_16", title="a")
        audiofiles.encoded(self.path / "no/long.flac", noise(2600, seed=2), "FLAC", "PCM_16")
        audiofiles.encoded(self.path / "yes/c.aiff", noise(180, 1, "PCM_24"), "AIFF", "PCM_24")


class SharedFolder(EncodedFolder):
    """A share of them is marked: among the others are files of each kind, one of them in several pieces."""

    def make(self) -> None:
        super().make()
        made = {"no/f.wav": noise(700), "no/long.wav": noise(900, 2), "yes/d.wav": noise(300, seed=3)}
        write_tree(self.path, {name: wav(samples) for name, samples in made.items()})

    @property
    def labels(self) -> dict[str, Any]:
        return {"share": 0.5}


class Format1Folder(WavFolder):
    recipe = SMALL

    def make(self) -> None:
        made = {f"{'yes' if n % 2 else 'no'}/{n}.wav": wav(noise(200 + n, seed=n)) for n in range(4)}
        made["no/long.wav"] = wav(noise(900, 2))
        write_tree(self.path, made)


SCENES: dict[str, type[Scene]] = {
    scene.__name__: scene
    for scene in (
        RawArray, FloatArray, NpyArray, FortranArray, StridedArray, Format1Array,
        Format1FloatArray, ZarrArray, WavFolder, OneWav, OddWav, FloatWav, BigEndian, EncodedFolder, Format1Folder,
        SharedArray, SharedFolder,
    )
}  # fmt: skip


def place() -> str | None:
    """Where small data are quick to write: a kill leaves the page cache alone, and power cuts are a model's."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
