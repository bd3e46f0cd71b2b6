"""The evaluation of one's own files: the right clips in the right roles, honest figures, and the recipe."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import readme
import soundfile
from audiofiles import contents, untouched
from recipes import protect_folder
from test_cli import poscuda

from benchmarks import stored
from experiments.tables import __main__ as documents
from poscuda_fast import DatasetError, Key, Recipe, SidecarError, drop_undo, protect, restore_folder
from poscuda_fast.arrays import verbs
from poscuda_fast.cli import synth
from poscuda_fast.evaluation import attacks, corpus, quality, sources, study, words
from poscuda_fast.evaluation.verdict import interval, judge
from poscuda_fast.mark.labels import integer_token
from poscuda_fast.mark.lines import draw_lines

RECIPE = Recipe.strong()
SHARE = {"yes": 12, "no": 8}
NEEDS_ZARR = pytest.mark.skipif(
    importlib.util.find_spec("zarr") is None and os.environ.get("POSCUDA_REQUIRE_EXPERIMENTS") != "1",
    reason="zarr is not installed",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two words of unequal counts, one file stereo and at another rate, and a word that is too rare to be used."""
    for word, n in {**SHARE, "sun": 2}.items():
        (tmp_path / "src" / word).mkdir(parents=True)
        for take in range(n):
            path = tmp_path / "src" / word / f"{take}.wav"
            soundfile.write(path, synth.speak(word, take % 4, take), synth.SAMPLE_RATE, "PCM_16")
    wide = np.stack([synth.speak("yes", 0, 50)] * 2, axis=1)
    soundfile.write(tmp_path / "src/yes/wide.flac", wide, 2 * synth.SAMPLE_RATE, "PCM_24")
    return tmp_path / "src"


def opened(src: Path, key: Key, **given: Any) -> sources.Folder:
    options: dict[str, Any] = {"recipe": RECIPE, "labels_from": "folder", "sidecar": None}
    return sources.Folder(src, key, **{**options, **given})


def gathered(source: sources.Source, work: Path, **given: Any) -> corpus.Corpus:
    work.mkdir()
    return corpus.gather(source, work, **{"most": 100, "seconds": None, "progress": None, **given})


def test_clips_are_what_the_files_hold_clean_and_protected(tmp_path: Path, key: Key, folder: Path) -> None:
    with untouched(folder):
        found = gathered(opened(folder, key), tmp_path / "work")
    protect_folder(folder, tmp_path / "dst", key, recipe=RECIPE)
    assert found.classes == ("no", "yes")
    assert not found.was_protected
    names = [name for name in sorted(contents(folder)) if not name.startswith("sun")]
    assert len(found.labels) == len(names) == 21
    for row, name in enumerate(names):
        assert found.classes[found.labels[row]] == name.split("/")[0]
        if name.endswith("wav"):
            for array, root in ((found.clean, folder), (found.protected, tmp_path / "dst")):
                samples = soundfile.read(root / name, dtype="int16")[0][: array.shape[1]]
                assert np.array_equal(array[row, : found.lengths[row]], samples)
                assert not array[row, found.lengths[row] :].any()


def test_training_and_test_clips_are_apart_and_every_class_is_in_both(tmp_path: Path, key: Key, folder: Path) -> None:
    found = gathered(opened(folder, key), tmp_path / "work")
    everything = np.concatenate([found.training, found.testing])
    assert sorted(everything) == list(range(21))
    assert np.bincount(found.labels[found.testing]).tolist() == [2, 3]
    few = gathered(opened(folder, key), tmp_path / "few", most=12)
    assert np.bincount(few.labels).tolist() == [5, 6]
    assert np.bincount(gathered(opened(folder, key), tmp_path / "fewest", most=10).labels).tolist() == [5, 5]
    with pytest.raises(DatasetError, match="9 clips are too few for 2 classes; take 5 for each, 10 or more"):
        gathered(opened(folder, key), tmp_path / "none", most=9)


