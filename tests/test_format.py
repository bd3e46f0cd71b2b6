"""Both formats to the bit: its published vectors, and the library against a second implementation."""

from __future__ import annotations

import hashlib

import naive
import numpy as np
import pytest
from awkward import any_samples
from backends import each_backend
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import both as recipes
from recipes import made, protect, rate_of

from poscuda_fast import Key, Recipe
from poscuda_fast.arrays.memory import mark_batch
from poscuda_fast.kernels import Engine
from poscuda_fast.mark.filters import draw_filters
from poscuda_fast.mark.labels import encode
from poscuda_fast.mark.lines import cosine_table, draw_lines, period_of
from poscuda_fast.mark.packed import mark_dense
from poscuda_fast.mark.patches import packed_steps
from poscuda_fast.mark.plan import make_plan

MASTER = bytes(range(32))
FINGERPRINT = "847db78bd7fbd1a2"
KEY_LINE = "POSCUDA-KEY-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-aXD7-"

# label, start for 16000 frames, start for 1148 frames, first tap, last tap, SHA-256 of the taps
CLASSES = [
    (0, 2326, 134, "0x1.7d0480p-9", "0x1.0b5f66p-10", "b234d1cedc132525"),
    (1, 2056, 118, "0x1.4fd70ap-8", "0x1.e3fff0p-9", "99943f7213f616c3"),
    (34, 6326, 364, "0x1.31c070p-8", "0x1.bf8d10p-8", "7afb93ee312d0478"),
    ("yes", 2067, 119, "0x1.83ed48p-8", "0x1.ee243ep-8", "901a00d595c49c5a"),
    ("café", 7706, 444, "0x1.d1db9cp-8", "0x1.cdeda4p-8", "599e368d5181ed93"),
]
# label, harmonics, phases, first values, SHA-256 of the mark, for int16 at 16 kHz
LINES = [
    (0, (47, 84), (495, 140), [136, 1, -36, 24], "2a2c82f982abc326"),
    (1, (87, 34), (274, 16), [1, 88, 200, 177], "d8fa8a66014114c0"),
    (34, (117, 37), (325, 216), [-253, -57, -12, -176], "33e668d4e05b2cb1"),
    ("yes", (39, 49), (464, 227), [-17, 4, 44, 88], "473e1cb179bd54d2"),
    ("café", (70, 124), (199, 207), [-260, -261, 39, 161], "cda502cc364927cb"),
]
FOUR = [555, 5704, 11291, 13751]
EVERY_4000 = [555, 5704, 11291, 13750, 16854, 23683, 27201, 28659, 33690, 39172, 42639, 45810]

# recipe and rate, dtype, SHA-256 of the protected clip; int32 holds 24 bits, and the int16 clip times 256
CLIPS = [
    ({"blur": 0.01}, np.int16, "51fc50df5f87fc86"),
    ({"blur": 0.01}, np.float32, "2e5279dc8a6a1fa3"),
    ({"blur": 0.3}, np.int16, "4e4037e2afe73f83"),
    ({"blur": 0.3}, np.float32, "a3520c7d1efe5707"),
    ({"blur": 0.3, "patches": 4}, np.int16, "ecaaa4ab22438bea"),
    ({"blur": 0.3, "patches": 4}, np.float32, "353742c8e2787334"),
    ({"identity": True}, np.int16, "b8a1301e5f08426c"),
    ({"identity": True}, np.float32, "779661f046e908aa"),
    ({"strength": 1.0}, np.int16, "55603054b123e663"),
    ({"strength": 0.5, "sample_rate": 8000}, np.int16, "8dd8fed24c8c863b"),
    ({"strength": 1.0, "sample_rate": 44100}, np.int16, "65d39beb763d05df"),
    ({"strength": 1.0}, np.float32, "b76c8f48d568ee55"),
    ({"strength": 1.0}, np.int32, "31dd6e2afd69a307"),
]


