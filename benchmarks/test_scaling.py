"""Throughput against the number of clips, their length and the number of threads, for the plot."""

from __future__ import annotations

from typing import Any

import contenders
import numpy as np

KERNELS = {**contenders.OURS, "scipy fftconvolve": contenders.scipy_fftconvolve, "numpy": contenders.numpy_convolve}
CLIPS = (100, 1_000, 10_000, 100_000)
FRAMES = (1_600, 16_000, 160_000, 1_600_000)


def test_scaling(race: Any) -> None:
    points = [
        *(("clips", n_clips, name, 1, n_clips, 1_600) for n_clips in CLIPS for name in KERNELS),
        *(("frames", n_frames, name, 1, 2_000, n_frames) for n_frames in FRAMES for name in contenders.OURS),
        *(("threads", threads, name, threads, 20_000, 1_600) for threads in (1, 2) for name in contenders.OURS),
    ]
    runs: dict[str, Any] = {}
    for axis, value, name, threads, n_clips, n_frames in points:
        task = contenders.make_task(np.int16, 1000, 1_600)
        clips = np.zeros((n_clips, n_frames), np.int16)  # pages without a patch are never touched and take no memory
        starts = np.random.default_rng(1).integers(0, n_frames - 239, 35)
        task = contenders.Task(clips, np.arange(n_clips) % 35, starts, task.taps, task.patch)
        runs[f"{axis} {value} {name}"] = KERNELS[name](task, threads)
    race.run(runs, rounds=5)
    race.keep()["points"] = [
        {"axis": axis, "value": value, "contender": name, "clips": n_clips}
        | {"seconds": sorted(race.seconds[f"{axis} {value} {name}"])[2]}
        for axis, value, name, _, n_clips, _ in points
    ]
