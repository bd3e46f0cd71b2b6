"""Data that are marked with this key already are refused, wherever their sidecar is; and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audiofiles import contents, untouched

from poscuda_fast import (
    Key,
    Protector,
    Recipe,
    SidecarError,
    protect,
    protect_array,
    protect_folder,
    restore_array,
    restore_folder,
)
from poscuda_fast.kernels import Engine
from poscuda_fast.mark.judging import refuse_marked
from poscuda_fast.mark.lines import HIGHEST, LOWEST
from poscuda_fast.mark.packed import mark_dense
from poscuda_fast.mark.plan import Plan, make_plan
from poscuda_fast.mark.traces import Traces, traces

RATE = 16_000
ENGINE = Engine(threads=1)
LABELS = np.arange(32) % 4
KEYS = 16
TIME = np.arange(RATE) / RATE


def noise(level: float, shape: tuple[int, ...] = (32, 8000), seed: int = 0) -> np.ndarray:
    """int16 noise with an RMS relative to full scale."""
    return int16(np.random.default_rng(seed).normal(0, level, shape))


def int16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16)


def traced(
    clips: list[np.ndarray], labels: Any, key: Key, *, marked: bool, strength: float = 1.0, rate: int = RATE
) -> tuple[Plan, Traces]:
    """The plan for clips of one or more channels, and what is found in them, as they are or marked."""
    channels = clips[0][0].size
    plan = make_plan(key, Recipe.strong(strength), labels, None, np.array([len(clip) for clip in clips]), rate)
    dense, patches = np.concatenate(clips).reshape(-1), plan.of_clips(np.arange(len(clips)))
    if marked:
        mark_dense(dense, patches, channels, plan.marks, ENGINE)
    return plan, traces(plan.marks, dense, patches, channels)


def is_refused(plan: Plan, found: Traces) -> bool:
    try:
        refuse_marked(plan, found)
    except SidecarError:
        return True
    return False


def key_of(number: int) -> Key:
    return Key(number.to_bytes(32, "big"))


# No false alarm.


def tone(harmonic: float, level: float, phase: float) -> np.ndarray:
    return int16(level * np.sin(2 * np.pi * 31.25 * harmonic * TIME + phase))


def music(rng: np.random.Generator) -> np.ndarray:
    """Four decaying notes at full scale."""
    out = np.zeros(RATE)
    for note in range(4):
        pitch, span = rng.choice([110, 125, 187.5, 220, 250]), slice(note * 4000, note * 4000 + 4000)
        for n in range(1, 24):
            out[span] += np.exp(-3 * TIME[:4000]) * np.sin(2 * np.pi * pitch * n * TIME[:4000] + rng.uniform(0, 6)) / n
    return int16(0.9 * out / np.abs(out).max())


def harmless(name: str) -> list[np.ndarray]:
    """32 clips that nobody marked."""
    rng = np.random.default_rng(7)
    turn = rng.uniform(0, 6, 32)
    kinds = {
        "silence": lambda n: np.zeros(RATE, np.int16),
        "constant": lambda n: np.full(RATE, 9000, np.int16),
        "dither": lambda n: rng.integers(-1, 2, RATE).astype(np.int16),
        "faint noise": lambda n: int16(rng.normal(0, 0.001, RATE)),
        "noise": lambda n: int16(rng.normal(0, 0.05, RATE)),
        "loud noise": lambda n: int16(rng.normal(0, 0.3, RATE)),
        "stereo noise": lambda n: int16(rng.normal(0, 0.05, (RATE, 2))),
        "a tone, one phase": lambda n: tone(LOWEST + 13, 0.01, 1.0),
        "a tone at the level of a line": lambda n: tone(LOWEST + n % 4, 0.005, turn[n % 4]),
        "tones": lambda n: tone(rng.integers(LOWEST, HIGHEST + 1), 0.2, turn[n]),
        "faint tones": lambda n: tone(rng.integers(LOWEST, HIGHEST + 1), 0.002, turn[n]),
        "tones beside a harmonic": lambda n: tone(rng.integers(LOWEST, HIGHEST) + 0.01, 0.005, turn[n]),
        "music": lambda n: music(rng),
        "ramp": lambda n: int16((np.arange(RATE) % 512) / 512 - 0.5),
        "pulses": lambda n: np.where(np.arange(RATE) % 512 == 16 * n, 20_000, 0).astype(np.int16),
        "chirp": lambda n: int16(0.5 * np.sin(2 * np.pi * (100 + 1000 * TIME) * TIME + turn[n])),
        "one period": lambda n: int16(rng.normal(0, 0.05, 512)),
        "few frames": lambda n: int16(rng.normal(0, 0.05, 200)),
        "no frames": lambda n: np.empty(0, np.int16),
    }
    return [kinds[name](n) for n in range(32)] if name in kinds else []


@pytest.mark.parametrize("name", [
    "silence", "constant", "dither", "faint noise", "noise", "loud noise", "stereo noise", "a tone, one phase",
    "a tone at the level of a line", "tones", "faint tones", "tones beside a harmonic", "music", "ramp", "pulses",
    "chirp", "one period", "few frames", "no frames",
])  # fmt: skip
@pytest.mark.parametrize("labels", ["one class", "classes", "each its own"])
def test_nothing_else_is_taken_for_marked(name: str, labels: str) -> None:
    clips = harmless(name)
    if name == "no frames":
        clips[0] = np.zeros(RATE, np.int16)
    rows = {"one class": [0] * 32, "classes": LABELS.tolist(), "each its own": list(range(32))}[labels]
    for number in range(KEYS):
        for strength in (0.25, 4.0):
            assert not is_refused(*traced(clips, rows, key_of(number), marked=False, strength=strength))


def test_speech_is_not_taken_for_marked_and_told_when_it_is(fsdd: Path) -> None:
    paths = sorted(fsdd.glob("*.wav"))[::30]
    clips = [soundfile.read(path, dtype="int16")[0] for path in paths]
    digits = [int(path.name[0]) for path in paths]
    for number in range(KEYS):
        for strength in (0.25, 1.0, 4.0):
            plan, found = traced(clips, digits, key_of(number), marked=False, strength=strength, rate=8_000)
            assert not is_refused(plan, found)
            assert np.abs(found.by_class(found.rows).levels).max() < 0.1
            plan, found = traced(clips, digits, key_of(number), marked=True, strength=strength, rate=8_000)
            assert is_refused(plan, found)
            assert np.abs(found.by_class(found.rows).levels - 1).max() < 0.1


def test_one_clip_of_speech_is_told(fsdd: Path, key: Key) -> None:
    """A second of speech has pauses, and in these a mark stands alone."""
    told = 0
    for path in sorted(fsdd.glob("*.wav"))[::100]:
        clip = [soundfile.read(path, dtype="int16")[0]]
        assert not is_refused(*traced(clip, [0], key, marked=False, rate=8_000))
        told += is_refused(*traced(clip, [0], key, marked=True, rate=8_000))
    assert told > 24


# What is found.


@pytest.mark.parametrize("strength", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("name", ["silence", "constant", "dither", "faint noise", "chirp"])
def test_a_mark_is_found_whatever_it_lies_in(name: str, strength: float, key: Key) -> None:
    plan, found = traced(harmless(name), LABELS.tolist(), key, marked=True, strength=strength)
    assert is_refused(plan, found)
    assert np.abs(found.by_class(found.rows).levels - 1).max() < 0.05


def test_another_label_or_key_finds_nothing(key: Key) -> None:
    plan, _ = traced(list(noise(0.01)), LABELS, key, marked=True)
    dense, patches = noise(0.01).reshape(-1), plan.of_clips(np.arange(32))
    mark_dense(dense, patches, 1, plan.marks, ENGINE)
    for other in (
        make_plan(key, Recipe.strong(), (LABELS + 1) % 4, None, plan.lengths, RATE),
        make_plan(Key(bytes(32)), Recipe.strong(), LABELS, None, plan.lengths, RATE),
        make_plan(key, Recipe.strong(), [f"class {label}" for label in LABELS], None, plan.lengths, RATE),
    ):
        found = traces(other.marks, dense, other.of_clips(np.arange(32)), 1)
        assert not is_refused(other, found)
        assert np.abs(found.by_class(found.rows).levels).max() < 0.2


def test_samples_that_are_not_finite_do_not_matter(key: Key) -> None:
    clips = np.random.default_rng(0).normal(0, 0.01, (8, 8000)).astype(np.float32)
    clips[:, 50] = np.nan
    clips[:, 60] = -np.inf
    assert not is_refused(*traced(list(clips), [0] * 8, key, marked=False))
    assert is_refused(*traced(list(clips), [0] * 8, key, marked=True))


# Verbs.


def test_an_array_that_lost_its_sidecar_is_refused(tmp_path: Path, key: Key) -> None:
    np.save(path := tmp_path / "clips.npy", noise(0.01))
    protect_array(path, LABELS, key)
    path.rename(moved := tmp_path / "renamed.npy")
    for recipe in (Recipe.strong(), Recipe.strong(2), Recipe.strong(0.5)):
        with (
            untouched(tmp_path),
            pytest.raises(SidecarError, match=r"4 of the 4 classes .*\(0, 1, 2, 3\).*sidecar=PATH"),
        ):
            protect_array(moved, LABELS, key, recipe=recipe)
    with untouched(tmp_path), pytest.raises(SidecarError, match="marked with this key already"):
        protect_array(moved, LABELS, key, snr=20.0)
    with untouched(tmp_path), pytest.raises(SidecarError, match="without_sidecar=True"):
        protect_array(moved, LABELS, key, dry_run=True)
    assert protect_array(moved, LABELS, key, sidecar=tmp_path / "clips.npy.poscuda").state == "already protected"
    assert protect_array(moved, LABELS, Key(bytes(32))).state == "protected"


def test_one_class_of_several_is_enough(tmp_path: Path, key: Key) -> None:
    clips = noise(0.01)
    protect(some := clips[LABELS == 2], [2] * 8, key)
    clips[LABELS == 2] = some
    np.save(path := tmp_path / "clips.npy", clips)
    with untouched(tmp_path), pytest.raises(SidecarError, match=r"1 of the 4 classes that were looked at \(2\)"):
        protect_array(path, LABELS, key)


def test_an_undone_array_is_told_by_its_sidecar(tmp_path: Path, key: Key) -> None:
    """Its protected form may come back from a backup: its records say that it is that."""
    np.save(path := tmp_path / "clips.npy", noise(0.01))
    protect_array(path, LABELS, key)
    wet = path.read_bytes()
    restore_array(path, key)
    path.write_bytes(wet)
    assert protect_array(path, LABELS, key).state == "protected"
    assert path.read_bytes() == wet


def test_memory_refuses_classes_of_which_several_clips_are_marked(key: Key) -> None:
    protect(clips := noise(0.01), LABELS, key)
    before = clips.copy()
    with pytest.raises(ValueError, match=r"4 of the 4 classes .* Protect a fresh copy of the originals"):
        protect(clips, LABELS, key)
    assert np.array_equal(clips, before)
    protect(clips[:7], LABELS[:7], key)  # a batch may hold any clip


def test_a_batch_of_a_framework_is_not_refused(tmp_path: Path, key: Key) -> None:
    key.save(tmp_path / "k")
    protector = Protector(tmp_path / "k")
    batch = {"audio": noise(0.01), "label": LABELS}
    protector(protector(batch))


def folder_of(root: Path, numbers: range = range(8), suffix: str = "wav") -> Path:
    for number in numbers:
        path = root / f"class{number % 2}" / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(0.01, (16_000,), number), RATE)
    return root


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_folder_that_lost_its_sidecar_is_refused(suffix: str, tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set", suffix=suffix)
    protect_folder(root, None, key)
    root.rename(moved := tmp_path / "renamed")
    with untouched(tmp_path), pytest.raises(SidecarError, match=r"2 of the 2 classes .*\('class0', 'class1'\)"):
        protect_folder(moved, None, key)
    moved.rename(root)
    assert protect_folder(root, None, key).state == "already protected"


def test_a_single_file_is_refused(tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set")
    protect_folder(root, None, key)
    shutil.copy(root / "class1" / "3.wav", alone := tmp_path / "alone.wav")
    with untouched(tmp_path), pytest.raises(SidecarError, match="1 of the 1 classes"):
        protect_folder(alone, None, key, labels_from={"alone.wav": "class1"})
    assert protect_folder(alone, None, key, labels_from={"alone.wav": "class0"}).state == "protected"


def test_added_files_are_looked_at(tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set")
    protect_folder(root, None, key)
    shutil.copy(root / "class1" / "3.wav", root / "class1" / "same.wav")
    with untouched(tmp_path), pytest.raises(SidecarError, match=r"1 files that .* \(class1/same.wav\).* 1 classes"):
        protect_folder(root, None, key)
    (root / "class1" / "same.wav").unlink()
    folder_of(root, range(8, 10))
    before = contents(root)
    assert protect_folder(root, None, key).state == "protected"
    assert [name for name, content in contents(root).items() if content != before[name]] == [
        "class0/8.wav",
        "class1/9.wav",
    ]


def test_files_that_are_added_to_an_undone_folder_are_looked_at(tmp_path: Path, key: Key) -> None:
    root = folder_of(tmp_path / "set")
    protect_folder(root, None, key)
    marked = (root / "class1" / "3.wav").read_bytes()
    restore_folder(root, key)
    (root / "class1" / "same.wav").write_bytes(marked)
    with untouched(tmp_path), pytest.raises(SidecarError, match=r"class1/same\.wav"):
        protect_folder(root, None, key)
