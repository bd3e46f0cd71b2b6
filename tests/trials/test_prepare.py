"""A folder of audio as arrays: every layout, samples exactly, whatever a dump holds, and nothing half made."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from experiments.data import __main__ as command
from experiments.data import layouts
from experiments.data.__main__ import main, prepare
from experiments.data.dataset import KNOWN, PER_CLIP, TEST, TRAIN, VALIDATION, Dataset, load
from experiments.data.layouts import hashed_split
from poscuda_fast import DatasetError
from poscuda_fast.evaluation.decoding import Decoded, UnusableError, decode

RATE = 8000
FRAMES = 80
SECONDS = FRAMES / RATE
ARRAYS = ("clips", *PER_CLIP)


def noise(frames: int, channels: int = 1, seed: int = 0) -> NDArray[np.int16]:
    shape = (frames, channels) if channels > 1 else frames
    return np.random.default_rng(seed).integers(-32768, 32768, shape).astype(np.int16)


def write(path: Path, samples: NDArray, rate: int = RATE, coding: str = "PCM_16", container: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, coding, format=container)


def folder_of(root: Path, *names: str) -> Path:
    """A folder of clips of different content and, by and by, different length."""
    for seed, name in enumerate(names):
        write(root / name, noise(FRAMES - seed % 7, seed=seed))
    return root


def files_of(dataset: Dataset) -> list[str]:
    return (dataset.folder / "files.txt").read_text(encoding="utf-8").split("\n")[:-1]


def about(dataset: Dataset) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((dataset.folder / "dataset.json").read_text(encoding="utf-8"))
    return facts


def speakers_of(dataset: Dataset) -> list[str]:
    return [about(dataset)["speakers"][number] for number in dataset.speaker]


def assert_row_by_row(src: Path, dataset: Dataset) -> None:
    """Every row is the file that files.txt names, read by itself."""
    names = files_of(dataset)
    frames = dataset.clips.shape[1]
    assert len(names) == len(dataset.clips) > 0
    for row, name in enumerate(names):
        samples, rate = soundfile.read(src / name, dtype="int16", frames=frames)
        assert rate == dataset.sample_rate
        assert dataset.lengths[row] == len(samples)
        np.testing.assert_array_equal(dataset.clips[row], np.pad(samples, (0, frames - len(samples))))


# Layouts


def test_fsdd(tmp_path: Path) -> None:
    words = (f"{d}_{s}_{i}.wav" for d in (3, 0, 9) for s in ("zoe", "al_x") for i in (0, 4, 5, 12))
    src = folder_of(tmp_path / "recordings", *words)
    dataset = prepare(src, tmp_path / "digits", seconds=SECONDS)
    names = files_of(dataset)
    assert names == sorted(path.name for path in src.iterdir())
    assert dataset.classes == ("0", "3", "9")
    assert [dataset.classes[label] for label in dataset.labels] == [name[0] for name in names]
    assert speakers_of(dataset) == [name[2:].rsplit("_", 1)[0] for name in names]
    assert dataset.split.tolist() == [TEST if name.endswith(("_0.wav", "_4.wav")) else TRAIN for name in names]
    assert dataset.rows(VALIDATION).size == 0
    assert (dataset.name, dataset.sample_rate, dataset.clips.shape) == ("digits", RATE, (24, FRAMES))
    assert about(dataset)["source layout"] == "fsdd"
    assert_row_by_row(src, dataset)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_speech_commands(tmp_path: Path, suffix: str) -> None:
    clips = ["yes/ab12_nohash_0", "yes/ab12_nohash_1", "yes/cd34_nohash_0", "no/ab12_nohash_0", "no/ef56_nohash_2"]
    src = folder_of(tmp_path / "src", *(clip + suffix for clip in clips), "_background_noise_/hum.wav")
    (src / "validation_list.txt").write_text("yes/cd34_nohash_0.wav\n")
    (src / "testing_list.txt").write_bytes(
        b"\xef\xbb\xbfyes/ab12_nohash_1.wav\r\n./no/ab12_nohash_0.wav\r\nup/gone_nohash_0.wav"
    )
    (src / "README.md").write_text("words")
    (src / ".DS_Store").write_text("")
    dataset = prepare(src, tmp_path / "dst", seconds=SECONDS, name="words")
    assert files_of(dataset) == [clip + suffix for clip in sorted(clips)]
    assert dataset.classes == ("no", "yes")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.split.tolist() == [TEST, TRAIN, TRAIN, TEST, VALIDATION]
    assert speakers_of(dataset) == ["ab12", "ef56", "ab12", "ab12", "cd34"]
    assert dataset.name == "words"
    assert about(dataset)["source layout"] == "speech_commands"
    assert about(dataset)["skipped"] == []
    assert_row_by_row(src, dataset)


def test_folders(tmp_path: Path) -> None:
    names = ["b/ab_nohash_0.wav", "a/ab_nohash_7.wav", "a/song.wav", "b/song.wav", "kürbis/größe.wav",
             "かな/\u0065\u0301.flac"]  # fmt: skip
    src = folder_of(tmp_path / "src", *names, "_background_noise_/x.wav", ".hidden/x.wav")
    dataset = prepare(src, tmp_path / "dst", seconds=SECONDS)
    assert files_of(dataset) == sorted(names)
    assert dataset.classes == ("a", "b", "kürbis", "かな")
    assert [dataset.classes[label] for label in dataset.labels] == [name.split("/")[0] for name in sorted(names)]
    assert speakers_of(dataset) == ["ab", "a/song", "ab", "b/song", "kürbis/größe", "かな/\u0065\u0301"]
    assert dataset.split.tolist() == [hashed_split(speaker) for speaker in speakers_of(dataset)]
    assert_row_by_row(src, dataset)


def test_hashed_split_shares() -> None:
    n = 20_000
    counts = np.bincount([hashed_split(f"speaker {number}") for number in range(n)])
    for count, share in zip(counts, (0.8, 0.1, 0.1), strict=True):
        assert abs(count - share * n) < 5 * np.sqrt(n * share * (1 - share))  # five standard deviations


def test_links_are_followed_and_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    store = folder_of(tmp_path / "store", "a/1.wav", "b/2.wav", "c/3.wav")
    src = tmp_path / "src"
    (src / "b").mkdir(parents=True)
    (src / "a").symlink_to(store / "a")
    (src / "b" / "x.wav").symlink_to(store / "b" / "2.wav")
    (src / "b" / "gone.wav").symlink_to(store / "nothing.wav")
    os.mkfifo(src / "b" / "pipe.wav")
    dataset = prepare(src, tmp_path / "dst", seconds=SECONDS)
    assert files_of(dataset) == ["a/1.wav", "b/x.wav"]
    assert [each["file"] for each in about(dataset)["skipped"]] == ["b/gone.wav", "b/pipe.wav"]


# Samples


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_every_16_bit_sample_is_kept(tmp_path: Path, suffix: str) -> None:
    samples = np.arange(-32768, 32768).astype(np.int16)
    write(tmp_path / f"all.{suffix}", samples)
    np.testing.assert_array_equal(decode(tmp_path / f"all.{suffix}", RATE, 65536).samples, samples)


@given(samples=arrays(np.int16, st.integers(1, 2 * FRAMES)), frames=st.integers(1, 2 * FRAMES))
def test_cut_and_kept(tmp_path_factory: pytest.TempPathFactory, samples: NDArray[np.int16], frames: int) -> None:
    path = tmp_path_factory.mktemp("clip") / "x.wav"
    write(path, samples)
    decoded = decode(path, RATE, frames)
    np.testing.assert_array_equal(decoded.samples, samples[:frames])
    assert (decoded.rate, decoded.channels, decoded.cut) == (RATE, 1, len(samples) > frames)


def test_padding_and_cutting_are_told(tmp_path: Path) -> None:
    clips = {frames: noise(frames, seed=frames) for frames in (1, FRAMES - 1, FRAMES, FRAMES + 1, 5 * RATE)}
    for number, samples in enumerate(clips.values()):
        write(tmp_path / "src" / "ab"[number % 2] / f"{number}.wav", samples)
    dataset = prepare(tmp_path / "src", tmp_path / "dst", seconds=SECONDS)
    assert dict(zip(files_of(dataset), dataset.lengths.tolist(), strict=True)) == {
        "a/0.wav": 1, "a/2.wav": FRAMES, "a/4.wav": FRAMES, "b/1.wav": FRAMES - 1, "b/3.wav": FRAMES,
    }  # fmt: skip
    assert about(dataset)["cut"] == 2
    assert_row_by_row(tmp_path / "src", dataset)


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = noise(FRAMES, channels)
    samples[0], samples[1] = -32768, 32767
    write(tmp_path / "x.wav", samples)
    decoded = decode(tmp_path / "x.wav", RATE, FRAMES)
    exact = samples.astype(np.int64).sum(axis=1)
    # Rounded to nearest: the error is at most half a step.
    assert (np.abs(2 * (decoded.samples.astype(np.int64) * channels - exact)) <= channels).all()
    assert (decoded.samples[0], decoded.samples[1], decoded.channels) == (-32768, 32767, channels)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_24_bit_is_rounded_and_saturated(tmp_path: Path, suffix: str) -> None:
    wide = np.array([0, 127, 128, 129, 256, 383, 384, 385, -127, -129, -(2**23), 2**23 - 1, 2**23 - 129], np.int32)
    write(tmp_path / f"x.{suffix}", wide << 8, coding="PCM_24")
    expected = [0, 0, 0, 1, 1, 1, 2, 2, 0, -1, -32768, 32767, 32767]
    assert decode(tmp_path / f"x.{suffix}", RATE, FRAMES).samples.tolist() == expected


@pytest.mark.parametrize("coding", ["FLOAT", "DOUBLE"])
def test_float_is_rounded_and_saturated(tmp_path: Path, coding: str) -> None:
    samples = np.array([0, 0.5, -1, 1, 1.5, -7, 0.4 / 32768, 0.6 / 32768, -0.6 / 32768])
    write(tmp_path / "x.wav", samples, coding=coding)
    decoded = decode(tmp_path / "x.wav", RATE, FRAMES)
    assert decoded.samples.tolist() == [0, 16384, -32768, 32767, 32767, -32768, 0, 1, -1]


@pytest.mark.parametrize(("name", "coding"), [("x.mp3", "MPEG_LAYER_III"), ("x.ogg", "VORBIS"), ("x.opus", "OPUS")])
def test_lossy_files(tmp_path: Path, name: str, coding: str) -> None:
    write(tmp_path / name, np.sin(np.arange(4000) / 5) / 2, coding=coding, container="OGG" if name != "x.mp3" else None)
    decoded = decode(tmp_path / name, RATE, 4000)
    assert decoded.samples.size == 4000
    assert 15_000 < np.abs(decoded.samples[1000:3000].astype(int)).max() < 18_000


@pytest.mark.parametrize("rate", [11025, 16000, 44100, 4000, 7999])
def test_other_rates_are_resampled(tmp_path: Path, rate: int) -> None:
    """A whole clip exactly as soxr gives it; of a longer one the same beginning."""
    samples = noise(rate, seed=rate) // 2
    write(tmp_path / "x.wav", samples, rate)
    whole = np.clip(np.rint(soxr.resample(samples / 32768, rate, RATE) * 32768), -32768, 32767)
    decoded = decode(tmp_path / "x.wav", RATE, RATE)
    np.testing.assert_array_equal(decoded.samples, whole)
    assert abs(decoded.samples.size - RATE) <= 1
    assert (decoded.rate, decoded.cut) == (rate, False)
    begun = decode(tmp_path / "x.wav", RATE, RATE // 4)
    assert (begun.samples.size, begun.cut) == (RATE // 4, True)
    # soxr computes in blocks, so that a rounding may fall the other way.
    assert np.abs(begun.samples - whole[: RATE // 4]).max() <= 1


def test_a_long_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", noise(60 * RATE))
    tracemalloc.start()
    decode(tmp_path / "x.wav", RATE, FRAMES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * RATE * 2


@pytest.mark.parametrize("first", [RATE, 16000])
def test_rate_is_that_of_the_first_readable_file(tmp_path: Path, first: int) -> None:
    src = tmp_path / "src"
    (src / "a").mkdir(parents=True)
    (src / "a" / "0.wav").write_bytes(b"")
    write(src / "a" / "1.wav", noise(0), 11025)
    write(src / "a" / "2.wav", noise(first), first)
    write(src / "b" / "3.wav", noise(12000, channels=2), 12000)
    dataset = prepare(src, tmp_path / "dst")
    assert (dataset.sample_rate, dataset.clips.shape) == (first, (2, first))
    assert [about(dataset)[name] for name in ("resampled", "downmixed", "frames")] == [1, 1, first]
    given_rate = prepare(src, tmp_path / "given", rate=4000, seconds=0.5)
    assert (given_rate.sample_rate, given_rate.clips.shape) == (4000, (2, 2000))
    assert about(given_rate)["resampled"] == 2


# Files that cannot be used


def broken_files(src: Path) -> dict[str, str]:
    """Files of all sorts that give no clip, and a word of the reason for each."""
    write(src / "b" / "good.flac", noise(4000))
    whole = (src / "b" / "good.flac").read_bytes()
    content = {
        "a/1 empty.wav": b"", "a/3 text.wav": b"no audio at all\n" * 50, "a/5 half.flac": whole[: len(whole) // 2],
        "b/a header.wav": b"RIFF\x24\0\0\0WAVEfmt ", "b/z.m4a": bytes(range(256)), "c/none.wav": b"RIFF",
    }  # fmt: skip
    for name, data in content.items():
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_bytes(data)
    write(src / "a" / "2 no frames.wav", noise(0))
    write(src / "a" / "4 nan.wav", np.array([0, np.nan, 0]), coding="FLOAT")
    write(src / "a" / "7 too little.wav", noise(1), rate=48000)
    return dict.fromkeys(content, "") | {
        "a/2 no frames.wav": "no frames", "a/4 nan.wav": "NaN", "a/7 too little.wav": "less than one",
    }  # fmt: skip


def test_files_left_out_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = folder_of(tmp_path / "src", "a/0.wav", "a/3.wav", "a/9.WAV", "b/0.wav", "d/0.wav")
    broken = broken_files(src)
    dataset = prepare(src, tmp_path / "dst", seconds=4000 / RATE)
    good = ["a/0.wav", "a/3.wav", "a/9.WAV", "b/0.wav", "b/good.flac", "d/0.wav"]
    assert files_of(dataset) == good
    assert dataset.clips.shape == (len(good), 4000)
    # A class keeps its number if none of its files can be read.
    assert dataset.classes == ("a", "b", "c", "d")
    assert [dataset.classes[label] for label in dataset.labels] == [name[0] for name in good]
    skipped = about(dataset)["skipped"]
    assert [each["file"] for each in skipped] == sorted(broken)
    told = capsys.readouterr().err
    assert f"{len(broken)} files" in told
    for each in skipped:
        assert each["reason"]
        assert broken[each["file"]] in each["reason"]
        assert each["file"] in told
        assert str(tmp_path) not in each["reason"]
    assert_row_by_row(src, dataset)
    assert (dataset.folder / "clips.npy").stat().st_size == 128 + len(good) * 4000 * 2


def test_names_that_a_list_cannot_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = folder_of(tmp_path / "src", "a/0.wav", "b/0.wav", "b/line\nbreak.wav", "b/other\u2028break.wav")
    with open(os.fsencode(src) + b"/a/\xff.wav", "wb") as file:
        file.write((src / "a" / "0.wav").read_bytes())
    dataset = prepare(src, tmp_path / "dst", seconds=SECONDS)
    assert files_of(dataset) == ["a/0.wav", "b/0.wav"]
    assert len(about(dataset)["skipped"]) == 3
    assert capsys.readouterr().err.count("its name is not UTF-8, or has a line break") == 3


def test_nothing_is_told_when_nothing_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(folder_of(tmp_path / "src", "a/0.wav", "b/0.wav"), tmp_path / "dst", seconds=SECONDS)
    assert capsys.readouterr() == ("", "")


def test_fewer_frames_than_the_header_says(tmp_path: Path) -> None:
    write(tmp_path / "x.mp3", np.sin(np.arange(RATE) / 5) / 2, coding="MPEG_LAYER_III")
    whole = (tmp_path / "x.mp3").read_bytes()
    (tmp_path / "x.mp3").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnusableError, match=r"ends after [0-9,]+ of the 8,000 frames"):
        decode(tmp_path / "x.mp3", RATE, RATE)


# Jobs and memory


def test_the_result_does_not_depend_on_jobs(tmp_path: Path) -> None:
    src = folder_of(tmp_path / "src", *(f"{label}/{number:02}.wav" for label in "abc" for number in range(25)))
    for label in "abc":  # some take much longer than others
        write(src / label / "07.wav", noise(20 * 48_000, seed=7), 48_000)
    broken_files(src)
    contents = []
    for jobs in (1, 2, 7):
        prepare(src, tmp_path / str(jobs), rate=RATE, name="same", jobs=jobs)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / str(jobs)).iterdir()})
    assert contents[0] == contents[1] == contents[2]
    assert set(contents[0]) == {"dataset.json", "files.txt", *(f"{name}.npy" for name in ARRAYS)}


def test_memory_is_for_a_few_clips_not_for_all(tmp_path: Path) -> None:
    n_files, src = 600, tmp_path / "src"
    write(tmp_path / "x.wav", noise(10))
    for number in range(n_files):
        path = src / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tmp_path / "x.wav")
    tracemalloc.start()
    dataset = prepare(src, tmp_path / "dst", seconds=5, jobs=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dataset.clips.shape == (n_files, 5 * RATE)
    assert peak < dataset.clips.nbytes / 10


# Refusals


def refused(src: Path, dst: Path, words: str, error: type[Exception] = DatasetError, **options: Any) -> None:
    before = sorted(dst.parent.rglob("*"))
    with pytest.raises(error, match=words):
        prepare(src, dst, **options)
    assert sorted(dst.parent.rglob("*")) == before


def test_sources_that_are_refused(tmp_path: Path) -> None:
    def src(name: str, *files: str) -> Path:
        return folder_of(tmp_path / "src" / name, *files)

    dst = tmp_path / "dst"
    refused(tmp_path / "nothing", dst, "nothing is no folder with audio files")
    (tmp_path / "file.wav").write_bytes(b"")
    refused(tmp_path / "file.wav", dst, "is no folder with audio files")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "README.md").write_text("")
    refused(tmp_path / "empty", dst, "is no folder with audio files")
    refused(src("mixed", "a/1.wav", "loose.wav"), dst, r"DIGIT_SPEAKER_INDEX; not so a/1\.wav, loose\.wav")
    refused(src("mixed digits", "1_x/2_0.wav", "1_x_0.wav"), dst, r"not so 1_x/2_0\.wav")
    refused(src("loose", "1_x_0.wav", "2_x_0.wav", "hello.wav", "12_x_0.wav"), dst, r"so 12_x_0\.wav, hello\.wav")
    refused(src("deep", "train/a/1.wav", "train/b/1.wav"), dst, "train/[ab] is a folder within a folder")
    refused(src("single", "recordings/1_x_0.wav", "recordings/2_x_0.wav"), dst, "one class, 'recordings'")
    refused(src("single digit", "1_x_0.wav", "1_x_1.wav"), dst, "one class, '1'")
    for name, other in (("validation_list.txt", "testing"), ("testing_list.txt", "validation")):
        folder = src(name, "a/1.wav", "b/1.wav")
        (folder / name).write_text("a/1.wav\n")
        refused(folder, dst, f"{name} alone; .*{other}_list.txt")
        (folder / f"{other}_list.txt").write_text("a/1.wav\n")
        refused(folder, dst, "a/1.wav is in validation_list.txt and in testing_list.txt")
        (folder / f"{other}_list.txt").write_bytes(b"\xff\xff")
        refused(folder, dst, "is not UTF-8 text")
    unreadable = tmp_path / "unreadable"
    for label in "ab":
        (unreadable / label).mkdir(parents=True)
        (unreadable / label / "x.wav").write_text("text")
    refused(unreadable, dst, "None of the 2 audio files in .* can be read")
    refused(unreadable, dst, "None of the 2 audio files in .* can be read", rate=RATE)


def test_arguments_that_are_refused(tmp_path: Path) -> None:
    src = folder_of(tmp_path / "src", "a/1.wav", "b/2.wav")
    dst = tmp_path / "out" / "dst"
    refused(src, dst, "There is no folder .*out to make dst in", FileNotFoundError)
    dst.parent.mkdir()
    for options in ({"rate": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"seconds": float("inf")}, {"jobs": 0}):
        refused(src, dst, f"{next(iter(options))} is .*expected a positive number", ValueError, **options)
    part = dst.with_name("dst.part")
    part.mkdir()
    (part / "mine.txt").write_text("")
    refused(src, dst, r"dst\.part exists", FileExistsError)
    (part / "mine.txt").unlink()
    part.rmdir()
    for make in (dst.mkdir, dst.touch, lambda: dst.symlink_to(tmp_path / "nothing")):
        make()
        refused(src, dst, "dst exists", FileExistsError)
        dst.rmdir() if dst.is_dir() else dst.unlink()
    assert len(prepare(src, dst).clips) == 2


# All or nothing


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
@pytest.mark.parametrize("jobs", [1, 3])
def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], jobs: int
) -> None:
    src = folder_of(tmp_path / "src", *(f"{label}/{number}.wav" for label in "ab" for number in range(20)))
    n_threads = threading.active_count()
    seen: list[bool] = []

    def failing(path: Path, rate: int, frames: int) -> Decoded:
        if path.name == "7.wav":
            seen.append((tmp_path / "dst.part").is_dir() and not (tmp_path / "dst").exists())
            raise error
        return decode(path, rate, frames)

    monkeypatch.setattr(command, "decode", failing)
    with pytest.raises(error):
        prepare(src, tmp_path / "dst", seconds=SECONDS, jobs=jobs)
    monkeypatch.undo()
    assert seen[0]
    assert [path.name for path in tmp_path.iterdir()] == ["src"]
    assert threading.active_count() == n_threads
    assert len(prepare(src, tmp_path / "dst", seconds=SECONDS).clips) == 40


# The command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = folder_of(tmp_path / "src", "a/1.wav", "b/2.wav", "b/3.wav")
    write(src / "c" / "long.wav", noise(4000, channels=2), rate=4000)
    (src / "c" / "empty.wav").write_bytes(b"")
    options = ["--rate", "4000", "--seconds", "0.5", "--name", "Words", "--jobs", "1"]
    main([str(src), str(tmp_path / "dst"), *options])
    said = capsys.readouterr()
    assert said.out.startswith("Words: 4 clips of 2,000 frames at 4,000 Hz, 3 classes, 5 speakers; ")
    assert said.out.endswith("; 1 cut, 1 mixed down, 3 resampled\n")
    assert "c/empty.wav" in said.err
    assert load(tmp_path / "dst").clips.shape == (4, 2000)
    with pytest.raises(SystemExit) as stopped:
        main([str(src), str(tmp_path / "dst"), *options])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"Error: {tmp_path}/dst exists; give a new name, or remove it first.\n"


# Opening


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return prepare(folder_of(tmp_path / "src", "a/1.wav", "b/2.wav"), tmp_path / "dst", seconds=SECONDS).folder


def test_clips_are_mapped_and_read_only(made: Path) -> None:
    dataset = load(str(made))
    assert isinstance(dataset.clips, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        dataset.clips[0, 0] = 1
    for name, dtype in PER_CLIP.items():
        assert getattr(dataset, name).dtype == dtype
    assert dataset.clips.dtype == np.int16
    assert dataset.rows(TRAIN).dtype == np.int64


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("clips", np.zeros((3, 9), np.int16), r"labels\.npy is int64 \(2,\); expected int64 \(3,\)"),
        ("clips", np.zeros(3, np.int16), r"clips\.npy is int16 \(3,\); expected int16 \(clips, frames\)"),
        ("clips", np.zeros((2, FRAMES), np.float32), r"clips\.npy is float32"),
        ("labels", np.zeros((2, 1), np.int64), r"labels\.npy is int64 \(2, 1\)"),
        ("labels", np.zeros(2, np.int32), r"labels\.npy is int32 \(2,\); expected int64 \(2,\)"),
        ("labels", np.array([0, 2]), r"labels\.npy holds values outside 0 to 1"),
        ("labels", np.array([-1, 0]), r"labels\.npy holds values outside 0 to 1"),
        ("lengths", np.array([0, 1]), r"lengths\.npy holds values outside 1 to 80"),
        ("lengths", np.array([1, FRAMES + 1]), r"lengths\.npy holds values outside"),
        ("split", np.array([0, 3], np.uint8), r"split\.npy holds values outside 0 to 2"),
        ("speaker", np.array([0, 2]), r"speaker\.npy holds values outside 0 to 1"),
    ],
)
def test_arrays_that_do_not_agree(made: Path, name: str, values: NDArray, words: str) -> None:
    np.save(made / f"{name}.npy", values)
    with pytest.raises(DatasetError, match=words):
        load(made)


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "dataset.json"])
def test_files_that_are_missing_or_cut_short(made: Path, name: str) -> None:
    content = (made / name).read_bytes()
    for kept in (0, 20, len(content) - 4):
        (made / name).write_bytes(content[:kept])
        with pytest.raises(DatasetError, match=r"dst cannot be read: .*Prepare it again"):
            load(made)
    (made / name).unlink()
    with pytest.raises(DatasetError, match=f"There is no .*{name}"):
        load(made)


@pytest.mark.parametrize("wrong", ["[]", "{}", '{"name": "x", "classes": 3, "speakers": [], "sample_rate": 8000}'])
def test_a_dataset_json_of_something_else(made: Path, wrong: str) -> None:
    (made / "dataset.json").write_text(wrong)
    with pytest.raises(DatasetError, match="dst cannot be read"):
        load(made)


# Real speech


def some_of(source: Path, target: Path, names: list[str]) -> Path:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to((source / name).resolve())
    return target


@pytest.mark.real
def test_the_digits_of_the_tables_are_these(fsdd: Path, tmp_path: Path) -> None:
    dataset = prepare(fsdd, tmp_path / "dst", name="fsdd")
    assert KNOWN[dataset.digest] == "fsdd"
    assert dataset.classes == tuple("0123456789")


@pytest.mark.real
def test_real_commands(speech_commands: Path, tmp_path: Path) -> None:
    names = sorted(f"{path.parent.name}/{path.name}" for path in speech_commands.glob("*/*.flac"))[::25]
    src = some_of(speech_commands, tmp_path / "src", [*names, *layouts.LISTS])
    dataset = prepare(src, tmp_path / "dst")
    assert dataset.clips.shape == (len(names), 16000)
    assert_row_by_row(src, dataset)
    listed = {name: (src / name).read_text().split() for name in layouts.LISTS}
    for row, name in enumerate(files_of(dataset)):
        as_listed = name.replace(".flac", ".wav")
        assert (dataset.split[row] == TEST) == (as_listed in listed["testing_list.txt"])
        assert (dataset.split[row] == VALIDATION) == (as_listed in listed["validation_list.txt"])


@pytest.mark.real
def test_the_hash_gives_the_published_lists(speech_commands: Path) -> None:
    """Speech Commands without its lists is split as with them: all of its clips tell the rule."""
    layout, clips, _ = layouts.find(speech_commands)
    assert layout == "speech_commands"
    assert len(clips) > 1000
    assert all(hashed_split(clip.speaker) == clip.split for clip in clips)
