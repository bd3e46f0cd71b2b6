"""Distances of protected clips from their originals, and what the cells are given of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from benchmarks import stored
from experiments.measures import __main__ as measures
from experiments.measures.embeddings import embed
from experiments.measures.frechet import frechet_distance
from experiments.training.cells import MEASURED
from experiments.training.conditions import poscuda, study_key
from poscuda_fast.evaluation.quality import snr_db

RESULT: dict[str, Any] = {
    "dataset": "tiny", "digest": "0123", "condition": "strong-1", "seed": 1, "fad": 0.5, "embedding": "known",
    "clips": 3,
    "quality": {"visqol": {"median": 4.512345}, "log_spectral_distance_db": {"median": 1.5}, "stoi": {"median": None}},
}  # fmt: skip


def keep(folder: Path, name: str, **changed: Any) -> Path:
    fields = {name: RESULT[name] for name in ("dataset", "digest", "condition", "seed")}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    stored.write(path, {**fields, "clean_final": 50.0, **dict.fromkeys(MEASURED), **changed})
    return path


def test_the_cells_of_these_clips_and_this_key_are_filled_in_alone(tmp_path: Path) -> None:
    folder = tmp_path / "protection"
    right = [
        keep(folder, "tiny_strong-1_plain_m5_s1_00000000"),
        keep(folder, "tiny_strong-1_default_lstm_s1_11111111", split="70-30"),
        keep(folder, "called [anything] at all"),
    ]
    wrong = [
        keep(folder, "tiny_strong-1_plain_m5_s10_00000000", seed=10),
        keep(folder, "tiny_strong-1.4_plain_m5_s1_00000000", condition="strong-1.4"),
        keep(folder, "tiny_strong-1_plain_m5_s1_22222222", digest="4567"),
        keep(folder, "tiny_strong-1_plain_m5_s1_33333333", dataset="tiny_strong-1"),
        keep(folder, "tiny_clean_plain_m5_s1_00000000", condition="clean"),
    ]
    before = [path.read_bytes() for path in wrong]
    assert measures.fill_in(RESULT, folder) == 3
    assert [path.read_bytes() for path in wrong] == before
    for path in right:
        cell = json.loads(path.read_text())
        known = {name: cell[name] for name in MEASURED}
        assert known == {
            "visqol": 4.5123, "lsd_db": 1.5, "fad": 0.5, "embedding": "known, 3 clips", "stoi": None, "pesq": None,
            "tonality_db": None,
        }  # fmt: skip
        assert cell["clean_final"] == 50.0
    assert measures.fill_in(RESULT, tmp_path / "nothing") == 0


def test_a_result_is_of_the_marked_clips_and_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("speechmos")
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = tiny.dataset(tmp_path / "data", n_train=6)
    results = tmp_path / "results"
    cell = keep(results / "protection", "cell", digest=data.digest, condition="poscuda-0.3")
    words = [str(data.folder), "--conditions", "poscuda-0.3", "--seeds", "1", "--metrics", "snr_db", "tonality_db",
             "--results", str(results)]  # fmt: skip
    measures.main(words)
    path = results / "distances" / "tiny_poscuda-0.3_s1.json"
    result = json.loads(path.read_text())
    clips, labels, lengths = measures.sample(data)
    assert len(clips) == 6
    marked = clips.copy()
    poscuda(0.3).mark(marked, labels, lengths, study_key(1))
    fad = frechet_distance(embed(clips, lengths, tiny.RATE), embed(marked, lengths, tiny.RATE))
    assert result["fad"] == pytest.approx(fad, rel=1e-3)
    assert result["fad_95"][0] <= result["fad"] <= result["fad_95"][1]
    assert result["key_fingerprint"] == study_key(1).fingerprint
    assert result["digest"] == data.digest
    each = [snr_db(clips[row, :length], marked[row, :length]) for row, length in enumerate(lengths)]
    assert result["quality"]["snr_db"]["median"] == float(np.median(each))
    filled = json.loads(cell.read_text())
    assert filled["fad"] == result["fad"]
    assert filled["tonality_db"] == round(result["quality"]["tonality_db"]["median"], 4)
    assert "1 cells filled in" in capsys.readouterr().out
    stored.write(path, result | {"fad": 0.25})
    measures.main(words)
    assert f"Already stored, skipped: {path}" in capsys.readouterr().out
    assert json.loads(cell.read_text())["fad"] == 0.25


def test_every_condition_gets_the_same_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "CLIPS", 7)
    data = tiny.dataset(tmp_path / "data")
    first, second = measures.sample(data), measures.sample(data)
    assert len(first[0]) == 7
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)
