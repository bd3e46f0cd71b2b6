"""Lossless audio that must be decoded and encoded again (FLAC, AIFF, CAF ...), through soundfile."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from poscuda_fast.errors import AudioFileError

if TYPE_CHECKING:
    import soundfile

# Subtypes that can be edited exactly, named as in pcm.CODINGS.
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
        """Whether decoding and encoding again would change every sample."""
        return self.format in _LOSSY_FORMATS

    @property
    def coding(self) -> str:
        """The name in pcm.CODINGS of what decoding gives; lossy files decode to 16 bits."""
        return "PCM_16" if self.lossy else self.subtype


def probe(path: PurePath, data: bytes | None = None) -> Encoding:
    """How a file is encoded, or these bytes of a file of that name.

    Raises
    ------
    AudioFileError
        libsndfile cannot read it, or its subtype is neither lossless at 16 or 24 bits nor 32-bit float.
    """
    import soundfile  # noqa: PLC0415 - a folder of WAV files does without it

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
    """What an encoded file's bytes hold; AudioFileError if libsndfile cannot decode all of it."""
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
        raise AudioFileError(f"{name} cannot be used: it holds {len(samples)} of {encoding.frames} frames.")
    return Decoded(samples >> 8 if encoding.coding == "PCM_24" else samples, encoding, tags)


def _read(file: soundfile.SoundFile, dtype: str) -> NDArray[Any]:
    """All samples, block by block: a header that lies about the length then costs no memory."""
    blocks = []
    while True:
        blocks.append(file.read(FRAMES_PER_BLOCK, dtype, always_2d=True))
        if len(blocks[-1]) < FRAMES_PER_BLOCK:
            return np.concatenate(blocks)


def encode(decoded: Decoded) -> bytes:
    """The bytes of an encoded file: format and subtype as they were, lossy ones as 16-bit FLAC.

    AudioFileError unless decoding them gives exactly the same samples.
    """
    import soundfile  # noqa: PLC0415

    samples, encoding = decoded.samples, decoded.encoding
    form, subtype, endian = encoding.format, encoding.subtype, encoding.endian
    if encoding.lossy:
        form, subtype, endian = "FLAC", "PCM_16", "FILE"
    buffer = io.BytesIO()
    # In int32 libsndfile keeps 24-bit samples in the upper bits.
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
