"""Layouts of sound files of every container and of NPY, and the exact way from their bytes to samples and back."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import audiofiles
import numpy as np
import pytest
import soundfile
from audiofiles import UNKNOWN, chunk, format_body, noise, packed, rf64, riff, wav
from hypothesis import given
from hypothesis import strategies as st

from poscuda_fast import AudioFileError, protect_folder, restore_folder
from poscuda_fast.arrays import mapped
from poscuda_fast.arrays.mapped import map_npy
from poscuda_fast.files import containers, layouts
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.mark import codings

CODINGS = ["PCM_16", "PCM_24", "FLOAT"]
EDGES_24 = [-(2**23), 1 - 2**23, -(2**16) - 1, -(2**15), -257, -256, -1, 0, 1, 127, 128, 255, 256, 2**16, 2**23 - 1]


def layout_of(path: Path) -> Uncompressed:
    with open(path, "rb") as file:
        layout = containers.parse(file.fileno(), path.stat().st_size, str(path))
    assert layout is not None
    assert containers.parse(path.read_bytes(), path.stat().st_size, "a") == layout
    return layout


def npy_layout_of(path: Path) -> mapped.NpyLayout:
    with open(path, "rb") as file:
        return mapped.read_npy(file, str(path))


def samples_at(path: Path, layout: Uncompressed) -> np.ndarray:
    """The samples that a layout points to."""
    data = path.read_bytes()[layout.offset : layout.offset + layout.frames * layout.frame_bytes]
    return codings.to_samples(data, layout.coding).reshape(layout.frames, layout.channels)


def agree_with_soundfile(path: Path, layout: Uncompressed) -> None:
    info = soundfile.info(str(path))
    assert (layout.frames, layout.channels) == (info.frames, info.channels)
    assert codings.little(layout.coding) == info.subtype
    assert layout.sample_rate == info.samplerate
    expected = audiofiles.read_samples(path, info.subtype)
    assert samples_at(path, layout).tobytes() == expected.tobytes()


@pytest.mark.parametrize("extensible", [False, True], ids=["plain", "extensible"])
@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("coding", CODINGS)
def test_wav_layout_is_where_the_samples_were_written(tmp_path, coding, channels, extensible):
    samples = noise(101, channels, coding)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples, coding, 22050, extensible=extensible))
    layout = layout_of(path)
    header = 12 + 8 + (40 if extensible else 16) + 8
    assert layout == Uncompressed(header, 101, channels, coding, 22050)
    assert samples_at(path, layout).tobytes() == samples.tobytes()
    agree_with_soundfile(path, layout)


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("coding", CODINGS)
def test_wav_layout_of_files_that_soundfile_wrote(tmp_path, coding, container):
    samples = noise(333, 2, coding)
    path = tmp_path / "a.wav"
    audiofiles.encoded(path, samples, container, coding, 44100)
    layout = layout_of(path)
    assert samples_at(path, layout).tobytes() == samples.tobytes()
    agree_with_soundfile(path, layout)


@pytest.mark.parametrize("coding", CODINGS)
def test_rf64_takes_the_size_of_its_data_from_ds64(tmp_path, coding):
    samples = noise(77, 3, coding)
    path = tmp_path / "a.wav"
    path.write_bytes(rf64(samples, coding) + chunk(b"LIST", b"after"))
    layout = layout_of(path)
    assert layout.frames == 77
    assert samples_at(path, layout).tobytes() == samples.tobytes()
    agree_with_soundfile(path, layout)


def test_rf64_with_a_size_of_its_own_in_the_data_chunk(tmp_path):
    samples = noise(50)
    path = tmp_path / "a.wav"
    body = chunk(b"ds64", bytes(28)) + chunk(b"fmt ", format_body()) + chunk(b"data", packed(samples, "PCM_16"))
    path.write_bytes(riff(body, form=b"RF64", size=UNKNOWN))
    assert samples_at(path, layout_of(path)).tobytes() == samples.tobytes()


def test_rf64_beyond_4_gib_is_read_from_its_header_alone(tmp_path):
    path = tmp_path / "a.wav"
    frames = 3 * 2**30
    path.write_bytes(rf64(noise(0), data_size=2 * frames))
    header = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(header + 2 * frames)  # a hole: no disk space is used
    assert layout_of(path) == Uncompressed(header, frames, 1, "PCM_16", 16000, "RF64")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (chunk(b"LIST", b"INFOISFT\x05\0\0\0abcd\0\0"), b""),
        (chunk(b"bext", bytes(603)), b""),
        (chunk(b"junk", b"odd"), chunk(b"id3 ", b"odd as well")),
        (b"", chunk(b"LIST", b"INFO") + chunk(b"cue ", bytes(4))),
        (chunk(b"JUNK"), chunk(b"JUNK")),
        (chunk(b"fact", struct.pack("<I", 5)), b""),
    ],
    ids=["LIST before", "bext before", "odd sizes", "LIST and cue after", "empty chunks", "fact"],
)
@pytest.mark.parametrize("coding", CODINGS)
def test_other_chunks_are_stepped_over(tmp_path, coding, before, after):
    samples = noise(5, 1, coding)  # with 24 bits an odd number of bytes, so that the data is padded
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples, coding, before=before, after=after))
    layout = layout_of(path)
    assert layout.offset == 12 + 24 + len(before) + 8
    assert samples_at(path, layout).tobytes() == samples.tobytes()
    agree_with_soundfile(path, layout)


@pytest.mark.parametrize(
    "trailing", [b"\0", b"x" * 7, b"x" * 16, bytes(5000), b"TAG" + b"x" * 125], ids=["1", "7", "16", "zeros", "ID3v1"]
)
def test_few_bytes_zeros_and_tags_behind_what_the_header_counts_do_not_matter(tmp_path, trailing):
    samples = noise(40, 2)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples) + trailing)
    assert layout_of(path) == Uncompressed(44, 40, 2, "PCM_16", 16000)


def test_odd_data_at_the_end_of_a_file_may_lack_its_pad_byte(tmp_path):
    samples = noise(7, 1, "PCM_24")
    whole = wav(samples, "PCM_24")
    path = tmp_path / "a.wav"
    path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 9) + whole[8:-1])
    assert samples_at(path, layout_of(path)).tobytes() == samples.tobytes()


@pytest.mark.parametrize("size", [0, 4, 36, UNKNOWN])
def test_a_riff_size_that_says_nothing_is_not_needed_where_the_data_says_its_own(tmp_path, size):
    samples = noise(9)
    path = tmp_path / "a.wav"
    content = wav(samples)
    path.write_bytes(content[:4] + struct.pack("<I", size) + content[8:])
    assert layout_of(path) == Uncompressed(44, 9, 1, "PCM_16", 16000)


@pytest.mark.parametrize("coding", CODINGS)
def test_empty_data(tmp_path, coding):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(noise(0, 2, coding), coding, after=chunk(b"LIST", b"INFO")))
    layout = layout_of(path)
    assert (layout.frames, layout.channels, layout.coding) == (0, 2, coding)
    assert samples_at(path, layout).shape == (0, 2)


def test_valid_bits_of_0_mean_all_of_them(tmp_path):
    samples = noise(9, 1, "PCM_24")
    fmt = chunk(b"fmt ", format_body("PCM_24", extensible=True, valid=0))
    path = tmp_path / "a.wav"
    path.write_bytes(riff(fmt, chunk(b"data", packed(samples, "PCM_24"))))
    assert samples_at(path, layout_of(path)).tobytes() == samples.tobytes()


def test_frame_bytes():
    assert Uncompressed(44, 1, 1, "PCM_16", 8000).frame_bytes == 2
    assert Uncompressed(44, 1, 2, "PCM_24", 8000).frame_bytes == 6
    assert Uncompressed(44, 1, 8, "FLOAT", 8000).frame_bytes == 32


def test_24_bit_samples_are_little_endian_twos_complement():
    data = bytes.fromhex("000000 010000 ffffff ffff7f 000080 563412".replace(" ", ""))
    samples = codings.to_samples(data, "PCM_24")
    assert samples.tolist() == [0, 1, -1, 2**23 - 1, -(2**23), 0x123456]
    assert codings.to_bytes(samples, "PCM_24") == data


@pytest.mark.parametrize("edge", EDGES_24)
def test_24_bit_edges_survive_both_ways(edge):
    data = edge.to_bytes(3, "little", signed=True)
    samples = codings.to_samples(data, "PCM_24")
    assert samples.dtype == np.dtype(np.int32)
    assert samples.tolist() == [edge]
    assert codings.to_bytes(samples, "PCM_24") == data
    assert codings.to_bytes(np.array([edge], np.int32), "PCM_24") == data


def test_every_24_bit_value_survives_both_ways():
    every = np.arange(-(2**23), 2**23, dtype=np.int32)
    back = codings.to_samples(codings.to_bytes(every, "PCM_24"), "PCM_24")
    assert np.array_equal(back, every)


def test_every_16_bit_value_survives_both_ways():
    every = np.arange(-(2**15), 2**15).astype(np.int16)
    data = codings.to_bytes(every, "PCM_16")
    assert data[:4] == b"\x00\x80\x01\x80"
    assert np.array_equal(codings.to_samples(data, "PCM_16"), every)


def test_float_samples_keep_every_bit():
    words = [0, 0x80000000, 1, 0x807FFFFF, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345]
    data = struct.pack(f"<{len(words)}I", *words)
    samples = codings.to_samples(data, "FLOAT")
    assert samples.dtype == np.dtype(np.float32)
    assert samples[4] == 1.0
    assert codings.to_bytes(samples, "FLOAT") == data


@pytest.mark.parametrize("coding", CODINGS)
@given(data=st.binary(max_size=240))
def test_to_bytes_is_the_inverse_of_to_samples(coding, data):
    whole = data[: len(data) // codings.CODINGS[coding] * codings.CODINGS[coding]]
    samples = codings.to_samples(whole, coding)
    assert samples.dtype == np.dtype(audiofiles.DTYPES[coding])
    assert len(samples) == len(whole) // codings.CODINGS[coding]
    assert codings.to_bytes(samples, coding) == whole


@pytest.mark.parametrize("coding", CODINGS)
def test_samples_are_a_copy_of_the_bytes_that_may_be_written(coding):
    data = bytes(24)
    samples = codings.to_samples(data, coding)
    samples += 1
    assert data == bytes(24)
    assert samples.any()


@pytest.mark.parametrize("coding", CODINGS)
def test_to_bytes_takes_frames_of_channels(coding):
    samples = noise(11, 3, coding)
    assert codings.to_bytes(samples, coding) == packed(samples, coding)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(5, 40), (4, 30, 2)], ids=["clips", "clips of channels"])
@pytest.mark.parametrize("dtype", ["<i2", "<f4"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)], ids=["version 1", "version 2"])
def test_npy_layout_is_where_numpy_wrote_the_samples(tmp_path, version, dtype, shape, order):
    array = np.asarray(noise(int(np.prod(shape)), 1, "PCM_16").reshape(shape), dtype, order=order)
    path = tmp_path / "a.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array(file, array, version=version)
    layout = npy_layout_of(path)
    assert layout.offset == path.stat().st_size - array.nbytes
    assert (layout.shape, layout.dtype, layout.order) == (shape, np.dtype(dtype), order)
    arr = map_npy(path, writing=False)
    assert arr.tobytes(order="A") == path.read_bytes()[layout.offset :]
    assert np.array_equal(arr, np.load(path))
    assert arr.flags[f"{order}_CONTIGUOUS"]


def test_npy_of_a_shape_in_two_dimensions_without_samples(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((0, 100), np.int16))
    assert npy_layout_of(path).shape == (0, 100)
    with pytest.raises(AudioFileError, match=r"a\.npy cannot be used: its shape \(0, 100\) holds no samples\."):
        map_npy(path, writing=True)


def test_a_npy_file_mapped_for_writing_is_the_file(tmp_path):
    path = tmp_path / "a.npy"
    array = noise(60).reshape(3, 20)
    np.save(path, array)
    arr = map_npy(path, writing=True)
    arr[1, 2:5] = 7
    arr.flush()
    array[1, 2:5] = 7
    expected = io.BytesIO()
    np.save(expected, array)
    assert path.read_bytes() == expected.getvalue()


def test_a_npy_file_mapped_for_reading_cannot_be_written(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, noise(60).reshape(3, 20))
    assert not map_npy(path, writing=False).flags.writeable


# Containers other than WAV


def big(tag: bytes, body: bytes) -> bytes:
    """A chunk of AIFF."""
    return tag + struct.pack(">I", len(body)) + body + bytes(len(body) % 2)


def extended(rate: int) -> bytes:
    """A sample rate as 80 bits."""
    exponent = rate.bit_length() - 1
    return struct.pack(">HQ", 16383 + exponent, rate << 63 - exponent)


def aiff(*chunks: bytes, kind: bytes = b"AIFF") -> bytes:
    body = kind + b"".join(chunks)
    return b"FORM" + struct.pack(">I", len(body)) + body


def comm(frames: int, bits: int = 16, channels: int = 1, compression: bytes = b"", rate: int = 16000) -> bytes:
    return big(b"COMM", struct.pack(">HIH", channels, frames, bits) + extended(rate) + compression)


def ssnd(data: bytes, moved: int = 0) -> bytes:
    return big(b"SSND", struct.pack(">II", moved, 0) + bytes(moved) + data)


def caf_chunk(tag: bytes, body: bytes, size: int | None = None) -> bytes:
    return tag + struct.pack(">q", len(body) if size is None else size) + body


def caf(*chunks: bytes) -> bytes:
    return b"caff\0\1\0\0" + b"".join(chunks)


def desc(
    kind: bytes = b"lpcm", flags: int = 2, packet: int = 2, frames: int = 1, bits: int = 16, rate: float = 16000.0
) -> bytes:
    return caf_chunk(b"desc", struct.pack(">d4s5I", rate, kind, flags, packet, frames, 1, bits))


def au(data: bytes, encoding: int = 3, offset: int = 24, size: int | None = None, channels: int = 1) -> bytes:
    numbers = offset, len(data) if size is None else size, encoding, 16000, channels
    return b".snd" + struct.pack(">5I", *numbers) + bytes(max(0, offset - 24)) + data


def sphere(data: bytes, **fields: str) -> bytes:
    said = {
        "channel_count -i": "1",
        "sample_count -i": str(len(data) // 2),
        "sample_rate -i": "16000",
        "sample_n_bytes -i": "2",
        "sample_byte_format -s2": "01",
        "sample_coding -s3": "pcm",
    }
    for name, value in fields.items():
        said = {key: value if key.startswith(name) else old for key, old in said.items()}
    lines = "".join(f"{name} {value}\n" for name, value in said.items() if value)
    return f"NIST_1A\n   1024\n{lines}end_head\n".ljust(1024).encode() + data


def w64_chunk(tag: bytes, body: bytes) -> bytes:
    return tag + WAVE64_TAIL + struct.pack("<Q", 24 + len(body)) + body + bytes(-len(body) % 8)


def w64(*chunks: bytes) -> bytes:
    body = b"wave" + WAVE64_TAIL + b"".join(chunks)
    return bytes.fromhex("726966662e91cf11a5d628db04c10000") + struct.pack("<Q", 24 + len(body)) + body


WAVE64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
SOUND = noise(40)
LITTLE = packed(SOUND, "PCM_16")
BIG = SOUND.astype(">i2").tobytes()
MARKS = big(b"MARK", b"\0\1\0\1\0\0\0\5\4here")

OTHERS = {
    "AIFF": (aiff(comm(40), MARKS, ssnd(BIG)), "PCM_16_BE", "AIFF"),
    "AIFF with its sound first": (aiff(ssnd(BIG), comm(40), big(b"APPL", b"stocx")), "PCM_16_BE", "AIFF"),
    "AIFF whose sound is moved": (aiff(comm(40), ssnd(BIG, moved=12)), "PCM_16_BE", "AIFF"),
    "AIFC sowt": (aiff(comm(40, compression=b"sowt\0\0"), ssnd(LITTLE), kind=b"AIFC"), "PCM_16", "AIFC"),
    "CAF": (caf(desc(), caf_chunk(b"chan", bytes(12)), caf_chunk(b"data", bytes(4) + LITTLE)), "PCM_16", "CAF"),
    "CAF to its end": (caf(desc(flags=0), caf_chunk(b"data", bytes(4) + BIG, size=-1)), "PCM_16_BE", "CAF"),
    "AU with an annotation": (au(BIG, offset=64), "PCM_16_BE", "AU"),
    "AU from a pipe": (au(BIG, size=UNKNOWN), "PCM_16_BE", "AU"),
    "SPHERE": (sphere(LITTLE), "PCM_16", "NIST"),
    "SPHERE, big-endian": (sphere(BIG, sample_byte_format="10"), "PCM_16_BE", "NIST"),
    "Wave64": (w64(w64_chunk(b"fmt ", format_body()), w64_chunk(b"data", LITTLE)), "PCM_16", "W64"),
    "BW64": (rf64(SOUND).replace(b"RF64", b"BW64"), "PCM_16", "BW64"),
}

UNREAD = {"BW64", "CAF to its end"}  # names, of containers or above, of what libsndfile does not read


@pytest.mark.parametrize("name", OTHERS)
def test_samples_lie_where_they_were_put(tmp_path, name):
    content, coding, container = OTHERS[name]
    path = tmp_path / "a"
    path.write_bytes(content)
    layout = layout_of(path)
    assert layout[1:] == (40, 1, coding, 16000, container)
    assert layouts.begins_as_sound(content, "a"), "kinds.py does not know its first bytes"
    assert samples_at(path, layout).tobytes() == SOUND.tobytes()
    if not UNREAD & {name, container}:
        agree_with_soundfile(path, layout)


@pytest.mark.parametrize(("content", "coding", "container"), OTHERS.values(), ids=OTHERS.keys())
def test_only_samples_change_and_come_back(tmp_path, key, content, coding, container):
    path = tmp_path / "word" / "a"
    path.parent.mkdir()
    path.write_bytes(content)
    layout = layout_of(path)
    end = layout.offset + layout.frames * layout.frame_bytes
    protect_folder(path.parent, None, key, strength=0.01)  # so that few of these loud samples are saturated
    marked = path.read_bytes()
    assert (marked[: layout.offset], marked[end:]) == (content[: layout.offset], content[end:])
    assert marked != content
    assert restore_folder(path.parent, key).state == "restored"
    assert path.read_bytes() == content


WRITTEN = [
    (container, coding, endian)
    for container in ("AIFF", "AU", "CAF", "NIST", "RF64", "W64", "WAV", "WAVEX")
    for coding in CODINGS
    for endian in ("FILE", "LITTLE", "BIG")
    if soundfile.check_format(container, coding, endian)
]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("container", "coding", "endian"), WRITTEN, ids=["-".join(one) for one in WRITTEN])
def test_layouts_of_every_uncompressed_file_that_libsndfile_writes(tmp_path, container, coding, endian, channels):
    samples = noise(101, channels, coding)
    path = tmp_path / "a"
    with soundfile.SoundFile(str(path), "w", 22050, channels, coding, endian, container) as file:
        file.write(samples << 8 if coding == "PCM_24" else samples)
    layout = layout_of(path)
    assert samples_at(path, layout).tobytes() == samples.tobytes()
    agree_with_soundfile(path, layout)


BAD_OTHERS = {
    "AIFF without COMM": (aiff(ssnd(BIG)), "it has no COMM chunk"),
    "AIFF without SSND": (aiff(comm(40)), "it has no SSND chunk"),
    "AIFF with two": (aiff(comm(40), ssnd(BIG), ssnd(BIG)), "it has two SSND chunks"),
    "AIFF that counts too much": (aiff(comm(41), ssnd(BIG)), "counts 41 frames, and its SSND chunk has 40"),
    "AIFF that counts too little": (aiff(comm(10), ssnd(BIG)), "counts 10 frames, and its SSND chunk has 40"),
    "AIFF that was cut": (aiff(comm(40), ssnd(BIG))[:-9], "ends past the file's"),
    "AIFF of 20 bits": (aiff(comm(26, bits=20), ssnd(BIG[:78])), "only 20 of its 24 bits are valid"),
    "AIFF of 8 bits": (aiff(comm(80, bits=8), ssnd(BIG)), "its samples are 8-bit PCM"),
    "AIFF whose sound is moved out": (
        aiff(comm(40), big(b"SSND", struct.pack(">II", 99, 0) + BIG)),
        "SSND chunk has 0",
    ),
    "AIFC of mu-law": (aiff(comm(80, compression=b"ulaw\0\0"), ssnd(BIG), kind=b"AIFC"), "are compressed ('ulaw')"),
    "AIFF of no rate": (aiff(comm(40, rate=1)[:-10] + bytes(10), ssnd(BIG)), "a sample rate of 0"),
    "AIFF of half a hertz": (aiff(comm(40)[:-10] + struct.pack(">HQ", 16382, 1 << 63), ssnd(BIG)), "rate of 0.5"),
    "AIFF of a short COMM": (aiff(big(b"COMM", bytes(8)), ssnd(BIG)), "its COMM chunk has 8 bytes"),
    "CAF of ALAC": (caf(desc(b"alac"), caf_chunk(b"data", bytes(4) + LITTLE)), "are compressed ('alac')"),
    "CAF without desc": (caf(caf_chunk(b"data", bytes(4) + LITTLE)), "it has no desc chunk"),
    "CAF that was cut": (caf(desc(), caf_chunk(b"data", bytes(4) + LITTLE))[:-9], "ends past the file's"),
    "CAF of odd packets": (caf(desc(packet=3), caf_chunk(b"data", bytes(4) + LITTLE)), "only 16 of its 24 bits"),
    "CAF of many frames a packet": (caf(desc(frames=2), caf_chunk(b"data", bytes(4))), "2 bytes and 2 frames a packet"),
    "CAF of an infinite rate": (caf(desc(rate=float("inf")), caf_chunk(b"data", bytes(4))), "a sample rate of inf"),
    "AU of mu-law": (au(BIG, encoding=1), "of the AU encoding 1"),
    "AU that was cut": (au(BIG)[:-2], "its samples of 80 bytes ends past"),
    "AU that counts too little": (au(BIG, size=20), "its header counts 44 of its 104 bytes"),
    "AU of 0 channels": (au(BIG, channels=0), "its header says 0 channels"),
    "AU that begins behind its end": (au(b"", offset=99)[:60], "its samples begin at byte 99, and it has 60"),
    "SPHERE, compressed": (sphere(LITTLE, sample_coding="pcm,embedded-shorten-v2.00"), "as sph2pipe does"),
    "SPHERE that was cut": (sphere(LITTLE)[:-2], "ends past the file's"),
    "SPHERE of no number": (sphere(LITTLE, sample_rate="fast"), "its header says sample_rate 'fast'"),
    "SPHERE of odd order": (sphere(LITTLE, sample_byte_format="1"), "come in the order '1'"),
    "SPHERE without an end": (sphere(LITTLE).replace(b"end_head", b"endless!"), "its header does not end"),
    "SPHERE of a long header": (sphere(LITTLE).replace(b"   1024", b"9999999"), "does not say how long its header is"),
    "Wave64 of tiny chunks": (w64(b"fmt " + WAVE64_TAIL + bytes(8)), "it has a chunk of 0 bytes"),
    "Wave64 without WAVE": (w64()[:24] + bytes(40), "it begins as Wave64 but does not go on so"),
    "RF64 without ds64": (riff(chunk(b"data", LITTLE, UNKNOWN), form=b"RF64"), "does not say how long its data is"),
}


@pytest.mark.parametrize(("content", "sentence"), BAD_OTHERS.values(), ids=BAD_OTHERS.keys())
def test_a_header_that_contradicts_itself_or_the_file_is_refused(content, sentence):
    with pytest.raises(AudioFileError) as caught:
        containers.parse(content, len(content), "a")
    assert str(caught.value).startswith("a cannot be used: ")
    assert str(caught.value).endswith(".")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("content", [content for content, _, _ in OTHERS.values()], ids=OTHERS.keys())
def test_a_file_that_is_cut_anywhere_gives_a_refusal_or_a_layout_inside_the_file(content):
    for size in range(len(content)):
        with contextlib.suppress(AudioFileError):
            layout = containers.parse(content[:size], size, "a")
            assert layout is None or layout.offset + layout.frames * layout.frame_bytes <= size


@given(st.sampled_from([content for content, _, _ in OTHERS.values()]), st.data())
def test_any_header_gives_a_refusal_or_a_layout_inside_the_file(template, data):
    content = bytearray(template)
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, min(len(content), 160) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        layout = containers.parse(changed, len(changed), "a")
    except AudioFileError:
        return
    if layout is not None:
        assert 0 < layout.offset <= layout.offset + layout.frames * layout.frame_bytes <= len(changed)
        assert layout.coding in codings.CODINGS
        assert layout.sample_rate > 0


@pytest.mark.parametrize("coding", [f"{coding}_BE" for coding in CODINGS])
@given(data=st.binary(max_size=240))
def test_samples_with_the_highest_byte_first_are_those_of_reversed_bytes(coding, data):
    width = codings.CODINGS[coding]
    whole = data[: len(data) // width * width]
    turned = b"".join(whole[n : n + width][::-1] for n in range(0, len(whole), width))
    samples = codings.to_samples(whole, coding)
    assert samples.tobytes() == codings.to_samples(turned, codings.little(coding)).tobytes()
    assert bytes(codings.to_bytes(samples, coding)) == whole
    assert bytes(codings.turned(whole, coding)) == turned
    assert codings.as_samples(bytearray(whole), coding, packed=True) is None


# What a header does not count.

SPEECH = bytes(range(1, 256)) * 20
TO_THE_END = {  # what is counted, and sound behind it that players may play
    "WAV, never closed": riff(chunk(b"fmt ", format_body()), b"data\0\0\0\0" + b'!A"B@0P ' + SPEECH),
    "WAV with a chunk past the end": wav(SOUND) + b"LIST\xff\xff\xff\x7f" + SPEECH,
    "WAV with a streamed chunk that is not its data": wav(SOUND) + b"abcd\xff\xff\xff\x7f" + SPEECH,
    "WAV with what begins as a tag": wav(SOUND) + b"TAG" + SPEECH,
    "WAV with what begins as ID3": wav(SOUND) + b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + SPEECH,
    "WAV with printable bytes behind": wav(SOUND) + b"a" * 4000,
    "AIFF, never closed": aiff(comm(0), ssnd(b"")) + SPEECH,
    "AIFF twice": aiff(comm(40), ssnd(BIG)) * 2,
    "CAF, never closed": caf(desc(), caf_chunk(b"data", bytes(4))) + SPEECH,
    "CAF twice": caf(desc(), caf_chunk(b"data", bytes(4) + LITTLE)) * 2,
    "Wave64 with sound behind": w64(w64_chunk(b"fmt ", format_body()), w64_chunk(b"data", LITTLE)) + SPEECH,
    "Wave64 twice": w64(w64_chunk(b"fmt ", format_body()), w64_chunk(b"data", LITTLE)) * 2,
    "AU twice": au(BIG) * 2,
    "SPHERE twice": sphere(LITTLE) * 2,
}


@pytest.mark.parametrize("content", TO_THE_END.values(), ids=TO_THE_END.keys())
def test_sound_that_no_header_counts_is_refused(content):
    with pytest.raises(AudioFileError, match=r"its header counts [\d,]+ of its [\d,]+ bytes, and what follows may be"):
        containers.parse(content, len(content), "a")


@pytest.mark.parametrize("length", range(184, 3224, 8))
def test_no_sound_behind_wave64_passes_for_a_chunk(length):
    content = bytearray(w64(w64_chunk(b"fmt ", format_body()), w64_chunk(b"data", packed(noise(2000), "PCM_16"))))
    place = content.index(b"data")
    content[place + 16 : place + 24] = length.to_bytes(8, "little")
    with pytest.raises(AudioFileError, match="what follows may be sound"):
        containers.parse(bytes(content), len(content), "a")


APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32 + 5, 1, 0) + b"value"
APE_END = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32 + 5, 1, 0)


@pytest.mark.parametrize(
    "tags",
    [
        b"TAG" + bytes(range(125)),
        b"ID3\3\0\0\0\0\0\x0a" + b"x" * 10,
        b"ID3\4\0\0\0\0\1\0" + b"x" * 128 + b"TAG" + b"y" * 125,
    ],
    ids=["ID3v1", "ID3v2", "both"],
)
def test_tags_behind_the_sound_are_none(tags):
    content = wav(SOUND) + tags
    assert containers.parse(content, len(content), "a") == Uncompressed(44, 40, 1, "PCM_16", 16000)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_rate", "16\xb2"),
        ("sample_count", "9" * 5000),
        ("sample_n_bytes", "400000000"),
        ("sample_n_bytes", "0"),
        ("channel_count", "-1"),
        ("sample_rate", ""),
    ],
    ids=["superscript", "5,000 digits", "huge width", "no width", "negative", "missing"],
)
def test_numbers_of_sphere_are_small_and_plain(field, value):
    content = sphere(LITTLE, **{field: value}) if value.isascii() else sphere(LITTLE, **{field: "16@"})
    content = content.replace(b"16@", value.encode("latin-1"))
    with pytest.raises(AudioFileError, match=r"^a cannot be used: its header (says|does not end)"):
        containers.parse(content, len(content), "a")
