"""`protect`: only patches change, in any layout; and after any refusal or error nothing has changed."""

from __future__ import annotations

import signal
import threading
import time

import naive
import numpy as np
import pytest
from awkward import Memory, awkward_arrays, random_samples, refused_arrays
from backends import each_backend, here
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import protect

from poscuda_fast import Key, LabelWarning, Recipe, Report
from poscuda_fast.arrays import layouts
from poscuda_fast.arrays.memory import mark_batch
from poscuda_fast.kernels import Engine
from poscuda_fast.mark import lines, plan

MASTER = bytes(range(32))
FIELDS = {"patch": 8, "taps": 5, "blur": 0.9, "patches": 2}
RECIPE = Recipe.paper(**FIELDS)

each_dtype = pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)


def stacked(clips: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    return np.array(clips, like.dtype).reshape(like.shape)


# What changes.


@each_backend
@each_dtype
@pytest.mark.parametrize("channels", [None, 1, 2, 3])
def test_every_layout_changes_in_its_patches_only(backend, dtype, channels, tmp_path, key: Key) -> None:
    """The whole memory below each view is compared, with what lies between and around its samples."""
    for name, clips in awkward_arrays(dtype, 4, 50, channels, tmp_path):
        labels = [0, 1, 0, 7][: len(clips)]
        wet, saturated = naive.protect_clips(clips, labels, MASTER, **FIELDS)
        below = Memory(clips)
        report = protect(clips, labels, key, recipe=RECIPE, backend=backend)
        assert np.array_equal(below.now(), below.expecting(stacked(wet, clips))), name
        assert report.saturated_samples == saturated, name
        assert report.clips == len(clips), name


@each_dtype
@pytest.mark.parametrize("channels", [None, 1, 2, 3])
@pytest.mark.parametrize("n_clips", [4, 40])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_every_layout_gets_its_lines(backend, n_clips, dtype, channels, tmp_path, key: Key, monkeypatch) -> None:
    """Few and many clips: where many lie side by side, a frame of all of them is one run."""
    monkeypatch.setattr(lines, "CLIPS_ACROSS", 17)
    for name, clips in awkward_arrays(dtype, n_clips, 50, channels, tmp_path):
        labels = np.arange(len(clips)) % 3
        wet, odd = naive.protect_clips(clips, labels.tolist(), MASTER, strength=2.0, sample_rate=8_000)
        below = Memory(clips)
        tally = mark_batch(clips, labels, key, recipe=Recipe.strong(2.0), engine=Engine(backend, 1), sample_rate=8_000)
        assert np.array_equal(below.now(), below.expecting(stacked(wet, clips))), name
        assert tally.saturated_samples == odd, name


@each_dtype
def test_every_layout_with_lengths(dtype, tmp_path, key: Key) -> None:
    for name, clips in awkward_arrays(dtype, 4, 50, 2, tmp_path, seed=1):
        labels = ["a", "b", "a", "c"][: len(clips)]
        lengths = np.minimum([50, 3, 0, 17], clips.shape[1])[: len(clips)]
        wet, saturated = naive.protect_clips(clips, labels, MASTER, lengths, **FIELDS)
        below = Memory(clips)
        report = protect(clips, labels, key, recipe=RECIPE, lengths=lengths)
        assert np.array_equal(below.now(), below.expecting(stacked(wet, clips))), name
        assert report.saturated_samples == saturated, name


@pytest.mark.parametrize("step", [1, 7, 33])
def test_every_layout_in_small_steps(step, tmp_path, key: Key, monkeypatch) -> None:
    monkeypatch.setattr(plan, "PATCHES_PER_BATCH", step)
    lengths = [50, 3, 49, 17]
    for name, clips in awkward_arrays(np.int16, 4, 50, 2, tmp_path):
        if clips.shape[:2] != (4, 50):
            continue
        original = clips.copy()
        wet, _ = naive.protect_clips(clips, [0, 1, 0, 2], MASTER, lengths, **FIELDS)
        below = Memory(clips)
        protect(clips, [0, 1, 0, 2], key, recipe=RECIPE, lengths=lengths)
        assert np.array_equal(below.now(), below.expecting(stacked(wet, clips))), name
        audio = layouts.ArrayClips(clips, lengths)
        patches = plan.make_plan(key, RECIPE, [0, 1, 0, 2], None, audio.lengths).of_clips(np.arange(4))
        spans = list(zip(patches.clips, patches.starts, patches.starts + patches.sizes, strict=True))
        dense = np.concatenate([clips[clip, first:end].reshape(-1) for clip, first, end in spans])
        assert np.array_equal(audio.read(patches), dense), name
        audio.write(patches, np.concatenate([original[clip, first:end].reshape(-1) for clip, first, end in spans]))
        assert below.unchanged(), name  # the originals are back, and nothing else was written


def test_a_memmap_is_protected_on_the_disk(tmp_path, key: Key) -> None:
    content = random_samples(np.int16, (3, 300))
    content.tofile(tmp_path / "clips")
    clips = np.memmap(tmp_path / "clips", np.int16, "r+", shape=(3, 300))
    protect(clips, [0, 1, 2], key)
    clips.flush()
    wet, _ = naive.protect_clips(content, [0, 1, 2], MASTER)
    assert (tmp_path / "clips").read_bytes() == b"".join(clip.tobytes() for clip in wet)


@each_dtype
@pytest.mark.parametrize("subclass", [np.matrix, np.recarray], ids=lambda kind: kind.__name__)
def test_subclasses_of_arrays(dtype, subclass, key: Key) -> None:
    plain = random_samples(dtype, (2, 60))
    clips = plain.copy().view(subclass)
    protect(plain, [0, 1], key, recipe=RECIPE)
    protect(clips, [0, 1], key, recipe=RECIPE)
    assert np.asarray(clips).tobytes() == plain.tobytes()


@each_backend
@each_dtype
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_lists_of_unequal_clips(backend, dtype, channels, key: Key) -> None:
    frames = () if channels is None else (channels,)
    lengths = [50, 3, 17, 8, 1, 16]
    clips = [random_samples(dtype, (length, *frames), seed) for seed, length in enumerate(lengths)]
    wet, saturated = naive.protect_clips(clips, range(6), MASTER, **FIELDS)
    for form in (list, tuple):
        mine = form(clip.copy() for clip in clips)
        report = protect(mine, range(6), key, recipe=RECIPE, backend=backend)
        assert [clip.tobytes() for clip in mine] == [clip.tobytes() for clip in wet]
        assert report.saturated_samples == saturated
        assert report.short_clips == 2


@each_dtype
@pytest.mark.parametrize("channels", [None, 2])
def test_lists_of_awkward_clips(dtype, channels, tmp_path, key: Key) -> None:
    """Each clip of every layout, as a list of views, changes the same memory as the whole array."""
    for name, clips in awkward_arrays(dtype, 3, 50, channels, tmp_path):
        labels = [0, 1, 0][: len(clips)]
        wet, _ = naive.protect_clips(clips, labels, MASTER, **FIELDS)
        below = Memory(clips)
        if clips.size:
            protect(list(clips), labels, key, recipe=RECIPE)
        assert np.array_equal(below.now(), below.expecting(stacked(wet, clips))), name


@pytest.mark.parametrize("frames", [(), (2,)], ids=["1-D", "2-D"])
def test_a_list_may_hold_empty_clips(frames, key: Key) -> None:
    clips = [
        np.empty((0, *frames), np.int16),
        random_samples(np.int16, (300, *frames)),
        np.empty((0, *frames), np.int16),
    ]
    wet, _ = naive.protect_clip(clips[1], 1, MASTER)
    report = protect(clips, [0, 1, 2], key)
    assert clips[1].tobytes() == wet.tobytes()
    assert (report.clips, report.patches, report.short_clips) == (3, 1, 2)


def test_a_list_with_lengths(key: Key) -> None:
    clips = [random_samples(np.int16, (60,), seed) for seed in range(3)]
    wet, _ = naive.protect_clips(clips, [0, 0, 0], MASTER, [60, 20, 0], **FIELDS)
    protect(clips, [0, 0, 0], key, recipe=RECIPE, lengths=[60, 20, 0])
    assert [clip.tobytes() for clip in clips] == [clip.tobytes() for clip in wet]


def test_nothing_to_do(key: Key) -> None:
    for clips in ([], (), np.empty((0, 300), np.int16), np.empty((0, 300, 2), np.float32)):
        report = protect(clips, [], key)
        assert (report.clips, report.patches, report.frames_changed) == (0, 0, 0)
    for clips in (np.empty((3, 0), np.int16), np.empty((3, 0, 2), np.int16)):
        report = protect(clips, [0, 1, 2], key)
        assert (report.clips, report.patches, report.short_clips) == (3, 0, 3)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_arrays_lists_backends_threads_and_batches_agree(data) -> None:
    n, frames, channels = (data.draw(st.integers(*limits)) for limits in ((1, 6), (3, 60), (1, 3)))
    recipe = Recipe.paper(
        patch=data.draw(st.integers(1, 20)),
        taps=data.draw(st.integers(1, 12)),
        blur=data.draw(st.sampled_from([0.01, 0.3, 3.0])),
        every=data.draw(st.sampled_from([None, 20, 25])),
    )
    dtype = data.draw(st.sampled_from([np.int16, np.float32]))
    clips = random_samples(dtype, (n, frames, channels), data.draw(st.integers(0, 2**16)))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    lengths = data.draw(st.lists(st.integers(0, frames), min_size=n, max_size=n))
    first = clips.copy()
    report = protect(first, labels, Key(MASTER), recipe=recipe, lengths=lengths, backend="reference", threads=1)
    for backend in ("auto", *here()):
        for threads in (1, 2, None):
            for other in (clips.copy(), clips.copy(order="F"), [clip.copy() for clip in clips]):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(plan, "PATCHES_PER_BATCH", data.draw(st.sampled_from([1, 3, 1 << 16])))
                    found = protect(
                        other, labels, Key(MASTER), recipe=recipe, lengths=lengths, backend=backend, threads=threads
                    )
                assert np.array_equal(np.array(other), first)
                assert {**found.to_dict(), "seconds": 0} == {**report.to_dict(), "seconds": 0}


def test_many_patches_on_many_threads(key: Key) -> None:
    clips = random_samples(np.int16, (700, 40))
    labels = np.arange(700) % 5
    protected = []
    for threads in (1, 2, 3):
        copy = clips.copy()
        protect(copy, labels, key, recipe=RECIPE, threads=threads)
        protected.append(copy.tobytes())
    assert len(set(protected)) == 1
    some = [0, 1, 350, 699]
    wet, _ = naive.protect_clips(clips[some], labels[some].tolist(), MASTER, **FIELDS)
    assert np.array_equal(np.frombuffer(protected[0], np.int16).reshape(700, 40)[some], wet)


def test_calls_from_several_threads_do_not_meet(key: Key) -> None:
    clips = random_samples(np.int16, (40, 300))
    alone = clips.copy()
    labels = [0, 1] * 20
    protect(alone, labels, key)
    copies = [clips.copy() for _ in range(4)]
    threads = [threading.Thread(target=protect, args=(copy, labels, key)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(copy, alone) for copy in copies)


# What is refused, before anything is written.


@each_dtype
def test_arrays_that_cannot_be_edited_are_refused(dtype, key: Key) -> None:
    for name, clips, error, match in refused_arrays(dtype):
        before = clips.tobytes()
        with pytest.raises(error, match=match):
            protect(clips, [0, 1, 2], key)
        assert clips.tobytes() == before, name


def test_a_read_only_memmap_is_refused(tmp_path, key: Key) -> None:
    random_samples(np.int16, (3, 300)).tofile(tmp_path / "clips")
    before = (tmp_path / "clips").read_bytes()
    with pytest.raises(ValueError, match=r'clips is read-only.*open it with mode="r\+"'):
        protect(np.memmap(tmp_path / "clips", np.int16, "r", shape=(3, 300)), [0, 1, 2], key)
    assert (tmp_path / "clips").read_bytes() == before


@pytest.mark.parametrize("clips", [None, 3, "clips.npy", b"", {"a": 1}, range(3), iter([])], ids=repr)
def test_what_is_no_array_is_refused(clips, key: Key) -> None:
    with pytest.raises(TypeError, match=f"clips is a {type(clips).__name__}; expected a NumPy array"):
        protect(clips, [], key)


def test_lists_of_other_things_are_refused(key: Key) -> None:
    good = random_samples(np.int16, (300,))
    before = good.copy()
    cases = [
        ([good, [1, 2, 3]], TypeError, r"clips\[1\] is a list; expected a NumPy array"),
        ([good, None], TypeError, r"clips\[1\] is a NoneType"),
        ([good, np.int16(3)], TypeError, r"clips\[1\] is a int16"),
        ([good, np.zeros((2, 2, 2), np.int16)], ValueError, r"clips\[1\] has shape \(2, 2, 2\)"),
        ([good, np.zeros((), np.int16)], ValueError, r"clips\[1\] has shape \(\)"),
        ([good, np.zeros(300)], TypeError, r"clips\[1\] has dtype .*f8; use .*astype\(numpy.float32\)"),
        (
            [good, np.zeros(300, np.float32)],
            ValueError,
            r"clips\[1\] is float32 with 1 channels, clips\[0\] is int16 with",
        ),
        (
            [good, np.zeros((300, 2), np.int16)],
            ValueError,
            r"clips\[1\] is int16 with 2 channels, clips\[0\] is int16 with 1",
        ),
        ([good, np.broadcast_to(np.int16(1), 300)], ValueError, r"clips\[1\] is read-only"),
        ([good, good.astype(good.dtype.newbyteorder())], TypeError, r"clips\[1\] has dtype [<>]i2; .* byte order"),
        (
            [good, np.lib.stride_tricks.as_strided(np.zeros(9, np.int16), (5, 2), (2, 2))],
            ValueError,
            "share one address",
        ),
    ]
    for clips, error, match in cases:
        with pytest.raises(error, match=match):
            protect(clips, [0, 1], key)
        assert np.array_equal(good, before)


def test_lists_that_share_memory_are_refused(key: Key) -> None:
    whole = random_samples(np.int16, (3, 400))
    before = whole.copy()
    long = whole.reshape(-1)
    for clips, match in (
        ([long[:400], long[:400]], r"clips\[0\] and clips\[1\] share memory"),
        ([whole[0], whole[1], whole[0]], r"clips\[0\] and clips\[2\] share memory"),
        ([long[:400], long[399:800]], r"clips\[0\] and clips\[1\] share memory"),
        ([long[800:], long[:100], long[:801]], r"clips\[0\] and clips\[2\] share memory|clips\[1\] and clips\[2\]"),
        ([long, long[::-1]], "share memory"),
        ([long[600:601], long[::2]], "share memory"),
    ):
        with pytest.raises(ValueError, match=match):
            protect(clips, [0] * len(clips), key)
        assert np.array_equal(whole, before)


def test_lists_that_only_interleave_are_accepted(key: Key) -> None:
    whole = random_samples(np.int16, (800,))
    clips = [whole[::2], whole[1::2]]
    wet, _ = naive.protect_clips(clips, [0, 1], MASTER)
    protect(clips, [0, 1], key)
    assert np.array_equal(whole[::2], wet[0])
    assert np.array_equal(whole[1::2], wet[1])


LENGTHS = {
    "too few": ([300, 300], ValueError, r"lengths has shape \(2,\) for 3 clips"),
    "too many": ([1] * 4, ValueError, r"lengths has shape \(4,\) for 3 clips"),
    "a number": (300, ValueError, r"lengths has shape \(\) for 3 clips"),
    "a column": ([[300], [300], [300]], ValueError, r"lengths has shape \(3, 1\) for 3 clips"),
    "negative": ([300, -1, 300], ValueError, r"lengths\[1\] is -1; clip 1 has 300 frames"),
    "too long": ([300, 300, 301], ValueError, r"lengths\[2\] is 301; clip 2 has 300 frames"),
    "far too long": (np.array([2**64 - 1, 0, 0], np.uint64), ValueError, rf"lengths\[0\] is {2**64 - 1}; clip 0"),
    "floats": ([300.0, 1.0, 2.0], TypeError, "lengths has dtype float64"),
    "bools": ([True, False, True], TypeError, "lengths has dtype bool"),
    "text": (["300"] * 3, TypeError, "lengths has dtype <U3"),
    "nothing": ([None] * 3, TypeError, "lengths has dtype object"),
}


@pytest.mark.parametrize("wrong", LENGTHS)
@pytest.mark.parametrize("form", [np.array, list], ids=["array", "list"])
def test_impossible_lengths_are_refused(wrong, form, key: Key) -> None:
    lengths, error, match = LENGTHS[wrong]
    clips = random_samples(np.int16, (3, 300))
    mine = form(clips.copy())
    with pytest.raises(error, match=match):
        protect(mine, [0, 1, 2], key, lengths=lengths)
    assert np.array_equal(np.array(mine), clips)


@pytest.mark.parametrize("lengths", [[300, 0, 17], (300, 0, 17), np.array([300, 0, 17], np.uint16)], ids=repr)
def test_forms_of_lengths(lengths, key: Key) -> None:
    clips = random_samples(np.int16, (3, 300))
    wet, _ = naive.protect_clips(clips, [0, 1, 2], MASTER, [300, 0, 17])
    protect(clips, [0, 1, 2], key, lengths=lengths)
    assert np.array_equal(clips, wet)


WRONG = {
    "too few labels": ({"labels": [0, 1]}, ValueError, "labels has 2 entries for 3 clips"),
    "negative label": ({"labels": [0, 1, -1]}, ValueError, r"labels\[2\] is -1"),
    "float labels": ({"labels": np.zeros(3)}, TypeError, "labels has dtype float64"),
    "index beyond classes": ({"classes": ["a", "b"]}, ValueError, r"labels\[2\] is 2, but classes has 2 names"),
    "key as bytes": ({"key": MASTER}, TypeError, "key is a bytes; expected a poscuda_fast.Key"),
    "key as text": ({"key": MASTER.hex()}, TypeError, "key is a str; expected a poscuda_fast.Key"),
    "no key": ({"key": None}, TypeError, "key is a NoneType"),
    "recipe as dict": ({"recipe": {"patch": 240}}, TypeError, "recipe is a dict; expected a poscuda_fast.Recipe"),
    "no recipe": ({"recipe": None}, TypeError, "recipe is a NoneType"),
    "unknown backend": ({"backend": "gpu"}, ValueError, "backend is 'gpu'"),
    "no threads": ({"threads": 0}, ValueError, "threads is 0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments_are_refused_and_nothing_is_written(wrong, key: Key) -> None:
    given, error, match = WRONG[wrong]
    clips = random_samples(np.int16, (3, 300))
    before = clips.copy()
    with pytest.raises(error, match=match) as caught:
        protect(clips, **{"labels": [0, 1, 2], "key": key, **given})
    assert np.array_equal(clips, before)
    assert MASTER.hex() not in str(caught.value)
    assert repr(MASTER)[2:-1] not in str(caught.value)


def test_options_are_given_by_name(key: Key) -> None:
    with pytest.raises(TypeError, match="positional"):
        protect(random_samples(np.int16, (1, 300)), [0], key, RECIPE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.array, list], ids=["array", "list"])
@pytest.mark.parametrize("most", [1, 1 << 16])
def test_non_finite_samples_in_patches_are_refused(bad, form, most, key: Key, monkeypatch) -> None:
    """At each end of each patch; outside the patches they are left alone."""
    monkeypatch.setattr(plan, "PATCHES_PER_BATCH", most)
    clean = random_samples(np.float32, (3, 60, 2))
    labels = [0, 1, 2]
    for clip in range(3):
        inside = np.zeros(60, bool)
        for start, size in naive.places(MASTER, labels[clip], 60, **FIELDS):
            inside[start : start + size] = True
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        for frame in {0, 59, *edges.tolist(), *(edges + 1).tolist()}:
            dirty = clean.copy()
            channel = frame % 2
            dirty[clip, frame, channel] = bad
            mine = form(dirty.copy())
            if inside[frame]:
                with pytest.raises(
                    ValueError, match=f"Clip {clip} has a NaN or infinite sample .*; nothing was written"
                ):
                    protect(mine, labels, key, recipe=RECIPE)
                assert np.array(mine).tobytes() == dirty.tobytes()
            else:
                protect(mine, labels, key, recipe=RECIPE)
                wet, _ = naive.protect_clips(clean, labels, MASTER, **FIELDS)
                wet[clip][frame, channel] = bad
                assert np.array(mine).tobytes() == np.array(wet).tobytes()


def test_non_finite_padding_is_left_alone(key: Key) -> None:
    clips = random_samples(np.float32, (2, 60))
    clips[:, 30:] = np.nan
    with pytest.raises(ValueError, match="Clip 0 has a NaN"):
        protect(clips, [0, 1], key, recipe=Recipe.paper(patch=60, taps=5))
    wet, _ = naive.protect_clips(clips, [0, 1], MASTER, [30, 30], **FIELDS)
    protect(clips, [0, 1], key, recipe=RECIPE, lengths=[30, 30])
    assert clips.tobytes() == np.array(wet).tobytes()


# Errors in the middle.


@pytest.mark.parametrize("call", [1, 2, 5])
def test_an_interrupt_waits_until_all_is_filtered(call, tmp_path, key: Key, monkeypatch) -> None:
    """Ctrl-C in the first, second or last batch: it is raised, and no clip is left half filtered."""
    monkeypatch.setattr(plan, "PATCHES_PER_BATCH", 1)  # one patch a batch
    real, calls = Engine.filter_patches, []

    def interrupted(self, *arguments) -> int:
        calls.append(arguments)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)  # so that the main thread can see it
        return real(self, *arguments)

    monkeypatch.setattr(Engine, "filter_patches", interrupted)
    for name, clips in awkward_arrays(np.int16, 5, 50, 2, tmp_path):
        if len(clips) * clips.shape[1] < 5 * 50:
            continue
        recipe, labels = {"patch": 8, "taps": 5}, [0, 1, 2, 0, 1]
        for form in (lambda clips: clips, list):
            wet, _ = naive.protect_clips(clips, labels, MASTER, **recipe)
            calls.clear()
            below = Memory(clips)
            with pytest.raises(KeyboardInterrupt):
                protect(form(clips), labels, key, recipe=Recipe.paper(**recipe))
            assert len(calls) == 5
            assert np.array_equal(below.now(), below.expecting(stacked(wet, clips))), name


def test_an_error_of_the_backend_reaches_the_caller(key: Key, monkeypatch) -> None:
    def failing(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(Engine, "filter_patches", failing)
    with pytest.raises(MemoryError):
        protect(random_samples(np.int16, (2, 300)), [0, 1], key)


# Reports.


def test_a_report_counts(key: Key) -> None:
    clips = np.full((6, 60, 2), 2**15 - 1, np.int16)
    clips[1] = 0  # silent
    clips[2, :, 0] = 0  # one channel is not silence
    lengths = [60, 60, 60, 17, 3, 0]
    wet, saturated = naive.protect_clips(clips, [0] * 6, MASTER, lengths, **FIELDS)
    report = protect(clips, [0] * 6, key, recipe=RECIPE, lengths=lengths)
    assert np.array_equal(clips, wet)
    assert isinstance(report, Report)
    assert report.state == "protected"
    assert report.fingerprint == key.fingerprint
    assert report.clips == 6
    assert report.patches == 2 + 2 + 2 + 2 + 1 + 0
    assert report.silent_patches == 2
    assert report.frames_changed == (2 + 2 + 2) * 8 + 3
    assert report.short_clips == 2
    assert report.saturated_samples == saturated > 0
    assert 0 < report.seconds < 60


def test_silence_is_counted_and_stays_silence(key: Key) -> None:
    for dtype in (np.int16, np.float32):
        clips = np.zeros((3, 300), dtype)
        report = protect(clips, [0, 1, 2], key)
        assert not clips.any()
        assert (report.patches, report.silent_patches, report.frames_changed) == (3, 3, 0)
    minus = np.full((1, 300), -0.0, np.float32)
    assert protect(minus, [0], key).silent_patches == 1


@pytest.mark.parametrize("sample", [1, -1])
def test_one_sample_is_not_silence(sample, key: Key) -> None:
    for dtype in (np.int16, np.float32):
        for frame in (2326, 2565):
            clips = np.zeros((1, 16000, 2), dtype)
            clips[0, frame, 1] = sample
            report = protect(clips, [0], key)
            assert (report.silent_patches, report.frames_changed) == (0, 240)


def test_a_sound_outside_its_patch_leaves_the_patch_silent(key: Key) -> None:
    clips = np.zeros((1, 16000), np.int16)
    clips[0, 2325] = clips[0, 2566] = 1000  # beside the patch of label 0
    before = clips.copy()
    report = protect(clips, [0], key)
    assert (report.silent_patches, report.frames_changed) == (1, 0)
    assert np.array_equal(clips, before)
    clips[0, 2565] = 1000  # its last frame
    report = protect(clips, [0], key)
    assert (report.silent_patches, report.frames_changed) == (0, 240)


def test_saturated_samples_are_counted_over_channels_and_clips(key: Key) -> None:
    clips = np.full((2, 10, 3), 2**15 - 1, np.int16)
    recipe = Recipe.paper(patch=10, taps=1, blur=1e9)
    assert protect(clips, [0, 1], key, recipe=recipe).saturated_samples == 60
    assert protect(clips[..., 0] * np.int16(-1), [0, 1], key, recipe=recipe).saturated_samples == 20
    floats = np.ones((2, 10), np.float32)
    assert protect(floats, [0, 1], key, recipe=recipe).saturated_samples == 0


def test_a_report_is_a_table_and_a_dict(key: Key) -> None:
    clips = random_samples(np.int16, (1200, 300))
    with pytest.warns(LabelWarning, match="one label"):
        report = protect(clips, [0] * 1200, key, recipe=Recipe.paper(taps=3))
    lines = str(report).splitlines()
    names = [line[:18].strip() for line in lines]
    assert names == [
        "state", "recipe", "clips", "classes", "frames changed", "saturated samples", "patches", "silent patches",
        "short clips", "seconds", "key fingerprint", "note",
    ]  # fmt: skip
    values = dict(zip(names, (line[19:] for line in lines), strict=True))
    assert values["state"] == "protected"
    assert values["clips"] == "1,200"
    assert values["frames changed"] == "288,000"
    assert values["key fingerprint"] == key.fingerprint
    fields = report.to_dict()
    assert fields["clips"] == 1200
    assert list(fields) == list(Report.__slots__)


def test_a_report_tells_no_positions(key: Key) -> None:
    clips = random_samples(np.int16, (1, 16000))
    text = str(protect(clips, [0], key))
    assert "2326" not in text
    assert "2,326" not in text


def test_protecting_twice_is_not_once(key: Key) -> None:
    """There is no mark in the samples that would stop a second call: `protect` says so and keeps no journal."""
    once = random_samples(np.int16, (1, 300))
    twice = once.copy()
    protect(once, [0], key)
    protect(twice, [0], key)
    protect(twice, [0], key)
    assert not np.array_equal(once, twice)


def test_a_masked_array_is_refused(key: Key) -> None:
    clips = np.ma.masked_array(np.ones((2, 300), np.int16), mask=False)
    with pytest.raises(TypeError, match="clips is a masked array, whose hidden samples would be marked too"):
        protect(clips, [0, 1], key)
    assert (clips.data == 1).all()
