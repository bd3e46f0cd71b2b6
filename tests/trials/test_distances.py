"""Distances of protected clips from their originals, and what the cells are given of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from experiments.conditions import poscuda, study_key
from experiments.frechet import frechet_distance
from numpy.typing import NDArray

from benchmarks import stored
from experiments import baselines, cells, distances, protection
from poscuda_fast.evaluation.quality import snr_db


def loudness(name: str, clips: NDArray[np.int16], lengths: NDArray[np.int64], sample_rate: int) -> NDArray[np.float32]:
    """An embedding that is quick: the level of every eighth of a clip, dB. The real one has tests of its own."""
    assert name == distances.EMBEDDING
    eighths = clips.reshape(len(clips), 8, -1).astype(np.float32)
    return 10 * np.log10(np.square(eighths).mean(axis=2) + 1)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "results"
    monkeypatch.setattr(distances, "embed", loudness)
    monkeypatch.setattr(distances, "FOLDER", folder / "distances")
    monkeypatch.setattr(cells, "RESULTS", folder)
    monkeypatch.setattr(baselines, "FOLDER", folder / "baselines")
    monkeypatch.setattr(protection, "FOLDER", folder / "protection")
    return folder


def test_a_result_measures_the_marked_clips(tmp_path: Path, results: Path) -> None:
    pytest.importorskip("speechmos")
    data = tiny.dataset(tmp_path / "data")
    cell = {"fad": None, "embedding": None, "clean_final": 50.0}
    for name in ("tiny-official_m5_poscuda-0.3_s1", "tiny-70-30_lstm_poscuda-0.3_s1", "tiny-official_m5_clean_s1"):
        (results / "table1").mkdir(parents=True, exist_ok=True)
        stored.write(results / "table1" / f"{name}.json", cell)
    asked = [str(data.folder), "--conditions", "poscuda-0.3", "--seeds", "1", "--metrics", "snr_db"]
    distances.main(asked)

    result = json.loads((results / "distances" / "tiny_poscuda-0.3_s1.json").read_text())
    clips, labels, lengths = distances.sample(data)
    marked = clips.copy()
    poscuda(0.3).mark(marked, labels, lengths, study_key(1))
    embedded = [loudness(distances.EMBEDDING, one, lengths, tiny.RATE) for one in (clips, marked)]
    assert result["fad"] == frechet_distance(*embedded)
    assert result["fad_95"][0] <= result["fad"] <= result["fad_95"][1]
    assert result["key_fingerprint"] == study_key(1).fingerprint
    each = [snr_db(clips[row, :length], marked[row, :length]) for row, length in enumerate(lengths)]
    assert result["quality"]["snr_db"]["median"] == float(np.median(each))

    filled = {path.stem: json.loads(path.read_text()) for path in (results / "table1").glob("*.json")}
    assert {name for name, one in filled.items() if one["fad"] == result["fad"]} == {
        "tiny-official_m5_poscuda-0.3_s1",
        "tiny-70-30_lstm_poscuda-0.3_s1",
    }
    assert all(one["clean_final"] == 50.0 for one in filled.values())


def test_a_stored_result_is_not_measured_again(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.dataset(tmp_path / "data")
    kept = {"dataset": "tiny", "condition": "poscuda-0.3", "seed": 1, "fad": 0.5, "embedding": "kept", "clips": 3}
    kept["quality"] = {"visqol": {"median": 4.5}, "log_spectral_distance_db": {"median": 1.5}}
    stored.store(results / "distances", "tiny_poscuda-0.3_s1", "none", kept)
    monkeypatch.delattr(distances, "measure")
    distances.main([str(data.folder), "--conditions", "poscuda-0.3", "--seeds", "1"])
    assert json.loads((results / "distances" / "tiny_poscuda-0.3_s1.json").read_text())["fad"] == 0.5


def test_cells_of_format_2_get_their_quality_too(tmp_path: Path, results: Path) -> None:
    stored.store(protection.FOLDER, "tiny-official_cnn_strong-1_s0", "none", {"visqol": None, "lsd_db": None})
    result = {"dataset": "tiny", "condition": "strong-1", "seed": 0, "fad": 0.5, "embedding": "known", "clips": 3}
    result["quality"] = {"visqol": {"median": 4.5}, "log_spectral_distance_db": {"median": 1.5}}
    assert distances.fill_in(result, protection.FOLDER) == 1
    cell = json.loads((protection.FOLDER / "tiny-official_cnn_strong-1_s0.json").read_text())
    assert (cell["visqol"], cell["lsd_db"], cell["fad"], cell["embedding"]) == (4.5, 1.5, 0.5, "known, 3 clips")


def test_every_condition_gets_the_same_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "CLIPS", 7)
    data = tiny.dataset(tmp_path / "data")
    first, second = distances.sample(data), distances.sample(data)
    assert len(first[0]) == 7
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)
