"""WAV and .npy files that are broken or hostile, made byte by byte, each with the message that it must cause."""

from __future__ import annotations

import pickle
import struct

import audiofiles
from audiofiles import UNKNOWN, chunk, format_body, noise, npy, npy_header, packed, rf64, riff, wav

SAMPLES = noise(50)
DATA = packed(SAMPLES, "PCM_16")
FMT = chunk(b"fmt ", format_body())
GOOD = wav(SAMPLES)
HEADER_BYTES_READ = 1 << 17  # 1000 chunk headers and some; no header needs more


def with_format(**lies: int) -> bytes:
    """A WAV file whose fmt chunk lies."""
    return riff(chunk(b"fmt ", format_body(**lies)), chunk(b"data", DATA))


def with_extensible(**lies) -> bytes:
    return riff(chunk(b"fmt ", format_body(extensible=True, **lies)), chunk(b"data", DATA))


def with_data(size: int, *, riff_size: int | None = None, data: bytes = DATA) -> bytes:
    """A WAV file whose data chunk claims a size."""
    return riff(FMT, chunk(b"data", data, size), size=riff_size)


STREAM = "its header does not say how long its data is"
UNCOUNTED = "its header counts 44 of its 144 bytes, and what follows may be sound"
CODING = "16- or 24-bit PCM and 32-bit float are edited exactly, so convert it to one of them"

# Files with the name of a WAV file that are none, and what is said of each.
NOT_WAVS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "one byte": (b"R", "it holds text"),
    "text": (b"not audio at all, only text", "it holds text; move it away, or give it another name"),
    "wrong form": (
        riff(FMT, chunk(b"data", DATA), form=b"FFIR"),
        "its content is not known as audio, or has no header",
    ),
    "wrong kind": (riff(FMT, chunk(b"data", DATA), kind=b"AVI "), "it is RIFF that cannot be read here"),
    "packed": (b"\x1f\x8b\x08\0" + bytes(60), "it is compressed as a whole, by gzip; unpack it"),
    "WebM": (b"\x1a\x45\xdf\xa3" + bytes(60), "it is WebM or Matroska that cannot be read here"),
}

