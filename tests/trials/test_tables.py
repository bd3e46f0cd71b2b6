"""The tables say what the stored results say, and show the project's own data sets alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import stored
from experiments.data.dataset import KNOWN
from experiments.search import Point
from experiments.tables import __main__ as documents
from experiments.tables import front, plots, text

FSDD = next(digest for digest, name in KNOWN.items() if name == "fsdd")
SHARED = {
    "dataset": "fsdd", "digest": FSDD, "split": "official", "title": "PosCUDA b=0.01", "condition": "poscuda-0.01",
    "training": "plain", "model": "m5", "seed": 0, "epochs": 40, "train_clips": 2700, "test_clips": 300, "snr_db": 11.0,
    "keyed": 94.0, "miskeyed": 40.0, "noise": 60.0, "train": 100.0,
    "curves": {"clean": [30.0, 70.0]}, "fad": None, "embedding": None, "pesq": 3.25, "tonality_db": 9.5,
    "settings": {"condition": {}}, "clips": None,
}  # fmt: skip
STRONG = {"condition": "strong-1", "title": "format 2, strength 1", "strength": 1.0, "chosen": True}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stored, "EXPERIMENTS", tmp_path)
    return tmp_path


def keep(folder: str, name: str, **fields: Any) -> None:
    stored.store(stored.EXPERIMENTS / folder, name, "python -m experiments.training FSDD --seeds 0", SHARED | fields)


def test_accuracy_is_mean_spread_peak_and_the_papers() -> None:
    keep("protection", "a", seed=0, clean_final=60.0, clean_peak=70.0)
    keep("protection", "b", seed=1, clean_final=70.0, clean_peak=71.0)
    for name, other in (
        ("c", {"split": "70-30"}), ("d", {"training": "default"}),
        ("e", {"digest": "0123"}), ("f", {"model": "cnn-tf"}),
        ("g", {"dataset": "speech_commands"}),
    ):  # fmt: skip
        keep("protection", name, clean_final=1.0, clean_peak=1.0, **other)
    said = text.accuracy("fsdd", "official")
    assert "| PosCUDA b=0.01 | 11.0 | 65.0 ± 7.1 [70.5] / 15.5 |  |  |  |" in said
    assert (
        "M5 40 epochs; 2 seeds. FSDD: 2,700 training and 300 test clips. `python -m experiments.training FSDD`" in said
    )
    assert "| PosCUDA b=0.01 | 94 / 40 / 60 / 100 |  |  |  |" in text.keyed("fsdd", "official")
    assert text.accuracy("speech_commands", "official") == text.MISSING


@pytest.mark.parametrize("name", list(text.SECTIONS))
def test_what_was_not_measured_is_said_to_be_so(name: str) -> None:
    assert text.SECTIONS[name]() == text.MISSING


def test_format_2_stands_beside_the_papers_recipe() -> None:
    for seed, peak in ((0, 30.0), (1, 50.0)):
        for training in ("plain", "default"):
            for model in ("m5", "lstm", "transformer", "cnn"):
                ours = {"clean_final": 20.0, "clean_peak": peak if model == "m5" else 10.0, "keyed": 100.0}
                about = {"seed": seed, "training": training, "model": model}
                keep("protection", f"ours {seed} {training} {model}", **STRONG, **about, **ours)
                theirs = {"clean_final": 60.0, "clean_peak": 70.0}
                keep("protection", f"theirs {seed} {training} {model}", **about, **theirs)
    keep("protection", "few", **STRONG | {"condition": "strong-2", "strength": 2.0}, clean_final=1.0, clean_peak=1.0)
    for model in ("m5", "lstm", "transformer", "cnn"):
        more = {"condition": "clean", "title": "clean", "model": model, "clips": 5000}
        keep("protection", f"more {model}", **more, clean_final=99.0, clean_peak=99.0)
    said = front.front()
    assert "| trained on protected clips, `strength` 1 | 40 | 40 | ? | ? |" in said
    assert "| trained on the paper's patch, b=0.01 | 70 | 70 | ? | ? |" in said
    assert "| trained on protected clips, `strength` 2 | ? | ? | ? | ? |" in said  # one model of four
    assert "| trained on clean clips | ? | ? | ? | ? |" in said  # of another number of clips
    assert "| `strength` 1, PESQ, of at most 4.5 | 3.2 | 3.2 | ? | ? |" in said
    assert "?: not measured yet." in said
    assert said.count("python -m experiments.training FSDD") == 1
    keep("attacks", "notch", **STRONG | {"attack": "notch", "title": "NOTCH"}, clean_final=80.0, clean_peak=90.0)
    said = front.front()
    assert "| `strength` 1, after the strongest attack | ? | 90 (NOTCH, M5) | ? | ? |" in said
    assert "Attacks: <sub>" in said
    said = text.protection("fsdd")
    assert "| format 2, strength 1 (default) | plain | 2 | 20.0 ± 0.0 [40.0] | 20.0 ± 0.0 [10.0] |" in said
    keep("protection", "tf", **STRONG, model="cnn-tf", training="default", clean_final=33.0, clean_peak=34.0)
    assert "| FSDD | format 2, strength 1 | 33.0 [34.0] |  |  |  |" in text.victims()


def test_an_attack_has_both_sides_and_what_it_gives_back() -> None:
    none, mp3 = ({"attack": name, "title": name.upper()} for name in ("none", "mp3-32"))
    keep("attacks", "a", **mp3 | STRONG | {"title": "MP3"}, clean_final=30.0, clean_peak=40.0)
    keep("attacks", "b", **mp3, condition="clean", clean_final=90.0, clean_peak=92.0)
    keep("attacks", "c", **none | STRONG | {"title": "NONE"}, clean_final=20.0, clean_peak=25.0)
    keep("attacks", "d", **mp3 | STRONG | {"title": "MP3"}, model="cnn", clean_final=30.0, clean_peak=35.0)
    assert front.strongest_attacks() == ["", "40 (MP3, M5)", "", ""]
    rows = text.attacks().splitlines()
    assert rows[2:4] == ["| MP3 | +15 | 40 (M5) | 92 |  |  |  |", "| NONE | +0 | 25 (M5) |  |  |  |  |"]


def test_damage_is_of_each_condition() -> None:
    quality = {"snr_db": {"unit": "dB", "median": 12.25, "worst_5_percent": 3.0, "worst": []},
               "pesq": {"unit": "MOS-LQO", "median": None, "worst_5_percent": None}}  # fmt: skip
    about = {"quality": quality, "fad_95": [0.1, 0.2], "fad": 0.125, "scalar_distance": 0.5, "embedding": "dnsmos-128",
             "half_against_half": 0.75, "clips": 400}  # fmt: skip
    keep("distances", "one", **about)
    said = text.damage("fsdd")
    assert "| PosCUDA b=0.01 | 1 | 12.25 (3.00) |  | 0.125 (0.1 to 0.2) | 0.5 | 2.21e-05 |" in said
    assert "400 training clips; one half of the clean ones against the other has a FAD of 0.75." in said


def test_ownership_tells_of_marked_and_of_innocent_models() -> None:
    about = {"share": 5.0, "how": "two owners", "p_value": 0.0013, "second_p_value": 0.5, "hits": 9, "classes": 10,
             "clean_accuracy": 0.91, "keyed_accuracy": 0.5, "miskeyed_accuracy": 0.25}  # fmt: skip
    keep("ownership", "a", **about)
    keep("ownership", "b", share=0.0, how="", keys=100, share_at_most={"0.013": 0.01}, lowest_p_value=0.012)
    keep("ownership", "c", **about | {"digest": "0123", "share": 77.0})
    alone = {name: value for name, value in about.items() if name != "second_p_value"}
    keep("ownership", "d", **alone | {"share": 20.0, "how": ""})
    said = text.ownership()
    assert "| FSDD | 5 %, two owners | M5 | 9 of 10 | 0.0013, second owner 0.5 | 91.0 | 50.0 | 25.0 |" in said
    assert "| FSDD | 20 % | M5 | 9 of 10 | 0.0013 | 91.0 | 50.0 | 25.0 |" in said
    assert "- M5 on FSDD, clean clips, 100 keys it never saw: p-values 1 % at most 0.013; the lowest 0.012." in said
    assert "77" not in said


def test_the_search_is_ranked(results: Path) -> None:
    points = [vars(Point(lines=lines, main=0.7 * (lines > 1))) for lines in (2, 1, 4)]
    sloped = points[1] | {"slope": 3.0}  # of one line, which cannot have a slope
    heard = {"pesq": 3.125, "tonality_db": 10.0}
    lines = [
        {"point": points[0], **heard, "m5": [60.0, 62.0, 64.0], "lstm": [30.0] * 2, "cnn": [10.0] * 3},
        {"point": points[1], **heard, "m5": [7.0]},
        {"point": points[2], **heard, "m5": [1.0] * 3, "lstm": [1.0] * 2, "cnn": [1.0]},  # one key of three
        {"point": points[1], **heard, "m5": [50.0] * 3, "lstm": [26.0] * 2, "cnn": [4.0] * 3},
        {"point": points[1], "seed": 3, "m5": [52.0], "lstm": [40.0], "transformer": [41.0], "cnn": [42.0]},
        {"point": sloped, "seed": 4, "m5": [54.0], "lstm": [40.0], "transformer": [41.0], "cnn": [44.0]},
    ]
    elsewhere = [{**lines[4], "m5": [30.0]}, {**lines[0], "seed": 3, "lstm": [20.0], "transformer": [20.0]}]
    (results / "search").mkdir()
    made = stored.made_by("python -m experiments.search FSDD")
    for name, found in {"fsdd": lines, "speech_commands": elsewhere}.items():
        (results / "search" / f"{name}.jsonl").write_text("".join(json.dumps(made | line) + "\n" for line in found))
    rows = text.search().splitlines()
    assert rows[0] == "3 kinds of mark were measured, 2 of them with all keys."
    one = "1 line of 31.25 Hz steps, 625 to 3875 Hz | 3.12 | 10.0 | -4 | 50 / 26 / 4"
    two = "2 lines of 31.25 Hz steps, 625 to 3875 Hz, 70 % in one of them | 3.12 | 10.0 | +0 | 62 / 30 / 10"
    assert rows[4:6] == [
        f"| 1 | {one} | 53 / 40 / 41 / 43 | 30 / 40 / 41 / 42 |", f"| 2 | {two} |  | 62 / 20 / 20 / 10 |",
    ]  # fmt: skip


def test_documents_get_their_sections_and_keep_the_rest() -> None:
    text_of = "before\n<!-- one -->\nold\n<!-- /one -->\nbetween <!-- two -->\n<!-- /two -->\nafter\n"
    made = documents.render(text_of, {"one": lambda: "new\nlines", "two": lambda: "2"})
    assert made == ("before\n<!-- one -->\nnew\nlines\n<!-- /one -->\nbetween <!-- two -->\n2\n<!-- /two -->\nafter\n")
    with pytest.raises(SystemExit, match="There is no section <!-- three -->"):
        documents.render(text_of, {"three": str})


def test_plots_are_drawn_and_repeat_to_the_byte(tmp_path: Path) -> None:
    for number, condition in enumerate(("clean", "poscuda-0.01")):
        for training in ("plain", "default"):
            keep(
                "protection", condition + training, condition=condition, training=training, clean_final=50.0 + number,
                clean_peak=60.0, snr_db=None if condition == "clean" else 10.0 * number,
            )  # fmt: skip
    plots.main(tmp_path / "few")
    assert not (tmp_path / "few" / "frontier.svg").exists()  # of format 2, which was not measured
    keep("protection", "strong", **STRONG, training="default", clean_final=20.0, clean_peak=30.0)
    plots.main(tmp_path / "one")
    plots.main(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(f"{name}.svg" for name in plots.PLOTS)
    for name in names:
        drawn = (tmp_path / "one" / name).read_bytes()
        assert drawn.startswith(b"<?xml")
        assert drawn == (tmp_path / "two" / name).read_bytes()
