"""Encoded files: what decoding and encoding again keeps, and which files are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from pathlib import Path

import audiofiles
import numpy as np
import pytest
import soundfile
from audiofiles import contents, noise, read_samples, untouched
from recipes import protect_folder

from poscuda_fast import AudioFileError, DatasetError, SidecarError, restore_folder, verify_folder
from poscuda_fast.files import layouts
from poscuda_fast.files.encoded import Encoding, Writer, decode, encode

LOSSLESS = [("FLAC", "PCM_16", "flac"), ("FLAC", "PCM_24", "flac")]
LOSSY = [("MP3", "MPEG_LAYER_III", "mp3"), ("OGG", "VORBIS", "ogg"), ("OGG", "OPUS", "opus")]
INEXACT = [
    ("FLAC", "PCM_S8", "flac"),
    ("AIFF", "PCM_U8", "aiff"),
    ("AIFF", "PCM_32", "aiff"),
    ("AIFF", "DOUBLE", "aifc"),
    ("AU", "ULAW", "au"),
    ("AU", "ALAW", "au"),
    ("CAF", "ALAC_16", "caf"),
    ("CAF", "DOUBLE", "caf"),
    ("W64", "PCM_U8", "w64"),
    ("W64", "PCM_32", "w64"),
    ("W64", "MS_ADPCM", "w64"),
]
TAGS = {"title": "Täg \u2713", "artist": "a", "album": "b", "date": "2020", "tracknumber": "7", "genre": "g",
        "comment": "two\nlines", "copyright": "c", "license": "CC BY 4.0"}  # fmt: skip

lossless = pytest.mark.parametrize(("container", "coding", "ext"), LOSSLESS, ids=[f"{c}-{s}" for c, s, _ in LOSSLESS])
lossy = pytest.mark.parametrize(("container", "subtype", "ext"), LOSSY, ids=[s for _, s, _ in LOSSY])


def probe(path: Path) -> Encoding:
    """How a file is encoded; AudioFileError if it cannot be used."""
    layout, _ = layouts.of_file(str(path), path.name)
    assert isinstance(layout, Encoding)
    return layout


@lossless
@pytest.mark.parametrize("channels", [1, 2])
def test_decoding_gives_every_sample_and_how_it_was_kept(tmp_path, container, coding, ext, channels):
    samples = noise(1500, channels, coding)
    path = tmp_path / f"a.{ext}"
    audiofiles.encoded(path, samples, container, coding, 22050)
    decoded = decode(path.read_bytes(), "a")
    assert decoded.samples.dtype == np.dtype(audiofiles.DTYPES[coding])
    assert decoded.samples.shape == (1500, channels)
    assert decoded.samples.tobytes() == samples.tobytes()
    assert decoded.encoding == Encoding(container, coding, 1500, channels, 22050) == probe(path)
    assert decoded.encoding.coding == coding
    assert not decoded.encoding.lossy


@lossless
def test_encoding_keeps_samples_format_subtype_rate_and_channels(tmp_path, container, coding, ext):
    samples = noise(1500, 2, coding)
    path = tmp_path / f"a.{ext}"
    audiofiles.encoded(path, samples, container, coding, 11025)
    decoded = decode(path.read_bytes(), "a")
    changed = noise(1500, 2, coding, seed=1)
    again = tmp_path / f"b.{ext}"
    again.write_bytes(encode(dataclasses.replace(decoded, samples=changed)))
    assert read_samples(again, coding).tobytes() == changed.tobytes()
    assert probe(again) == probe(path)


@pytest.mark.parametrize("coding", ["PCM_16", "PCM_24"])
def test_extreme_samples_survive_flac(coding):
    top = 2**15 if coding == "PCM_16" else 2**23
    edges = np.array([-top, top - 1, 0, -1, 1] * 300, audiofiles.DTYPES[coding])[:, None]
    encoding = Encoding("FLAC", coding, len(edges), 1, 48000)
    decoded = decode(encode(_decoded(edges, encoding)), "a")
    assert decoded.samples.tobytes() == edges.tobytes()


def test_flac_keeps_its_text_tags(tmp_path):
    path = tmp_path / "a.flac"
    audiofiles.encoded(path, noise(500), "FLAC", "PCM_16", **TAGS)
    decoded = decode(path.read_bytes(), "a")
    assert decoded.tags == TAGS
    again = tmp_path / "b.flac"
    again.write_bytes(encode(decoded))
    with soundfile.SoundFile(str(again)) as file:
        assert file.copy_metadata() == TAGS


def test_protecting_a_flac_file_keeps_its_text_tags(tmp_path, key):
    path = tmp_path / "a.flac"
    audiofiles.encoded(path, noise(500), "FLAC", "PCM_16", software="encoder 1", **TAGS)
    with soundfile.SoundFile(str(path)) as file:
        before = file.copy_metadata()
    content = path.read_bytes()
    protect_folder(path, None, key)
    assert path.read_bytes() != content
    with soundfile.SoundFile(str(path)) as file:
        assert file.copy_metadata() == before


def test_samples_that_an_encoding_cannot_hold_are_refused():
    samples = np.full((100, 1), 2**23, np.int32)
    with pytest.raises(AudioFileError, match="Encoding as FLAC/PCM_24 does not keep every sample; convert the file"):
        encode(_decoded(samples, Encoding("FLAC", "PCM_24", 100, 1, 16000)))


@lossy
def test_lossy_files_are_known_as_such(tmp_path, container, subtype, ext):
    path = tmp_path / f"a.{ext}"
    audiofiles.lossy(path, container, subtype)
    encoding = probe(path)
    assert encoding.lossy
    assert encoding.coding == "PCM_16"
    decoded = decode(path.read_bytes(), "a")
    assert decoded.samples.shape == (encoding.frames, 1)
    assert decoded.samples.tobytes() == read_samples(path, "PCM_16").tobytes()


@lossy
def test_lossy_files_encode_as_16_bit_flac(tmp_path, container, subtype, ext):
    path = tmp_path / f"a.{ext}"
    audiofiles.lossy(path, container, subtype)
    decoded = decode(path.read_bytes(), "a")
    again = tmp_path / "a.flac"
    again.write_bytes(encode(decoded))
    assert probe(again) == Encoding("FLAC", "PCM_16", len(decoded.samples), 1, decoded.encoding.sample_rate)
    assert read_samples(again, "PCM_16").tobytes() == decoded.samples.tobytes()


@lossy
@pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
def test_lossy_files_are_refused_unless_asked_for(tmp_path, key, container, subtype, ext, copying):
    src = _folder_with_lossy(tmp_path, container, subtype, ext)
    dst = tmp_path / "dst" if copying else None
    sentence = (
        rf"nothing was written:\n  yes/b\.{ext} is lossy, so it cannot be edited exactly; a copy can turn it into"
    )
    with untouched(tmp_path), pytest.raises(DatasetError, match=sentence):
        protect_folder(src, dst, key)


@lossy
def test_lossy_files_are_never_edited_in_place(tmp_path, key, container, subtype, ext):
    src = _folder_with_lossy(tmp_path, container, subtype, ext)
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"yes/b\.\w+ is lossy.*a copy can turn it into FLAC"):
        protect_folder(src, None, key, lossy="flac")


@lossy
def test_lossy_files_become_protected_flac_in_a_copy(tmp_path, key, container, subtype, ext):
    src = _folder_with_lossy(tmp_path, container, subtype, ext)
    dst = tmp_path / "dst"
    with untouched(src):
        report = protect_folder(src, dst, key, lossy="flac")
    assert (report.clips, report.patches) == (2, 2)
    assert set(contents(dst)) == {"yes/a.wav", "yes/b.flac"}
    plain = read_samples(src / f"yes/b.{ext}", "PCM_16")
    wet, _ = audiofiles.protected(plain, "PCM_16", "yes", key)
    assert probe(dst / "yes/b.flac").subtype == "PCM_16"
    assert read_samples(dst / "yes/b.flac", "PCM_16").tobytes() == wet.tobytes()
    for source in (None, src):
        assert verify_folder(dst, key, source=source).protected == 2


def test_a_lossy_file_and_its_lossless_twin_would_collide_in_a_copy(tmp_path, key):
    src = _folder_with_lossy(tmp_path, *LOSSY[0])
    audiofiles.encoded(src / "yes/b.flac", noise(500), "FLAC", "PCM_16")
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"colliding names.*nothing was written"):
        protect_folder(src, tmp_path / "dst", key, lossy="flac")


def test_lossy_takes_two_words_only(tmp_path, key):
    src = _folder_with_lossy(tmp_path, *LOSSY[0])
    with untouched(tmp_path), pytest.raises(ValueError, match="lossy is 'mp3'; expected 'refuse' or 'flac'"):
        protect_folder(src, tmp_path / "dst", key, lossy="mp3")


@pytest.mark.parametrize(("container", "subtype", "ext"), INEXACT, ids=[f"{c}-{s}" for c, s, _ in INEXACT])
def test_samples_that_cannot_be_edited_exactly_are_refused(tmp_path, key, container, subtype, ext):
    (tmp_path / "src").mkdir()
    path = tmp_path / "src" / f"a.{ext}"
    tone = 0.1 * np.sin(0.05 * np.arange(2000))
    soundfile.write(str(path), tone, 16000, subtype, format=container)
    sentence = rf"a\.{ext} cannot be used: .*convert it"
    with untouched(tmp_path):
        with pytest.raises(AudioFileError, match=sentence):
            probe(path)
        with pytest.raises(DatasetError, match=sentence):
            protect_folder(tmp_path / "src", None, key)
        with pytest.raises(DatasetError, match=sentence):
            protect_folder(tmp_path / "src", tmp_path / "dst", key)


@pytest.mark.parametrize("content", [b"", b"fLaC", b"not audio at all", bytes(10_000)], ids=len)
@pytest.mark.parametrize("ext", ["flac", "aiff", "mp3"])
def test_what_is_not_audio_is_refused(tmp_path, key, ext, content):
    (tmp_path / "src").mkdir()
    path = tmp_path / "src" / f"a.{ext}"
    path.write_bytes(content)
    with untouched(tmp_path):
        with pytest.raises(AudioFileError, match=rf"a\.{ext} cannot be used: .+\."):
            probe(path)
        with pytest.raises(AudioFileError, match=r"a cannot be used: libsndfile cannot decode it \(.+\)\."):
            decode(content, "a")
        with pytest.raises(
            DatasetError, match=rf"1 of 1 files in .* cannot be used; nothing was written:\n  .*a\.{ext}"
        ):
            protect_folder(tmp_path / "src", None, key)


@lossless
def test_a_file_that_was_cut_short_never_decodes_to_fewer_frames_than_it_says(tmp_path, container, coding, ext):
    path = tmp_path / f"a.{ext}"
    audiofiles.encoded(path, noise(3000, 1, coding), container, coding)
    content = path.read_bytes()
    refused = 0
    for end in range(0, len(content), len(content) // 29):
        path.write_bytes(content[:end])
        try:
            assert probe(path).frames == len(decode(content[:end], "a").samples)
        except AudioFileError:
            refused += 1
    assert refused > 0


def test_flac_that_was_cut_short_is_refused():
    encoding = Encoding("FLAC", "PCM_16", 9000, 1, 16000)
    content = encode(_decoded(noise(9000), encoding))
    for end in range(0, len(content), len(content) // 50):
        with pytest.raises(AudioFileError, match=r"a cannot be used: "):
            decode(content[:end], "a")


def test_flac_with_flipped_bytes_gives_a_clear_error_or_as_many_frames_as_it_says():
    encoding = Encoding("FLAC", "PCM_16", 9000, 1, 16000)
    content = encode(_decoded(noise(9000), encoding))
    refused = 0
    for place in range(60, len(content), len(content) // 60):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        try:
            assert len(decode(bytes(flipped), "a").samples) == 9000
        except AudioFileError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("frames", [0, 2**36 - 1], ids=["unknown", "impossible"])
def test_flac_that_does_not_know_its_length_is_refused(tmp_path, key, frames):
    path = tmp_path / "src" / "a.flac"
    path.parent.mkdir()
    audiofiles.encoded(path, noise(2000), "FLAC", "PCM_16")
    content = bytearray(path.read_bytes())
    # Total samples: the low 36 bits of the STREAMINFO block's bytes 10 to 17.
    content[21] = content[21] & 0xF0 | frames >> 32
    content[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(AudioFileError, match="a cannot be used"):
        decode(bytes(content), "a")
    with untouched(tmp_path), pytest.raises((AudioFileError, DatasetError), match=r"a\.flac cannot be used"):
        protect_folder(tmp_path / "src", None, key)


def _decoded(samples: np.ndarray, encoding: Encoding):
    """Samples as if they had been decoded."""
    from poscuda_fast.files.encoded import Decoded

    return Decoded(samples, encoding, {})


def _folder_with_lossy(root: Path, container: str, subtype: str, ext: str) -> Path:
    """A class folder with a WAV and a lossy file."""
    folder = root / "src" / "yes"
    folder.mkdir(parents=True)
    (folder / "a.wav").write_bytes(audiofiles.wav(noise(800)))
    audiofiles.lossy(folder / f"b.{ext}", container, subtype)
    return root / "src"


def test_the_same_samples_become_the_same_bytes_at_any_time():
    """So that a copy that was stopped knows its own files again."""
    encoding = Encoding("FLAC", "PCM_16", 500, 1, 16_000)
    written = []
    for _ in range(2):
        target = io.BytesIO()
        with Writer(target, encoding, {"title": "a"}) as writer:
            writer.write(noise(500))
        written.append(target.getvalue())
        time.sleep(1.01)  # a time would have seconds
    assert written[0] == written[1]


@pytest.mark.parametrize("verb", ["verify", "restore", "protect"])
def test_a_header_that_leads_before_the_beginning_prints_nothing(tmp_path, key, capfd, verb):
    """libsndfile then seeks there, by calls of Python whose errors cffi would print."""
    src = tmp_path / "src"
    for name in ("a", "b"):
        (src / name).mkdir(parents=True)
        audiofiles.encoded(src / name / "1.aiff", noise(2000), "AIFF", "PCM_16")
    path = src / "a/1.aiff"
    protect_folder(src, None, key)
    whole = path.read_bytes()
    at = whole.index(b"SSND")
    for place in range(at, at + 4):
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        with contextlib.suppress(SidecarError, DatasetError, AudioFileError):
            if verb == "verify":
                verify_folder(src, key)  # a header of AIFF is not a part of what is marked
            elif verb == "restore":
                restore_folder(src, key)
            else:
                protect_folder(src, None, key, partial=True)
    assert capfd.readouterr().err == ""
