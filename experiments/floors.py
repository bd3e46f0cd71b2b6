"""Two steady lines with a floor under each clip's SNR: what it spares quiet clips, and what it costs in protection.

    python -m experiments.floors DATASET ... [--models m5 cnn] [--seeds 0]
    python -m experiments.floors --table [--seeds 0]

Every cell is made once, and stored in results/floors. Trainings are short, and augment as the popular recipes do: a
share of the clips is shifted and gets white noise, anew in every epoch. Strength 0 is the data without a mark.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import stored
from experiments import cells
from experiments.conditions import study_key
from experiments.dataset import TEST, TRAIN, Dataset, load
from experiments.floor_tables import EPOCHS, FLOORS, STRENGTHS, Cell, summary, text_of
from poscuda_fast import Key, Recipe
from poscuda_fast.evaluation import quality
from poscuda_fast.evaluation.attacks import augmented, shift, uniform
from poscuda_fast.evaluation.training import Config, Part, train
from poscuda_fast.mark.labels import integer_token
from poscuda_fast.mark.lines import draw_lines

FOLDER = cells.RESULTS / "floors"
TRAIN_CLIPS, TEST_CLIPS, PESQ_CLIPS = 2700, 800, 400  # at most
AUGMENTED = 0.8  # of the clips, in each epoch
SHIFT_SECONDS = 0.1
NOISE = 0.01  # RMS of the loudest noise, of full scale: -40 dBFS

STEPS = 8  # a clip's gain is 2^-q, q from 0 to 7
LARGEST, SMALLEST = 32767, -32768

Clips = NDArray[np.int16]  # (n, frames)
Ints = NDArray[np.int64]


def main(arguments: list[str] | None = None) -> None:
    """Measure every cell that is not stored yet, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", type=Path, metavar="DATASET")
    parser.add_argument("--models", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seed n has key n; --table shows these")
    parser.add_argument("--table", action="store_true", help="print what is stored, and measure nothing")
    options = parser.parse_args(arguments)
    if options.table:
        print(summary(cells.load_all(FOLDER), options.seeds))
        return
    torch.set_num_threads(1)
    sets = [load(folder) for folder in options.datasets]
    for data, floor, strength in _recipes(sets):
        measure_quality(data, floor, strength)
    for seed in options.seeds:
        for data, floor, strength in [*((data, None, 0.0) for data in sets), *_recipes(sets)]:
            for model in options.models:
                measure_accuracy(data, floor, strength, model, seed)


def _recipes(sets: Sequence[Dataset]) -> Iterator[tuple[Dataset, float | None, float]]:
    """Each data set with each floor and strength: of all data sets the first floors first."""
    for floors, data in itertools.product(FLOORS, sets):
        for floor, strength in itertools.product(floors, STRENGTHS):
            yield data, floor, strength


def measure_quality(data: Dataset, floor: float | None, strength: float) -> None:
    """Store SNR and gains of all training clips that are used, and PESQ of some of them, under key 0."""
    name = f"{_name(data, floor, strength)}_quality"
    if (FOLDER / f"{name}.json").exists():
        return
    rows, lengths, key = _some(data.rows(TRAIN), TRAIN_CLIPS), data.lengths, study_key(0)
    before = np.array(data.clips[rows])
    after = before.copy()
    gains = mark(after, data.labels[rows], lengths[rows], key, strength, floor, data.sample_rate)
    heard = _some(np.arange(len(rows)), PESQ_CLIPS)
    fields = {
        **_about(data, floor, strength, "quality"),
        "key_fingerprint": key.fingerprint,
        "snr_db": _distances("snr_db", before, after, lengths[rows], data.sample_rate),
        "pesq": _distances("pesq", before[heard], after[heard], lengths[rows[heard]], data.sample_rate),
        "gain_shares": [float(share) for share in np.bincount(gains, minlength=STEPS) / len(gains)],
    }
    _store(data, name, "", fields)


def measure_accuracy(data: Dataset, floor: float | None, strength: float, model: str, seed: int) -> None:
    """Train one model on marked clips, augmented, test it on clean ones, and store the cell."""
    name = f"{_name(data, floor, strength)}_{model}_s{seed}"
    if (FOLDER / f"{name}.json").exists():
        return
    rows, test_rows = _some(data.rows(TRAIN), TRAIN_CLIPS), _some(data.rows(TEST), TEST_CLIPS)
    labels, key = data.labels[rows], study_key(seed)
    clips = np.array(data.clips[rows])
    mark(clips, labels, data.lengths[rows], key, strength, floor, data.sample_rate)
    result = train(
        Config(model=model, epochs=EPOCHS[model], seed=seed),
        Part(clips, np.arange(len(rows)), labels),
        {"clean": Part(data.clips, test_rows, data.labels[test_rows])},
        len(data.classes),
        data.sample_rate,
        step=augmented(shifted_and_noisy, data.sample_rate, AUGMENTED),
    )
    fields = {
        **_about(data, floor, strength, model),
        "seed": seed,
        "key_fingerprint": key.fingerprint,
        "train_clips": len(rows),
        "test_clips": len(test_rows),
        "epochs": EPOCHS[model],
        "augmentation": {"share": AUGMENTED, "shift_seconds": SHIFT_SECONDS, "noise_rms": NOISE},
        "clean_final": result.final("clean"),
        "clean_peak": result.peak("clean"),
        "train": result.final("train"),
        "seconds": round(result.seconds, 1),
        "curves": cells.curves(result),
    }
    _store(data, name, f" --models {model} --seeds {seed}", fields)


def shifted_and_noisy(waves: Tensor, generator: torch.Generator, sample_rate: int, strength: float) -> Tensor:
    """Shift a share `strength` of the waves, and add white noise whose RMS is drawn from 0 to `NOISE`."""
    chosen = uniform(waves, generator, 1) < strength
    level = NOISE * uniform(waves, generator, 1)
    noise = torch.randn(waves.shape, generator=generator).to(waves)
    return torch.where(chosen, shift(waves, generator, sample_rate, SHIFT_SECONDS) + level * noise, waves)


def mark(
    clips: Clips, labels: Ints, lengths: Ints, key: Key, strength: float, floor: float | None, sample_rate: int
) -> Ints:
    """Add each class's two lines to its clips (FORMAT.md, "Format 2").

    Parameters
    ----------
    clips : (n, frames) int16
        Changed in place, each within its length.
    labels, lengths : (n,) int64
    key : Key
    strength : float
        Of the recipe; 0 changes nothing.
    floor : float or None
        The least SNR of a clip, dB; None for one level.
    sample_rate : int
        Hz.

    Returns
    -------
    (n,) int64
        The gain step q of each clip: its mark is divided by 2^q.
    """
    gains = np.zeros(len(clips), np.int64)
    if strength == 0:
        return gains
    classes = [int(label) for label in np.unique(labels)]
    lines = draw_lines(key, [integer_token(label) for label in classes], Recipe.strong(strength), [sample_rate])
    turns = {label: lines.mark(row, clips.dtype).astype(np.int64) for row, label in enumerate(classes)}
    for row, (label, length) in enumerate(zip(labels.tolist(), lengths.tolist(), strict=True)):
        wave = np.resize(turns[label], length)  # the turn, repeated
        samples = clips[row, :length].astype(np.int64)
        gains[row] = 0 if floor is None else _gain(samples, wave, floor)
        halved = np.rint(wave / 2 ** gains[row]).astype(np.int64)
        clips[row, :length] = np.clip(samples + halved, SMALLEST, LARGEST)
    return gains


def _gain(samples: Ints, wave: Ints, floor: float) -> int:
    """The least step that brings the SNR to the floor, in exact numbers; the last one if none does."""
    wanted = Fraction(10.0 ** (floor / 10)) * int(wave @ wave)
    energy = int(samples @ samples)
    return next((step for step in range(STEPS - 1) if 4**step * energy >= wanted), STEPS - 1)


def _some(rows: Ints, most: int) -> Ints:
    """At most so many rows, evenly spaced: rows lie by class, and by speaker within a class."""
    return rows if len(rows) <= most else rows[np.arange(most) * len(rows) // most]


def _distances(metric: str, before: Clips, after: Clips, lengths: Ints, sample_rate: int) -> dict[str, Any]:
    """A metric of every clip, as a median and the mean of the worst twentieth."""
    values, left_out = [], 0
    for old, new, length in zip(before, after, lengths, strict=True):
        try:
            values.append(quality.METRICS[metric].compute(old[:length], new[:length], sample_rate))
        except quality.UnmeasurableError:
            left_out += 1
    worst = sorted(values)[: max(1, len(values) // 20)]
    return {
        "n": len(values),
        "left_out": left_out,
        "median": statistics.median(values),
        "worst_twentieth": statistics.fmean(worst),
        "percentile_5": float(np.percentile(values, 5)),
    }


def _name(data: Dataset, floor: float | None, strength: float) -> str:
    return f"{data.name}_floor-{text_of(floor)}_strength-{strength:g}"


def _about(data: Dataset, floor: float | None, strength: float, what: str) -> Cell:
    return {"dataset": data.name, "floor": floor, "strength": strength, "what": what}


def _store(data: Dataset, name: str, options: str, fields: Cell) -> None:
    stored.store(FOLDER, name, f"python -m experiments.floors {data.name.upper()}{options}", fields)
    shown = {key: fields[key] for key in ("clean_final", "clean_peak", "seconds", "pesq") if key in fields}
    print(name, shown, flush=True)


if __name__ == "__main__":
    main()