def test_mis_keyed_clips_carry_the_mark_of_another_class(tmp_path: Path, key: Key, folder: Path) -> None:
    found = gathered(opened(folder, key), tmp_path / "work")
    rows = found.testing[: len(found.miskeyed)]
    expected = found.clean[rows].copy()
    protect(
        [clip[:n] for clip, n in zip(expected, found.lengths[rows], strict=True)],
        [found.classes[1 - label] for label in found.labels[rows]],
        key,
        recipe=RECIPE,
    )
    same = [np.array_equal(a, b) for a, b in zip(found.miskeyed, expected, strict=True)]
    assert sum(same) >= len(same) - 1  # the stereo file is marked in both channels, at its own rate
    assert not np.array_equal(found.miskeyed, found.protected[rows])


def test_protected_files_give_the_same_clips_as_clean_ones(tmp_path: Path, key: Key, folder: Path) -> None:
    protect_folder(folder, tmp_path / "dst", key, recipe=RECIPE)
    clean = gathered(opened(folder, key), tmp_path / "a")
    with untouched(tmp_path / "dst"):
        found = gathered(opened(tmp_path / "dst", key, recipe=None), tmp_path / "b")
    assert found.was_protected
    assert found.recipe == RECIPE
    for name in ("clean", "protected", "miskeyed", "labels", "lengths", "training", "testing", "file_rates"):
        assert np.array_equal(getattr(found, name), getattr(clean, name)), name
    assert found.labels_mac == clean.labels_mac


@pytest.mark.parametrize("protected", [False, True])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("kind", ["npy", pytest.param("zarr", marks=NEEDS_ZARR)])
def test_an_array_gives_its_clips(tmp_path: Path, key: Key, protected: bool, dtype: Any, kind: str) -> None:
    rng = np.random.default_rng(1)
    clips = rng.integers(-9000, 9000, (20, 9000)).astype(np.int16)
    labels, lengths = np.arange(20) % 2, np.full(20, 9000)
    lengths[3] = 0
    before = clips if dtype == np.int16 else (clips / np.float32(32768)).astype(np.float32)
    path = tmp_path / f"clips.{kind}"
    if kind == "zarr":
        import zarr

        zarr.create_array(path, data=before, chunks=(6, 9000))
    else:
        np.save(path, before)
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "lengths.npy", lengths)
    wet = before.copy()
    (tmp_path / "classes.txt").write_text("yes\nno\n")
    given: dict[str, Any] = {"sample_rate": 8000, "lengths": lengths, "classes": ["yes", "no"]}
    protect(wet, labels, key, **given)
    if protected:
        verbs.protect_array(path, labels, key, **given)
    with untouched(tmp_path):
        its_labels, its_lengths = (tmp_path / f"{name}.npy" for name in ("labels", "lengths"))
        source = sources.Array(
            path,
            key,
            its_labels,
            classes=tmp_path / "classes.txt",
            lengths=its_lengths,
            sample_rate=None if protected else 8000,  # which the sidecar records
        )
        assert source.was_protected == protected
        found = gathered(source, tmp_path.parent / f"work {protected} {dtype.__name__} {kind}")
    assert np.array_equal(found.clean, np.delete(clips, 3, axis=0))
    scaled = wet if dtype == np.int16 else np.clip(np.rint(wet * 32768.0), -32768, 32767).astype(np.int16)
    assert np.array_equal(found.protected, np.delete(scaled, 3, axis=0))


def test_labels_are_those_of_the_sidecar_whatever_is_beside_it(tmp_path: Path, key: Key, folder: Path) -> None:
    protect_folder(folder, tmp_path / "dst", key, recipe=RECIPE, labels_from=r"regex:(.)\.")
    (tmp_path / "dst.poscuda.json").unlink()
    assert set(opened(tmp_path / "dst", key).labels) == {*"0123456789", "e"}


