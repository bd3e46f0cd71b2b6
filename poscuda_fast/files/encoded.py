"""Edits FLAC, AIFF, CAF and the like: decoded and encoded again with soundfile, and kept whole in the sidecar."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import stat
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast import disk
from poscuda_fast.disk import Stamp, refuse_exchanged
from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.files import headers
from poscuda_fast.files.records import Record
from poscuda_fast.mark.snr import energy
from poscuda_fast.results import Verdict

if TYPE_CHECKING:
    import soundfile

# Subtypes that can be edited exactly, named as in headers.CODINGS.
_LOSSLESS = {"PCM_16", "PCM_24", "FLOAT"}
_LOSSY_FORMATS = {"MP3", "OGG"}
FRAMES_PER_BLOCK = 1 << 20
# No format here packs more frames into a byte: the largest FLAC block of one constant value takes over 8 bytes.
MAX_FRAMES_PER_BYTE = 65536 // 8
_TAGS = ("title", "artist", "album", "date", "tracknumber", "genre", "comment", "copyright", "software", "license")


@dataclasses.dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is encoded, and how long it is."""

    format: str
    subtype: str
    frames: int
    channels: int
    sample_rate: int
    endian: str = "FILE"

    @property
    def lossy(self) -> bool:
        """Whether encoding its samples again would change them."""
        return self.format in _LOSSY_FORMATS

    @property
    def coding(self) -> str:
        """Name of the decoded samples' coding in headers.CODINGS; lossy files decode to 16 bits."""
        return "PCM_16" if self.lossy else self.subtype


def probe(path: PurePath, data: bytes | None = None) -> Encoding:
    """Read how a file is encoded; its bytes are `data` if given, and `path` then only names it.

    Raises
    ------
    AudioFileError
        libsndfile cannot read it; its subtype is neither lossless at 16 or 24 bits nor 32-bit float; or its header
        claims more frames than its bytes can hold.
    """
    import soundfile  # noqa: PLC0415 - a folder of WAV files does not need it

    try:
        info = soundfile.info(str(path) if data is None else io.BytesIO(data))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioFileError(f"{path} cannot be used: libsndfile cannot read it ({error}).") from None
    encoding = Encoding(info.format, info.subtype, info.frames, info.channels, info.samplerate, info.endian)
    if not encoding.lossy and info.subtype not in _LOSSLESS:
        raise AudioFileError(
            f"{path} cannot be used: its samples are {info.subtype}; 16- or 24-bit PCM and 32-bit float are edited "
            f"exactly, so convert it to one of them."
        )
    n_bytes = os.path.getsize(path) if data is None else len(data)
    if not encoding.lossy and encoding.frames > MAX_FRAMES_PER_BYTE * n_bytes:
        raise AudioFileError(
            f"{path} cannot be used: its header says {encoding.frames} frames, more than its bytes can hold; encode "
            f"the file again."
        )
    return encoding


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """An encoded file in memory: kernel samples (frames, channels), how it was encoded, its text tags."""

    samples: NDArray[Any]
    encoding: Encoding
    tags: dict[str, str]


def decode(data: bytes, name: str) -> Decoded:
    """Decode a file's bytes; AudioFileError if libsndfile cannot decode all of them."""
    import soundfile  # noqa: PLC0415

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            encoding = Encoding(file.format, file.subtype, file.frames, file.channels, file.samplerate, file.endian)
            dtype = {"PCM_16": "int16", "PCM_24": "int32", "FLOAT": "float32"}[encoding.coding]
            samples = _read(file, dtype)
            tags = {tag: getattr(file, tag) for tag in _TAGS if getattr(file, tag)}
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioFileError(f"{name} cannot be used: libsndfile cannot decode it ({error}).") from None
    if len(samples) != encoding.frames:
        raise AudioFileError(f"{name} cannot be used: only {len(samples)} of its {encoding.frames} frames decode.")
    return Decoded(samples >> 8 if encoding.coding == "PCM_24" else samples, encoding, tags)


