"""Cells of Table 1, of the baselines and of the readings: whole, never made twice, and with their command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny
from experiments.conditions import poscuda, study_key
from experiments.dataset import TRAIN, Dataset

from experiments import baselines, cells, readings, table1
from poscuda_fast.evaluation.training import Part

ASKED = (
    "dataset", "model", "condition", "seed", "key_fingerprint", "epochs", "clean_final", "clean_peak", "keyed",
    "miskeyed", "noise", "train", "snr_db", "fad", "embedding", "settings", "versions", "machine", "date", "command",
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return tiny.dataset(tmp_path / "data")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (table1, baselines, readings):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "results")
    return tmp_path / "results"


def run(module: ModuleType, data: Dataset, *more: str) -> None:
    module.main([str(data.folder), "--models", "cnn", *more])


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def test_a_cell_tells_everything(data: Dataset, folder: Path) -> None:
    run(table1, data, "--conditions", "clean", "poscuda-0.3", "--seeds", "1", "--epochs", "2")
    found = stored(folder)
    assert list(found) == ["tiny-official_cnn_clean_s1", "tiny-official_cnn_poscuda-0.3_s1"]
    clean, protected = found.values()
    for cell in (clean, protected):
        assert not [name for name in ASKED if name not in cell]
        assert cell["epochs"] == len(cell["curves"]["clean"]) == 2
        assert cell["clean_final"] == cell["curves"]["clean"][-1]
        assert cell["clean_peak"] == max(cell["curves"]["clean"])
        assert sum(map(sum, cell["confusion"])) == cell["test_clips"] == 12
        right = sum(cell["confusion"][label][label] for label in range(3))
        assert cell["clean_final"] == round(100 * right / 12, 2)
        assert str(data.folder) not in json.dumps(cell)
    assert clean["key_fingerprint"] is clean["keyed"] is clean["snr_db"] is None
    assert protected["key_fingerprint"] == study_key(1).fingerprint
    assert protected["keyed"] == protected["curves"]["keyed"][-1]
    assert protected["settings"]["condition"]["blur"] == 0.3
    assert "--conditions poscuda-0.3 --seeds 1 --epochs 2" in protected["command"]


def test_a_finished_cell_is_not_run_again(data: Dataset, folder: Path) -> None:
    run(table1, data, "--conditions", "clean", "--seeds", "0", "--epochs", "1")
    (path,) = folder.glob("*.json")
    path.write_text('{"mine": 1}')
    run(table1, data, "--conditions", "clean", "--seeds", "0", "1", "--epochs", "1")
    assert json.loads(path.read_text()) == {"mine": 1}
    assert len(stored(folder)) == 2


def test_the_snr_is_the_median_over_training_clips(data: Dataset) -> None:
    rows = data.rows(TRAIN)
    clips = np.array(data.clips)
    poscuda(0.3).mark(clips, data.labels, data.lengths, study_key(0))
    each = []
    for row in rows:
        before, after = (samples[row, : data.lengths[row]].astype(float) for samples in (data.clips, clips))
        each.append(10 * np.log10(np.sum(before**2) / np.sum((after - before) ** 2)))
    assert cells.median_snr_db(data, Part(clips, rows, data.labels[rows])) == round(float(np.median(each)), 2)


def test_confusion_has_the_spoken_class_in_rows() -> None:
    assert cells.confusion(np.array([1, 1, 2]), np.array([0, 1, 1]), 3) == [[0, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_work_is_done_in_processes_or_here(tmp_path: Path) -> None:
    for jobs in (1, 2):
        folders = [(tmp_path / f"{jobs}-{number}",) for number in range(3)]
        cells.in_parallel(os.mkdir, folders, jobs)
        assert all(folder.is_dir() for (folder,) in folders)
        with pytest.raises(FileExistsError):
            cells.in_parallel(os.mkdir, folders, jobs)


def test_baselines_are_stored_as_cells(data: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "EMIN_ROUNDS", 2)
    run(baselines, data, "--seeds", "0", "--epochs", "1")
    assert list(stored(folder)) == [f"tiny-official_cnn_{name}_s0" for name in ("cuda-0.01", "cuda-0.3", "emin-14")]


def test_cuda_fills_the_scale_and_has_one_tap_of_one(data: Dataset) -> None:
    clips = np.array(data.clips)
    baselines.cuda(0.01).mark(clips, data.labels, data.lengths, study_key(0))
    assert (np.abs(clips.astype(int)).max(axis=1) == 32767).all()
    taps = [baselines._spiked(study_key(0), label, 0.01) for label in range(20)]
    assert all(np.sum(one == 1.0) == 1 and np.sum(one < 0.01) == baselines.TAPS - 1 for one in taps)
    assert len({int(np.argmax(one)) for one in taps}) > 5


def test_error_minimising_noise_is_of_its_class_inside_the_clip_and_at_its_level(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "EMIN_ROUNDS", 2)
    rows = data.rows(TRAIN)
    condition = baselines.error_minimising(data, rows, 15.0, 0)
    clips = np.array(data.clips)
    condition.mark(clips, data.labels, data.lengths, study_key(0))
    change = clips.astype(int) - data.clips
    assert not change[np.arange(tiny.FRAMES) >= data.lengths[:, None]].any()
    first, second = (rows[data.labels[rows] == 1][place] for place in (0, 1))
    both = min(data.lengths[[first, second]])
    assert np.array_equal(change[first, :both], change[second, :both])
    # The noise's level is that of its whole length: a clip has a part of it.
    assert cells.median_snr_db(data, Part(clips, rows, data.labels[rows])) == pytest.approx(15.0, abs=0.5)


def test_error_minimising_noise_lowers_the_loss_of_its_surrogate(data: Dataset) -> None:
    rows = data.rows(TRAIN)
    noise = baselines._minimise(
        Part(data.clips, rows, data.labels[rows]), data.lengths[rows], len(data.classes), data, 0.01, 0
    )
    assert noise.shape == (3, tiny.FRAMES)
    assert noise.square().mean(dim=1).sqrt().numpy() == pytest.approx([0.01] * 3, rel=1e-5)
    assert noise.abs().max() <= 0.02


def test_readings_change_what_they_say(data: Dataset, folder: Path) -> None:
    run(readings, data, "--readings", "few-epochs", "bias-padded-before")
    found = stored(folder)
    assert found["tiny-official_cnn_few-epochs_s0"]["epochs"] == readings.FEW_EPOCHS
    assert found["tiny-official_cnn_bias-padded-before_s0"]["settings"]["condition"]["padded"] == "before"
    # The stored command is one that the module takes, and it finds its own cell finished.
    command = found["tiny-official_cnn_few-epochs_s0"]["command"].split()
    assert command[:4] == ["python", "-m", "experiments.readings", "TINY"]
    readings.main([str(data.folder), *command[4:]])
    assert stored(folder) == found
    names = [reading.name for reading in readings.readings()]
    assert len(set(names)) == len(names)


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