@pytest.mark.parametrize(
    ("gone", "given"),
    [("sidecar", "dst"), *itertools.product(("sidecar", "manifest"), (".", "dst/yes", "dst/yes/0.wav"))],
)
def test_protected_files_are_never_taken_for_clean_ones(
    tmp_path: Path, key: Key, folder: Path, gone: str, given: str
) -> None:
    """Where the sidecar was moved away, or tells of more or less than what was given."""
    protect_folder(folder, tmp_path / "dst", key, recipe=RECIPE)
    os.rename(tmp_path / {"sidecar": "dst.poscuda", "manifest": "dst.poscuda.json"}[gone], tmp_path / "safe")
    sentence = "is protected according to" if gone == "sidecar" else "is protected already by"
    with pytest.raises((DatasetError, SidecarError), match=sentence):
        opened(tmp_path / given, key)
    if given == "dst":
        assert opened(tmp_path / "dst", key, sidecar=tmp_path / "safe").was_protected


def test_errors_carry_no_secrets(tmp_path: Path, key: Key, folder: Path) -> None:
    protect_folder(folder, tmp_path / "dst", key, recipe=RECIPE)
    soundfile.write(tmp_path / "dst/yes/new.wav", synth.speak("yes", 0, 99), synth.SAMPLE_RATE)
    with pytest.raises(DatasetError, match=r"yes/new\.wav has no label") as caught:
        opened(tmp_path / "dst", key)
    traces = [trace for trace in caught.traceback if trace.frame.f_globals["__name__"].startswith("poscuda_fast")]
    assert [trace.frame.f_locals for trace in traces if trace.name != "guarded"] == [{}] * (len(traces) - 1)


def test_a_sidecar_that_is_asked_for_must_be_there(tmp_path: Path, key: Key, folder: Path) -> None:
    for missing in (tmp_path / "typo", tmp_path / f"{folder.name}.poscuda"):
        with pytest.raises(SidecarError, match=r"There is no sidecar .*; give the one that was written"):
            opened(folder, key, sidecar=missing)
    (tmp_path / f"{folder.name}.poscuda").touch()
    with pytest.raises(SidecarError, match="is not a sidecar of this version"):
        opened(folder, key)


@pytest.mark.parametrize(("spoil", "word"), [("original", "is the original again"), ("torn", "is neither")])
def test_a_clip_that_is_not_protected_any_more_is_refused(
    tmp_path: Path, key: Key, folder: Path, spoil: str, word: str
) -> None:
    protect_folder(folder, tmp_path / "dst", key, recipe=RECIPE)
    path = tmp_path / "dst/no/1.wav"
    other = bytearray(path.read_bytes())
    other[-3] ^= 1
    path.write_bytes((folder / "no/1.wav").read_bytes() if spoil == "original" else other)
    with pytest.raises(DatasetError, match=f"no/1.wav {word}"):
        gathered(opened(tmp_path / "dst", key), tmp_path / "work")


def save_array(folder: Path, *, n: int = 20) -> np.ndarray:
    """clips.npy and labels.npy: noise of two classes."""
    clips = np.random.default_rng(1).integers(-9000, 9000, (n, 9000)).astype(np.int16)
    np.save(folder / "clips.npy", clips)
    np.save(folder / "labels.npy", np.arange(n) % 2)
    return clips


def open_array(folder: Path, key: Key, **given: Any) -> sources.Array:
    return sources.Array(folder / "clips.npy", key, folder / "labels.npy", **{"sample_rate": 8000, **given})


