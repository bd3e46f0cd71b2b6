"""Layouts of sound WAV and NPY files, and the exact way from their bytes to samples and back."""

from __future__ import annotations

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

from poscuda_fast import AudioFileError
from poscuda_fast.arrays import mapped
from poscuda_fast.arrays.mapped import map_npy
from poscuda_fast.files import headers
from poscuda_fast.mark import codings

CODINGS = ["PCM_16", "PCM_24", "FLOAT"]
EDGES_24 = [-(2**23), 1 - 2**23, -(2**16) - 1, -(2**15), -257, -256, -1, 0, 1, 127, 128, 255, 256, 2**16, 2**23 - 1]


def layout_of(path: Path) -> headers.WavLayout:
    with open(path, "rb") as file:
        return headers.read_wav(file, str(path))


def npy_layout_of(path: Path) -> mapped.NpyLayout:
    with open(path, "rb") as file:
        return mapped.read_npy(file, str(path))


def samples_at(path: Path, layout: headers.WavLayout) -> np.ndarray:
    """The samples that a layout points to."""
    data = path.read_bytes()[layout.offset : layout.offset + layout.frames * layout.frame_bytes]
    return codings.to_samples(data, layout.coding).reshape(layout.frames, layout.channels)


def agree_with_soundfile(path: Path, layout: headers.WavLayout) -> None:
    info = soundfile.info(str(path))
    assert (layout.frames, layout.channels, layout.coding) == (info.frames, info.channels, info.subtype)
    assert layout.sample_rate == info.samplerate
    expected = audiofiles.read_samples(path, layout.coding)
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
    assert layout == headers.WavLayout(header, 101, channels, coding, 22050)
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
    assert layout_of(path) == headers.WavLayout(header, frames, 1, "PCM_16", 16000)


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


@pytest.mark.parametrize("trailing", [b"\0", b"x" * 7, b"x" * 8, bytes(5000)], ids=["1", "7", "8", "5000"])
def test_bytes_behind_what_the_header_counts_do_not_matter(tmp_path, trailing):
    samples = noise(40, 2)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(samples) + trailing)
    assert layout_of(path) == headers.WavLayout(44, 40, 2, "PCM_16", 16000)


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
    assert layout_of(path) == headers.WavLayout(44, 9, 1, "PCM_16", 16000)


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
    assert headers.WavLayout(44, 1, 1, "PCM_16", 8000).frame_bytes == 2
    assert headers.WavLayout(44, 1, 2, "PCM_24", 8000).frame_bytes == 6
    assert headers.WavLayout(44, 1, 8, "FLOAT", 8000).frame_bytes == 32


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
