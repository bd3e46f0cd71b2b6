"""Cells of the trainings: known by all that changes them, whole, never made twice, and beside the data they are of."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from installed import run_module

from benchmarks import stored
from experiments.data.dataset import KNOWN, RESULTS, TEST, TRAIN, Dataset, load, results_of
from experiments.parallel import in_parallel
from experiments.tables import text
from experiments.training import __main__ as command
from experiments.training import baselines, cells, conditions, readings
from experiments.training.cells import Cell
from experiments.training.conditions import poscuda, study_key
from poscuda_fast.evaluation.training import Part

ASKED = (
    "dataset", "digest", "split", "clips", "model", "condition", "training", "seed", "key_fingerprint", "epochs",
    "clean_final", "clean_peak", "keyed", "miskeyed", "noise", "train", "snr_db", "title", "train_clips", "test_clips",
    "settings", "curves", "seconds", "device", "versions", "machine", "date", "command", "python",
    *cells.MEASURED,
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return tiny.dataset(tmp_path / "data")


def found_in(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def run(data: Dataset, *more: str, models: str = "cnn") -> None:
    command.main([str(data.folder), "--models", models, *more])


# Identity


def test_whatever_changes_a_result_changes_the_name_of_its_file(data: Dataset) -> None:
    plain = Cell(data.folder, "strong-1", "cnn")
    others = [
        dataclasses.replace(plain, **change)
        for change in (
            {"condition": "clean"}, {"condition": "strong-2"}, {"condition": "poscuda-0.01"}, {"condition": "emin-14"},
            {"condition": "literal"}, {"condition": "sgd"}, {"condition": "few-epochs"}, {"model": "lstm"},
            {"training": "default"}, {"training": "mean-off"}, {"seed": 1}, {"split": "70-30"}, {"clips": 16},
            {"clips": 32}, {"epochs": 1}, {"epochs": 2}, {"condition": "few-epochs", "epochs": 1},
        )
    ]  # fmt: skip
    names = [cell.name(data) for cell in (plain, *others)]
    # A reading's own number of epochs holds whatever is asked for.
    assert len(set(names)) == len(names) - 1
    assert names[-1] == names[7]
    assert all("/" not in name for name in names)


def test_the_place_of_the_data_and_the_machine_do_not_change_it(data: Dataset, tmp_path: Path) -> None:
    again = tiny.dataset(tmp_path / "again")
    cell = Cell(data.folder, "strong-1", "cnn", epochs=20)
    for other in (dataclasses.replace(cell, folder=again.folder), dataclasses.replace(cell, device="cpu")):
        assert other.name(again) == cell.name(data)
    assert dataclasses.replace(cell, epochs=None).name(data) == cell.name(data)  # 20 is what a CNN needs


@pytest.mark.parametrize("changed", ["clips", "labels", "lengths", "split", "classes", "rate"])
def test_other_content_under_the_same_name_is_another_cell(data: Dataset, tmp_path: Path, changed: str) -> None:
    folder = tmp_path / "other"
    tiny.dataset(folder)
    if changed in ("classes", "rate"):
        about = json.loads((folder / "dataset.json").read_text())
        about |= {"classes": ["low", "middle", "top"]} if changed == "classes" else {"sample_rate": 8001}
        (folder / "dataset.json").write_text(json.dumps(about))
    else:
        values = np.load(folder / f"{changed}.npy")
        values[0] = np.flip(values[0]) if changed == "clips" else {"labels": 1, "lengths": 9, "split": TEST}[changed]
        np.save(folder / f"{changed}.npy", values)
    other = load(folder)
    assert other.name == data.name
    assert other.digest != data.digest
    assert Cell(folder, "clean", "cnn").name(other) != Cell(data.folder, "clean", "cnn").name(data)


def test_a_change_of_the_settings_behind_a_name_is_another_cell(data: Dataset, monkeypatch: Any) -> None:
    cell = Cell(data.folder, "emin-14", "cnn")
    before = cell.name(data)
    monkeypatch.setattr(baselines, "ROUNDS", 3)
    assert cell.name(data) != before


# What a cell holds


def test_a_cell_tells_everything(data: Dataset, tmp_path: Path) -> None:
    results = tmp_path / "results"
    for condition in ("clean", "poscuda-0.3", "strong-1"):
        line = Cell(data.folder, condition, "cnn", "default", 1, epochs=2).run(results)
        assert line.startswith(f"{condition} default s1 CNN (log-mel): ")
    found = found_in(results)
    assert len(found) == 3
    for cell in found.values():
        assert not [name for name in ASKED if name not in cell]
        assert cell["digest"] == data.digest
        assert cell["epochs"] == len(cell["curves"]["clean"]) == 2
        assert cell["clean_final"] == cell["curves"]["clean"][-1]
        assert cell["clean_peak"] == max(cell["curves"]["clean"])
        assert cell["test_clips"] == 12
        assert cell["clean_final"] in [round(100 * right / 12, 2) for right in range(13)]
        assert cell["settings"]["regime"]["share"] == 0.8
        assert all(cell[name] is None for name in cells.MEASURED)
        assert str(data.folder) not in json.dumps(cell)
    clean, paper, strong = found.values()
    assert clean["key_fingerprint"] is clean["keyed"] is clean["snr_db"] is None
    assert paper["key_fingerprint"] == strong["key_fingerprint"] == study_key(1).fingerprint
    assert paper["settings"]["condition"]["blur"] == 0.3
    assert "strength" not in paper
    assert (strong["strength"], strong["chosen"]) == (1.0, True)
    assert strong["settings"]["condition"]["sample_rate"] == tiny.RATE


@pytest.mark.parametrize(
    "cell", [{"condition": "clean", "epochs": 1, "clips": 16}, {"condition": "bias-padded-before", "epochs": 1},
             {"condition": "split-70-30", "epochs": 1}, {"condition": "cuda-0.3", "epochs": 1, "split": "70-30"},
             {"condition": "strong-0.5", "epochs": 1, "training": "mean-off", "seed": 2}],
    ids=lambda cell: cell["condition"],
)  # fmt: skip
def test_the_stored_command_finds_its_own_cell(
    data: Dataset, tmp_path: Path, cell: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    made = Cell(data.folder, model="lstm", **cell)
    made.run(results)
    ((name, fields),) = found_in(results).items()
    assert name == made.name(data)
    words = fields["command"].split()
    assert words[:4] == ["python", "-m", "experiments.training", "TINY"]
    command.main([str(data.folder), *words[4:], "--results", str(results)])
    assert f"Already stored, skipped: {results / name}.json" in capsys.readouterr().out
    assert list(found_in(results)) == [name]


def test_error_minimising_noise_is_stored_as_a_cell(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "ROUNDS", 2)
    Cell(data.folder, "emin-14", "cnn", epochs=1).run(tmp_path / "results")
    (cell,) = found_in(tmp_path / "results").values()
    # The noise's level is that of its whole length: a clip has a part of it.
    assert cell["snr_db"] == pytest.approx(14, abs=0.5)
    assert cell["settings"]["condition"]["stop_percent"] == 99.0


def test_readings_change_what_they_say(data: Dataset) -> None:
    few, sgd, split = (Cell(data.folder, name, "cnn") for name in ("few-epochs", "sgd", "split-70-30"))
    assert few.config.epochs == readings.FEW_EPOCHS
    assert (sgd.config.optimizer, sgd.config.epochs) == ("sgd", 20)
    assert split._identity(data)["split"] == "70-30"
    padded = Cell(data.folder, "padded-before", "cnn")._identity(data)
    assert padded["settings"]["condition"]["padded"] == "before"
    assert all(reading.name == name for name, reading in readings.readings().items())


def test_the_snr_is_the_median_over_training_clips(data: Dataset) -> None:
    rows = data.rows(TRAIN)
    clips = np.array(data.clips)
    poscuda(0.3).mark(clips, data.labels, data.lengths, study_key(0))
    each = []
    for row in rows:
        before, after = (samples[row, : data.lengths[row]].astype(float) for samples in (data.clips, clips))
        each.append(10 * np.log10(np.sum(before**2) / np.sum((after - before) ** 2)))
    assert cells.median_snr_db(data, rows, Part(clips, rows, data.labels[rows])) == round(float(np.median(each)), 2)
    assert cells.median_snr_db(data, rows, Part(data.clips, rows, data.labels[rows])) is None


# The command


def test_cells_are_made_once_in_other_processes_and_shown(
    data: Dataset, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ("--conditions", "clean", "--trainings", "plain", "--epochs", "1", "--results", str(tmp_path / "results"))
    run(data, *asked, "--seeds", "0", "1", "--jobs", "2")
    said = capfd.readouterr()
    assert "50 % done" in said.out
    assert "100 % done\n" in said.out
    assert said.err == ""
    assert "| clean | plain |" in said.out
    before = found_in(tmp_path / "results")
    assert [fields["seed"] for fields in before.values()] == [0, 1]
    run(data, *asked, "--seeds", "0", "1")
    said = capfd.readouterr()
    for name in before:
        assert f"Already stored, skipped: {tmp_path}/results/{name}.json\n" in said.out
    assert "| clean | plain |" in said.out
    assert found_in(tmp_path / "results") == before


def test_a_data_set_of_a_known_name_with_other_content_keeps_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.dataset(tmp_path / "mine", name="fsdd")
    assert "fsdd" in KNOWN.values()
    folder = results_of(data, "protection")
    assert folder == data.folder / "results" / "protection"
    cell = Cell(data.folder, "clean", "cnn", epochs=1)
    cell.run(folder)
    run(data, "--conditions", "clean", "--trainings", "plain", "--epochs", "1", "--seeds", "0")
    assert f"skipped: {folder / cell.name(data)}.json" in capsys.readouterr().out
    assert not list(RESULTS.glob(f"protection/{cell.name(data)}.json"))
    # Nor do the tables show it if it gets there.
    monkeypatch.setattr(stored, "EXPERIMENTS", tmp_path / "results")
    cell.run(tmp_path / "results" / "protection")
    assert text.cells("protection") == []
    assert text.accuracy("fsdd", "official") == text.MISSING


def test_models_on_the_waveform_have_no_mean_to_take_off(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, "--trainings", "mean-off", "--conditions", "clean", models="m5")
    assert capsys.readouterr().out.count("\n") == 2  # an empty table
    assert not (data.folder / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["NOWHERE"], "There is no NOWHERE/dataset.json; make the folder with: python -m experiments.data SRC NOWHERE"),
        (["DATA", "--conditions", "strong-loud"], "There is no condition 'strong-loud'; expected clean, strong-S"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    data: Dataset, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([str(data.folder) if word == "DATA" else word for word in arguments])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Error: {words}")
    assert said.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to a group")
def test_an_interrupted_command_says_that_it_goes_on_and_does(data: Dataset, tmp_path: Path) -> None:
    results = tmp_path / "results"
    words = run_module(
        "experiments.training", data.folder, "--models", "cnn", "--trainings", "plain", "--conditions", "clean",
        "--seeds", *range(40), "--epochs", "60", "--results", results,
    )  # fmt: skip
    running = subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    first = running.stdout.readline()
    assert "2 % done, about" in first  # of 40
    os.killpg(running.pid, signal.SIGINT)  # as a terminal sends it: to the workers too
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said == "Stopped. What is finished is stored: the same command goes on from there.\n"
    kept = found_in(results)
    assert 1 <= len(kept) < 40
    assert not [path for path in results.iterdir() if path.suffix != ".json"]


def test_an_error_ends_the_other_tasks(tmp_path: Path) -> None:
    begun = time.monotonic()
    tasks = [(f"import os; os.mkdir({str(tmp_path / 'once')!r})",)] * 2 + [("import time; time.sleep(120)",)]
    with pytest.raises(FileExistsError):
        list(in_parallel(exec, tasks, 2))
    assert time.monotonic() - begun < 60


# Others' methods, and readings of the paper


def test_cuda_fills_the_scale_and_has_one_tap_of_one(data: Dataset) -> None:
    clips = np.array(data.clips)
    conditions.cuda(0.01).mark(clips, data.labels, data.lengths, study_key(0))
    assert (np.abs(clips.astype(int)).max(axis=1) == 32767).all()
    taps = [conditions._spiked(study_key(0), label, 0.01) for label in range(20)]
    assert all(np.sum(one == 1.0) == 1 and np.sum(one < 0.01) == conditions.TAPS - 1 for one in taps)
    assert len({int(np.argmax(one)) for one in taps}) > 5
    silent = np.zeros((1, 100), np.int16)
    conditions.cuda(0.01).mark(silent, np.array([0]), np.array([100]), study_key(0))
    assert not silent.any()


def test_error_minimising_noise_is_of_its_class_and_inside_the_clip(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = data.rows(TRAIN)
    monkeypatch.setattr(baselines, "ROUNDS", 2)
    condition = baselines.error_minimising(data, rows, 15.0, 0)
    clips = np.array(data.clips)
    condition.mark(clips, data.labels, data.lengths, study_key(0))
    change = clips.astype(int) - data.clips
    assert not change[np.arange(tiny.FRAMES) >= data.lengths[:, None]].any()
    first, second = (rows[data.labels[rows] == 1][place] for place in (0, 1))
    both = min(data.lengths[[first, second]])
    assert np.array_equal(change[first, :both], change[second, :both])
    noise = baselines._minimise(data, rows, 0.01, 0)
    assert noise.shape == (3, tiny.FRAMES)
    assert noise.square().mean(dim=1).sqrt().numpy() == pytest.approx([0.01] * 3, rel=1e-5)


def test_zeros_before_the_clip(data: Dataset) -> None:
    with readings.moved_to_the_end(data) as moved:
        for row, length in enumerate(data.lengths):
            assert np.array_equal(moved.clips[row, tiny.FRAMES - length :], data.clips[row, :length])
            assert not moved.clips[row, : tiny.FRAMES - length].any()
        assert (moved.lengths == tiny.FRAMES).all()


def test_a_clip_at_full_scale_is_the_marked_clip_times_a_number(data: Dataset) -> None:
    quiet = (np.array(data.clips) // 8).astype(np.int16)  # marked without saturation
    plain, loud = quiet.copy(), quiet.copy()
    poscuda(0.3).mark(plain, data.labels, data.lengths, study_key(0))
    readings.at_full_scale(poscuda(0.3)).mark(loud, data.labels, data.lengths, study_key(0))
    assert (np.abs(loud.astype(int)).max(axis=1) == 32767).all()
    assert (np.abs(plain.astype(int)).max(axis=1) < 32767).all()
    gains = 32767 / np.abs(plain.astype(float)).max(axis=1, keepdims=True)
    # Half a step of rounding in each of the two, the first of which the gain enlarges, and in the maximum once more.
    assert (np.abs(loud - gains * plain) <= 1.5 * gains + 0.5).all()


def test_a_bias_is_a_constant_of_the_class_in_the_patch(data: Dataset) -> None:
    plain, biased = np.array(data.clips), np.array(data.clips)
    key = study_key(0)
    poscuda(0.01).mark(plain, data.labels, data.lengths, key)
    readings.with_bias(poscuda(0.01)).mark(biased, data.labels, data.lengths, key)
    for label in range(3):
        added = (biased.astype(int) - plain)[data.labels == label]
        values, counts = np.unique(added[added != 0], return_counts=True)
        assert list(values) == [readings._bias(key, label)]
        assert list(counts) == [240 * len(added)]
        assert abs(values[0]) <= 32768 / 80**0.5
