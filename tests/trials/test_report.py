"""The tables say what the stored results say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import stored
from experiments import plots, tables

SHARED = {
    "dataset": "fsdd", "split": "official", "title": "PosCUDA b=0.01", "condition": "poscuda-0.01", "model": "m5",
    "epochs": 40, "train_clips": 2700, "test_clips": 300, "snr_db": 11.0, "keyed": 94.0, "miskeyed": 40.0,
    "noise": 60.0, "train": 100.0, "confusion": [[10] * 10] * 10, "curves": {"clean": [30.0, 70.0]},
    "fad": None, "embedding": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stored, "EXPERIMENTS", tmp_path)
    return tmp_path


def keep(results: Path, folder: str, name: str, **fields: Any) -> None:
    stored.store(results / folder, name, "python -m experiments.table1 FSDD --seeds 0", SHARED | fields)


def test_accuracy_is_mean_spread_peak_and_the_papers(results: Path) -> None:
    keep(results, "table1", "a", seed=0, clean_final=60.0, clean_peak=70.0, fad=1.5, embedding="dnsmos-128, 9 clips")
    keep(results, "table1", "b", seed=1, clean_final=70.0, clean_peak=71.0)
    keep(results, "table1", "c", seed=0, clean_final=1.0, clean_peak=1.0, split="70-30")
    text = tables.accuracy("fsdd", "official")
    assert "| PosCUDA b=0.01 | 11.0 | 1.5 | 65.0 ± 7.1 [70.5] / 15.5 |  |  |  |" in text
    assert "| SNR, dB | FAD[dnsmos-128] |" in text
    assert "M5 40 epochs, 2 seed(s). 2,700 training and 300 test clips" in text
    assert "| PosCUDA b=0.01 | 94 / 40 / 60 / 100 |  |  |  |" in tables.keyed("fsdd", "official")


@pytest.mark.parametrize("name", list(tables.SECTIONS))
def test_what_was_not_measured_is_said_to_be_so(name: str) -> None:
    assert tables.SECTIONS[name]() == tables.MISSING


def test_an_attack_has_both_sides(results: Path) -> None:
    attack = {"attack": "mp3-32", "title": "MP3, 32 kbit/s", "field_row": "JPEG", "seed": 0, "strength": 32.0}
    keep(results, "attacks", "a", **attack, clean_final=80.0, clean_peak=81.0)
    keep(results, "attacks", "b", **attack, clean_final=90.0, clean_peak=92.0, condition="clean")
    assert "| MP3, 32 kbit/s | JPEG | 80.0 [81.0] / 90.0 [92.0] |" in tables.attacks()


def test_plots_are_drawn_and_repeat_to_the_byte(results: Path, tmp_path: Path) -> None:
    for number, condition in enumerate(("clean", "poscuda-0.01", "whole-0.01")):
        keep(
            results, "table1", condition, condition=condition, seed=0, clean_final=50.0 + number, clean_peak=60.0,
            snr_db=None if condition == "clean" else 10.0 * number,
        )  # fmt: skip
    plots.main(tmp_path / "one")
    plots.main(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(f"{name}.svg" for name in plots.PLOTS)
    for name in names:
        drawn = (tmp_path / "one" / name).read_bytes()
        assert drawn.startswith(b"<?xml")
        assert drawn == (tmp_path / "two" / name).read_bytes()
