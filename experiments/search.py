"""Is there a better steady mark than two lines? A search at equal PESQ and tonality, under default training.

    python -m experiments.search DATASET [--points 200] [--best 10] [--jobs 2]
    python -m experiments.search ANOTHER --best-of experiments/results/search/DATASET.jsonl --clips 2400

A third of the points are drawn at random, a few are guesses from these, and the rest are the best with one or two
things changed. Each point's level is the highest at which neither the median PESQ nor the median tonality of the marked
clips is worse than those of two equal lines at strength 1. Then M5, LSTM and CNN are trained with up to three keys, on
half of the clips and for a shorter time than usual. A point is as good as that model says for which it gains least over
two lines, and is left as soon as it is clearly worse than the best one. The best points are trained again with all
models, on all clips and for as long as usual, and with three other keys; so they are on another data set, at levels of
their own there. Every point is kept in results/search/DATASET.jsonl, and what is there already is skipped; of data sets
that are not the project's, in a folder beside the data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import stored
from experiments.asking import parser_of, sentences
from experiments.data.dataset import TEST, TRAIN, Dataset, load, results_of
from experiments.parallel import in_parallel
from experiments.training.conditions import generator_of, study_key
from experiments.training.trial import spaced
from poscuda_fast import Key
from poscuda_fast.evaluation import quality
from poscuda_fast.evaluation.augmenting import DEFAULT
from poscuda_fast.evaluation.names import NAMES
from poscuda_fast.evaluation.padded import FULL_SCALE
from poscuda_fast.evaluation.training import EPOCHS, Config, Part, train

UNIT = 0.005  # RMS of two equal lines at strength 1, full scale 1: -46 dB
HEARD, HEARD_KEYS = 120, range(100, 140)  # clips for PESQ and tonality, as many of each key
STEPS = 8  # halvings of the level's range, of a factor of 32
KEYS, OTHER_KEYS = (0, 1, 2), (3, 4, 5)
SCREENED = {"m5": (20, KEYS), "cnn": (10, KEYS), "lstm": (20, KEYS[:2])}  # epochs, keys
FAR = 3.0  # points worse than the best mark, from which on no other key or model is tried
LOT = 12  # points that are measured before the best are looked for again
TRAIN_CLIPS, TEST_CLIPS = 1350, 800
IN_STEP = 500.0  # Hz: multiples are in step with M5's first stride of 16 frames at 8 kHz

Clips = NDArray[np.int16]
Fields = dict[str, Any]  # of a result


@dataclasses.dataclass(frozen=True)
class Point:
    """One kind of mark."""

    lines: int = 2  # of a class
    lowest: float = 625.0  # Hz between which they are drawn
    highest: float = 3875.0
    spacing: float = 31.25  # Hz, of the comb that they are drawn from
    by_mel: bool = False  # drawn uniformly on the mel scale rather than in Hz
    apart: float = 0.0  # Hz between two lines of a class, at least
    slope: float = 0.0  # dB per octave of the lines' levels
    in_step: float = 0.0  # share of the energy in lines at multiples of IN_STEP
    main: float = 0.0  # share of the energy in one of the lines, drawn at random; 0: all alike but for the slope
    fresh: bool = False  # each clip has phases of its own
    floor: float | None = None  # least SNR of a clip, dB: a quieter clip's mark is halved until it has it

    @property
    def plain(self) -> Point:
        """The same mark without what does not matter: one line has no distance, and a main line no slope."""
        if self.lines == 1:
            return dataclasses.replace(self, apart=0.0, slope=0.0, main=0.0)
        return dataclasses.replace(self, slope=0.0) if self.main else self


CHOICES: dict[str, tuple[Any, ...]] = {
    "lines": (1, 1, 2, 2, 2, 3, 4, 6, 10),
    "lowest": (125.0, 250.0, 400.0, 625.0, 625.0, 1000.0, 1500.0, 2000.0),
    "highest": (1000.0, 1500.0, 2000.0, 2500.0, 3000.0, 3500.0, 3875.0, 3875.0),
    "spacing": (31.25, 31.25, 62.5, 125.0, 250.0),
    "by_mel": (False, False, True),
    "apart": (0.0, 0.0, 125.0, 500.0, 1000.0),
    "slope": (-9.0, -6.0, -3.0, 0.0, 0.0, 3.0, 6.0),
    "in_step": (0.0, 0.0, 0.1, 0.15, 0.25, 0.35, 0.5),
    "main": (0.0, 0.0, 0.7, 0.85),
    "fresh": (False, False, False, True),
    "floor": (None, None, None, 0.0, 3.0, 6.0),
}

GUESSED = (  # from what the best of the first points have in common: one line above others, and not too low
    Point(3, 2000.0, main=0.82), Point(3, 1500.0, main=0.82), Point(4, 2000.0, main=0.75),
    Point(3, 1500.0, by_mel=True, main=0.67), Point(3, 1000.0, by_mel=True, main=0.67),
    Point(2, 1000.0, by_mel=True, main=0.7), Point(2, 1000.0, by_mel=True), Point(3, 1000.0, by_mel=True, apart=500.0),
    Point(3, 1000.0, main=0.82), Point(3, 1250.0, main=0.82), Point(3, 1500.0, main=0.7), Point(3, 1500.0, main=0.9),
    Point(4, 1500.0, main=0.8), Point(2, 1500.0, main=0.85), Point(3, 1500.0, spacing=62.5, main=0.82),
)  # fmt: skip


def drawn(n: int) -> list[Point]:
    """The reference, and n - 1 random points."""
    rng = np.random.default_rng(0)
    points = [Point()]
    while len(points) < n:
        one = Point(**{name: values[rng.integers(len(values))] for name, values in CHOICES.items()}).plain
        if sensible(one) and one not in points:
            points.append(one)
    return points


def near(best: list[Point], known: set[Point], n: int) -> list[Point]:
    """N points that differ from one of the best in one or two things."""
    rng = np.random.default_rng(len(known))
    made: list[Point] = []
    while len(made) < n:
        changed = {}
        for name in rng.permutation(list(CHOICES))[: rng.integers(1, 3)]:
            changed[str(name)] = CHOICES[name][rng.integers(len(CHOICES[name]))]
        one = dataclasses.replace(best[rng.integers(len(best))], **changed).plain
        if sensible(one) and one not in known and one not in made:
            made.append(one)
    return made


def sensible(point: Point) -> bool:
    """Whether its band has room for its lines."""
    width = point.highest - point.lowest
    return width >= 500 and width / point.spacing >= 4 * point.lines and point.apart * (point.lines - 1) < 0.5 * width


def frequencies(point: Point, rng: np.random.Generator) -> list[float]:
    """The lines of one class, Hz."""
    comb = np.arange(np.ceil(point.lowest / point.spacing), point.highest // point.spacing + 1) * point.spacing
    weights = 1 / (700 + comb) if point.by_mel else np.ones(len(comb))  # the slope of the mel scale
    while True:
        chosen = np.sort(rng.choice(comb, point.lines, replace=False, p=weights / weights.sum()))
        if point.lines == 1 or np.diff(chosen).min() >= point.apart:
            return chosen.tolist()


def mark(
    point: Point, clips: Clips, labels: NDArray[np.int64], lengths: NDArray[np.int64], rate: int, key: Key, level: float
) -> None:
    """Add the point's mark, of an RMS of `level`, to int16 clips (n, frames) in place."""
    time = np.arange(clips.shape[1]) / rate
    for label in np.unique(labels).tolist():
        rng = generator_of(key, b"experiments: search", label)
        lines = frequencies(point, rng)
        sizes = [10 ** (point.slope * np.log2(hertz / 1000) / 20) for hertz in lines]
        if point.main:
            sizes = [float(np.sqrt((1 - point.main) / (len(lines) - 1)))] * len(lines)
            sizes[rng.integers(len(lines))] = float(np.sqrt(point.main))
        sizes = list(np.array(sizes) * np.sqrt((1 - point.in_step) / np.square(sizes).sum()))
        if point.in_step:
            lines.append(float(rng.choice(np.arange(500.0, min(4000.0, rate / 2), IN_STEP))))
            sizes.append(np.sqrt(point.in_step))
        turns = 2 * np.pi * np.array(lines)[:, None] * time
        phases = rng.uniform(0, 2 * np.pi, len(lines))
        steady = _sum(turns, phases, sizes)
        for row in np.flatnonzero(labels == label):
            length = int(lengths[row])
            wave = _sum(turns, rng.uniform(0, 2 * np.pi, len(lines)), sizes) if point.fresh else steady
            heard = clips[row, :length].astype(np.float64)
            own = level
            if point.floor is not None:
                rms = np.sqrt(np.mean(heard**2)) / FULL_SCALE
                steps = np.ceil(np.log2(max(level * 10 ** (point.floor / 20) / max(rms, 1e-9), 1e-9)))
                own = level / 2 ** min(7.0, max(0.0, steps))
            summed = heard + np.rint(own * FULL_SCALE * wave[:length])
            clips[row, :length] = np.clip(summed, -32768, 32767)