def _read(file: soundfile.SoundFile, dtype: str) -> NDArray[Any]:
    """Read all samples block by block, so that a header that lies about the length costs no memory."""
    blocks = []
    while True:
        blocks.append(file.read(FRAMES_PER_BLOCK, dtype, always_2d=True))
        if len(blocks[-1]) < FRAMES_PER_BLOCK:
            return np.concatenate(blocks)


def encode(decoded: Decoded) -> bytes:
    """Encode samples in the file's own format and subtype, or as 16-bit FLAC if that was lossy.

    AudioFileError unless the result decodes to exactly the same samples.
    """
    import soundfile  # noqa: PLC0415

    samples, encoding = decoded.samples, decoded.encoding
    form, subtype, endian = encoding.format, encoding.subtype, encoding.endian
    if encoding.lossy:
        form, subtype, endian = "FLAC", "PCM_16", "FILE"
    buffer = io.BytesIO()
    # libsndfile keeps 24-bit samples in the upper bits of an int32.
    wide = samples << 8 if samples.dtype == np.int32 else samples
    with soundfile.SoundFile(buffer, "w", encoding.sample_rate, encoding.channels, subtype, endian, form) as file:
        for tag, text in decoded.tags.items():
            with contextlib.suppress(soundfile.LibsndfileError):  # not every container has every tag
                setattr(file, tag, text)
        file.write(wide)
    data = buffer.getvalue()
    if decode(data, "the new encoding").samples.tobytes() != samples.tobytes():
        raise AudioFileError(f"Encoding as {form}/{subtype} does not keep every sample; convert the file to WAV first.")
    return data


class Content:
    """An encoded file's bytes, and what they decode to."""

    def __init__(self, kept: bytes, record: Record) -> None:
        self.kept = kept
        self._decoded: Decoded = decode(kept, record.name)
        self._record = record

    @property
    def now(self) -> bytes:
        """Its patches, as bytes of a WAV file with the same coding."""
        audio, record = self._decoded.samples, self._record
        parts = [audio[start : start + n].reshape(-1) for start, n in zip(record.starts, record.sizes, strict=True)]
        return headers.to_bytes(np.concatenate([*parts, np.empty(0, audio.dtype)]), record.coding)

    def energy(self) -> float:
        """The energy of all its samples."""
        return energy(self._decoded.samples.reshape(-1))

    def edited(self, patches: bytes) -> bytes:
        """The file's bytes with other patches; the original bytes if `patches` change nothing, as in silence."""
        if patches == self.now:
            return self.kept
        self.fill(patches)
        return encode(self._decoded)

    def fill(self, patches: bytes) -> NDArray[Any]:
        """Replace its patches for good, and return all its samples (frames, channels)."""
        audio, record = self._decoded.samples, self._record
        dense = headers.to_samples(patches, record.coding)
        for start, n in zip(record.starts, record.sizes, strict=True):
            audio[start : start + n] = dense[: n * record.channels].reshape(n, -1)
            dense = dense[n * record.channels :]
        return audio


def read(path: str, stamp: Stamp | None = None) -> bytes:
    """All bytes of a file; DatasetError if it is not a regular file, or not the file that was listed."""
    with open(os.open(path, disk.READING), "rb") as file:
        status = os.fstat(file.fileno())
        if stamp is not None:
            refuse_exchanged(path, stamp, status)
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path} is not a regular file any more; put it back and run the same command again.")
        return file.read()


def undo(path: str, kept: bytes) -> None:
    """Replace whatever is at `path` now with the original file."""
    disk.replace(Path(path), kept, mode=stat.S_IMODE(os.lstat(path).st_mode))


def judge(now: bytes, content: Content, wet: bytes) -> Verdict:
    """The verdict on a file; other bytes that decode to the marked samples count as protected."""
    if now == content.kept:
        return Verdict.of(original=True, protected=wet == content.now)
    try:
        found = decode(now, "what is there now").samples
    except AudioFileError:
        return Verdict.NEITHER
    expected = content.fill(wet)
    same = found.shape == expected.shape and found.tobytes() == expected.tobytes()
    return Verdict.of(original=False, protected=same)


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()