def short_sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def library_places(key: Key, label: int | str, length: int, recipe: Recipe = Recipe.paper()) -> list[tuple[int, int]]:
    patches = make_plan(key, recipe, [label], None, np.array([length])).of_clip(0)
    return list(zip(patches.starts.tolist(), patches.sizes.tolist(), strict=True))


def vector_clip(dtype: type) -> np.ndarray:
    clip = ((7919 * np.arange(16000) % 65536) - 32768).astype(np.int16)
    if dtype is np.int32:
        return clip.astype(np.int32) * 256
    return clip if dtype is np.int16 else clip.astype(np.float32) / np.float32(32768)


def mark_clip(key: Key, clip: np.ndarray, label: int | str, backend: str, **recipe: object) -> tuple[bytes, int]:
    """A clip, (frames,) or (frames, channels), marked by the library at kernel level: its bytes, and what was odd."""
    plan = make_plan(key, made(**recipe), [label], None, np.array([len(clip)]), rate_of(recipe))
    channels = 1 if clip.ndim == 1 else clip.shape[1]
    dense = clip.reshape(-1).copy()
    patches = plan.of_clip(0)
    odd = plan.marks.apply(Engine(backend, 1), dense, patches.starts * channels, patches, packed_steps(channels))
    return dense.tobytes(), odd


def test_vector_fingerprint(key: Key) -> None:
    assert key.fingerprint == FINGERPRINT
    assert naive.fingerprint(MASTER) == FINGERPRINT


def test_vector_key_file(key: Key, tmp_path) -> None:
    key.save(tmp_path / "key")
    assert (tmp_path / "key").read_bytes().decode("ascii") == (
        "# poscuda-fast key. Keep it secret and backed up: without it there is no undo and no verify.\n"
        f"# fingerprint {FINGERPRINT}\n"
        f"{KEY_LINE}\n"
    )
    (tmp_path / "line alone").touch(mode=0o600)
    (tmp_path / "line alone").write_text(KEY_LINE)
    assert Key.load(tmp_path / "line alone") == key


@pytest.mark.parametrize(("label", "start_16000", "start_1148"), [row[:3] for row in CLASSES])
def test_vector_starts(key: Key, label, start_16000, start_1148) -> None:
    assert library_places(key, label, 16000) == naive.places(MASTER, label, 16000, patches=1) == [(start_16000, 240)]
    assert library_places(key, label, 1148) == naive.places(MASTER, label, 1148, patches=1) == [(start_1148, 240)]


@pytest.mark.parametrize(("label", "first", "last", "sha256"), [(row[0], *row[3:]) for row in CLASSES])
def test_vector_taps(key: Key, label, first, last, sha256) -> None:
    (token,) = encode([label], None, 1).tokens
    taps = draw_filters(key, [token], Recipe.paper()).taps[0]
    assert taps.dtype == np.float32
    assert (taps[0], taps[79]) == (float.fromhex(first), float.fromhex(last))
    assert short_sha256(taps.astype("<f4").tobytes()) == sha256
    assert taps.tolist() == naive.filter_taps(MASTER, label)


@pytest.mark.parametrize(("label", "harmonics", "phases", "values", "sha256"), LINES)
def test_vector_lines(key: Key, label, harmonics, phases, values, sha256) -> None:
    (token,) = encode([label], None, 1).tokens
    lines = draw_lines(key, [token], Recipe.strong(), [16_000])
    mark = lines.mark(0, np.dtype(np.int16))
    assert lines.pairs == ((*harmonics, *phases),)
    assert mark.dtype == np.int16
    assert mark[:4].tolist() == values
    assert short_sha256(mark.astype("<i2").tobytes()) == sha256
    assert mark.tolist() == naive.mark(MASTER, label, 16_000, 1.0, 16)
    assert naive.lines(MASTER, label, 16_000) == (512, *harmonics, *phases)
    assert library_places(key, label, 16000, Recipe.strong()) == [(0, 16000)]


