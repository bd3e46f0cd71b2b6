"""What docs/folders.md says of each kind of file, tried with the encoders of FFmpeg, flac and sox, where installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import audiofiles
import av
import numpy as np
import pytest
from audiofiles import contents, noise, untouched

from poscuda_fast import DatasetError, Key, Recipe, protect_folder, restore_folder, verify_folder

FRAMES = 9_000
# Container of FFmpeg -> its encoders, each with the coding that it writes.
MARKED = {
    "wav": {"pcm_s16le": "PCM_16", "pcm_s24le": "PCM_24", "pcm_f32le": "FLOAT"},
    "aiff": {"pcm_s16be": "PCM_16", "pcm_s24be": "PCM_24", "pcm_f32be": "FLOAT"},
    "caf": {"pcm_s16be": "PCM_16", "pcm_s24le": "PCM_24", "pcm_f32le": "FLOAT"},
    "au": {"pcm_s16be": "PCM_16", "pcm_s24be": "PCM_24", "pcm_f32be": "FLOAT"},
    "w64": {"pcm_s16le": "PCM_16", "pcm_s24le": "PCM_24", "pcm_f32le": "FLOAT"},
    "flac": {"flac": "PCM_16"},
}
LOSSY = {"mp3": "libmp3lame", "opus": "libopus"}
REFUSED = {
    "m4a": "aac", "webm": "libopus", "mka": "pcm_s16le", "mp2": "mp2", "wv": "wavpack", "voc": "pcm_u8", "adts": "aac",
}  # fmt: skip
FORMATS = {"m4a": "ipod", "mka": "matroska"}
PLAIN = [(container, encoder) for container, encoders in MARKED.items() for encoder in encoders]


def encode(path: Path, container: str, encoder: str, channels: int = 1, rate: int = 16_000) -> Path:
    """A file that FFmpeg writes, with a tag."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = {1: "mono", 2: "stereo"}[channels]
    samples = noise(FRAMES, channels) // 8
    with av.open(str(path), "w", format=FORMATS.get(container, container)) as out:
        stream = out.add_stream(encoder, rate=rate, layout=layout)
        out.metadata["title"] = "a title"
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
        fifo = av.AudioFifo()
        for part in resampler.resample(frame):
            fifo.write(part)
        size = stream.codec_context.frame_size or FRAMES
        while piece := fifo.read(size, partial=True):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def decode(path: Path) -> np.ndarray:
    """All samples as FFmpeg decodes them, (frames, channels)."""
    with av.open(str(path)) as file:
        parts = [frame.to_ndarray() for frame in file.decode(audio=0)]
        channels = file.streams.audio[0].codec_context.layout.nb_channels
    return np.concatenate([part.T if len(part) == channels > 1 else part.reshape(-1, channels) for part in parts])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("container", "encoder"), PLAIN, ids=["-".join(one) for one in PLAIN])
def test_what_ffmpeg_writes_is_marked_and_comes_back(tmp_path, container, encoder, channels):
    key, recipe = Key(bytes(range(32))), Recipe.strong()
    src = tmp_path / "src"
    path = encode(src / f"yes/a.{container}", container, encoder, channels)
    encode(src / f"no/b.{container}", container, encoder, channels)
    before, dry = contents(src), decode(path)
    protect_folder(src, tmp_path / "copy", key)
    protect_folder(src, None, key)
    now = contents(src)
    assert now == contents(tmp_path / "copy")
    coding = MARKED[container][encoder]
    plain = audiofiles.read_samples(path, coding)
    (tmp_path / "was").write_bytes(before[f"yes/a.{container}"])
    expected, _ = audiofiles.protected(audiofiles.read_samples(tmp_path / "was", coding), coding, "yes", key, recipe)
    assert plain.tobytes() == expected.tobytes()
    wet = decode(path)
    assert wet.shape == dry.shape == (FRAMES, channels)
    assert not np.array_equal(wet, dry)
    if container != "flac":
        changed = sum(a != b for a, b in zip(now[f"yes/a.{container}"], before[f"yes/a.{container}"], strict=True))
        assert 0 < changed <= plain.nbytes
    assert verify_folder(src, key).protected == 2
    restore_folder(src, key)
    assert contents(src) == before


