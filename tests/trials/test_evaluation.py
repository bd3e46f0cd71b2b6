"""The evaluation of one's own files: the right clips in the right roles, honest figures, and README's commands."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import readme
import soundfile
from audiofiles import contents, untouched
from recipes import protect_folder

from poscuda_fast import DatasetError, Key, Recipe, drop_undo, protect, restore_folder, stored, synth
from poscuda_fast.evaluation import corpus, study, words
from poscuda_fast.evaluation.verdict import interval, judge

RECIPE = Recipe.strong(sample_rate=synth.SAMPLE_RATE)
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


def opened(src: Path, key: Key, **given: Any) -> corpus.Folder:
    options: dict[str, Any] = {"recipe": RECIPE, "strength": 1.0, "labels_from": "folder", "sidecar": None}
    return corpus.Folder(src, key, **{**options, **given})


def gathered(source: corpus.Source, work: Path, **given: Any) -> corpus.Corpus:
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
    assert np.bincount(few.labels).tolist() == [5, 7]


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
    for name in ("clean", "protected", "miskeyed", "labels", "lengths", "training", "testing"):
        assert np.array_equal(getattr(found, name), getattr(clean, name)), name


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
    recipe = Recipe.strong(sample_rate=8000)
    wet = before.copy()
    (tmp_path / "classes.txt").write_text("yes\nno\n")
    protect(wet, labels, key, recipe=recipe, lengths=lengths, classes=["yes", "no"])
    if protected:
        stored.protect(path, None, labels, key, recipe=recipe, lengths=lengths, classes=["yes", "no"])
    with untouched(tmp_path):
        its_labels, its_lengths = (tmp_path / f"{name}.npy" for name in ("labels", "lengths"))
        source = corpus.Array(
            path,
            key,
            its_labels,
            classes=tmp_path / "classes.txt",
            lengths=its_lengths,
            recipe=recipe,
            sample_rate=8000,
            sidecar=None,
        )
        assert source.was_protected == protected
        found = gathered(source, tmp_path.parent / f"work {protected} {dtype.__name__} {kind}")
    assert np.array_equal(found.clean, np.delete(clips, 3, axis=0))
    scaled = wet if dtype == np.int16 else np.clip(np.rint(wet * 32768.0), -32768, 32767).astype(np.int16)
    assert np.array_equal(found.protected, np.delete(scaled, 3, axis=0))


def test_what_cannot_be_evaluated_is_said(tmp_path: Path, key: Key, folder: Path) -> None:
    with pytest.raises(DatasetError, match="There are 0 classes with at least 5 clips, of 1 in all"):
        gathered(opened(folder / "sun", key), tmp_path / "a")
    protect_folder(folder, tmp_path / "dst", key)
    restore_folder(tmp_path / "dst", key)
    assert not opened(tmp_path / "dst", key).was_protected
    protect_folder(folder, tmp_path / "final", key)
    drop_undo(tmp_path / "final", key)
    with pytest.raises(DatasetError, match="is in state final; evaluate clean files"):
        opened(tmp_path / "final", key)


def test_a_whole_evaluation(tmp_path: Path, key: Key, folder: Path) -> None:
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
    assert steps[-1] == (12, 12)  # two epochs of four trainings and two attacks
    assert len(told) == 6
    assert found["data"]["chance"] == 60.0
    assert [row["attack"] for row in found["attacks"]] == ["shifted at random", "class sounds folded out"]
    assert set(found["quality"]) >= {"snr_db", "log_spectral_distance_db"}
    (row,) = found["models"]
    assert row["protected_interval"][0] <= row["protected"] <= row["protected_interval"][1]
    assert found["verdict"]["word"] == "cannot tell"  # of five test clips
    words.store(found, tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert bytes(range(32)).hex() not in (tmp_path / "found.json").read_text()
    words.plot(found, tmp_path / "found.svg")
    assert "<svg" in (tmp_path / "found.svg").read_text()
    text = words.text(found)
    assert "Verdict: cannot tell." in text
    assert "shifted at random, M5" in text


def test_the_commands_of_readme_run(tmp_path: Path, key: Key) -> None:
    """With fewer epochs: from recordings to a verdict and a page that shows it."""
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    readme.recordings(tmp_path / "recordings", n=10)
    key.save(tmp_path / "my.key")
    protect_folder(tmp_path / "recordings", tmp_path / "louder", key, recipe=Recipe.strong(2))
    lines = [line for block in readme.blocks("sh") for line in block.code.splitlines()]
    (evaluate,) = (shlex.split(line, comments=True)[1:] for line in lines if line.startswith("poscuda evaluate"))
    (report,) = (shlex.split(line, comments=True)[1:] for line in lines if line.startswith("poscuda report"))
    done = readme.run_command([*evaluate, "--epochs", "1", "--no-attacks", "--model", "cnn"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Verdict: " in done.stdout
    assert "1 of 2  CNN (log-mel) on clean clips" in done.stderr
    again = readme.run_command(evaluate, tmp_path)
    assert again.returncode == 2
    assert "evaluation.json exists, and nothing is overwritten" in again.stderr
    done = readme.run_command(report, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cannot tell" in (tmp_path / "report.html").read_text(encoding="utf-8")


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


def test_the_command_offers_every_model() -> None:
    from poscuda_fast.cli.looking import MODELS
    from poscuda_fast.evaluation.models import NAMES

    assert set(MODELS) == set(NAMES)