@pytest.mark.parametrize(
    ("rate", "period"), [(2_000, 64), (8_000, 256), (16_000, 512), (44_100, 1411), (48_000, 1536), (512_000, 16384)]
)
def test_a_period_is_32_milliseconds(rate, period) -> None:
    assert period_of(rate) == period


def test_a_mark_has_its_level_whatever_the_strength_and_rate(key: Key) -> None:
    for rate in (8_000, 16_000, 44_100):
        for strength in (0.1, 1.0, 7.0):
            (token,) = encode(["yes"], None, 1).tokens
            mark = draw_lines(key, [token], Recipe.strong(strength), [rate]).mark(0, np.dtype(np.float32))
            assert np.sqrt(np.mean(mark.astype(np.float64) ** 2)) == pytest.approx(0.005 * strength, rel=1e-4)


@pytest.mark.parametrize("period", [64, 512, 1411])
def test_cosines_are_the_second_implementation(period) -> None:
    assert cosine_table(period).tolist() == naive.cosines(period)


@pytest.mark.slow
def test_every_cosine_is_rounded_right() -> None:
    """Float64 alone is wrong for some periods, and the library must find each of them."""
    wrong = [
        period
        for period in range(64, 16_385)
        if not np.array_equal(cosine_table(period), np.rint(2**30 * np.cos(2 * np.pi / period * np.arange(period))))
    ]
    assert wrong
    for period in wrong:
        assert cosine_table(period).tolist() == naive.cosines(period)


def test_vector_starts_of_many_patches(key: Key) -> None:
    four = [(start, 240) for start in FOUR]
    assert library_places(key, 0, 16000, Recipe.paper(patches=4)) == naive.places(MASTER, 0, 16000, patches=4) == four
    every = [(start, 240) for start in EVERY_4000]
    assert (
        library_places(key, 0, 48000, Recipe.paper(every=4000)) == naive.places(MASTER, 0, 48000, every=4000) == every
    )


@pytest.mark.guards("I10")
@each_backend
@pytest.mark.parametrize(("recipe", "dtype", "sha256"), CLIPS)
def test_vector_clips(key: Key, backend, recipe, dtype, sha256) -> None:
    clip = vector_clip(dtype)
    marked = np.frombuffer(mark_clip(key, clip, 0, backend, **recipe)[0], dtype)
    assert short_sha256(marked.astype(clip.dtype.newbyteorder("<")).tobytes()) == sha256
    if dtype is not np.int32:
        clips = clip[None].copy()
        mark_batch(clips, [0], key, recipe=made(**recipe), engine=Engine(backend), sample_rate=rate_of(recipe))
        assert clips.tobytes() == marked.tobytes()


@pytest.mark.parametrize(("recipe", "dtype", "sha256"), CLIPS)
def test_vector_clips_of_the_second_implementation(recipe, dtype, sha256) -> None:
    wet, _ = naive.protect_clip(vector_clip(dtype), 0, MASTER, **recipe)
    assert short_sha256(wet.astype(wet.dtype.newbyteorder("<")).tobytes()) == sha256


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda name: name.strip(" \t\n\v\f\r")
)
labels = st.integers(0, 2**64 - 1) | names
lengths = st.integers(0, 12) | st.integers(0, 70)
masters = st.binary(min_size=32, max_size=32)
seeds = st.integers(0, 2**32 - 1)


@each_backend
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@settings(max_examples=60, deadline=None)
@given(masters, st.lists(labels, min_size=1, max_size=3), lengths, recipes, st.sampled_from([None, 1, 2, 3]), seeds)
def test_protect_is_the_second_implementation(backend, dtype, master, labels, length, recipe, channels, seed) -> None:
    kind = type(labels[0])
    labels = [label for label in labels if type(label) is kind]
    shape = (len(labels), length) if channels is None else (len(labels), max(length, channels), channels)
    length = shape[1]
    clips = any_samples(dtype, shape, seed)
    wet, saturated = naive.protect_clips(clips, labels, master, **recipe)
    tally = mark_batch(
        clips, labels, Key(master), recipe=made(**recipe), engine=Engine(backend), sample_rate=rate_of(recipe)
    )
    assert clips.tobytes() == b"".join(clip.tobytes() for clip in wet)
    assert tally.saturated_samples + tally.not_finite_samples == saturated
    if naive.is_strong(recipe):
        assert (tally.patches, tally.frames_changed) == (0, length * len(labels))
    else:
        assert tally.patches == sum(naive.count_patches(length, **recipe) for _ in labels)