@pytest.mark.parametrize(("container", "encoder"), [*LOSSY.items(), *REFUSED.items()])
def test_what_is_not_marked_is_refused_or_left_and_named(tmp_path, container, encoder):
    key, src = Key(bytes(range(32))), tmp_path / "src"
    encode(src / "yes/a.wav", "wav", "pcm_s16le")
    encode(src / f"no/b.{container}", container, encoder, rate=48_000)
    (src / f"no/b.{container}").rename(src / "no/b")  # its name does not tell
    before = contents(src)
    for dst in (None, tmp_path / "copy"):
        with untouched(tmp_path), pytest.raises(DatasetError, match=r"1 of 2 files in .*\n  no/b "):
            protect_folder(src, dst, key)
    report = protect_folder(src, None, key, skip_unusable=True)
    assert [line.split()[0] for line in report.unprotected] == ["no/b"]
    assert verify_folder(src, key).unprotected == ("no/b",)
    restore_folder(src, key)
    assert contents(src) == before


def test_mp3_of_ffmpeg_becomes_flac_in_a_copy(tmp_path):
    key, src = Key(bytes(range(32))), tmp_path / "src"
    encode(src / "yes/a.mp3", "mp3", "libmp3lame", rate=48_000)
    assert protect_folder(src, tmp_path / "copy", key, lossy="flac").clips == 1
    assert list(contents(tmp_path / "copy")) == ["yes/a.flac"]
    assert len(decode(tmp_path / "copy/yes/a.flac")) >= FRAMES


@pytest.mark.skipif(not shutil.which("flac"), reason="flac is not installed")
@pytest.mark.parametrize("options", [["-8", "-b", "1152", "-S", "0.1s"], ["-0", "-b", "16", "--lax"], ["-5"]], ids=str)
def test_files_of_flac_pass_its_own_test_when_marked(tmp_path, options):
    key, src = Key(bytes(range(32))), tmp_path / "src"
    (src / "yes").mkdir(parents=True)
    (tmp_path / "a.wav").write_bytes(audiofiles.wav(noise(FRAMES, 2) // 8, rate=44_100))
    path = src / "yes/a.flac"
    subprocess.run(
        ["flac", "-s", *options, "-T", "ARTIST=x", "-T", "ARTIST=y", "-o", path, tmp_path / "a.wav"], check=True
    )
    before = path.read_bytes()
    protect_folder(src, None, key)
    subprocess.run(["flac", "-s", "-t", path], check=True)
    assert path.read_bytes() != before
    tags = subprocess.run(["metaflac", "--export-tags-to=-", path], check=True, capture_output=True).stdout.split()
    assert tags == [b"ARTIST=x", b"ARTIST=y"]
    restore_folder(src, key)
    assert path.read_bytes() == before


@pytest.mark.skipif(not shutil.which("sox"), reason="sox is not installed")
@pytest.mark.parametrize("kind", ["wav", "aiff", "au", "caf", "w64", "flac", "nist", "sph"])
def test_files_of_sox_are_marked_and_come_back(tmp_path, kind):
    key, src = Key(bytes(range(32))), tmp_path / "src"
    (src / "yes").mkdir(parents=True)
    path = src / f"yes/a.{kind}"
    subprocess.run(["sox", "-n", "-r", "16000", "-b", "16", "-c", "2", path, "synth", "1", "sine", "440"], check=True)
    with open(src / "yes/stream.wav", "wb") as file:  # to a pipe, without its length
        subprocess.run(["sox", path, "-t", "wav", "-"], check=True, stdout=file, stderr=subprocess.DEVNULL)
    before = contents(src)
    assert protect_folder(src, None, key).clips == 2
    assert all(content != before[name] for name, content in contents(src).items())
    assert verify_folder(src, key).protected == 2
    restore_folder(src, key)
    assert contents(src) == before
