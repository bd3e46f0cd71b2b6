"""FLAC files keep, byte for byte, all that they carry beside their samples; their seek tables are right again."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import audiofiles
import numpy as np
import pytest
import soundfile
from audiofiles import contents, noise, untouched
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import protect_folder

from poscuda_fast import AudioFileError, DatasetError, Protector, restore_folder, verify_folder
from poscuda_fast.files import flac

PADDING, APPLICATION, SEEKTABLE, COMMENT, CUESHEET, PICTURE = range(1, 7)
NO_POINT = (2**64 - 1, 0, 0)
Blocks = list[tuple[int, bytes]]


def comment(*fields: str) -> bytes:
    """A VORBIS_COMMENT block, which may have a field many times."""
    texts = [b"an encoder", *(field.encode() for field in fields)]
    vendor, *rest = [struct.pack("<I", len(text)) + text for text in texts]
    return vendor + struct.pack("<I", len(rest)) + b"".join(rest)


def points(*places: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack(">QQH", *place) for place in places)


PICTURE_BLOCK = (
    struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, 4, 4, 24, 0, 8) + b"\x89PNG\r\n\x1a\n"
)
CUE = b"1234567890123".ljust(128, b"\0") + struct.pack(">Q", 88200) + b"\x80" + bytes(258) + b"\2"
CUE += struct.pack(">QB12sB13sB", 0, 1, b"", 0, b"", 1) + struct.pack(">QB3s", 0, 1, b"")
CUE += struct.pack(">QB12sB13sB", 10_000, 170, b"", 0, b"", 0)
EVERYTHING: Blocks = [
    (SEEKTABLE, points((0, 0, 0), (5000, 1, 1), (9000, 77, 4), NO_POINT, NO_POINT)),
    (COMMENT, comment("ARTIST=first", "ARTIST=second", "SPEAKER_ID=p225", "WAVEFORMATEXTENSIBLE_CHANNEL_MASK=0x5003")),
    (APPLICATION, b"riffRIFF\x24\0\0\0WAVE"),
    (PICTURE, PICTURE_BLOCK),
    (PADDING, bytes(77)),
    (APPLICATION, b"test"),
    (PADDING, b""),
]
ID3 = b"ID3\x03\0\0\0\0\x02\x05" + bytes(2 * 128 + 5)
ID3V1 = b"TAG" + b"a title".ljust(125, b"\0")


def parsed(content: bytes) -> tuple[bytes, Blocks, bytes]:
    """(before, blocks, frames and what follows) of a FLAC file."""
    begin = content.index(b"fLaC")
    position, blocks, is_last = begin + 4, [], False
    while not is_last:
        is_last, kind = bool(content[position] & 0x80), content[position] & 0x7F
        size = int.from_bytes(content[position + 1 : position + 4], "big")
        blocks.append((kind, content[position + 4 : position + 4 + size]))
        position += 4 + size
    return content[:begin], blocks, content[position:]


def made(before: bytes, blocks: Blocks, frames: bytes) -> bytes:
    """The inverse of `parsed`."""
    content = before + b"fLaC"
    for number, (kind, body) in enumerate(blocks):
        content += bytes([kind | 0x80 * (number == len(blocks) - 1)]) + len(body).to_bytes(3, "big") + body
    return content + frames


def encoded(samples: np.ndarray, more: Blocks = EVERYTHING, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A FLAC file with metadata blocks of its own."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, "PCM_16", format="FLAC")
    _, blocks, frames = parsed(file.getvalue())
    return made(before, [blocks[0], *more], frames + behind)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def check_points(content: bytes) -> list[tuple[int, int, int]]:
    """The points of a seek table, each of which must lead to the frame that it names."""
    _, blocks, frames = parsed(content)
    table = next(body for kind, body in blocks if kind == SEEKTABLE)
    block, total = int.from_bytes(blocks[0][1][2:4], "big"), int.from_bytes(blocks[0][1][14:18], "big")
    found = list(struct.iter_unpack(">QQH", table))
    real = [point for point in found if point != NO_POINT]
    assert real == sorted(set(real))
    assert found == real + [NO_POINT] * (len(found) - len(real))
    for first, place, size in real:
        assert frames[place : place + 2] == b"\xff\xf8"
        assert frames[place + 4] * block == first  # below 128 a number is coded as itself
        assert size == min(block, total - first)
    return real


@pytest.mark.parametrize("before", [b"", ID3], ids=["plain", "ID3v2"])
@pytest.mark.parametrize("behind", [b"", ID3V1], ids=["", "ID3v1"])
def test_a_protected_file_carries_what_the_original_did(tmp_path, key, before, behind):
    samples = noise(10_000, 2)
    src = tmp_path / "src"
    write(src / "yes/a.flac", encoded(samples, before=before, behind=behind))
    write(src / "no/b.flac", encoded(samples, [(PICTURE, PICTURE_BLOCK), (CUESHEET, CUE)]))
    original = contents(src)
    protect_folder(src, tmp_path / "copy", key)
    protect_folder(src, None, key)
    assert contents(src) == contents(tmp_path / "copy")
    for name, content in contents(src).items():
        was, now = parsed(original[name]), parsed(content)
        assert now[0] == was[0]
        assert [kind for kind, _ in now[1]] == [kind for kind, _ in was[1]]
        assert [one for one in now[1][1:] if one[0] != SEEKTABLE] == [one for one in was[1][1:] if one[0] != SEEKTABLE]
        assert now[2].endswith(behind if name.startswith("yes") else b"")
        assert soundfile.read(io.BytesIO(content), dtype="int16")[0].tobytes() != samples.tobytes()
    real = check_points((src / "yes/a.flac").read_bytes())
    assert [first for first, _, _ in real] == [0, 4096, 8192]
    assert verify_folder(src, key).protected == 2
    restore_folder(src, key)
    assert contents(src) == original


def test_what_has_no_file_keeps_it_too(tmp_path, key):
    key.save(tmp_path / "my.key")
    content = encoded(noise(9000))
    done = Protector(tmp_path / "my.key")({"audio": [content], "label": ["yes"]})["audio"][0]
    assert parsed(done)[1][2:] == parsed(content)[1][2:]
    check_points(done)


@pytest.mark.parametrize("frames", [1, 4095, 4096, 4097, 300_000])
def test_seek_points_of_files_of_any_length(tmp_path, key, frames):
    wanted = [0, 1, frames // 2, frames - 1, frames, 2 * frames]
    table = points(*((first, 0, 0) for first in sorted(set(wanted))))
    path = write(tmp_path / "yes/a.flac", encoded(noise(frames) // 2, [(SEEKTABLE, table)]))
    protect_folder(path, None, key, labels_from={"a.flac": "yes"})
    real = check_points(path.read_bytes())
    assert {first for first, _, _ in real} == {first // 4096 * 4096 for first in wanted if first < frames}


def streaminfo(content: bytes, total: int) -> bytes:
    """The same file with another number of samples in its header."""
    before, blocks, frames = parsed(content)
    info = bytearray(blocks[0][1])
    info[13] = info[13] & 0xF0 | total >> 32
    info[14:18] = (total & 2**32 - 1).to_bytes(4, "big")
    return made(before, [(0, bytes(info)), *blocks[1:]], frames)


@pytest.mark.parametrize("behind", [b"", ID3V1], ids=["", "ID3v1"])
@pytest.mark.parametrize(
    ("total", "sentence"),
    [
        (0, "does not say how long it is"),
        (1000, "counts 1,000 samples, and its frames end with sample 9,001"),
        (9000, "counts 9,000 samples"),
    ],
)
def test_a_header_that_counts_too_few_samples_is_refused(tmp_path, key, total, sentence, behind):
    write(tmp_path / "src/yes/a.flac", streaminfo(encoded(noise(9001), behind=behind), total))
    with untouched(tmp_path), pytest.raises(DatasetError, match=re.escape(sentence)):
        protect_folder(tmp_path / "src", None, key)


def test_a_header_that_counts_too_many_samples_is_refused(tmp_path, key):
    write(tmp_path / "src/yes/a.flac", streaminfo(encoded(noise(9001)), 9002))
    with (
        untouched(tmp_path),
        pytest.raises(DatasetError, match=r"counts 9,002 samples, and its frames end with sample 9,001"),
    ):
        protect_folder(tmp_path / "src", None, key)


@pytest.mark.parametrize("bits", [4, 8, 12, 20, 32])
def test_a_depth_that_is_not_marked_is_named(tmp_path, key, bits):
    content = bytearray(encoded(noise(500)))
    place = content.index(b"fLaC") + 8 + 12  # where STREAMINFO tells channels and bits
    content[place] = content[place] & 0xFE | bits - 1 >> 4
    content[place + 1] = content[place + 1] & 0x0F | (bits - 1 & 15) << 4
    write(tmp_path / "src/yes/a.flac", bytes(content))
    with untouched(tmp_path), pytest.raises(DatasetError, match=f"it is FLAC of {bits} bits; 16 and 24 are marked"):
        protect_folder(tmp_path / "src", None, key)


def test_reading_what_is_not_whole_is_refused():
    content = encoded(noise(500))
    end = len(content) - len(parsed(content)[2])
    for n in range(end):
        with pytest.raises(AudioFileError, match=r"^a cannot be used: "):
            flac.read(io.BytesIO(content[:n]), "a")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_metadata_gives_a_refusal_or_what_was_carried(data):
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        carried = flac.read(io.BytesIO(content), "a")
        flac.refuse_unmarkable(io.BytesIO(content), "a")
    except AudioFileError:
        return
    assert content.startswith(carried.head())
    assert carried.first == len(carried.head())


SMALL = encoded(noise(300))


def test_files_that_ffmpeg_writes(tmp_path, key):
    av = pytest.importorskip("av")
    path = tmp_path / "src/yes/a.flac"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16000, layout="mono")
        container.metadata["artist"] = "somebody"
        frame = av.AudioFrame.from_ndarray(noise(9000).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    before = path.read_bytes()
    protect_folder(tmp_path / "src", None, key)
    now = path.read_bytes()
    assert now != before
    assert parsed(now)[1][1:] == parsed(before)[1][1:]
    restore_folder(tmp_path / "src", key)
    assert path.read_bytes() == before
    assert audiofiles.read_samples(path, "PCM_16").tobytes() == noise(9000).tobytes()


APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32 + 5, 1, 1 << 31 | 1 << 29) + b"value"
APE += b"APETAGEX" + struct.pack("<IIII8x", 2000, 32 + 5, 1, 1 << 31)


def id3(size: int) -> bytes:
    """An ID3v2 tag of any size, as pictures make it."""
    return b"ID3\4\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + b"T" * size


@pytest.mark.parametrize(
    ("before", "behind"),
    [(id3(70_000), b""), (id3(3_000_000), ID3V1), (b"", APE), (b"", APE + ID3V1)],
    ids=["picture", "huge picture", "APEv2", "APEv2 and ID3v1"],
)
def test_tags_of_any_size_stay(tmp_path, key, before, behind):
    path = write(tmp_path / "src/yes/a.flac", encoded(noise(9000), before=before, behind=behind))
    was = path.read_bytes()
    protect_folder(tmp_path / "src", None, key)
    now = path.read_bytes()
    assert now != was
    assert now.startswith(before + b"fLaC")
    assert now.endswith(behind)
    assert parsed(now[len(before) :])[1][2:] == parsed(was[len(before) :])[1][2:]
    restore_folder(tmp_path / "src", key)
    assert path.read_bytes() == was


@pytest.mark.parametrize("more", [encoded(noise(9001)), encoded(noise(4000, seed=1)), b"garbage" * 30, b"\0" * 99])
def test_what_follows_the_last_frame_and_is_no_tag_is_refused(tmp_path, key, more):
    write(tmp_path / "src/yes/a.flac", encoded(noise(9001)) + more)
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"a\.flac cannot be used: its (last frame|header)"):
        protect_folder(tmp_path / "src", None, key)


def test_a_longest_frame_that_is_said_too_short_hides_nothing(tmp_path, key):
    content = bytearray(streaminfo(encoded(noise(20_000)), 5_000))
    place = content.index(b"fLaC") + 8 + 7
    content[place : place + 3] = (20).to_bytes(3, "big")
    write(tmp_path / "src/yes/a.flac", bytes(content))
    with untouched(tmp_path), pytest.raises(DatasetError, match="counts 5,000 samples, and its frames end with sample"):
        protect_folder(tmp_path / "src", None, key)


def test_noise_is_never_taken_for_the_head_of_a_frame():
    """Random bytes look like a head once in some thousand files: checksums of whole frames do not."""
    for seed in range(300):
        content = encoded(noise(700, 2, seed=seed), [])
        flac.refuse_unmarkable(io.BytesIO(content), "a")