def _sum(turns: NDArray[Any], phases: NDArray[Any], sizes: list[float]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.sqrt(2) * (np.array(sizes)[:, None] * np.cos(turns + phases[:, None])).sum(axis=0)
    return total


def damage(point: Point, data: Dataset, level: float, metric: str) -> float:
    """The median of a metric over some training clips, marked with one key after another."""
    rows = spaced(data.rows(TRAIN), HEARD)
    marked = np.array(data.clips[rows])
    for place, seed in enumerate(HEARD_KEYS):
        some = np.arange(place, len(rows), len(HEARD_KEYS))
        clips = marked[some]
        mark(point, clips, data.labels[rows[some]], data.lengths[rows[some]], data.sample_rate, study_key(seed), level)
        marked[some] = clips
    found = quality.measure(data.clips[rows], marked, data.lengths[rows], data.sample_rate, metrics=[metric])
    return float(found[metric]["median"])


def level_at(point: Point, data: Dataset, wanted: dict[str, float]) -> float:
    """The highest level at which the medians of PESQ and tonality are no worse than wanted; of two lines, their own."""
    if point == Point():
        return UNIT
    low, high = UNIT / 8, UNIT * 4
    for _ in range(STEPS):
        middle = float(np.sqrt(low * high))
        fine = damage(point, data, middle, "tonality_db") <= wanted["tonality_db"]
        if fine and damage(point, data, middle, "pesq") >= wanted["pesq"]:
            low = middle
        else:
            high = middle
    return low


def heard(data: Dataset) -> dict[str, float]:
    """What one hears of two equal lines: medians over clips of PESQ, and of the tonality of the worst half second."""
    return {metric: damage(Point(), data, UNIT, metric) for metric in ("pesq", "tonality_db")}


def trained(point: Point, data: Dataset, seed: int, level: float, model: str, epochs: int, n_clips: int) -> float:
    """Best accuracy on clean clips, in %, of a model that was trained on so many marked ones."""
    rows, tests = spaced(data.rows(TRAIN), n_clips), spaced(data.rows(TEST), TEST_CLIPS)
    clips, labels = np.array(data.clips[rows]), data.labels[rows]
    mark(point, clips, labels, data.lengths[rows], data.sample_rate, study_key(seed), level)
    result = train(
        Config(model=model, epochs=epochs, seed=seed, regime=DEFAULT),
        Part(clips, np.arange(len(rows)), labels),
        {"clean": Part(data.clips, tests, data.labels[tests])},
        len(data.classes),
        data.sample_rate,
    )
    return round(result.peak("clean"), 2)


def measure(
    folder: Path, point: Point, wanted: dict[str, float], known: Fields, reference: Fields, limit: float
) -> Fields:
    """What is stored of a point, from what is known on; of one whose gap rises above `limit`, only what tells that."""
    data = load(folder)
    level = level_at(point, data, wanted)
    peaks = {model: list(known.get(model, ())) for model in SCREENED}
    for model, (epochs, keys) in SCREENED.items():
        for seed in keys[len(peaks[model]) :]:
            if gap(peaks, reference) > limit:
                break
            peaks[model].append(trained(point, data, seed, level, model, epochs, TRAIN_CLIPS))
    return described(point, data, level) | {model: found for model, found in peaks.items() if found}


def measure_again(folder: Path, point: Point, wanted: dict[str, float], n_clips: int, seed: int) -> Fields:
    """All models under one more key."""
    data = load(folder)
    level = level_at(point, data, wanted)
    peaks = {model: [trained(point, data, seed, level, model, EPOCHS[model], n_clips)] for model in NAMES}
    return described(point, data, level) | {"seed": seed, "clips": n_clips} | peaks


def described(point: Point, data: Dataset, level: float) -> Fields:
    """A point, its level, and what one hears of it."""
    return {
        "point": dataclasses.asdict(point), "level_db": round(20 * np.log10(level), 2),
        "pesq": round(damage(point, data, level, "pesq"), 3),
        "tonality_db": round(damage(point, data, level, "tonality_db"), 2),
    }  # fmt: skip


def gap(fields: Fields, reference: Fields) -> float:
    """How many points more than from the reference that model learns for which the mark is worst, under equal keys."""
    pairs = [list(zip(fields.get(model, ()), reference.get(model, ()), strict=False)) for model in NAMES]
    return max((float(np.mean([mine - other for mine, other in some])) for some in pairs if some), default=-100.0)


def was_left(fields: Fields) -> bool:
    """Whether a point of the first round was left before all models and keys were tried."""
    return any(len(fields.get(model, ())) < len(keys) for model, (_, keys) in SCREENED.items())


@sentences
def main(arguments: list[str] | None = None) -> None:
    """Measure every point that is not stored yet."""
    parser = parser_of(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--best", type=int, default=10)
    parser.add_argument("--best-of", type=Path, metavar="FILE", help="of the search on another data set")
    parser.add_argument("--clips", type=int, default=2700, help="to train on again; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.best_of and not options.best_of.exists():
        parser.error(f"--best-of: there is no {options.best_of}; run the search on another data set first.")
    data = load(options.dataset)
    path = results_of(data, "search") / f"{data.name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = heard(data)
    if options.best_of is None:
        search(path, options, wanted)
    ranked = list(stored_points(options.best_of or path))[: options.best]
    best = [Point(), *(point for point in ranked if point != Point())]
    done = {(point_of(one), one["seed"]) for one in lines_of(path) if "seed" in one}
    tasks = [
        (options.dataset, point, wanted, options.clips, seed)
        for seed in OTHER_KEYS for point in best if (point, seed) not in done
    ]  # fmt: skip
    collect(path, in_parallel(measure_again, tasks, options.jobs))


def search(path: Path, options: argparse.Namespace, wanted: dict[str, float]) -> None:
    """The first round: two lines, random points, and then what is near the best."""
    first = [*drawn(max(1, options.points // 3)), *GUESSED]
    screen(path, first[:1], options, wanted)
    for some in range(1, len(first), LOT):
        screen(path, [one for one in first[some : some + LOT] if one not in stored_points(path)], options, wanted)
    while (missing := options.points - len(points := list(stored_points(path)))) > 0:
        screen(path, points[:LOT] + near(points[:LOT], set(points), min(missing, LOT)), options, wanted)
    for some in range(0, len(points), LOT):  # some were left when the best was not known yet
        screen(path, points[some : some + LOT], options, wanted)


def screen(path: Path, points: list[Point], options: argparse.Namespace, wanted: dict[str, float]) -> None:
    """Measure what is not stored yet of some points, unless what is stored tells that they are far from the best."""
    known = stored_points(path)
    reference = known.get(Point(), {})
    limit = gap(next(iter(known.values())), reference) + FAR if known and not was_left(reference) else 100.0
    tasks = [
        (options.dataset, point, wanted, fields, reference, limit)
        for point in points
        if not (fields := known.get(point, {})) or (was_left(fields) and gap(fields, reference) <= limit)
    ]
    collect(path, in_parallel(measure, tasks, options.jobs))


def collect(path: Path, found: Iterator[tuple[Any, Fields]]) -> None:
    """Store each result as it comes."""
    command = f"python -m experiments.search {path.stem.upper()}"
    for _, fields in found:
        with path.open("a") as file:
            file.write(json.dumps(stored.made_by(command) | fields) + "\n")
        peaks = {model: fields[model] for model in NAMES if model in fields}
        print(f"{peaks}  {fields['point']}", flush=True)


def lines_of(path: Path) -> list[Fields]:
    """All stored results."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def stored_points(path: Path) -> dict[Point, Fields]:
    """What is stored of each point of the first round: the best first, and at the end those that were left."""
    first = (one for one in lines_of(path) if "seed" not in one)
    last = {point_of(one): one for one in sorted(first, key=lambda one: sum(len(one.get(m, ())) for m in SCREENED))}
    reference = last.get(Point(), {})
    return dict(sorted(last.items(), key=lambda one: (was_left(one[1]), gap(one[1], reference))))


def point_of(fields: Fields) -> Point:
    """The point of a stored result."""
    return Point(**fields["point"]).plain


if __name__ == "__main__":
    main()
