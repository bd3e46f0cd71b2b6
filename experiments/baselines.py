"""Other methods, on the same clips and models.

    python -m experiments.baselines DATASET [--models ...] [--seeds 0 1 2]
    python -m experiments.baselines DATASET --seconds     (time 1,000 clips; run nothing else meanwhile)

- cuda-B: CUDA (Sadasivan et al. 2023) brought to audio as its authors describe it: each class's filter is drawn
  from U(0, B) with one tap at a random place set to 1, the whole clip is convolved and divided by its maximum.
- emin-SNR: class-wise error-minimising noise (Huang et al. 2021), with M5 as the surrogate: in turns, the surrogate
  is trained on noisy clips and the noise is changed to lower its loss, until the surrogate is right on 99 %.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import oaconvolve
from torch import Tensor, nn

from benchmarks import stored
from experiments import cells
from experiments.conditions import TAPS, Clips, Condition, Ints, mark_rows, poscuda, study_key, whole_clip
from experiments.dataset import Dataset, load
from experiments.table1 import CELL_OPTIONS, shared_options, usual
from experiments.trial import rows_of
from poscuda_fast import Key
from poscuda_fast.evaluation.models import build
from poscuda_fast.evaluation.padded import FULL_SCALE
from poscuda_fast.evaluation.training import Part

FOLDER = cells.RESULTS / "baselines"
EMIN_SNR_DB = 14.0  # as the paper's recipe at b = 0.01 on FSDD
EMIN_ROUNDS, EMIN_TRAIN_STEPS, EMIN_STOP = 40, 10, 99.0  # Huang et al. 2021, sec. 4: stop at 99 % accuracy
NAMES_OF_CONDITIONS = ("cuda-0.01", "cuda-0.3", "emin-14")
TIMED_CLIPS, TIMED_RUNS = 1000, 5


def cuda(blur: float) -> Condition:
    """CUDA on whole clips."""

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        filters = {int(label): _spiked(key, int(label), blur) for label in np.unique(labels)}
        for row, (label, length) in enumerate(zip(labels, lengths, strict=True)):
            wet = oaconvolve(clips[row, :length].astype(np.float64), filters[int(label)], mode="same")
            loudest = np.abs(wet).max(initial=0.0)
            clips[row, :length] = np.rint(wet * (32767.0 / loudest)) if loudest else 0

    return Condition(f"cuda-{blur:g}", f"CUDA b={blur:g}", mark, None, {"taps": TAPS, "blur": blur})


def _spiked(key: Key, label: int, blur: float) -> NDArray[np.float64]:
    seed = np.frombuffer(key.derive(b"experiments: CUDA", str(label).encode(), length=32), np.uint32)
    rng = np.random.default_rng(seed)
    taps = rng.uniform(0.0, blur, TAPS)
    taps[rng.integers(TAPS)] = 1.0
    return taps


def error_minimising(data: Dataset, rows: Ints, snr_db: float, seed: int) -> Condition:
    """Class-wise error-minimising noise for some clips, scaled so that their median SNR is `snr_db`."""
    levels = [np.sqrt(np.mean(np.square(data.clips[row, : data.lengths[row]], dtype=np.float64))) for row in rows]
    rms = float(np.median(levels)) / FULL_SCALE * 10 ** (-snr_db / 20)
    noise = _minimise(Part(data.clips, rows, data.labels[rows]), data.lengths[rows], len(data.classes), data, rms, seed)
    samples = np.rint(noise.numpy() * FULL_SCALE).astype(np.int64)  # (classes, frames)

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        inside = np.arange(clips.shape[1]) < lengths[:, None]
        clips[:] = np.clip(clips + samples[labels] * inside, -32768, 32767)

    settings = {"snr_db": snr_db, "rounds": EMIN_ROUNDS, "train_steps": EMIN_TRAIN_STEPS, "stop_percent": EMIN_STOP}
    return Condition(f"emin-{snr_db:g}", f"error-minimising noise, {snr_db:g} dB", mark, None, settings)


def _minimise(part: Part, lengths: Ints, n_classes: int, data: Dataset, rms: float, seed: int) -> Tensor:
    """(classes, frames) noise of the given RMS, full scale 1."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    frames = part.audio.shape[1]
    inside = torch.from_numpy(np.arange(frames) < lengths[:, None]).float()  # (n, frames)
    labels = torch.from_numpy(part.labels)
    surrogate = build("m5", n_classes, data.sample_rate)
    optimizer = torch.optim.Adam(surrogate.body.parameters(), lr=0.01)
    noise = rms * torch.randn(n_classes, frames, generator=generator).sign()
    for _ in range(EMIN_ROUNDS):
        surrogate.train()
        for _ in range(EMIN_TRAIN_STEPS):
            chosen = torch.randint(len(part), (128,), generator=generator)
            waves = part.waves(chosen.numpy()) + noise[labels[chosen]] * inside[chosen]
            loss = nn.functional.cross_entropy(surrogate(waves), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        surrogate.eval()
        right = 0
        for chosen in torch.randperm(len(part), generator=generator).split(128):
            noise.requires_grad_()
            scores = surrogate(part.waves(chosen.numpy()) + noise[labels[chosen]] * inside[chosen])
            (slope,) = torch.autograd.grad(nn.functional.cross_entropy(scores, labels[chosen]), noise)
            right += int((scores.argmax(1) == labels[chosen]).sum())
            # A step of a tenth of the bound against the gradient's sign, and back within the bound.
            noise = (noise.detach() - 0.1 * rms * slope.sign()).clamp(-rms, rms)
        if 100.0 * right / len(part) >= EMIN_STOP:
            break
    return noise * (rms / noise.square().mean(dim=1, keepdim=True).sqrt())


def make(name: str, data: Dataset, rows: Ints, seed: int) -> Condition:
    """A baseline by its name, fitted to the training rows where it needs them."""
    kind, _, value = name.partition("-")
    return cuda(float(value)) if kind == "cuda" else error_minimising(data, rows, float(value), seed)


def seconds(data: Dataset) -> dict[str, float]:
    """Median seconds to mark 1,000 training clips, including everything that a method needs."""
    rows = data.rows(0)[:TIMED_CLIPS]
    makers: dict[str, Callable[[], Condition]] = {
        "poscuda-0.01": lambda: poscuda(0.01),
        "whole-0.01": lambda: whole_clip(0.01),
        "cuda-0.3": lambda: cuda(0.3),
        "emin-14": lambda: error_minimising(data, rows, EMIN_SNR_DB, 0),
    }
    key, everything = study_key(0), np.arange(len(rows))
    taken = {}
    for name, maker in makers.items():
        runs = []
        for _ in range(1 + (TIMED_RUNS if name != "emin-14" else 1)):
            clips = data.clips[rows]
            begun = time.perf_counter()
            mark_rows(maker(), clips, everything, data.labels[rows], data.lengths[rows], key)
            runs.append(time.perf_counter() - begun)
        taken[name] = float(f"{statistics.median(runs[1:]) * 1000 / len(rows):.3g}")  # the first one warms up
    return taken


def main(arguments: list[str] | None = None) -> None:
    """Run every cell that is not stored yet, or measure the times."""
    parser = shared_options(__doc__, NAMES_OF_CONDITIONS)
    parser.add_argument("--seconds", action="store_true", help="only measure the times")
    options = parser.parse_args(arguments)
    if options.seconds:
        data = load(options.dataset)
        torch.set_num_threads(1)
        fields = {"dataset": data.name, "clips": TIMED_CLIPS, "threads": 1, "seconds_per_1000_clips": seconds(data)}
        command = f"python -m experiments.baselines {data.name.upper()} --seconds"
        stored.store(cells.RESULTS, "creation_seconds", command, fields)
        return
    given: dict[str, Any] = {"device": options.device}
    if options.epochs is not None:
        given["epochs"] = options.epochs
    work = functools.partial(_run, options.dataset, options.split, options.models, given)
    cells.in_parallel(work, [(seed, name) for seed in options.seeds for name in options.conditions], options.jobs)


def _run(dataset: Path, split: str, models: list[str], given: dict[str, Any], seed: int, name: str) -> None:
    data = load(dataset)
    condition = make(name, data, rows_of(data, split, seed)[0], seed)
    group = cells.Group(data, split, condition, seed, FOLDER, f"python -m experiments.baselines {CELL_OPTIONS}")
    group.run([usual(model, seed, **given) for model in group.missing(models)])


if __name__ == "__main__":
    main()