BAD_WAVS: dict[str, tuple[bytes, str]] = {
    "RIFX with sizes of RIFF": (riff(FMT, chunk(b"data", DATA), form=b"RIFX"), "it has no data chunk"),
    "data size past the end": (with_data(102), "its data chunk of 102 bytes ends past the file's 144 bytes"),
    "data size huge": (with_data(UNKNOWN - 1), "its data chunk of 4294967294 bytes ends past the file's 144 bytes"),
    "both sizes 0": (with_data(0, riff_size=0), UNCOUNTED),
    "sizes as a recorder begins": (with_data(0, riff_size=36), UNCOUNTED),
    "data size 0 in a file of unknown size": (with_data(0, riff_size=UNKNOWN), UNCOUNTED),
    "a quarter of the data counted": (with_data(24), "its header counts 68 of its 144 bytes, and what follows may be"),
    "two files in one": (GOOD + GOOD, "its header counts 144 of its 288 bytes, and what follows may be sound"),
    "more than a few bytes behind all": (GOOD + b"\x01" * 17, "its header counts 144 of its 161 bytes"),
    "data size odd": (with_data(99), "its data chunk of 99 bytes is not a whole number of 2-byte frames"),
    "half a frame": (
        riff(chunk(b"fmt ", format_body(channels=8)), chunk(b"data", DATA)),
        "its data chunk of 100 bytes is not a whole number of 16-byte frames",
    ),
    "no chunks": (riff(), "it has no fmt chunk"),
    "no fmt": (riff(chunk(b"data", DATA)), "it has no fmt chunk"),
    "two fmt": (riff(FMT, FMT, chunk(b"data", DATA)), "it has two fmt chunks"),
    "two fmt, one behind the data": (riff(FMT, chunk(b"data", DATA), FMT), "it has two fmt chunks"),
    "three fmt": (riff(FMT, FMT, FMT, chunk(b"data", DATA)), "it has many fmt chunks"),
    "no data": (riff(FMT), "it has no data chunk"),
    "two data": (riff(FMT, chunk(b"data", DATA), chunk(b"data", DATA)), "it has two data chunks"),
    "second data behind the RIFF size": (GOOD + chunk(b"data", DATA), "it has two data chunks"),
    "data before fmt": (riff(chunk(b"data", DATA), FMT), "its data chunk comes before its fmt chunk"),
    "align 0": (with_format(align=0), "its header says 0 bytes a frame, but 1 channels of 16 bits"),
    "align 1": (with_format(align=1), "its header says 1 bytes a frame, but 1 channels of 16 bits"),
    "align 4": (with_format(align=4), "its header says 4 bytes a frame, but 1 channels of 16 bits"),
    "align of other channels": (with_format(channels=2, align=2), "says 2 bytes a frame, but 2 channels of 16 bits"),
    "8 bits": (with_format(bits=8, align=1), f"its samples are 8-bit PCM; {CODING}"),
    "12 bits": (with_format(bits=12), f"its samples are 12-bit PCM; {CODING}"),
    "20 bits": (with_format(bits=20, align=3), "its samples are 20-bit PCM"),
    "32 bits": (with_format(bits=32, align=4), "its samples are 32-bit PCM"),
    "0 bits": (with_format(bits=0, align=0), "its samples are 0-bit PCM"),
    "float 64": (with_format(code=3, bits=64, align=8), "its samples are 64-bit float"),
    "float 16": (with_format(code=3), "its samples are 16-bit float"),
    "A-law": (with_format(code=6, bits=8, align=1), "its samples are 8-bit of WAV format code 6"),
    "mu-law": (with_format(code=7, bits=8, align=1), "its samples are 8-bit of WAV format code 7"),
    "ADPCM": (with_format(code=2, bits=4, align=256), "its samples are 4-bit of WAV format code 2"),
    "GSM": (with_format(code=0x31, bits=0, align=65), "its samples are 0-bit of WAV format code 49"),
    "MP3 in WAV": (with_format(code=0x55, bits=0, align=1), "its samples are 0-bit of WAV format code 85"),
    "code 0": (with_format(code=0), "its samples are 16-bit of WAV format code 0"),
    "unknown GUID": (with_extensible(guid=b"\x01\0" + bytes(14)), "its extensible fmt chunk names an unknown coding"),
    "GUID of A-law": (with_extensible(guid=b"\x06\0" + audiofiles.GUID_TAIL), "16-bit of WAV format code 6"),
    "GUID of extensible": (with_extensible(guid=b"\xfe\xff" + audiofiles.GUID_TAIL), "16-bit of WAV format code 65534"),
    "12 of 16 bits valid": (with_extensible(valid=12), "only 12 of its 16 bits are valid; convert it"),
    "20 of 24 bits valid": (
        riff(chunk(b"fmt ", format_body("PCM_24", extensible=True, valid=20)), chunk(b"data", DATA[:99])),
        "only 20 of its 24 bits are valid; convert it",
    ),
    "24 of 16 bits valid": (with_extensible(valid=24), "only 24 of its 16 bits are valid"),
    "short extensible": (
        riff(chunk(b"fmt ", format_body(extensible=True)[:38]), chunk(b"data", DATA)),
        "its extensible fmt chunk has 38 bytes; 40 are needed",
    ),
    "short fmt": (riff(chunk(b"fmt ", format_body()[:14]), chunk(b"data", DATA)), "its fmt chunk has 14 bytes"),
    "empty fmt": (riff(chunk(b"fmt "), chunk(b"data", DATA)), "its fmt chunk has 0 bytes; at least 16 are needed"),
    "fmt past the end": (
        riff(chunk(b"data", DATA), chunk(b"fmt ", format_body(), 10**9)),
        "its data chunk comes before",
    ),
    "fmt that swallows the data": (riff(chunk(b"fmt ", format_body(), 10**6), chunk(b"data", DATA)), "no data chunk"),
    "0 channels": (with_format(channels=0, align=0), "its header says 0 channels; expected 1 to 1024"),
    "2000 channels": (with_format(channels=2000, align=4000), "its header says 2000 channels; expected 1 to 1024"),
    "sample rate 0": (with_format(rate=0), "its header gives a sample rate of 0"),
    "thousands of tiny chunks": (
        riff(FMT, chunk(b"tiny", b"xx") * 5000, chunk(b"data", DATA)),
        "more than 1000 chunks",
    ),
    "thousands of empty chunks": (riff(chunk(b"none") * 100_000), "it has more than 1000 chunks"),
    "a megabyte of zeros": (riff(bytes(1 << 20)), "it has no fmt chunk"),
    "huge chunk before fmt": (riff(chunk(b"LIST", b"", UNKNOWN - 1), FMT, chunk(b"data", DATA)), "it has no fmt chunk"),
    "huge odd chunk": (riff(FMT, chunk(b"LIST", b"", UNKNOWN), chunk(b"data", DATA)), "it has no data chunk"),
    "RF64 without ds64": (riff(FMT, chunk(b"data", DATA, UNKNOWN), form=b"RF64", size=UNKNOWN), STREAM),
    "RF64 with ds64 behind the data": (
        riff(FMT, chunk(b"data", DATA, UNKNOWN), chunk(b"ds64", bytes(28)), form=b"RF64", size=UNKNOWN),
        STREAM,
    ),
    "RF64 that ends in ds64": (riff(chunk(b"ds64", bytes(10)), form=b"RF64"), "it ends within its header, at byte 30"),
    "RF64 of 2**63 bytes": (rf64(SAMPLES, data_size=2**63), "its data chunk of 9223372036854775808 bytes ends past"),
    "RF64 of 2**64-1 bytes": (rf64(SAMPLES, data_size=2**64 - 1), "data chunk of 18446744073709551615 bytes ends past"),
    "RF64 of half a frame": (rf64(SAMPLES, data_size=99), "its data chunk of 99 bytes is not a whole number of 2-byte"),
}
STREAMED_WAVS = {
    "data size unknown": with_data(UNKNOWN),
    "both sizes unknown": with_data(UNKNOWN, riff_size=UNKNOWN),
    "as sox writes to a pipe": with_data(0x7FFFF000, riff_size=0x7FFFF024),
    "as arecord writes to a pipe": with_data(0x80000000, riff_size=0x80000024),
    "INT32_MAX": with_data(0x7FFFFFFF, riff_size=0x7FFFFFFF),
    "ds64 in a RIFF file": riff(
        chunk(b"ds64", struct.pack("<QQQI", 0, 100, 50, 0)), FMT, chunk(b"data", DATA, UNKNOWN)
    ),
}