def test_an_array_is_not_taken_for_what_it_is_not(tmp_path: Path, key: Key) -> None:
    clips = save_array(tmp_path)
    path, sidecar = tmp_path / "clips.npy", tmp_path / "clips.npy.poscuda"
    with pytest.raises(SidecarError, match="There is no sidecar"):
        open_array(tmp_path, key, sidecar=sidecar)
    sidecar.touch()
    with pytest.raises(SidecarError, match="is not a sidecar of this version"):
        open_array(tmp_path, key)
    sidecar.unlink()
    verbs.protect_array(path, np.arange(20) % 2, key, sample_rate=8000)
    assert open_array(tmp_path, key).was_protected
    with pytest.raises(DatasetError, match="at a sample rate of 8,000 Hz, not 16,000; leave sample_rate out"):
        open_array(tmp_path, key, sample_rate=16_000)
    np.save(path, clips)
    with pytest.raises(DatasetError, match="Clip 0 is the original again"):
        gathered(open_array(tmp_path, key), tmp_path / "work")
    np.save(tmp_path / "labels.npy", np.arange(20) // 2 % 2)
    with pytest.raises(DatasetError, match="was protected with other labels or lengths than these"):
        open_array(tmp_path, key)


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_clips_that_hold_their_marks_are_not_clean(tmp_path: Path, key: Key, folder: Path, strength: float) -> None:
    """Where neither a sidecar nor a manifest is left."""
    save_array(tmp_path)
    verbs.protect_array(
        tmp_path / "clips.npy", np.arange(20) % 2, key, recipe=Recipe.strong(strength), sample_rate=8000
    )
    (tmp_path / "clips.npy.poscuda").unlink()
    protect_folder(folder, tmp_path / "dst", key, recipe=Recipe.strong(strength))
    for name in ("dst.poscuda", "dst.poscuda.json"):
        (tmp_path / name).unlink()
    with pytest.raises(SidecarError, match="are marked with this key already: 3 of the 3 classes"):
        opened(tmp_path / "dst", key)
    if strength == 1:  # in loud noise only all clips together tell
        with pytest.raises(DatasetError, match="These clips are protected with this key"):
            gathered(open_array(tmp_path, key), tmp_path / "array")
    else:
        with pytest.raises(SidecarError, match="are marked with this key already: 2 of the 2 classes"):
            open_array(tmp_path, key)
    other = Key(bytes(32))
    assert not gathered(opened(tmp_path / "dst", other), tmp_path / "other").was_protected


@pytest.mark.parametrize("lengths", [np.full(20, 9000.0), np.full(19, 9000), np.full(20, 9001)])
def test_lengths_that_do_not_fit_are_refused(tmp_path: Path, key: Key, lengths: np.ndarray) -> None:
    save_array(tmp_path)
    np.save(tmp_path / "lengths.npy", lengths)
    with pytest.raises((TypeError, ValueError), match="lengths"):
        open_array(tmp_path, key, lengths=tmp_path / "lengths.npy")


def test_what_cannot_be_evaluated_is_said(tmp_path: Path, key: Key, folder: Path) -> None:
    with pytest.raises(DatasetError, match="There are 0 classes with at least 5 clips, of 1 in all"):
        gathered(opened(folder / "sun", key), tmp_path / "a")
    protect_folder(folder, None, key)
    restore_folder(folder, key)
    assert not opened(folder, key).was_protected
    protect_folder(folder, None, key)
    drop_undo(folder, key)
    with pytest.raises(DatasetError, match="is in state final; evaluate clean files"):
        opened(folder, key)


def test_a_copy_is_evaluated_beside_its_source(tmp_path: Path, key: Key, folder: Path) -> None:
    protect_folder(folder, tmp_path / "dst", key, recipe=RECIPE)
    source = opened(tmp_path / "dst", key)
    assert source.was_protected
    clean, found = (
        gathered(opened(path, key), tmp_path / name) for path, name in ((folder, "a"), (tmp_path / "dst", "b"))
    )
    assert np.array_equal(found.clean, clean.clean)
    (folder / "no/1.wav").write_bytes((folder / "no/2.wav").read_bytes())
    with pytest.raises(DatasetError, match=r"no/1\.wav is not the source of the copy any more"):
        gathered(source, tmp_path / "c")


KILLED = """
import os, signal, sys
from poscuda_fast import Key
from poscuda_fast.evaluation import sources, study

def die(done, total):
    if [str(done), str(total)] == sys.argv[2:]:
        os.kill(os.getpid(), signal.SIGKILL)

key = Key(bytes(range(32)))
source = sources.Folder(sys.argv[1], key)
study.evaluate(source, key, epochs=1, models=("cnn",), attacks=False, progress=die)
"""


@pytest.mark.skipif(os.name == "nt", reason="a file that is mapped keeps its name there")
@pytest.mark.parametrize("step", [(15, 21), (1, 3)])
def test_a_killed_evaluation_leaves_no_clips_behind(tmp_path: Path, folder: Path, step: tuple[int, int]) -> None:
    """Neither while clips are gathered nor while models learn."""
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-c", KILLED, folder, *map(str, step)]
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}, check=False)
    assert done.returncode == -signal.SIGKILL
    (work,) = (tmp_path / "tmp").glob("poscuda-evaluation-*")
    assert not list(work.iterdir())


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_lines_are_notched_out_at_every_rate(tmp_path: Path, key: Key, rate: int) -> None:
    """Little is left of the marks, also in the clips of another rate."""
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "src" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(exist_ok=True, parents=True)
        own = 32000 if number % 6 < 2 else rate
        soundfile.write(path, rng.normal(0, 0.01, own), own, "PCM_16")
    found = gathered(opened(tmp_path / "src", key, recipe=None, strength=1.0), tmp_path / "work")
    rows = found.training
    cleaned = study._notched(found)
    for own in (rate, 32000):
        mine = found.file_rates[rows] == own
        energies = [
            np.square(clips[mine] - found.clean[rows[mine]].astype(float)).sum()
            for clips in (found.protected[rows], cleaned)
        ]
        assert energies[1] < 0.02 * energies[0], own


