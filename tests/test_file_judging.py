"""Folders under format 2: each file's own sample rate, the strength that an SNR asks for, refusals and notes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import audiofiles
import naive
import numpy as np
import pytest
from audiofiles import contents, noise, read_samples, untouched, wav, write_tree

from poscuda_fast import (
    DatasetError,
    Key,
    Recipe,
    SidecarError,
    drop_undo,
    protect_folder,
    restore_folder,
    verify_folder,
)

both_ways = pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
RATES = {"a.wav": 8000, "b.wav": 44100, "c.flac": 22050, "d.wav": 48000, "e.aiff": 2000, "f.wav": 16000, "g.au": 11025}
CODINGS = ("PCM_16", "PCM_24", "FLOAT")


def quiet(frames: int, channels: int = 1, coding: str = "PCM_16", seed: int = 0, level: float = 0.1) -> np.ndarray:
    samples = noise(frames, channels, coding, seed)
    return (samples * np.float32(level)).astype(samples.dtype)


def mixed(root: Path) -> dict[str, tuple[np.ndarray, str, int]]:
    """Files of different rates, codings and channels: their samples, coding and rate."""
    made = {}
    for number, (name, rate) in enumerate(RATES.items()):
        coding = "PCM_16" if name.endswith(("flac", "aiff")) else CODINGS[number % 3]
        samples = quiet(1500 + number, 1 + number % 2, coding, seed=number)
        full = f"{'yes' if number % 3 else 'no'}/{name}"
        (root / full).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".wav"):
            (root / full).write_bytes(wav(samples, coding, rate))
        else:
            container = {"flac": "FLAC", "aiff": "AIFF", "au": "AU"}[name.partition(".")[2]]
            audiofiles.encoded(root / full, samples, container, coding, rate)
        made[full] = samples, coding, rate
    return made


@both_ways
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_every_file_is_marked_for_its_own_rate(tmp_path, key, strength, copying):
    made = mixed(tmp_path / "src")
    root = tmp_path / "dst" if copying else tmp_path / "src"
    report = protect_folder(tmp_path / "src", root if copying else None, key, strength=strength)
    assert report.sample_rates == tuple(sorted(RATES.values()))
    assert not report.rate_assumed
    assert "(assumed)" not in str(report)
    assert report.recipe == {"format": 2, "strength": strength}
    for name, (samples, coding, rate) in made.items():
        expected, _ = naive.protect_clip(samples, name.split("/")[0], bytes(range(32)), rate, strength=strength)
        assert read_samples(root / name, coding).tobytes() == expected.tobytes(), name
    assert verify_folder(root, key).protected == len(made)
    if not copying:
        assert restore_folder(root, key).sample_rates == report.sample_rates


def test_rates_without_a_mark_are_listed_before_anything_is_written(tmp_path, key):
    write_tree(tmp_path / "src", {
        "yes/a.wav": wav(quiet(500), rate=1999), "no/b.wav": wav(quiet(500)), "no/c.wav": wav(quiet(500), rate=600_000),
    })  # fmt: skip
    for options in ({}, {"dry_run": True}):
        with untouched(tmp_path), pytest.raises(DatasetError, match=r"2 of 3 files in .* cannot be used") as caught:
            protect_folder(tmp_path / "src", None, key, **options)
        assert "no/c.wav has a sample rate of 600,000 Hz" in str(caught.value)
        assert "yes/a.wav has a sample rate of 1,999 Hz" in str(caught.value)
    assert protect_folder(tmp_path / "src", None, key, recipe=Recipe.paper()).state == "protected"


def test_another_rate_is_another_run(tmp_path, key):
    src = tmp_path / "src"
    write_tree(src, {"yes/a.wav": wav(quiet(900)), "no/b.wav": wav(quiet(900))})
    protect_folder(src, None, key)
    content = (src / "yes/a.wav").read_bytes()
    at = content.index(b"fmt ") + 12
    (src / "yes/a.wav").write_bytes(content[:at] + (8000).to_bytes(4, "little") + content[at + 4 :])
    sentence = r"another sample rate: yes/a\.wav had 16,000 Hz, and now says 8,000 Hz"
    with untouched(tmp_path), pytest.raises(SidecarError, match=sentence):
        protect_folder(src, None, key)


# An SNR sets the strength


def energies(root: Path, before: dict[str, np.ndarray]) -> list[float]:
    """SNR of each file in dB."""
    found = []
    for name, samples in before.items():
        edit = read_samples(root / name, "PCM_16").astype(float) - samples
        found.append(10 * math.log10((samples.astype(float) ** 2).sum() / (edit**2).sum()))
    return found


def leveled(root: Path) -> dict[str, np.ndarray]:
    """Eleven files, each louder than the last."""
    made = {}
    for n in range(11):
        name = f"{'yes' if n % 2 else 'no'}/{n}.{'flac' if n % 3 == 1 else 'wav'}"
        made[name] = quiet(9000 + n, 1, seed=n, level=0.01 * 1.3**n)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if n % 3 == 1:
            audiofiles.encoded(root / name, made[name], "FLAC", "PCM_16", 8000)
        else:
            (root / name).write_bytes(wav(made[name], rate=16000))
    return made


@both_ways
@pytest.mark.parametrize("snr", [6, 20.5])
def test_the_median_file_has_the_snr_that_was_asked_for(tmp_path, key, snr, copying):
    made = leveled(tmp_path / "src")
    root = tmp_path / "dst" if copying else tmp_path / "src"
    call = {"dst": root if copying else None, "key": key, "snr": snr}
    with untouched(tmp_path):
        rehearsed = protect_folder(tmp_path / "src", **call, dry_run=True)
    report = protect_folder(tmp_path / "src", **call)
    last = report.notes[len(rehearsed.notes) :]  # what may be published
    assert len(last) == copying
    notes = (*rehearsed.notes, *last)
    assert report == dataclasses.replace(rehearsed, state="protected", seconds=report.seconds, notes=notes)
    assert np.median(energies(root, made)) == pytest.approx(snr, abs=0.05)
    strength = report.recipe["strength"]
    # What is marked already does not change the strength, and it is recorded.
    again = protect_folder(tmp_path / "src", **call)
    assert (again.state, again.recipe["strength"]) == ("already protected", strength)
    with pytest.raises(SidecarError, match=r"another SNR|was begun with an SNR of"):
        protect_folder(tmp_path / "src", root if copying else None, key, snr=snr + 1)
    with pytest.raises(SidecarError, match=r"another SNR|another recipe|was begun with an SNR of"):
        protect_folder(tmp_path / "src", root if copying else None, key, strength=strength)
    if not copying:
        assert restore_folder(root, key).recipe["strength"] == strength


@both_ways
def test_a_stopped_run_keeps_its_strength(tmp_path, key, copying, monkeypatch):
    monkeypatch.setattr("poscuda_fast.files.target.PIECES_PER_BATCH", 2)
    monkeypatch.setattr("poscuda_fast.files.making.FILES_AT_ONCE", 2)
    leveled(tmp_path / "whole")
    expected = protect_folder(tmp_path / "whole", None, key, snr=9)
    leveled(tmp_path / "src")
    root = tmp_path / "dst" if copying else tmp_path / "src"

    def stop(done: int, total: int) -> None:
        if done >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        protect_folder(tmp_path / "src", root if copying else None, key, snr=9, progress=stop)
    report = protect_folder(tmp_path / "src", root if copying else None, key, snr=9)
    notes = (*expected.notes, *report.notes[len(expected.notes) :])
    assert report == dataclasses.replace(expected, seconds=report.seconds, notes=notes)
    assert contents(root) == contents(tmp_path / "whole")


def test_an_snr_that_makes_no_sense_is_refused(tmp_path, key):
    leveled(tmp_path)
    for options, error, sentence in (
        ({"snr": "loud"}, TypeError, "snr is 'loud'"),
        ({"snr": math.nan}, ValueError, "snr is nan"),
        ({"snr": 9, "strength": 1}, ValueError, "give one of them"),
        ({"snr": 9, "recipe": Recipe.paper()}, ValueError, "give one of the two"),
        ({"snr": 200}, ValueError, "the strength would be .* it must be from 0.01 to 50"),
    ):
        with untouched(tmp_path), pytest.raises(error, match=sentence):
            protect_folder(tmp_path, None, key, **options)


# What would not protect is refused, and what should be known is said


@both_ways
def test_float_files_that_are_far_too_loud_are_refused(tmp_path, key, copying):
    loud = noise(900, 1, "FLOAT") * np.float32(32768)
    src = tmp_path / "src"
    write_tree(src, {f"yes/{n}.wav": wav(loud if n < 3 else noise(900, 1, "FLOAT"), "FLOAT") for n in range(5)})
    for dry_run in (True, False):
        with untouched(tmp_path), pytest.raises(ValueError, match=r"a peak of 3\.\d+e\+04, .*Nothing was written"):
            protect_folder(src, tmp_path / "dst" if copying else None, key, dry_run=dry_run)
    (src / "yes/0.wav").unlink()
    (src / "yes/1.wav").unlink()
    assert protect_folder(src, None, key).state == "protected"


def test_a_mark_that_clips_the_recordings_is_refused(tmp_path, key):
    square = np.where(noise(3000) < 0, -(2**15), 2**15 - 1).astype(np.int16)
    write_tree(tmp_path / "src", {"yes/a.wav": wav(square), "no/b.wav": wav(quiet(30_000))})
    with untouched(tmp_path), pytest.raises(ValueError, match=r"4\.\d % of the samples would be pushed beyond"):
        protect_folder(tmp_path / "src", None, key)
    protect_folder(tmp_path / "src", None, key, recipe=Recipe.paper())


def test_notes_say_what_should_be_known(tmp_path, key):
    write_tree(tmp_path / "quiet", {f"{n % 2}/{n}.wav": wav(quiet(4000, seed=n, level=0.002)) for n in range(6)})
    notes = protect_folder(tmp_path / "quiet", None, key).notes
    assert len(notes) == 2
    assert "the mark is louder than the recordings" in notes[0]
    assert notes[1] == "quieter than their mark: 6 of the 6 clips that were looked at"
    write_tree(tmp_path / "one", {f"yes/{n}.wav": wav(quiet(4000, seed=n)) for n in range(3)})
    single, level = protect_folder(tmp_path / "one", None, key).notes
    assert single == "there is a single class: a model can learn nothing from the mark"
    assert level.endswith("dB above its mark")
    write_tree(tmp_path / "good", {f"{n}/{n}.wav": wav(quiet(4000, seed=n)) for n in range(3)})
    assert len(protect_folder(tmp_path / "good", None, key).notes) == 1


def test_samples_that_are_not_finite_keep_their_bits_and_are_counted(tmp_path, key):
    samples = quiet(2000, 2, "FLOAT")
    odd = np.array([0x7FC12345, 0xFF800000, 0x7F800000], np.uint32).view(np.float32)
    samples[[3, 700, 1999], 1] = odd
    src = tmp_path / "src"
    write_tree(src, {"yes/a.wav": wav(samples, "FLOAT"), "no/b.wav": wav(quiet(500, 1, "FLOAT"), "FLOAT")})
    audiofiles.encoded(src / "no/c.caf", samples, "CAF", "FLOAT")
    before = contents(src)
    report = protect_folder(src, None, key)
    assert (report.not_finite_samples, report.saturated_samples) == (6, 0)
    for name in ("yes/a.wav", "no/c.caf"):
        after = read_samples(src / name, "FLOAT")
        assert after[[3, 700, 1999], 1].tobytes() == odd.tobytes()
        assert (after != samples).sum() > 3900
    assert verify_folder(src, key).ok
    restore_folder(src, key)
    assert contents(src) == before


def test_a_final_run_still_knows_its_strength(tmp_path, key: Key):
    src = tmp_path / "src"
    leveled(src)
    strength = protect_folder(src, None, key, snr=9).recipe["strength"]
    assert drop_undo(src, key).recipe["strength"] == strength
    again = protect_folder(src, None, key, snr=9)
    assert (again.state, again.recipe["strength"]) == ("already protected", strength)
