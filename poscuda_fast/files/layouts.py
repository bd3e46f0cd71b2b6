"""How the samples of an audio file are stored, whatever its name says; or why it cannot be marked."""

from __future__ import annotations

import io
import os
import stat
from typing import BinaryIO

from poscuda_fast import disk
from poscuda_fast.disk import Stamp, stamp_of
from poscuda_fast.errors import AudioFileError
from poscuda_fast.files import containers, encoded, flac, kinds
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.encoded import Encoding

Layout = Uncompressed | Encoding
# Files with these names are audio, and are refused if their content is not; others are if their content is.
LOSSY_SUFFIXES = {".mp3", ".ogg", ".oga", ".opus"}
AUDIO_SUFFIXES = LOSSY_SUFFIXES | {
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".sph", ".nist",
    ".wv1", ".wv2", ".m4a", ".m4b", ".aac", ".adts", ".wma", ".mp2", ".mpga", ".mka", ".weba", ".amr", ".awb", ".wv",
    ".ape", ".tta", ".spx", ".ac3", ".dts", ".dsf", ".dff", ".shn", ".voc", ".pcm", ".raw", ".gsm", ".vox", ".htk",
    ".eac3", ".ec3", ".ul", ".al", ".g722", ".sln", ".cvsd", ".sd2", ".sox",
}  # fmt: skip
_ADVICE = "convert it to FLAC or WAV, or leave it unprotected (skip_unusable=True)"


def of_file(path: str, name: str) -> tuple[Layout, Stamp]:
    """The layout of a file, and its stamp; `name` is for messages.

    Raises
    ------
    AudioFileError
        It is not a regular file, not audio, or audio that cannot be marked without loss; the message says which.
    OSError
        It cannot be read.
    """
    descriptor = os.open(path, disk.READING)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AudioFileError(f"{name} cannot be used: it is not a regular file.")
        layout: Layout | None = containers.parse(descriptor, status.st_size, name)
        if layout is None:
            with open(descriptor, "rb", closefd=False) as file:
                layout = _encoding(name, status.st_size, file)
        return layout, stamp_of(status)
    finally:
        os.close(descriptor)


def of_bytes(data: bytes, name: str) -> Layout:
    """The layout of a file that is in memory, as `of_file`; `name` is for messages."""
    return containers.parse(data, len(data), name) or _encoding(name, len(data), io.BytesIO(data))


def holds_sound(path: str, name: str) -> bool:
    """Whether a file holds audio, by its content alone, whether that can be marked or not."""
    if os.path.lexists(path) and not os.access(path, os.R_OK):  # nobody knows; who lists it is told why
        return True
    head = kinds.head_of(path)
    return begins_as_sound(head, name) or (bool(head) and not kinds.is_text(head) and encoded.is_readable(path))


def begins_as_sound(head: bytes, name: str) -> bool:
    """Whether a file is known to hold audio by its first bytes; of a compressed one, its name must say so too."""
    if kinds.packed_in(head) is not None:
        return has_name_of_audio(os.path.splitext(name)[0])
    return kinds.sound_in(head) is not None


def is_container(path: str) -> bool:
    """Whether a file is an archive, an array or a table, which may hold audio that is not looked at."""
    return kinds.other_in(kinds.head_of(path)) is not None


def describe(path: str) -> str | None:
    """Why a file is no audio that can be marked, as a clause; None if it may be."""
    try:
        of_file(path, path)
    except AudioFileError as error:
        return str(error).partition(" cannot be used: ")[2].rstrip(".")
    except OSError:
        return None
    return None


def has_name_of_audio(name: str) -> bool:
    """Whether a name ends as those of audio files do."""
    return suffix_of(name) in AUDIO_SUFFIXES


def suffix_of(name: str) -> str:
    """A name's suffix in lower case, such as ".wav"."""
    return os.path.splitext(name)[1].lower()


def _encoding(name: str, size: int, file: BinaryIO) -> Encoding:
    file.seek(0)
    head = file.read(kinds.HEAD_BYTES)
    is_flac = flac.is_flac(file)
    if is_flac:
        flac.refuse_unmarkable(file, name)
    try:
        encoding = encoded.probe(file)
    except encoded.UnreadableError as error:
        raise AudioFileError(f"{name} cannot be used: {_described(head, str(error), is_flac=is_flac)}.") from None
    if not encoding.is_known or not (encoding.lossy or encoding.format == "FLAC"):
        raise AudioFileError(f"{name} cannot be used: it is {encoding.format}, which cannot be marked; {_ADVICE}.")
    if not encoding.lossy and encoding.frames > encoded.MAX_FRAMES_PER_BYTE * size:
        raise AudioFileError(
            f"{name} cannot be used: its header says {encoding.frames} frames, more than its bytes can hold; encode "
            f"the file again."
        )
    return encoding


def _described(head: bytes, reason: str, *, is_flac: bool) -> str:
    """Why a file with such first bytes, which libsndfile cannot read for a reason, cannot be used."""
    kind, packing = "FLAC" if is_flac else kinds.sound_in(head), kinds.packed_in(head)
    if not head:
        return "it is empty; move it away, or leave it as it is (skip_unusable=True)"
    if packing is not None:
        return f"it is compressed as a whole, by {packing}; unpack it"
    if kind is not None:
        return f"it is {kind} that cannot be read here ({reason}); {_ADVICE}"
    other = kinds.other_in(head)
    if other is not None:
        return f"it is {other}"
    if kinds.is_text(head):
        return "it holds text; move it away, or give it another name"
    return f"its content is not known as audio, or has no header; {_ADVICE}"