def test_the_lines_of_every_class_are_found_and_taken_off(key: Key) -> None:
    clips = np.random.default_rng(1).normal(0, 1000, (60, 6000)).astype(np.int16)
    labels, lengths = np.arange(60) % 3, np.random.default_rng(2).integers(3000, 6001, 60)
    clips[np.arange(6000) >= lengths[:, None]] = 0
    wet = clips.copy()
    protect(wet, labels, key, sample_rate=8000, lengths=lengths)
    pairs = draw_lines(key, [integer_token(label) for label in range(3)], RECIPE, [8000]).pairs
    found = attacks.class_lines(wet, labels, lengths, 1 / 256)
    assert {label: set(lines.tolist()) for label, lines in found.items()} == {
        label: {pair.h, pair.g} for label, pair in enumerate(pairs)
    }
    cleaned = attacks.notched(wet, labels, lengths, 1 / 256)
    assert not cleaned[np.arange(6000) >= lengths[:, None]].any()
    left, before = (np.square(some - clips.astype(float)).sum() for some in (cleaned, wet))
    assert left < 0.2 * before  # what is left is noise of the clips' own at these frequencies


def test_an_attack_that_cannot_be_tried_is_told(tmp_path: Path, key: Key, folder: Path) -> None:
    found = study.evaluate(opened(folder, key, recipe=Recipe.paper()), key, epochs=1, models=("cnn",))
    assert found["attacks"] == []
    assert found["attacks_not_tried"] == [
        {"attack": "class lines notched out", "because": "the marks of format 1 have no lines"}
    ]
    assert "class lines notched out: not tried, because the marks of format 1 have no lines" in words.text(found)


