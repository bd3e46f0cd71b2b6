"""The search for a better steady mark: sensible points, a mark of the level asked for, at the damage asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from scenes import CLASSES, RATE, speech

from experiments import search
from experiments.data.dataset import Dataset, results_of
from experiments.search import UNIT, Point
from experiments.tables import text
from experiments.training.conditions import study_key

pytest.importorskip("pesq")
KEY = study_key(0)
POINTS = [
    Point(), Point(lines=1), Point(lines=6, lowest=250.0, highest=3500.0, apart=125.0), Point(slope=-9.0, lines=3),
    Point(in_step=0.5, lowest=1000.0), Point(main=0.85, lines=4, lowest=125.0), Point(fresh=True),
    Point(lines=10, spacing=31.25, slope=6.0, in_step=0.1), Point(by_mel=True),
]  # fmt: skip


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    clips, labels, lengths = speech(24, 8000)
    names = tuple("abcdefgh"[:CLASSES])
    return tiny.write(tmp_path_factory.mktemp("search") / "spoken", clips, labels, lengths, 16, names, "spoken", RATE)


def test_points_are_sensible_and_all_different() -> None:
    points = search.drawn(150)
    assert points[0] == Point()
    assert len(set(points)) == 150
    assert points == search.drawn(150)
    assert points[:50] == search.drawn(50)
    for point in points:
        assert search.sensible(point)
        lines = search.frequencies(point, np.random.default_rng(0))
        assert point.lowest <= min(lines) <= max(lines) <= point.highest
        assert all(line % point.spacing == 0 for line in lines)
        assert len(lines) == point.lines
        assert point.lines == 1 or np.diff(lines).min() >= max(point.apart, point.spacing)


def test_a_band_without_room_for_its_lines_is_not_sensible() -> None:
    assert not search.sensible(Point(lowest=2000.0, highest=1000.0))
    assert not search.sensible(Point(lines=10, lowest=625.0, highest=1500.0, apart=125.0))
    assert not search.sensible(Point(lines=4, lowest=625.0, highest=1500.0, spacing=250.0))


def test_neighbours_of_the_best_differ_in_one_or_two_things() -> None:
    best = search.drawn(5)
    known = set(best)
    made = search.near(best, known, 30)
    assert len(set(made)) == 30
    assert not known & set(made)
    for point in made:
        assert search.sensible(point)
        silent = {"apart", "slope", "main"} if point.lines == 1 else {"slope"} if point.main else set()  # do not matter
        fields = [field.name for field in dataclasses.fields(Point) if field.name not in silent]
        differences = [sum(getattr(point, name) != getattr(one, name) for name in fields) for one in best]
        assert 1 <= min(differences) <= 2


def marked(point: Point, level: float = UNIT) -> tuple[np.ndarray, np.ndarray]:
    clips, labels, lengths = np.zeros((6, 8000), np.int16), np.arange(6) % 3, np.array([8000] * 5 + [3000])
    search.mark(point, clips, labels, lengths, RATE, KEY, level)
    return clips.astype(np.float64) / 32768, lengths


@pytest.mark.parametrize("point", POINTS, ids=str)
@pytest.mark.parametrize("level", [UNIT, 8 * UNIT])
def test_a_mark_has_the_level_that_is_asked_for(point: Point, level: float) -> None:
    clips, lengths = marked(point, level)
    for clip, length in zip(clips, lengths, strict=True):
        assert not clip[length:].any()
        # Lines 31.25 Hz apart and more are orthogonal over 32 ms; the rest of a period is 0.4 % of a clip.
        if not point.in_step:  # whose line may be one of the others
            assert np.sqrt(np.mean(clip[:length] ** 2)) == pytest.approx(level, rel=0.03)
    same = np.array_equal(clips[0], clips[3])
    assert same != point.fresh
    assert not np.allclose(clips[0], clips[1])


def test_the_key_decides_the_lines() -> None:
    clips, labels, lengths = np.zeros((1, 4000), np.int16), np.array([0]), np.array([4000])
    made = []
    for seed in (0, 0, 1):
        made.append(clips.copy())
        search.mark(Point(), made[-1], labels, lengths, RATE, study_key(seed), UNIT)
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_a_floor_halves_the_mark_of_a_quiet_clip() -> None:
    rng = np.random.default_rng(0)
    levels = np.array([9000, 300, 100, 40, 1])
    clean = np.rint(levels[:, None] * rng.standard_normal((5, 8000)) / 3).astype(np.int16)
    labels, lengths = np.zeros(5, np.int64), np.full(5, 8000)
    found = {}
    for floor in (None, 6.0):
        found[floor] = clean.copy()
        search.mark(Point(floor=floor), found[floor], labels, lengths, RATE, KEY, UNIT)
    change = {floor: np.sqrt(np.mean((clips - clean.astype(float)) ** 2, axis=1)) for floor, clips in found.items()}
    assert change[6.0][0] == change[None][0]
    snr = 20 * np.log10(np.sqrt(np.mean(clean.astype(float) ** 2, axis=1)) / change[6.0])
    assert (snr[:4] >= 5.8).all()  # rounding to int16 adds a little to what is asked for
    assert snr[4] < 6  # 128 times as faint is as faint as it gets


def test_the_level_is_the_highest_that_sounds_no_worse_than_two_lines(spoken: Dataset) -> None:
    wanted = search.heard(spoken)
    step = 32 ** (1 / 2**search.STEPS)
    assert UNIT / step**2 <= search.level_at(Point(), spoken, wanted) <= UNIT * step**2
    six = Point(lines=6)
    level = search.level_at(six, spoken, wanted)
    for metric, sign in (("pesq", 1), ("tonality_db", -1)):
        limit = wanted[metric]
        assert sign * search.damage(six, spoken, level, metric) >= sign * limit
    above = level * step**2
    assert (
        search.damage(six, spoken, above, "pesq") < wanted["pesq"]
        or search.damage(six, spoken, above, "tonality_db") > wanted["tonality_db"]
    )


def test_a_point_is_measured_until_it_is_far(spoken: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SCREENED", {"m5": (2, search.KEYS), "cnn": (1, (0,))})
    wanted, asked = search.heard(spoken), []

    def trained(point: Point, data: Dataset, seed: int, level: float, model: str, epochs: int, n_clips: int) -> float:
        asked.append((model, seed, epochs))
        return real(point, data, seed, level, model, epochs, 60)

    real = search.trained
    monkeypatch.setattr(search, "trained", trained)
    found = json.loads(json.dumps(search.measure(spoken.folder, Point(lines=1), wanted, {}, {}, 0.0)))
    assert search.point_of(found) == Point(lines=1)
    assert found["pesq"] >= wanted["pesq"] - 0.001
    assert found["tonality_db"] <= wanted["tonality_db"] + 0.01
    assert asked == [*(("m5", seed, 2) for seed in search.KEYS), ("cnn", 0, 1)]
    assert not search.was_left(found)
    asked.clear()
    known, better = {"m5": found["m5"][:1]}, {"m5": [found["m5"][0] - 5] * 3, "cnn": [0.0]}
    far = search.measure(spoken.folder, Point(lines=1), wanted, known, better, 4.0)
    assert not asked  # the first key alone tells
    assert far["m5"] == known["m5"]
    assert "cnn" not in far
    assert search.was_left(far)
    more = search.measure(spoken.folder, Point(lines=1), wanted, known, better, 1000.0)
    assert asked == [("m5", 1, 2), ("m5", 2, 2), ("cnn", 0, 1)]
    assert (more["m5"], more["cnn"]) == (found["m5"], found["cnn"])  # as if it had never been left


def test_a_mark_is_as_good_as_its_worst_model_says() -> None:
    reference = {"m5": [60.0, 50.0, 40.0], "cnn": [30.0, 20.0]}
    assert search.gap(reference, reference) == 0
    assert search.gap({"m5": [50.0], "cnn": [40.0, 26.0], "lstm": [99.0]}, reference) == 8
    assert search.gap({"m5": [58.0]}, reference) == -2
    assert search.gap({}, reference) < -50


def test_what_is_stored_is_not_measured_again(spoken: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """All points, and all seeds of the best: nothing is left to train, and the file stays as it is."""
    path = results_of(spoken, "search") / "spoken.jsonl"
    assert path.parent == spoken.folder / "results" / "search"
    path.parent.mkdir(parents=True)
    points = [*search.drawn(1), *search.near([Point()], {Point()}, 2)]
    lines = [
        {"point": dataclasses.asdict(one), "m5": [50.0 + n] * 3, "cnn": [40.0] * 3, "lstm": [30.0] * 3}
        for n, one in enumerate(points)
    ]
    again = [{**line, "seed": seed} for seed in search.OTHER_KEYS for line in (lines[0], lines[1])]
    old = {**lines[1], "m5": [1.0]}  # before its other keys were tried
    path.write_text("".join(json.dumps(line) + "\n" for line in [old, *lines, *again]))
    before = path.read_bytes()
    monkeypatch.setattr(search, "GUESSED", ())
    search.main([str(spoken.folder), "--points", "3", "--best", "2"])
    assert path.read_bytes() == before
    assert [one["m5"][0] for one in search.stored_points(path).values()] == [50.0, 51.0, 52.0]
    left = dataclasses.asdict(Point(lines=10))
    with path.open("a") as file:  # whatever its one accuracy is
        file.write(json.dumps({"point": left, "m5": [1.0]}) + "\n")
    assert [one["m5"][0] for one in search.stored_points(path).values()] == [50.0, 51.0, 52.0, 1.0]
    assert search.stored_points(Path(f"{path}.none")) == {}


def test_the_tables_know_how_many_keys_there_are(spoken: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert {model: len(keys) for model, (_, keys) in search.SCREENED.items()} == text.SCREENED
    with pytest.raises(SystemExit):
        search.main([str(spoken.folder), "--best-of", "nothing.jsonl"])
    assert "there is no nothing.jsonl; run the search" in capsys.readouterr().err
