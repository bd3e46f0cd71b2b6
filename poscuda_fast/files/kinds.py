"""What a file is, by its first bytes: its name need not tell, and may tell otherwise."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

from poscuda_fast import disk
from poscuda_fast.files import flac

HEAD_BYTES = 4096
TS_BYTES = 188  # of a packet
_TEXT = frozenset(range(32, 256)) | set(b"\t\n\r\f")

# (byte, what stands there, name of the format) of files that hold sound, whether they can be marked or not.
_MAGIC = (
    (0, b"RIFF", "RIFF"),
    (0, b"RIFX", "RIFX"),
    (0, b"RF64", "RF64"),
    (0, b"BW64", "BW64"),
    (0, b"riff\x2e\x91\xcf\x11", "Wave64"),
    (0, b"FORM", "IFF"),
    (0, b"caff", "CAF"),
    (0, b".snd", "AU"),
    (0, b"dns.", "AU"),
    (0, b"NIST_1A\n", "NIST SPHERE"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"TTA1", "TTA"),
    (0, b"TTA2", "TTA"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"DSD ", "DSF"),
    (0, b"FRM8", "DSDIFF"),
    (0, b"#!AMR", "AMR"),
    (0, b"#!SILK", "SILK"),
    (0, b"\x02#!SILK", "SILK"),
    (0, b"Creative Voice File\x1a", "VOC"),
    (0, b"ajkg", "Shorten"),
    (0, b"LA02", "LA"),
    (0, b"OFR ", "OptimFROG"),
    (0, b"\x0b\x77", "AC-3"),
    (0, b"ADIF", "AAC"),
    (0, b"\x64\xa3", "IRCAM"),
    (0, b"PVF1", "PVF"),
    (0, b" paf", "PAF"),
    (0, b"fap ", "PAF"),
    (0, b"2BIT", "AVR"),
    (0, b"Extended Instrument: ", "XI"),
    (0, b".RMF", "RealAudio"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, b"FLV\1", "FLV"),
    (0, b"\0\0\1\xba", "MPEG"),
    (0, b".SoX", "SoX"),
    (0, b"XoS.", "SoX"),
    (65, b"FSSDHCOM", "HCOM"),
    (4, b"ftyp", "MP4"),
    (0, bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "WMA"),
)
_RIFFS = ("RIFF", "RIFX", "RF64", "BW64")
_IFF = (b"AIFF", b"AIFC", b"8SVX", b"16SV")
_PICTURES = (b"avif", b"heic", b"heix", b"mif1", b"msf1")  # that begin as MP4 does
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "Zstandard"}
_OTHERS = (
    (0, b"\x93NUMPY", "a NumPy array: it is protected as one, with labels for its clips"),
    (0, b"PK\3\4", "a ZIP archive, as .npz, .pt and .zarr.zip are: save the array in it as .npy"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5: save the array in it as .npy"),
    (0, b"PAR1", "Parquet: poscuda_fast.adapters.parquet protects it"),
    (257, b"ustar", "a tar file: poscuda_fast.adapters.webdataset_shards protects shards"),
)
_MPEG_KBIT = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # layer III of MPEG-1
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
}
_MPEG_KBIT_LOW = {
    1: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    3: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
}
_MPEG_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def sound_in(head: bytes) -> str | None:
    """The format of a file that begins so, if it is known to hold sound; None else."""
    for place, magic, name in _MAGIC:
        if head.startswith(magic, place) and _is_inside(head, name):
            return name
    if head[:3] == b"ID3":
        return "FLAC" if flac.is_flac(io.BytesIO(head)) else "MP3"
    if len(head) > 2 * TS_BYTES and head[0] == head[TS_BYTES] == head[2 * TS_BYTES] == 0x47:
        return "MPEG-TS"
    return "MPEG audio" if _is_frames(head, _mpeg_bytes) else "AAC" if _is_frames(head, _adts_bytes) else None


def packed_in(head: bytes) -> str | None:
    """How a file that begins so is compressed as a whole; None if it is not, as far as its first bytes tell."""
    return next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)


def other_in(head: bytes) -> str | None:
    """What a file that begins so is, and how to protect what it holds; None if that is not known."""
    return next((what for place, magic, what in _OTHERS if head.startswith(magic, place)), None)


def is_text(head: bytes) -> bool:
    """Whether a file that begins so is text."""
    return _TEXT.issuperset(head)


def head_of(path: str) -> bytes:
    """The first bytes of a regular file; none if it cannot be read."""
    try:
        descriptor = os.open(path, disk.READING)
    except OSError:
        return b""
    try:
        return os.read(descriptor, HEAD_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _is_inside(head: bytes, name: str) -> bool:
    if name in _RIFFS:
        return head[8:12] in (b"WAVE", b"AVI ")
    if name == "IFF":
        return head[8:12] in _IFF
    if name == "MP4":
        return head[8:12] not in _PICTURES
    if name == "IRCAM":
        return head[2:3] in (b"\x01", b"\x02", b"\x03", b"\x04") and head[3:4] == b"\0"
    if name == "AC-3":
        return len(head) > 5 and (head[5] >> 3 == 16 or (head[5] >> 3 in (6, 8) and head[4] & 0x3F < 38))
    return True


def _is_frames(head: bytes, length_of: Callable[[bytes], int]) -> bool:
    """Whether two frames come one behind the other; one alone may be chance."""
    length = length_of(head[:8])
    return length > 0 and length_of(head[length : length + 8]) > 0


def _mpeg_bytes(head: bytes) -> int:
    """Bytes of a frame of MPEG audio, layers I to III; 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] >> 5 != 7:
        return 0
    version, layer, rate, place = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 0 or rate in (0, 15) or place == 3:
        return 0
    bits = 1000 * (_MPEG_KBIT if version == 3 else _MPEG_KBIT_LOW)[layer][rate]
    hertz, padding = _MPEG_HZ[version][place], head[2] >> 1 & 1
    if layer == 3:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 1 and version != 3 else 144) * bits // hertz + padding


def _adts_bytes(head: bytes) -> int:
    """Bytes of a frame of AAC as ADTS; 0 if it is none."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= 7 else 0
