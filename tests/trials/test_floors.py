"""The study of floors marks as FORMAT.md says, measures each recipe once, and fills nothing in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from experiments.conditions import study_key
from experiments.dataset import TRAIN, Dataset

from experiments import floors
from poscuda_fast import Key
from poscuda_fast.evaluation import quality

KEY = Key(bytes(range(32)))
RAMP = ((7919 * np.arange(16_000) % 65_536) - 32_768).astype(np.int16)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return tiny.dataset(tmp_path / "data")


@pytest.mark.parametrize(
    ("strength", "rate", "wanted"),
    [(1.0, 16_000, "55603054b123e663"), (0.5, 8_000, "8dd8fed24c8c863b"), (1.0, 44_100, "65d39beb763d05df")],
)
def test_the_mark_is_the_formats_to_the_bit(strength: float, rate: int, wanted: str) -> None:
    clips = RAMP[None].copy()
    gains = floors.mark(clips, np.array([0]), np.array([16_000]), KEY, strength, None, rate)
    assert hashlib.sha256(clips.astype("<i2").tobytes()).hexdigest()[:16] == wanted
    assert gains.tolist() == [0]


def test_the_gain_is_the_least_halving_that_reaches_the_floor() -> None:
    rng = np.random.default_rng(0)
    levels = np.array([10_000, 100, 60, 30, 3, 0])
    before = (levels[:, None] * rng.uniform(-1, 1, (6, 4000))).astype(np.int16)
    labels, lengths = np.zeros(6, np.int64), np.array([4000, 4000, 3000, 4000, 4000, 0])
    loud, clips = np.zeros_like(before), before.copy()
    floors.mark(loud, labels, lengths, KEY, 1.0, None, tiny.RATE)
    gains = floors.mark(clips, labels, lengths, KEY, 1.0, 6.0, tiny.RATE)
    for row, (gain, length) in enumerate(zip(gains, lengths, strict=True)):
        energy, mark = (float(np.square(wave[row, :length], dtype=np.float64).sum()) for wave in (before, loud))
        enough = [step for step in range(8) if 4.0**step * energy >= 10**0.6 * mark]
        assert gain == min([*enough, 7])
        change = clips[row].astype(float) - before[row]
        assert np.array_equal(change[:length], np.rint(loud[row, :length] / 2.0**gain))
        assert not change[length:].any()
    assert gains[0] == gains[5] == 0
    assert 0 < gains[1] < gains[3] < gains[4]


def test_strength_0_changes_nothing(data: Dataset) -> None:
    clips = np.array(data.clips)
    floors.mark(clips, data.labels, data.lengths, KEY, 0.0, None, data.sample_rate)
    assert np.array_equal(clips, data.clips)


def test_a_share_of_the_waves_is_shifted_and_noisy() -> None:
    waves = torch.zeros(400, 2000)
    waves[:, 1000] = 1.0
    made = floors.shifted_and_noisy(waves, torch.Generator().manual_seed(0), tiny.RATE, 0.8)
    changed = (made != waves).any(dim=1)
    assert 0.72 < changed.float().mean() < 0.88
    peaks = made[changed].argmax(dim=1) - 1000
    assert peaks.abs().max() <= 0.1 * tiny.RATE
    assert peaks.min() < -0.08 * tiny.RATE < 0.08 * tiny.RATE < peaks.max()
    levels = made[changed][:, :100].std(dim=1)
    assert 0.008 < levels.max() < 0.0125
    assert levels.min() < 0.001


def test_rows_are_spread_evenly() -> None:
    rows = np.arange(10, 20)
    assert floors._some(rows, 10).tolist() == rows.tolist()
    assert floors._some(rows, 4).tolist() == [10, 12, 15, 17]


def test_every_recipe_is_measured_once(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(floors, "FOLDER", tmp_path / "floors")
    monkeypatch.setattr(floors, "EPOCHS", {"cnn": 1})
    monkeypatch.setattr(floors, "STRENGTHS", (1.0,))
    monkeypatch.setattr(floors, "FLOORS", ((None,), (6.0,)))
    monkeypatch.setitem(quality.METRICS, "pesq", quality.METRICS["snr_db"])
    command = [str(data.folder), "--models", "cnn"]
    floors.main(command)
    paths = sorted((tmp_path / "floors").glob("*.json"))
    assert [path.stem for path in paths] == [
        "tiny_floor-6_strength-1_cnn_s0", "tiny_floor-6_strength-1_quality", "tiny_floor-none_strength-0_cnn_s0",
        "tiny_floor-none_strength-1_cnn_s0", "tiny_floor-none_strength-1_quality",
    ]  # fmt: skip
    trained, measured = (json.loads(path.read_text()) for path in paths[:2])
    assert trained["key_fingerprint"] == measured["key_fingerprint"] == study_key(0).fingerprint
    assert trained["clean_peak"] == max(trained["curves"]["clean"])
    assert measured["snr_db"]["n"] == len(data.rows(TRAIN))
    assert sum(measured["gain_shares"]) == pytest.approx(1)
    capsys.readouterr()
    floors.main(["--table"])
    assert "| none | no mark | - |" in capsys.readouterr().out
    for path in paths:
        path.write_text("{}")
    floors.main(command)
    assert {path.read_text() for path in paths} == {"{}"}


def _cells(floor: float | None, scores: list[float], peaks: list[float]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for strength, score, peak in zip(floors.STRENGTHS, scores, peaks, strict=True):
        recipe = {"dataset": "tiny", "floor": floor, "strength": strength}
        metric = {"median": score, "worst_twentieth": score}
        found.append({**recipe, "what": "quality", "snr_db": metric, "pesq": metric, "gain_shares": [1.0]})
        found += [{**recipe, "what": model, "clean_final": peak, "clean_peak": peak} for model in floors.EPOCHS]
    return found


def test_a_floor_is_judged_at_the_same_quality() -> None:
    plain = _cells(None, [2.0, 1.8, 1.6], [40.0, 30.0, 20.0])
    found = [*plain, *_cells(3.0, [2.2, 2.1, 1.9], [60.0, 40.0, 20.0]), *_cells(6.0, [3, 2.8, 2.6], [50, 45, 43])]
    said = floors.summary(found)
    assert "At equal PESQ of the worst twentieth, 2.00 at strength 1 without a floor, which gives 40.0 %" in said
    assert "floor 3 dB, there: 30.0 %, -10.0: protects more" in said
    assert "floor 6 dB, at strength 2, 2.60, the nearest measured: 43.0 %, +3.0: within" in said
    assert "floor 9 dB" not in said


def test_what_is_not_measured_is_a_dash() -> None:
    found = [cell for cell in _cells(None, [2.0, 1.8, 1.6], [40.0, 30.0, 20.0]) if cell["what"] != "m5"]
    said = floors.summary(found)
    assert "| - | 40.0 [40.0] (1) |" in said
    assert "nothing to compare with" in said