HUGE = npy_header(shape=f"({2**63}, 2)")  # in 64 bits: no bytes at all

BAD_NPYS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "its .npy header cannot be read"),
    "wrong magic": (b"\x93NUMPX" + npy(npy_header(), bytes(12))[6:], "its .npy header cannot be read"),
    "zip archive": (b"PK\x03\x04" + bytes(100), "its .npy header cannot be read"),
    "pickle": (pickle.dumps([1, 2, 3]), "its .npy header cannot be read"),
    "version 0": (npy(npy_header(), bytes(12), (0, 0)), "its .npy version is unknown; save it again with numpy.save"),
    "version 3": (npy(npy_header(), bytes(12), (3, 0)), "its .npy version is unknown"),
    "version 1.1": (npy(npy_header(), bytes(12), (1, 1)), "its .npy version is unknown"),
    "version 255": (npy(npy_header(), bytes(12), (255, 255)), "its .npy version is unknown"),
    "no header": (npy("", b"", length=0), "its .npy header cannot be read"),
    "header past the end": (npy(npy_header(), bytes(12), length=60_000), "its .npy header cannot be read"),
    "header of 4 GiB": (npy(npy_header(), bytes(12), (2, 0), length=UNKNOWN), "its .npy header cannot be read"),
    "header of 100 kB": (npy(npy_header() + " " * 100_000, bytes(12), (2, 0)), "its .npy header cannot be read"),
    "header that is no Python": (npy("{{{{", bytes(12)), "its .npy header cannot be read"),
    "header that is not closed": (npy(npy_header()[:-6], bytes(12)), "its .npy header cannot be read"),
    "header of brackets": (npy("(" * 9000, bytes(12)), "its .npy header cannot be read"),
    "header of signs": (npy("-" * 60_000 + "1", bytes(12)), "its .npy header cannot be read"),
    "header with code": (npy("__import__('os').system('true')", bytes(12)), "its .npy header cannot be read"),
    "header with code in its shape": (
        npy(npy_header(shape="(exit(), 3)"), bytes(12)),
        "its .npy header cannot be read",
    ),
    "header with a power": (npy(npy_header(shape="(9**9**9, 3)"), bytes(12)), "its .npy header cannot be read"),
    "header of bytes": (npy(bytes(range(128, 256)), bytes(12)), "its .npy header cannot be read"),
    "header with NUL": (npy(npy_header() + "\0", bytes(12)), "its .npy header cannot be read"),
    "header that is a list": (npy("[1, 2]", bytes(12)), "its .npy header cannot be read"),
    "header without shape": (
        npy("{'descr': '<i2', 'fortran_order': False}", bytes(12)),
        "its .npy header cannot be read",
    ),
    "header with more": (npy(npy_header(shape="(2, 3), 'x': 1"), bytes(12)), "its .npy header cannot be read"),
    "header of Python 2": (npy(npy_header(shape="(2L, 4L)"), bytes(12)), "cannot be used"),
    "order that is no bool": (npy(npy_header(order="1"), bytes(12)), "its .npy header cannot be read"),
    "negative shape": (
        npy(npy_header(shape="(-2, -3)"), bytes(12)),
        "its shape is (-2, -3); expected (n_clips, n_frames)",
    ),
    "one negative": (npy(npy_header(shape="(-1, 6)"), bytes(12)), "its shape is (-1, 6); expected"),
    "shape of floats": (npy(npy_header(shape="(2.0, 3.0)"), bytes(12)), "its .npy header cannot be read"),
    "shape of text": (npy(npy_header(shape="('2', '3')"), bytes(12)), "its .npy header cannot be read"),
    "shape that is a list": (npy(npy_header(shape="[2, 3]"), bytes(12)), "its .npy header cannot be read"),
    "shape of bools": (npy(npy_header(shape="(True, True)"), bytes(2)), "its shape is (True, True); expected"),
    "huge shape": (
        npy(npy_header(shape="(1000000, 1000000)"), bytes(12)),
        "its shape (1000000, 1000000) needs 2000000000",
    ),
    "shape that overflows 64 bits": (npy(HUGE), f"its shape ({2**63}, 2) needs {len(npy(HUGE)) + 2**65} bytes"),
    "shape of 5000 digits": (npy(npy_header(shape=f"({'9' * 5000}, 2)"), bytes(12)), "cannot be"),
    "object dtype": (npy(npy_header("'|O'"), bytes(48)), "its samples are object; expected int16"),
    "structured dtype": (npy(npy_header("[('a', '<i2')]"), bytes(12)), "; expected int16 ('<i2') or float32 ('<f4')"),
    "nested dtype": (npy(npy_header("('<i2', (3,))"), bytes(36)), "its samples are ('<i2', (3,)); expected int16"),
    "dtype of one part": (npy(npy_header("('<i2',)"), bytes(12)), "its .npy header cannot be read"),
    "dtype by old name": (npy(npy_header("'a5'"), bytes(30)), "cannot be used"),
    "dtype of nothing": (npy(npy_header("''"), bytes(12)), "cannot be"),
    "dtype that is a number": (npy(npy_header("5"), bytes(12)), "its .npy header cannot be read"),
    "big-endian int16": (npy(npy_header("'>i2'"), bytes(12)), "its samples are >i2; expected int16 ('<i2')"),
    "big-endian float32": (npy(npy_header("'>f4'"), bytes(24)), "its samples are >f4; expected int16 ('<i2')"),
    "float64": (npy(npy_header("'<f8'"), bytes(48)), "its samples are float64; expected int16"),
    "float16": (npy(npy_header("'<f2'"), bytes(12)), "its samples are float16; expected int16"),
    "int32": (npy(npy_header("'<i4'"), bytes(24)), "its samples are int32; expected int16"),
    "uint16": (npy(npy_header("'<u2'"), bytes(12)), "its samples are uint16; expected int16"),
    "uint8": (npy(npy_header("'|u1'"), bytes(6)), "its samples are uint8; expected int16"),
    "bool": (npy(npy_header("'|b1'"), bytes(6)), "its samples are bool; expected int16"),
    "text dtype": (npy(npy_header("'<U5'"), bytes(120)), "its samples are <U5; expected int16"),
    "times": (npy(npy_header("'<M8[s]'"), bytes(48)), "its samples are datetime64[s]; expected int16"),
    "short data": (npy(npy_header(), bytes(11)), "its shape (2, 3) needs 82 bytes and it has 81"),
    "no data": (npy(npy_header()), "its shape (2, 3) needs 82 bytes and it has 70"),
    "trailing data": (npy(npy_header(), bytes(13)), "its shape (2, 3) needs 82 bytes and it has 83"),
    "0-D": (npy(npy_header(shape="()"), bytes(2)), "its shape is (); expected (n_clips, n_frames)"),
    "1-D": (npy(npy_header(shape="(6,)"), bytes(12)), "its shape is (6,); expected (n_clips, n_frames)"),
    "4-D": (
        npy(npy_header(shape="(1, 2, 3, 1)"), bytes(12)),
        "its shape is (1, 2, 3, 1); expected (n_clips, n_frames)",
    ),
    "64-D": (npy(npy_header(shape=f"({'1, ' * 64})"), bytes(2)), "; expected (n_clips, n_frames)"),
}