def test_a_whole_evaluation(tmp_path: Path, key: Key, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    steps: list[tuple[int, int]] = []
    found = study.evaluate(
        opened(folder, key),
        key,
        epochs=2,
        models=("cnn",),
        seeds=2,
        progress=lambda *step: steps.append(step),
        tell=told.append,
    )
    assert steps[0] == (1, 21)
    assert steps[20] == (21, 21)
    assert steps[-1] == (14, 14)  # two epochs of six trainings and an attack
    assert told[:3] == [
        "Decoding clips: at most 3,000 of 23.",
        "7 trainings of small models (CNN (log-mel)), 1 of them as an attacker might: 14 epochs of 16 clips.",
        "Training CNN (log-mel) on clean clips; after that, the time for the others can be told.",
    ]
    for number, line in enumerate(told[3:9], 1):
        assert re.fullmatch(rf"{number} of 7  .* clips.*: [\d.]+ % in \d+ s; about \d+ s left, now .* clips.*", line)
    assert re.fullmatch(r"7 of 7  CNN .* % in \d+ s", told[9])
    assert told[10:] == ["Measuring the quality of the protected clips."]
    assert found["data"]["chance"] == 60.0
    assert [row["attack"] for row in found["attacks"]] == ["class lines notched out"]
    assert set(found["quality"]) >= {"snr_db", "log_spectral_distance_db"}
    (row,) = found["models"]
    assert row["protected"] == max(row["plain"], row["default"])
    assert row["protected_interval"][0] <= row["protected"] <= row["protected_interval"][1]
    assert found["verdict"]["word"] == "cannot tell"  # of five test clips
    (tmp_path / "found.json").write_bytes(words.stored(found))
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert bytes(range(32)).hex() not in (tmp_path / "found.json").read_text()
    with open(tmp_path / "found.svg", "wb") as file:
        words.plot(found, file)
    assert "<svg" in (tmp_path / "found.svg").read_text()
    text = words.text(found)
    assert "Verdict: cannot tell." in text
    assert "class lines notched out, CNN (log-mel)" in text
    assert found["attacks_not_tried"] == []
    assert found["data"]["split"] in text
    assert "after the last epoch, on test clips with the mark" in text
    assert "as most people do" in text
    assert "SNR over changed frames" in text
    monkeypatch.setattr(stored, "EXPERIMENTS", tmp_path)
    stored.store(tmp_path, "evaluation", "python -m experiments.evaluation SPEECH", {"dataset": "FSDD", **found})
    shown = documents.evaluation()
    assert f"```text\n{text}\n```" in shown
    assert "SPEECH is a folder with the data sets." in shown
    assert set(words.MEASURES) == set(quality.METRICS)


def test_its_recipe_runs(demo_folder: Path) -> None:
    """With fewer epochs: from the demo's sounds to a verdict, and to a page."""
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    (block,) = readme.blocks(readme.RECIPES, "Does it work on my files?")
    faster = block.code.replace(" -o evaluation.json", " -o evaluation.json --epochs 1 --no-attacks --model cnn")
    assert "Verdict: " in readme.run(block._replace(code=faster), demo_folder)
    assert not (demo_folder / "evaluation.part.json").exists()
    assert "<html" in (demo_folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("accuracy", "n", "expected"),
    [(50.0, 100, (40.4, 59.6)), (0.0, 10, (0.0, 27.8)), (100.0, 10, (72.2, 100.0)), (50.0, 0, (0.0, 100.0))],
)
def test_intervals(accuracy: float, n: int, expected: tuple[float, float]) -> None:
    """Against published values of Wilson's interval."""
    assert interval(accuracy, n) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    ("clean", "protected", "n", "word"),
    [
        (99, 25, 1000, "works"),
        (99, 25, 60, "works in part"),  # the same, less certain
        (99, 40, 600, "works in part"),
        (99, 90, 600, "does not work"),
        (25, 12, 600, "cannot tell"),
        (99, 12, 40, "cannot tell"),
    ],
)
def test_verdicts(clean: float, protected: float, n: int, word: str) -> None:
    found = judge(clean, protected, 10.0, n, 1)
    assert found.word == word
    assert f"{n}" in found.uncertainty
    assert "attack" not in found.sentence


@pytest.mark.parametrize(
    ("protected", "attacked", "word", "sentence"),
    [
        (25, [12, 25], "works", "The better attack that was tried reaches 25 %."),
        (25, [24], "works", "The attack that was tried reaches 24 %."),
        (25, [50], "works, but only in part against attacks", "The attack that was tried reaches 50 %."),
        (25, [20, 97], "works, but not against attacks", "The better attack that was tried reaches 97 %."),
        (40, [50], "works in part", "reaches 50 %."),
        (40, [70], "works in part, but not against attacks", "reaches 70 %."),
        (90, [20], "does not work", "The attack that was tried reaches 20 %."),
    ],
)
def test_verdicts_where_attacks_were_tried(protected: float, attacked: list[float], word: str, sentence: str) -> None:
    """The attacked accuracy is held against the same thresholds, and is told as it is."""
    found = judge(99, protected, 10.0, 1000, 1, attacked)
    assert found.word == word
    assert found.sentence.endswith(sentence)


