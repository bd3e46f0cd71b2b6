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
    keep(results, "attacks", "c", **attack, clean_final=30.0, clean_peak=40.0, condition="strong-1")
    assert "| MP3, 32 kbit/s | JPEG | 30.0 [40.0] / 80.0 [81.0] / 90.0 [92.0] |" in tables.attacks()


def test_format_2_stands_beside_the_papers_recipe_and_what_was_asked(results: Path) -> None:
    strong = {"condition": "strong-1", "title": "format 2, strength 1", "strength": 1.0, "chosen": True}
    for seed, peak in ((0, 30.0), (1, 50.0)):
        keep(results, "table1", f"paper{seed}", seed=seed, clean_final=60.0, clean_peak=70.0)
        more = {"model": "lstm", "clean_final": 10.0, "clean_peak": 15.0, "keyed": 98.5}
        keep(results, "table1", f"paper lstm{seed}", seed=seed, **more)
        keep(results, "protection", f"m5{seed}", **strong, seed=seed, clean_final=20.0, clean_peak=peak, keyed=100.0)
        keep(results, "protection", f"lstm{seed}", **strong, **more, seed=seed)
    keep(
        results, "protection", "few", **strong | {"condition": "strong-2", "strength": 2.0}, seed=0, clean_final=1.0,
        clean_peak=1.0,
    )  # fmt: skip
    quality = {"visqol": {"median": 4.25}, "log_spectral_distance_db": {"median": 3.5}}
    keep(results, "distances", "one", condition="strong-1", seed=0, fad=0.125, quality=quality)
    attack = {"attack": "mp3-32", "title": "MP3", "field_row": "JPEG", "seed": 0, "strength": 32.0}
    none = attack | {"attack": "none", "title": "no attack"}
    keep(results, "attacks", "a", **none, clean_final=90.0, clean_peak=90.0, condition="clean")
    keep(results, "attacks", "b", **attack, clean_final=86.0, clean_peak=90.0, condition="clean")
    keep(results, "attacks", "c", **attack, clean_final=44.0, clean_peak=45.0, condition="strong-1")
    worse = attack | {"attack": "blur-16", "title": "blur"}
    keep(results, "attacks", "d", **worse, clean_final=80.0, clean_peak=90.0, condition="clean")
    keep(results, "attacks", "e", **worse, clean_final=77.0, clean_peak=77.0, condition="strong-1")
    text = tables.targets()
    ours = "| FSDD, format 2, strength 1, 2 seeds (default) | 40.0 (M5) | 11.0 "
    assert f"{ours}| 4.25 | 3.5 | 0.125 | 98.5 | 45.0 (M5: MP3) |" in text
    assert "| FSDD, PosCUDA b=0.01, 2 seeds | 70.0 (M5) | 11.0 |  |  |  | 94.0 |  |" in text
    assert "strength 2" not in text
    assert "| **asked for** | <= 20 | >= 25 |" in text
    text = tables.protection("fsdd")
    assert "strength 1 (chosen) | 11.0 | 4.25 | 3.5 | 0.125 | 20.0 ± 0.0 [40.0] | 10.0 ± 0.0 [15.0] |" in text


def test_plots_are_drawn_and_repeat_to_the_byte(results: Path, tmp_path: Path) -> None:
    for number, condition in enumerate(("clean", "poscuda-0.01", "whole-0.01")):
        keep(
            results, "table1", condition, condition=condition, seed=0, clean_final=50.0 + number, clean_peak=60.0,
            snr_db=None if condition == "clean" else 10.0 * number,
        )  # fmt: skip
    plots.main(tmp_path / "few")
    assert not (tmp_path / "few" / "frontier.svg").exists()  # of format 2, which was not measured
    strong = {"condition": "strong-1", "title": "format 2, strength 1", "strength": 1.0}
    keep(results, "protection", "strong", **strong, seed=0, clean_final=20.0, clean_peak=30.0)
    plots.main(tmp_path / "one")
    plots.main(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(f"{name}.svg" for name in plots.PLOTS)
    for name in names:
        drawn = (tmp_path / "one" / name).read_bytes()
        assert drawn.startswith(b"<?xml")
        assert drawn == (tmp_path / "two" / name).read_bytes()
