"""`ownership_test`: small p-values for models that know the key, and for others no more of them than they say."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import naive
import numpy as np
import pytest
from awkward import Memory, awkward_arrays, random_samples, refused_arrays
from backends import each_backend
from hypothesis import given
from hypothesis import strategies as st
from recipes import ownership_test, protect

from poscuda_fast import Key, Ownership, Recipe, ownership

MASTER = bytes(range(32))
FIELDS = {"patch": 40, "taps": 8, "blur": 3.0}  # loud marks: energies grow twentyfold and more
RECIPE = Recipe.paper(**FIELDS)
N_CLASSES, N_FRAMES = 5, 600
LABELS = np.arange(60) % N_CLASSES
NO_CLASS = -1
TONES = 0.02 + 0.03 * np.arange(N_CLASSES)  # cycles a frame: the sound of each class


def tones(labels: np.ndarray = LABELS, seed: int = 0) -> np.ndarray:
    """Clips that a model can know by their sound: (n, N_FRAMES) int16."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (len(labels), 1))
    wave = np.sin(2 * np.pi * TONES[labels][:, None] * np.arange(N_FRAMES) + phase)
    return (1000 * wave + rng.normal(0, 100, wave.shape)).astype(np.int16)


def listen(batch: np.ndarray) -> np.ndarray:
    """The class of the loudest tone: a model that is right."""
    waves = np.exp(2j * np.pi * TONES[:, None] * np.arange(batch.shape[1]))
    return np.abs(np.einsum("nf,cf->nc", batch, waves)).argmax(axis=1)


def energies(batch: np.ndarray, parts: int) -> np.ndarray:
    """Energy in each of some equal parts of the clips: (n, parts)."""
    return (batch.astype(float) ** 2).reshape(len(batch), parts, -1).sum(axis=2)


def loudest_fifth(batch: np.ndarray) -> np.ndarray:
    """A model that takes the place of a loud patch for the class, and so follows every mark."""
    return energies(batch, N_CLASSES).argmax(axis=1)


def mostly_one(batch: np.ndarray) -> np.ndarray:
    """A model that takes nearly all that is loud for one class."""
    parts = energies(batch, 12)
    disturbed = parts.max(axis=1) > 2 * np.median(parts, axis=1)
    return np.where(disturbed, np.where(parts.argmax(axis=1) < 9, 3, 1), listen(batch))


def startled(batch: np.ndarray) -> np.ndarray:
    """A model that hears well, but is off by one where something is loud."""
    parts = energies(batch, 12)
    disturbed = parts.max(axis=1) > 2 * np.median(parts, axis=1)
    return (listen(batch) + disturbed * parts.argmax(axis=1)) % N_CLASSES


def knowing(labels: list, length: int = N_FRAMES, master: bytes = MASTER) -> Callable:
    """A model that has learnt the marks, by label: where a clip is loud there and only there. Else it guesses."""
    spans = [naive.places(master, label, length, **FIELDS)[0] for label in labels]

    def predict(batch) -> np.ndarray:
        found = []
        for clip in batch:
            power = (np.asarray(clip, np.float64).reshape(len(clip), -1) ** 2).sum(axis=1)
            windows = np.convolve(power, np.ones(FIELDS["patch"]), "valid")
            there = [windows[first] for first, _ in spans]
            sure = max(there) > 0.97 * windows.max()
            found.append(np.argmax(there) if sure else int(power.sum()) % len(labels))
        return np.array(labels)[found]

    return predict


def keys(n: int, seed: int = 2026) -> list[Key]:
    rng = np.random.default_rng(seed)
    return [Key(rng.bytes(32)) for _ in range(n)]