@pytest.fixture
def at_home(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run commands in, with a key; nothing is trained in them."""
    key.save(tmp_path / "my.key")
    monkeypatch.chdir(tmp_path)
    row = {
        "model": "M5",
        "clean": 90.0,
        "plain": 30.0,
        "default": 28.0,
        "protected": 30.0,
        "protected_interval": [26.5, 33.8],
    }
    fields = {
        "models": [row | {"keyed": 99.0, "miskeyed": 5.0}],
        "attacks": [],
        "attacks_not_tried": [],
        "quality": {},
        "verdict": {"word": "works in part", "sentence": "So it is.", "uncertainty": "By some points."},
        "data": {"training_clips": 2400, "test_clips": 600, "classes": 10, "chance": 10.0, "sample_rate": 8000}
        | {"seconds_heard": 1.0, "split": study.SPLIT},
    }
    monkeypatch.setattr(study, "evaluate", lambda source, *_, **__: fields | {"recipe": source.recipe.to_dict()})
    return tmp_path


def evaluated(*arguments: object) -> subprocess.CompletedProcess[str]:
    return poscuda("evaluate", *arguments, "--key", "my.key")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["src", "--labels", "labels.npy"], "--labels is for an array SRC"),
        (["src", "--lengths", "labels.npy"], "--lengths is for an array SRC"),
        (["clips.npy"], "An array SRC needs --labels"),
        (["clips.npy", "--labels", "labels.npy", "--labels-from", "csv:a"], "--labels-from is for audio files"),
        (["src", "--sample-rate", "8000"], "--sample-rate is for an array SRC"),
        (["clips.npy", "--labels", "labels.npy", "--sample-rate", "0"], "from 2000 to 512000"),
        (["clips.npy", "--labels", "labels.npy", "--paper", "--sample-rate", "0"], "--sample-rate is 0"),
        (["src", "--snr", "99"], "snr is 99 dB, for which the strength would be"),
        (["dst", "--snr", "20"], "leave out --snr"),
        (["dst", "--strength", "1"], "leave out --strength"),
        (["dst", "--labels-from", "folder"], "leave out --labels-from"),
        (["dst", "--paper"], "leave out --paper"),
        (["marked/clips.npy", "--labels", "labels.npy", "--strength", "2"], "leave out --strength"),
        (["src", "-o", "/proc/found.json"], "/proc/found.json cannot be written"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    at_home: Path, key: Key, folder: Path, arguments: list[str], sentence: str
) -> None:
    save_array(at_home)
    if "dst" in arguments:
        protect_folder(folder, at_home / "dst", key)
    if "marked/clips.npy" in arguments:
        (at_home / "marked").mkdir()
        verbs.protect_array(Path("clips.npy"), np.arange(20) % 2, key, dst=Path("marked/clips.npy"), recipe=RECIPE)
    before = set(at_home.iterdir())
    done = evaluated(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert set(at_home.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        (["--paper", "--sample-rate", "8000"], Recipe.paper()),
        (["--sample-rate", "8000", "--strength", "2"], Recipe.strong(2)),
        (["--snr", "20"], Recipe.strong(3.172)),
        ([], Recipe.strong()),
    ],
)
def test_an_array_takes_its_rate_whatever_the_recipe(at_home: Path, options: list[str], recipe: Recipe) -> None:
    save_array(at_home)
    done = evaluated("clips.npy", "--labels", "labels.npy", *options, "-o", "found.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((at_home / "found.json").read_text())["recipe"] == recipe.to_dict()
    assert "<svg" in (at_home / "found.svg").read_text()


def test_what_appears_during_the_training_is_not_overwritten(
    at_home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = study.evaluate

    def slow(*given: Any, **options: Any) -> dict[str, Any]:
        Path("found.svg").write_text("mine")
        return plain(*given, **options)

    monkeypatch.setattr(study, "evaluate", slow)
    done = evaluated("src", "-o", "found.json")
    assert done.returncode == 2
    assert "found.svg appeared just now" in done.stderr
    assert "Verdict:" in done.stdout
    assert Path("found.svg").read_text() == "mine"
    assert {path.name for path in at_home.iterdir()} == {"my.key", folder.name, "found.svg"}
