"""Patches of several files in one call are what they are one by one."""

from __future__ import annotations

import audiofiles
import numpy as np
import pytest
from audiofiles import noise, packed

from poscuda_fast import Key, Recipe
from poscuda_fast.files.filtering import filter_together
from poscuda_fast.files.records import Record
from poscuda_fast.kernels import Engine
from poscuda_fast.mark import codings
from poscuda_fast.mark.filters import Filters
from poscuda_fast.mark.lines import draw_lines
from poscuda_fast.results import Tally

KINDS = [
    ("PCM_16", 1, [40]),
    ("FLOAT", 2, [30, 30]),
    ("PCM_16", 1, []),
    ("PCM_16", 1, [50, 50, 50]),
    ("PCM_24", 1, [40]),
    ("PCM_16", 3, [20]),
    ("PCM_16", 1, []),
    ("FLOAT", 2, []),
    ("PCM_16", 1, [1]),
]
TAPS = Filters(np.random.default_rng(0).random((3, 9)).astype(np.float32))
LINES = draw_lines(Key(bytes(range(32))), [bytes([n]) for n in range(3)], Recipe.strong(50), [8000])
both = pytest.mark.parametrize("marks", [TAPS, LINES], ids=["filters", "lines"])


def files() -> tuple[list[Record], list[bytes], list[np.ndarray]]:
    records, dry, samples = [], [], []
    for number, (coding, channels, sizes) in enumerate(KINDS):
        audio = noise(sum(sizes), channels, coding, seed=number)
        if number == 3:
            audio[50:100] = 0
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        records.append(Record(f"{number}.wav", number % 3, coding, channels, 1000, 44, 9999, 0, 9999, starts, sizes))
        dry.append(packed(audio, coding))
        samples.append(audio)
    return records, dry, samples


@both
def test_together_is_one_by_one(marks):
    records, dry, samples = files()
    engine = Engine("reference")
    together = filter_together(records, dry, marks, engine, measuring=True)
    tally = Tally()
    for number, (record, content) in enumerate(zip(records, dry, strict=True)):
        alone = filter_together([record], [content], marks, engine, measuring=True)
        assert together.wet[number] == alone.wet[0]
        assert together.noise[number] == alone.noise[0]
        wet = codings.to_samples(together.wet[number], record.coding).astype(np.float64)
        expected = float(((wet - samples[number].reshape(-1)) ** 2).sum())
        assert together.noise[number] == pytest.approx(expected, rel=1e-12)
        assert len(together.wet[number]) == len(content)
        tally.add(alone.tally)
    assert together.tally == tally
    assert tally.patches == (0 if marks.steady else sum(len(record.sizes) for record in records))
    assert tally.silent_patches == (not marks.steady)
    assert tally.saturated_samples > 0


def test_the_filter_is_that_of_the_arrays(key):
    audio = noise(700, 2)
    plan = audiofiles.plan_of(700, "yes", key, Recipe.paper(patches=2))
    patches = plan.of_clip(0)
    record = Record("a", 0, "PCM_16", 2, 700, 44, 0, 0, 0, patches.starts.tolist(), patches.sizes.tolist())
    cut = [audio[start : start + n] for start, n in zip(record.starts, record.sizes, strict=True)]
    wet = filter_together([record], [packed(np.concatenate(cut), "PCM_16")], plan.marks, Engine()).wet[0]
    expected, _ = audiofiles.protected(audio, "PCM_16", "yes", key, Recipe.paper(patches=2))
    cut = [expected[start : start + n] for start, n in zip(record.starts, record.sizes, strict=True)]
    assert wet == packed(np.concatenate(cut), "PCM_16")


def test_no_files_at_all():
    assert filter_together([], [], TAPS, Engine("reference")) == ([], [], Tally())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_file_with_a_sample_that_is_not_finite_is_named(bad):
    records, dry, samples = files()
    samples[1][33, 1] = bad
    dry[1] = packed(samples[1], "FLOAT")
    with pytest.raises(ValueError, match=r"^1\.wav has a NaN or infinite sample"):
        filter_together(records, dry, TAPS, Engine("reference"))