@pytest.mark.guards("I4")
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@settings(max_examples=40, deadline=None)
@given(masters, labels, st.integers(0, 70), st.integers(0, 9), recipes, seeds)
def test_only_patches_change_and_padding_never(dtype, master, label, length, padding, recipe, seed) -> None:
    padding += 2  # an array of fewer frames than channels is refused
    clips = any_samples(dtype, (1, length + padding, 2), seed)
    before = clips.copy()
    mark_batch(
        clips, [label], Key(master), recipe=made(**recipe), engine=Engine(), sample_rate=rate_of(recipe),
        lengths=[length],
    )  # fmt: skip
    outside = np.ones(length + padding, bool)
    for start, size in naive.places(master, label, length, **recipe):
        outside[start : start + size] = False
    assert outside[length:].all()
    assert clips[:, outside].tobytes() == before[:, outside].tobytes()


@each_backend
@settings(max_examples=60, deadline=None)
@given(masters, labels, lengths, recipes, st.integers(1, 3), seeds)
def test_24_bit_samples_are_the_second_implementation(backend, master, label, length, recipe, channels, seed) -> None:
    clip = any_samples(np.int32, (length, channels), seed)
    wet, saturated = naive.protect_clip(clip, label, master, **recipe)
    assert mark_clip(Key(master), clip, label, backend, **recipe) == (wet.tobytes(), saturated)


@each_backend
@settings(max_examples=40, deadline=None)
@given(masters, labels, lengths, st.floats(0.01, 50.0), st.integers(1, 3), seeds)
def test_packed_24_bit_samples_are_the_unpacked_ones(backend, master, label, length, strength, channels, seed) -> None:
    clip = any_samples(np.int32, (length, channels), seed)
    packed = clip.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].reshape(-1)
    marked, saturated = mark_clip(Key(master), clip, label, backend, strength=strength)
    plan = make_plan(Key(master), Recipe.strong(strength), [label], None, np.array([length]))
    assert mark_dense(packed, plan.of_clip(0), channels, plan.marks, Engine(backend, 1)) == saturated
    assert packed.tobytes() == np.frombuffer(marked, "<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


@each_backend
def test_samples_that_are_not_finite_keep_their_bits(backend, key: Key) -> None:
    clip = any_samples(np.float32, (700,), 3)
    odd = np.array([0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001, 0xFFC12345], np.uint32).view(np.float32)
    places = [0, 63, 64, 511, 699]
    clip.view(np.uint32)[places] = odd.view(np.uint32)
    marked, n = mark_clip(key, clip, 0, backend, strength=1.0)
    wet, expected = naive.protect_clip(clip, 0, MASTER, strength=1.0)
    assert n == expected == len(places)
    found = np.frombuffer(marked, np.uint32)
    assert found[places].tolist() == odd.view(np.uint32).tolist()
    others = np.setdiff1d(np.arange(700), places)
    assert found[others].tolist() == wet.view(np.uint32)[others].tolist()


def test_one_call_on_many_classes_is_one_call_on_each_clip(key: Key) -> None:
    labels = [7, 0, 7, 3, 0, 2**63]
    together = any_samples(np.int16, (6, 300), 5)
    apart = together.copy()
    protect(together, labels, key)
    for clip, label in zip(apart, labels, strict=True):
        protect(clip[None], [label], key)
    assert together.tobytes() == apart.tobytes()


def test_a_spelling_is_its_nfc_form(key: Key) -> None:
    assert library_places(key, "cafe\u0301", 16000) == library_places(key, "caf\u00e9", 16000) == [(7706, 240)]