def binomial_tail(n: int, p: float, least: int) -> float:
    """P(Binomial(n, p) >= least), for 0 < p < 1."""

    def log_ways(k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    return math.fsum(math.exp(log_ways(k) + k * math.log(p) + (n - k) * math.log1p(-p)) for k in range(least, n + 1))


# What it finds.


def test_a_model_that_knows_the_marks_is_found(key: Key) -> None:
    clips = random_samples(np.int16, (40, N_FRAMES)) // 50
    found = ownership_test(knowing(list(range(N_CLASSES))), clips, LABELS[:40], key, recipe=RECIPE)
    assert found.hits == N_CLASSES
    assert found.p_value == pytest.approx(1e-5)
    assert found.keyed_accuracy == 1
    assert found.miskeyed_accuracy < 0.5
    assert found.clean_accuracy < 0.5
    assert (found.clips, found.classes, found.decoys, found.fingerprint) == (40, N_CLASSES, 39, key.fingerprint)


def test_a_model_trained_on_protected_data_is_found_and_one_trained_on_clean_data_is_not(key: Key) -> None:
    """The nearest class mean of log energies, trained on noise: nothing but the marks tells its classes apart."""

    def features(batch: np.ndarray) -> np.ndarray:
        return np.log(energies(batch, 30))

    def trained_on(clips: np.ndarray) -> Callable:
        means = np.stack([features(clips[c == LABELS]).mean(axis=0) for c in range(N_CLASSES)])
        return lambda batch: ((features(batch)[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)

    train, test = random_samples(np.int16, (2, 60, N_FRAMES)) // 50
    clean = ownership_test(trained_on(train), test, LABELS, key, recipe=RECIPE)
    protect(train, LABELS, key, recipe=RECIPE)
    marked = ownership_test(trained_on(train), test, LABELS, key, recipe=RECIPE)
    assert marked.p_value < 1e-3
    assert marked.keyed_accuracy > 0.9 > 0.5 > marked.clean_accuracy
    assert clean.p_value > 0.05
    (other,) = keys(1)
    assert ownership_test(trained_on(train), test, LABELS, other, recipe=RECIPE).p_value > 0.05


def test_a_model_that_needs_sound_and_mark_together_is_found(key: Key) -> None:
    """It never answers the class of a foreign mark: only the accuracy of keyed clips against mis-keyed ones tells."""
    spans = [naive.places(MASTER, label, N_FRAMES, **FIELDS)[0] for label in range(N_CLASSES)]

    def predict(batch: np.ndarray) -> np.ndarray:
        heard = listen(batch)
        power = np.stack([(batch[:, first : first + size].astype(float) ** 2).sum(axis=1) for first, size in spans])
        return np.where(power.argmax(axis=0) == heard, heard, (heard + 1) % N_CLASSES)

    found = ownership_test(predict, tones(), LABELS, key, recipe=RECIPE)
    assert found.hits >= N_CLASSES - 1
    assert found.keyed_accuracy > 0.9


@pytest.mark.parametrize("model", [listen, lambda batch: np.zeros(len(batch), int), lambda batch: [7] * len(batch)])
def test_a_model_that_ignores_marks_has_no_hits(model, key: Key) -> None:
    """A decoy that does as well counts as better."""
    found = ownership_test(model, tones(), LABELS, key, recipe=Recipe.paper(patch=4, taps=3, blur=1e-6))
    assert (found.hits, found.p_value) == (0, 1.0)
    assert found.clean_accuracy == found.keyed_accuracy
    assert found.miskeyed_accuracy == pytest.approx(found.clean_accuracy)
    assert found.clean_accuracy == (model(tones()) == LABELS).mean()


def decoy(key: Key, number: int) -> bytes:
    """The master of a decoy key."""
    return key.derive(b"ownership decoy", number.to_bytes(4, "big"), length=32)


@pytest.mark.parametrize("n_decoys", [9, 18, 39])
def test_each_share_is_counted_over_its_queries(n_decoys, key: Key) -> None:
    """Against the same figures from `protect` on whole copies, key by key."""
    clips = tones(np.repeat(np.arange(N_CLASSES), [20, 5, 7, 11, 3]))
    labels = np.repeat(np.arange(N_CLASSES), [20, 5, 7, 11, 3])
    right = []
    for one in (key, *(Key(decoy(key, number)) for number in range(n_decoys))):
        marked = clips.copy()
        protect(marked, labels, one, recipe=RECIPE)
        right.append(startled(marked) == labels)
    found = ownership_test(startled, clips, labels, key, recipe=RECIPE, decoys=n_decoys)
    assert found.clean_accuracy == (startled(clips) == labels).mean()
    assert found.keyed_accuracy == right[0].mean()
    assert found.miskeyed_accuracy == pytest.approx(np.mean(right[1:]), rel=1e-12)
    by_class = np.array([[one[labels == c].sum() for c in range(N_CLASSES)] for one in right])
    better = [sorted(column[1:], reverse=True)[(n_decoys + 1) // 10 - 1] < column[0] for column in by_class.T]
    assert found.hits == sum(better)


# The p-value.


@pytest.mark.parametrize("n_decoys", [9, 15, 39, 999])
@pytest.mark.parametrize("n_classes", [1, 2, 10, 35])
def test_the_p_value_is_the_tail_of_a_binomial(n_classes, n_decoys) -> None:
    found = [ownership.p_value(hits, n_classes, n_decoys) for hits in range(n_classes + 1)]
    q = (n_decoys + 1) // 10 / (n_decoys + 1)
    assert q <= 0.1
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    for hits in range(1, n_classes + 1):
        assert found[hits] == pytest.approx(binomial_tail(n_classes, q, hits), rel=1e-9)


def test_the_p_value_of_many_classes_is_a_bound_and_not_0() -> None:
    assert 0 < ownership.p_value(1000, 1000, 39) < 1e-300


@given(st.integers(1, 8), st.integers(9, 60), st.integers(0, 8))
def test_it_is_the_tail_in_fractions(n_classes, n_decoys, hits) -> None:
    q = Fraction((n_decoys + 1) // 10, n_decoys + 1)
    ways = (math.comb(n_classes, n) * q**n * (1 - q) ** (n_classes - n) for n in range(hits, n_classes + 1))
    exact = max(sum(ways, Fraction(0)), Fraction(np.finfo(float).tiny))
    # A quotient of whole numbers is rounded once.
    assert abs(Fraction(ownership.p_value(hits, n_classes, n_decoys)) - exact) <= exact * Fraction(1, 2**53)


def assert_valid(p_values: Counter[float]) -> None:
    """Each level is undercut no oftener than by chance: the tail of that is below one in a million."""
    n = p_values.total()
    for level in p_values:
        if level < 1:
            undercut = sum(times for p, times in p_values.items() if p <= level)
            assert binomial_tail(n, level, undercut) > 1e-6, (level, undercut, n)


@pytest.mark.parametrize("model", [loudest_fifth, mostly_one, startled])
def test_models_that_react_to_marks_but_never_saw_the_key(model) -> None:
    """One fixed model, many random keys."""
    clips, labels = tones(LABELS[:20]), LABELS[:20]
    found = [ownership_test(model, clips, labels, one, recipe=RECIPE, decoys=9, backend="cpu") for one in keys(100)]
    assert max(f.hits for f in found) >= 1  # the marks do something
    assert_valid(Counter(f.p_value for f in found))


@pytest.mark.slow
def test_p_values_are_nearly_uniform_where_there_are_no_ties() -> None:
    """A model whose accuracy is as good as continuous hits with the probability that the p-value assumes."""

    def fickle(batch: np.ndarray) -> np.ndarray:
        heard = listen(batch)
        noise = batch.astype(np.int64).sum(axis=1) * 2654435761 % 2**32 / 2**32  # decided by the samples of each clip
        return np.where(noise < 0.5, heard, (heard + 1) % N_CLASSES)

    labels = np.arange(400) % N_CLASSES
    clips = tones(labels)
    found = [ownership_test(fickle, clips, labels, one, recipe=RECIPE, decoys=9, backend="cpu") for one in keys(40)]
    hits, chances = sum(f.hits for f in found), 40 * N_CLASSES
    assert_valid(Counter(f.p_value for f in found))
    # Ties take some of the tenth: one in five is not more than half of it.
    assert binomial_tail(chances, 0.1, hits) > 1e-6
    assert 1 - binomial_tail(chances, 0.05, hits + 1) > 1e-6


def naive_p_value(model: Callable, clips: np.ndarray, labels: np.ndarray, key: Key) -> float:
    """The test that is wrong: a sign test over clips, keyed against mis-keyed with the next class's mark."""
    right = []
    for marks in (labels, (labels + 1) % N_CLASSES):
        marked = clips.copy()
        protect(marked, marks, key, recipe=RECIPE)
        right.append(model(marked) == labels)
    keyed_only, miskeyed_only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return binomial_tail(keyed_only + miskeyed_only, 0.5, keyed_only)


def test_a_sign_test_over_clips_would_accuse_the_innocent() -> None:
    """The reason for counting classes: the clips of a class share their mark, so one coincidence is many clips."""
    n_keys, level = 60, 0.001
    clips = tones()
    by_clips = sum(naive_p_value(loudest_fifth, clips, LABELS, key) <= level for key in keys(n_keys))
    by_classes = [
        ownership_test(loudest_fifth, clips, LABELS, key, recipe=RECIPE, decoys=9).p_value for key in keys(n_keys)
    ]
    assert by_clips > n_keys / 10  # a hundred times what the level promises
    assert binomial_tail(n_keys, level, sum(p <= level for p in by_classes)) > 1e-6


def test_clips_that_are_protected_themselves_make_it_invalid() -> None:
    """As its docstring says: their own mark leaves them as they are, and any other is a second disturbance."""

    def gives_up(batch: np.ndarray) -> np.ndarray:
        parts = energies(batch, 24)  # a patch disturbs two or three of them
        loud = parts > 2 * np.median(parts, axis=1)[:, None]
        quiet = batch * ~np.repeat(loud, N_FRAMES // 24, axis=1)
        return np.where(loud.sum(axis=1) > 3, NO_CLASS, listen(quiet))

    original, protected, n_keys, labels = [], [], 30, LABELS[:10]
    for key in keys(n_keys):
        clips = tones(labels)
        original.append(ownership_test(gives_up, clips, labels, key, recipe=RECIPE).p_value)
        protect(clips, labels, key, recipe=RECIPE)
        protected.append(ownership_test(gives_up, clips, labels, key, recipe=RECIPE).p_value)
    assert_valid(Counter(original))
    level = ownership.p_value(3, N_CLASSES, 39)
    assert binomial_tail(n_keys, level, sum(p <= level for p in protected)) < 1e-6


# What predict gets.


class Recorder:
    """A model that keeps what it is given, and writes into it afterwards."""

    def __init__(self, answer: object = 0) -> None:
        self.batches: list = []
        self.answer = answer

    def __call__(self, batch) -> list:
        self.batches.append([clip.copy() for clip in batch] if isinstance(batch, list) else batch.copy())
        for clip in batch:
            assert clip.flags.c_contiguous
            clip[...] = 0
        return [self.answer] * len(batch)


def asked(batches: list) -> list[list[np.ndarray]]:
    """Unmarked, then marked with the key and with nine decoys: all clips of each."""
    return [list(itertools.chain.from_iterable(batches[n::11])) for n in range(11)]


def masters(key: Key) -> list[bytes]:
    return [MASTER, *(decoy(key, number) for number in range(9))]


@each_backend
@pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("channels", [None, 2])
def test_every_layout_is_marked_in_copies(backend, dtype, channels, tmp_path, key: Key, monkeypatch) -> None:
    """Each query is what `protect` would make of that clip with that label; the whole memory below stays."""
    monkeypatch.setattr(ownership, "CLIPS_PER_BATCH", 3)
    fields = {"patch": 8, "taps": 5, "blur": 0.9, "patches": 2}
    for name, clips in awkward_arrays(dtype, 4, 50, channels, tmp_path):
        if len(clips) < 2:
            continue
        lengths = np.minimum([50, 3, 0, 17], clips.shape[1])
        below, model = Memory(clips), Recorder()
        ownership_test(
            model,
            clips,
            [0, 1, 0, 7],
            key,
            recipe=Recipe.paper(**fields),
            lengths=lengths,
            decoys=9,
            backend=backend,
            threads=1,
        )
        assert below.unchanged(), name
        assert {batch.dtype for batch in model.batches} == {clips.dtype}
        assert [batch.shape for batch in model.batches] == [(n, *clips.shape[1:]) for n in [3] * 11 + [1] * 11]
        unmarked, *marked = asked(model.batches)
        assert np.array_equal(unmarked, clips), name
        for master, queries in zip(masters(key), marked, strict=True):
            wet, _ = naive.protect_clips(clips, [0, 1, 0, 7], master, lengths, **fields)
            assert np.array_equal(queries, np.array(wet, dtype).reshape(clips.shape)), name


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("form", [list, tuple])
def test_lists_of_unequal_clips(channels, form, key: Key, monkeypatch) -> None:
    monkeypatch.setattr(ownership, "CLIPS_PER_BATCH", 2)
    frames = () if channels is None else (channels,)
    clips = [random_samples(np.int16, (length, *frames), length) for length in (50, 3, 61, 0, 40)]
    clips[0].flags.writeable = False
    clips.append(clips[2])  # given twice: harmless where nothing is written
    before = [clip.copy() for clip in clips]
    model = Recorder("a")
    labels = ["a", "b", "a", "b", "b", "a"]
    ownership_test(model, form(clips), labels, key, recipe=RECIPE, lengths=[45, 3, 61, 0, 40, 50], decoys=9)
    assert all(map(np.array_equal, clips, before))
    assert all(isinstance(batch, list) and len(batch) == 2 for batch in model.batches)
    unmarked, *marked = asked(model.batches)
    assert all(map(np.array_equal, unmarked, clips))
    for master, queries in zip(masters(key), marked, strict=True):
        wet, _ = naive.protect_clips(clips, labels, master, [45, 3, 61, 0, 40, 50], **FIELDS)
        assert all(query.tobytes() == clip.tobytes() for query, clip in zip(queries, wet, strict=True))


@pytest.mark.parametrize("dtype", [np.int16, np.float32], ids=lambda dtype: dtype.__name__)
def test_a_read_only_memmap(dtype, tmp_path, key: Key) -> None:
    content = random_samples(dtype, (10, N_FRAMES)) // (50 if dtype == np.int16 else 1)
    np.save(tmp_path / "clips.npy", content)
    before = (tmp_path / "clips.npy").read_bytes()
    clips = np.load(tmp_path / "clips.npy", mmap_mode="r")
    found = ownership_test(knowing(list(range(5))), clips, LABELS[:10], key, recipe=RECIPE)
    assert found == ownership_test(knowing(list(range(5))), content, LABELS[:10], key, recipe=RECIPE)
    assert (tmp_path / "clips.npy").read_bytes() == before


def test_batches_are_bounded_by_bytes_and_by_clips(key: Key, monkeypatch) -> None:
    clips = tones()
    whole = ownership_test(startled, clips, LABELS, key, recipe=RECIPE)
    sizes = set()

    def model(batch: np.ndarray) -> np.ndarray:
        sizes.add(len(batch))
        return startled(batch)

    monkeypatch.setattr(ownership, "BATCH_BYTES", 7 * clips[0].nbytes + 1)
    assert ownership_test(model, clips, LABELS, key, recipe=RECIPE) == whole
    assert sizes == {7, 60 % 7}
    sizes.clear()
    monkeypatch.setattr(ownership, "BATCH_BYTES", 1)  # a clip is more than that
    assert ownership_test(model, clips, LABELS, key, recipe=RECIPE) == whole
    assert sizes == {1}
    sizes.clear()
    monkeypatch.setattr(ownership, "BATCH_BYTES", 3 * clips[0].nbytes)
    uneven = [*tones()[:11, :400], clips[11]]  # the longest decides
    ownership_test(lambda batch: sizes.add(len(batch)) or [0] * len(batch), uneven, LABELS[:12], key, recipe=RECIPE)
    assert sizes == {3}


# How classes are called.


NAMES = ["yes", "no", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "go", "up"]
CLIPS = random_samples(np.int16, (20, N_FRAMES)) // 50


def test_names(key: Key) -> None:
    """Predictions may spell a name otherwise, and be any sequence of text."""
    labels = [NAMES[c] for c in LABELS[:20]]
    model = knowing(NAMES)
    for form in (np.asarray, list, lambda found: np.array(found, object), lambda found: tuple(map(str, found))):
        assert ownership_test(lambda batch, f=form: f(model(batch)), CLIPS, labels, key, recipe=RECIPE).hits == 5
    spelt = ["cafe\N{COMBINING ACUTE ACCENT}" if name == NAMES[2] else name for name in labels]
    assert ownership_test(model, CLIPS, spelt, key, recipe=RECIPE).hits == 5


def test_indexes_into_classes(key: Key) -> None:
    """The marks are those of the names; a class that no clip has is not tested."""
    classes = ["unused", *NAMES]
    model = knowing(NAMES)

    def predict(batch: np.ndarray) -> list[int]:
        return [classes.index(name) for name in model(batch)]

    found = ownership_test(predict, CLIPS, LABELS[:20] + 1, key, recipe=RECIPE, classes=classes)
    assert (found.hits, found.classes) == (5, 5)
    # Without the names the marks are those of numbers, which this model does not know.
    assert ownership_test(predict, CLIPS, LABELS[:20] + 1, key, recipe=RECIPE).hits < 5


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, object])
def test_numbers_with_gaps(dtype, key: Key) -> None:
    numbers = [3, 10, 11, 200, 255]
    labels = np.array(numbers)[LABELS[:20]]
    model = knowing(numbers)
    if dtype is object:
        assert ownership_test(lambda batch: model(batch).tolist(), CLIPS, labels, key, recipe=RECIPE).hits == 5
    else:
        assert ownership_test(lambda batch: model(batch).astype(dtype), CLIPS, labels, key, recipe=RECIPE).hits == 5


@pytest.mark.parametrize(
    ("answer", "classes"), [(-1, None), (99, None), (-1, NAMES), (99, NAMES), (4, NAMES), (-1, NAMES[:4])]
)
def test_predictions_that_are_no_class_count_for_none(answer, classes, key: Key) -> None:
    labels = LABELS[:20] % 4  # the last class is not there
    found = ownership_test(lambda batch: [answer] * len(batch), CLIPS, labels, key, recipe=RECIPE, classes=classes)
    assert found.hits == 0
    assert found.clean_accuracy == found.keyed_accuracy == found.miskeyed_accuracy == 0


# What it shows.


def test_it_shows_a_table_and_nothing_secret(key: Key) -> None:
    found = ownership_test(knowing(list(range(5))), CLIPS, LABELS[:20], key, recipe=RECIPE)
    assert str(found).splitlines() == [
        "p value            1e-05",
        "hits               5 of 5 classes",
        "clips              20",
        "decoys             39",
        f"clean accuracy     {found.clean_accuracy:.1%}",
        "keyed accuracy     100.0%",
        f"miskeyed accuracy  {found.miskeyed_accuracy:.1%}",
        f"key fingerprint    {key.fingerprint}",
    ]
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict() == dataclasses.asdict(found)
    starts = {str(naive.places(MASTER, label, N_FRAMES, **FIELDS)[0][0]) for label in range(5)}
    assert not starts & set(re.findall(r"\d+", f"{found!r}{found}"))
    assert MASTER.hex() not in f"{found!r}{found}"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.hits = 0
    assert not hasattr(found, "__dict__")
    assert isinstance(found, Ownership)


# What is refused, before the model is asked anything.


def never(batch: object) -> None:
    pytest.fail("the model was asked")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"predict": "model"}, TypeError, "predict is a str; expected a function"),
        ({"clips": "audio"}, TypeError, "clips is a str"),
        ({"clips": CLIPS[0]}, ValueError, r"clips has shape \(600,\)"),
        ({"clips": CLIPS[:0], "labels": []}, ValueError, "clips is empty"),
        ({"decoys": 8}, ValueError, "decoys is 8; it must be 9 or more"),
        ({"decoys": 9.0}, TypeError, "decoys is 9.0; it must be a whole number"),
        ({"decoys": True}, TypeError, "decoys is True; it must be a whole number"),
        ({"labels": [0, 1]}, ValueError, "labels has 2 entries for 20 clips"),
        ({"labels": [0.5] * 20}, TypeError, "labels are integers from 0 or class names"),
        ({"classes": ["a", "b"]}, ValueError, "classes has 2 names"),
        ({"lengths": [601] * 20}, ValueError, r"lengths\[0\] is 601"),
        ({"key": MASTER}, TypeError, "key is a bytes; expected a poscuda_fast.Key"),
        ({"recipe": 240}, TypeError, "recipe is a int"),
        ({"backend": "gpu"}, ValueError, "backend is 'gpu'"),
        ({"threads": 0}, ValueError, "threads is 0"),
    ],
)
def test_bad_arguments(change, error, message, key: Key) -> None:
    given = {"predict": never, "clips": CLIPS, "labels": LABELS[:20], "key": key, "recipe": RECIPE, **change}
    with pytest.raises(error, match=message):
        ownership_test(given.pop("predict"), given.pop("clips"), given.pop("labels"), given.pop("key"), **given)


@pytest.mark.parametrize(
    ("name", "clips", "error", "message"),
    [pytest.param(*case, id=case[0]) for case in refused_arrays() if case[0] not in {"read-only", "broadcast"}],
)
def test_bad_arrays(name, clips, error, message, key: Key) -> None:
    with pytest.raises(error, match=message):
        ownership_test(never, clips, [0, 1, 2], key)


def test_clips_on_a_gpu_are_refused(key: Key) -> None:
    class OnDevice:
        @property
        def __cuda_array_interface__(self) -> dict:
            return {"shape": (2, 600), "typestr": "<i2", "data": (0, False), "version": 3}

    with pytest.raises(TypeError, match=r"on a GPU; expected one in host memory.*clips.cpu\(\).numpy\(\)"):
        ownership_test(never, OnDevice(), [0, 1], key)


@pytest.mark.parametrize("form", [np.asarray, list])
def test_samples_that_are_not_finite_are_refused_before_the_model_is_asked(form, key: Key) -> None:
    """Where the clip's mark would go by the key or by a decoy; elsewhere they are let be."""
    clips = random_samples(np.float32, (300, N_FRAMES))
    labels = np.arange(300) % 2
    places = [naive.places(master, 1, N_FRAMES, **FIELDS)[0] for master in masters(key)]
    inside = {frame for first, size in places for frame in range(first, first + size)}
    for first, size in (places[0], places[-1]):
        clips[299, first + size - 1] = np.nan
        with pytest.raises(ValueError, match="Clip 299 has a NaN or infinite sample"):
            ownership_test(never, form(clips), labels, key, recipe=RECIPE, decoys=9)
        clips[299, first + size - 1] = 0
    clips[299, next(frame for frame in range(N_FRAMES) if frame not in inside)] = np.inf
    assert ownership_test(lambda batch: [0] * len(batch), form(clips), labels, key, recipe=RECIPE, decoys=9).hits == 0


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ([0] * 19, ValueError, r"shape \(19,\) for 20 clips; expected \(20,\)"),
        (np.zeros((20, 5)), ValueError, r"shape \(20, 5\) for 20 clips.*scores.argmax"),
        (None, ValueError, r"shape \(\) for 20 clips"),
        (0, ValueError, r"shape \(\) for 20 clips"),
        (np.zeros(20), TypeError, "dtype float64; expected integers, since the labels are integers"),
        ([True] * 20, TypeError, "dtype bool; expected integers"),
        (["yes"] * 20, TypeError, "dtype <U3; expected integers"),
        ([None] * 20, TypeError, "dtype object; expected integers"),
    ],
)
def test_bad_predictions(answer, error, message, key: Key) -> None:
    with pytest.raises(error, match=f"predict returned .*{message}"):
        ownership_test(lambda _: answer, CLIPS, LABELS[:20], key, recipe=RECIPE)


def test_numbers_for_names_and_names_for_indexes_are_refused(key: Key) -> None:
    names = [NAMES[c] for c in LABELS[:20]]
    with pytest.raises(TypeError, match="dtype int64; expected names, since the labels are names"):
        ownership_test(lambda batch: [0] * len(batch), CLIPS, names, key, recipe=RECIPE)
    with pytest.raises(TypeError, match="dtype <U3; expected integers, since the labels are integers"):
        ownership_test(lambda batch: ["yes"] * len(batch), CLIPS, LABELS[:20], key, recipe=RECIPE, classes=NAMES)


def test_what_the_model_raises_is_raised(key: Key) -> None:
    def broken(batch: object) -> None:
        raise RuntimeError("out of memory")

    before = CLIPS.copy()
    with pytest.raises(RuntimeError, match="out of memory"):
        ownership_test(broken, CLIPS, LABELS[:20], key, recipe=RECIPE)
    assert np.array_equal(CLIPS, before)
