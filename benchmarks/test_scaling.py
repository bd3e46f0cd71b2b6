"""Throughput against the number of clips, their length and the number of threads, for the plots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import contenders
import numpy as np
import pytest

CLIPS = (100, 1_000, 10_000, 100_000)
FRAMES = (1_600, 16_000, 160_000, 1_600_000)
FEW = 2_000  # clips of many lengths by the paper's recipe; by the default as many as have the samples of `ALL`
ALL = 32_000_000


def default_run(name: str, threads: int, n_clips: int, n_frames: int) -> Callable[[], Any]:
    """Lines so quiet that they can be added again and again."""
    task = contenders.make_lines_task(np.int16, n_clips, n_frames, n_classes=min(35, n_clips), strength=0.01)
    table = {**contenders.OUR_LINES, **{peer: prepare for peer, (_, prepare) in contenders.LINES_PEERS.items()}}
    return table[name](task, threads)


def paper_run(name: str, threads: int, n_clips: int, n_frames: int) -> Callable[[], Any]:
    """Pages without a patch are never touched and take no memory."""
    task = contenders.make_task(np.int16, 1000, 1_600)
    starts = np.random.default_rng(1).integers(0, n_frames - 239, 35)
    rows = np.arange(n_clips) % 35
    task = contenders.Task(np.zeros((n_clips, n_frames), np.int16), rows, starts, task.taps, task.patch)
    table = {**contenders.OURS, **{peer: prepare for peer, (_, prepare) in contenders.PEERS.items()}}
    return table[name](task, threads)


@pytest.mark.parametrize(
    ("make", "peers"),
    [(default_run, ["numpy"]), (paper_run, ["scipy fftconvolve", "numpy convolve"])],
    ids=["default", "paper"],
)
def test_scaling(race: Any, make: Callable[..., Callable[[], Any]], peers: list[str]) -> None:
    """Every point is the median of a contender on clips of its own."""
    ours = list(contenders.OURS)
    lengths = [(FEW if make is paper_run else ALL // n_frames, n_frames) for n_frames in FRAMES]
    points = [
        *(("clips", n_clips, name, 1, n_clips, 1_600) for n_clips in CLIPS for name in (*ours, *peers)),
        *(("frames", n_frames, name, 1, n_clips, n_frames) for n_clips, n_frames in lengths for name in ours),
        *(("threads", threads, name, threads, 20_000, 1_600) for threads in (1, 2) for name in ours),
    ]
    runs = {f"{axis} {value} {name}": make(name, *rest) for axis, value, name, *rest in points}
    race.run(runs, rounds=5)
    race.keep()["points"] = [
        {"axis": axis, "value": value, "contender": name, "clips": n_clips, "frames": n_frames}
        | {"seconds": race.median(f"{axis} {value} {name}")}
        for axis, value, name, _, n_clips, n_frames in points
    ]
