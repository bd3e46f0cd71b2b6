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
from recipes import made, protect

from poscuda_fast import Key, Recipe
from poscuda_fast.kernels import Engine
from poscuda_fast.mark.draw import draw_sound, draw_taps
from poscuda_fast.mark.labels import encode
from poscuda_fast.mark.plan import Plan

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
# label, first start for 16000 frames, start for 40 frames, first and last sample, SHA-256 of the sound
SOUNDS = [
    (0, 14, 1, "0x1.54e170p-7", "0x1.82a2eap-8", "70a069152ad1be60"),
    (1, 12, 1, "-0x1.cd28fcp-7", "-0x1.1650e6p-6", "a9652bb8d04478cc"),
    (34, 38, 3, "0x1.d644bcp-7", "-0x1.3e305ap-6", "59df1950e030b42c"),
    ("yes", 12, 1, "0x1.48f13ep-13", "0x1.a15dc8p-7", "71e2ae3d72b4361f"),
    ("café", 47, 4, "0x1.a69656p-7", "0x1.096b62p-7", "aa89c9bbdb24904b"),
]
FOUR = [555, 5704, 11291, 13751]
EVERY_4000 = [555, 5704, 11291, 13750, 16854, 23683, 27201, 28659, 33690, 39172, 42639, 45810]

# recipe, SHA-256 of the protected int16 clip, of the float32 clip
CLIPS = [
    ({"blur": 0.01}, "51fc50df5f87fc86", "2e5279dc8a6a1fa3"),
    ({"blur": 0.3}, "4e4037e2afe73f83", "a3520c7d1efe5707"),
    ({"blur": 0.3, "patches": 4}, "ecaaa4ab22438bea", "353742c8e2787334"),
    ({"identity": True}, "b8a1301e5f08426c", "779661f046e908aa"),
    ({"strength": 1.0}, "89d59373307e2b5a", "dd285ea503ae3d4f"),
    ({"strength": 3.0, "hold": 1, "patch": 16, "every": 64}, "7bc15cf043d445be", "efd8c8cd3e0aae71"),
    ({"strength": 0.5, "hold": 3, "patch": 40, "every": 100}, "f60f309d1deaf338", "e4d514fae30d8463"),
]


def short_sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def library_places(key: Key, label: int | str, length: int, recipe: Recipe = Recipe.paper()) -> list[tuple[int, int]]:
    plan = Plan(key, recipe, encode([label], None, 1), np.array([length]))
    patches = plan.of_clip(0)
    return list(zip(patches.starts.tolist(), patches.sizes.tolist(), strict=True))


def vector_clip(dtype: type) -> np.ndarray:
    clip = ((7919 * np.arange(16000) % 65536) - 32768).astype(np.int16)
    return clip if dtype is np.int16 else clip.astype(np.float32) / np.float32(32768)


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
    taps = draw_taps(key, token, Recipe.paper())
    assert taps.dtype == np.float32
    assert (taps[0], taps[79]) == (float.fromhex(first), float.fromhex(last))
    assert short_sha256(taps.astype("<f4").tobytes()) == sha256
    assert taps.tolist() == naive.filter_taps(MASTER, label)


@pytest.mark.parametrize(("label", "start_16000", "start_40", "first", "last", "sha256"), SOUNDS)
def test_vector_sounds(key: Key, label, start_16000, start_40, first, last, sha256) -> None:
    (token,) = encode([label], None, 1).tokens
    sound = draw_sound(key, token, Recipe.strong())
    assert sound.dtype == np.float32
    assert (sound[0], sound[31]) == (float.fromhex(first), float.fromhex(last))
    assert short_sha256(sound.astype("<f4").tobytes()) == sha256
    assert sound.tolist() == naive.sound(MASTER, label)
    in_step = [(start_16000 + 128 * j, 32) for j in range(125)]
    assert library_places(key, label, 16000, Recipe.strong()) == in_step == naive.places_in_step(MASTER, label, 16000)
    assert library_places(key, label, 40, Recipe.strong()) == [(start_40, 32)]


def test_a_sound_has_its_level_whatever_the_strength(key: Key) -> None:
    (token,) = encode(["yes"], None, 1).tokens
    for strength in (0.1, 1.0, 7.0):
        sound = draw_sound(key, token, Recipe.strong(strength)).astype(np.float64)
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.01 * strength, rel=1e-6)
    assert np.array_equal(2 * draw_sound(key, token, Recipe.strong()), draw_sound(key, token, Recipe.strong(2.0)))


def test_vector_starts_of_many_patches(key: Key) -> None:
    four = [(start, 240) for start in FOUR]
    assert library_places(key, 0, 16000, Recipe.paper(patches=4)) == naive.places(MASTER, 0, 16000, patches=4) == four
    every = [(start, 240) for start in EVERY_4000]
    assert (
        library_places(key, 0, 48000, Recipe.paper(every=4000)) == naive.places(MASTER, 0, 48000, every=4000) == every
    )


@pytest.mark.guards("I10")
@each_backend
@pytest.mark.parametrize(("dtype", "column"), [(np.int16, 0), (np.float32, 1)])
@pytest.mark.parametrize(("recipe", "sha256s"), [(row[0], row[1:]) for row in CLIPS])
def test_vector_clips(key: Key, backend, dtype, column, recipe, sha256s) -> None:
    clips = vector_clip(dtype)[None].copy()
    protect(clips, [0], key, recipe=made(**recipe), backend=backend)
    assert short_sha256(clips.astype(clips.dtype.newbyteorder("<")).tobytes()) == sha256s[column]


@pytest.mark.parametrize(("dtype", "column"), [(np.int16, 0), (np.float32, 1)])
@pytest.mark.parametrize(("recipe", "sha256s"), [(row[0], row[1:]) for row in CLIPS])
def test_vector_clips_of_the_second_implementation(dtype, column, recipe, sha256s) -> None:
    wet, _ = naive.protect_clip(vector_clip(dtype), 0, MASTER, **recipe)
    assert short_sha256(wet.astype(wet.dtype.newbyteorder("<")).tobytes()) == sha256s[column]


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
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
    shape = (len(labels), length) if channels is None else (len(labels), length, channels)
    clips = any_samples(dtype, shape, seed)
    wet, saturated = naive.protect_clips(clips, labels, master, **recipe)
    report = protect(clips, labels, Key(master), recipe=made(**recipe), backend=backend)
    assert clips.tobytes() == b"".join(clip.tobytes() for clip in wet)
    assert report.saturated_samples == saturated
    assert report.fingerprint == naive.fingerprint(master)
    assert report.patches == sum(naive.count_patches(length, **recipe) for _ in labels)


@pytest.mark.guards("I4")
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@settings(max_examples=40, deadline=None)
@given(masters, labels, st.integers(0, 70), st.integers(0, 9), recipes, seeds)
def test_only_patches_change_and_padding_never(dtype, master, label, length, padding, recipe, seed) -> None:
    clips = any_samples(dtype, (1, length + padding, 2), seed)
    before = clips.copy()
    protect(clips, [label], Key(master), recipe=made(**recipe), lengths=[length])
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
    key = Key(master)
    plan = Plan(key, made(**recipe), encode([label], None, 1), np.array([length]))
    patches = plan.of_clip(0)
    total = sum(
        Engine(backend).mark_patches(
            clip.reshape(-1), patches.starts * channels + channel, patches.sizes, patches.rows, plan.marks, channels
        )
        for channel in range(channels)
    )
    assert clip.tobytes() == wet.tobytes()
    assert total == saturated


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
