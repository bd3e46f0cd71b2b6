from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from experiments.attacks import audio, classes, codecs, detect, knowing, leak, probe, relabel, training
from experiments.attacks.inpaint import FILLS, fill
from experiments.attacks.scene import Scene, places
from experiments.attacks.table import ATTACKS, ROWS, Chosen, attacked, choose, step_of
from experiments.conditions import clean, mark_rows, poscuda, study_key, whole_clip
from experiments.models import build
from poscuda_fast import Key, Recipe, protect
from poscuda_fast.synth import SAMPLE_RATE, WORDS, speak

RATE = 8000
FRAMES = 3000
N = 24
CLASSES = 4
CLIP_KINDS = [chosen for chosen in choose("all") if chosen.attack.kind in ("audio", "data")]
STEPS = [chosen for chosen in choose("all") if chosen.attack.kind == "training"]
# Strengths at which an attack leaves the clips as they are.
NEUTRAL = {
    "short-filter": 0, "equaliser": 0, "low-pass": RATE / 2, "high-pass": 0, "warp": 0, "jitter": 0, "speed": 0,
    "resample": 1, "blur": 1, "blur-regions": 0, "noise-at-places": 0, "project-waves": 0, "level-waves": 0,
    "partial": 0, "detect-mirror": 0, "detect-silence": 0, "detect-noise": 0,
}  # fmt: skip


def speech(n: int = N, frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words at 8 kHz as (n, frames) int16, their labels and true lengths."""
    words = sorted(WORDS)[:CLASSES]
    labels = np.arange(n, dtype=np.int64) % CLASSES
    clips, lengths = np.zeros((n, frames), np.int16), np.empty(n, np.int64)
    for row, label in enumerate(labels):
        wave = speak(words[label], row % 6, row)[:: SAMPLE_RATE // RATE][: frames - row]
        clips[row, : len(wave)], lengths[row] = wave, len(wave)
    return clips, labels, lengths


@pytest.fixture(scope="module")
def scene() -> Scene:
    return marked(poscuda(0.01))


@pytest.fixture(scope="module")
def long_scene() -> Scene:
    """Clips of the least length, and a little, that M5 takes."""
    return marked(poscuda(0.01), 12, 7000)


def marked(condition, n: int = N, frames: int = FRAMES, seed: int = 0) -> Scene:
    original, labels, lengths = speech(n, frames)
    clips = original.copy()
    mark_rows(condition, clips, np.arange(n), labels, lengths, study_key(seed))
    for array in (original, clips, labels, lengths):
        array.flags.writeable = False  # an attack works on copies
    return Scene(clips, original, labels, lengths, CLASSES, RATE, condition, study_key(seed))


def padding(clips: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return clips[np.arange(clips.shape[1]) >= lengths[:, None]]


# The table


def test_every_row_of_the_literature_has_an_attack_that_runs_by_default():
    assert {chosen.attack.row for chosen in choose("all")} == set(ROWS)
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)
    assert {attack.kind for attack in ATTACKS} == {"audio", "data", "labels", "training", "probe"}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_found_by_its_name_and_by_name_and_strength(attack):
    usual = choose(attack.name)
    assert [chosen.strength for chosen in usual] == list(attack.strengths)
    if attack.name != "none":
        assert choose(usual[0].name) == usual[:1]
        assert choose(f"{attack.name}-0.25")[0].name == f"{attack.name}-0.25"


def test_unknown_attacks_are_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"no attack 'mp4'.*mp3"):
        choose("mp4")
    with pytest.raises(ValueError, match="no attack 'mp3-loud'"):
        choose("mp3-loud")


def test_attacks_that_need_a_mark_mean_nothing_without():
    partial, filtered, mp3 = (choose(name)[0] for name in ("partial", "leak-filter", "mp3"))
    assert [one.applies(clean()) for one in (partial, filtered, mp3)] == [False, False, True]
    assert [one.applies(whole_clip(0.01)) for one in (partial, filtered, mp3)] == [True, False, True]
    assert [one.applies(poscuda(0.01)) for one in (partial, filtered, mp3)] == [True, True, True]


# Attacks on clips


@pytest.mark.parametrize("chosen", CLIP_KINDS, ids=lambda chosen: chosen.name)
def test_shape_type_padding_and_repetition(chosen, scene):
    clips = attacked(chosen, scene, seed=0)[0].clips
    assert clips.shape == scene.clips.shape
    assert clips.dtype == np.int16
    if chosen.attack.name != "project-waves":
        assert not padding(clips, scene.lengths).any()
    changed = (clips != scene.clips).any(axis=1).sum()
    if chosen.attack.name == "none":
        assert changed == 0
    elif chosen.attack.name == "partial":
        assert changed == round(N * chosen.strength / 100)
    else:
        assert changed > 0.9 * N
    np.testing.assert_array_equal(clips, attacked(chosen, scene, seed=0)[0].clips)


RANDOM = ("short-filter", "equaliser", "sharpen", "warp", "jitter", "speed", "blur", "blur-regions", "partial",
          "noise-at-places", "detect-noise", "leak-filter")  # fmt: skip


@pytest.mark.parametrize("name", RANDOM)
def test_another_seed_is_another_attack(name, scene):
    chosen = Chosen(choose(name)[0].attack, 20.0) if name == "partial" else choose(name)[0]
    assert not np.array_equal(attacked(chosen, scene, seed=0)[0].clips, attacked(chosen, scene, seed=1)[0].clips)


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_strength_changes_nothing(name, scene):
    chosen = Chosen(choose(name)[0].attack, float(NEUTRAL[name]))
    np.testing.assert_array_equal(attacked(chosen, scene, seed=0)[0].clips, scene.clips)


TRANSFORMS = [attack for attack in ATTACKS if attack.kind == "audio"]


@pytest.mark.parametrize("attack", TRANSFORMS, ids=lambda attack: attack.name)
def test_clips_of_any_length(attack):
    lengths = np.array([0, 1, 2, 3, 50, 400])
    clips = np.zeros((6, 400), np.int16)
    for row, length in enumerate(lengths):
        clips[row, :length] = np.random.default_rng(row).integers(-32768, 32768, length)
    done = attack.act(clips, lengths, RATE, attack.strengths[0], np.random.default_rng(0))
    assert done.shape == clips.shape
    assert not padding(done, lengths).any()


def test_bands_keep_what_they_say():
    time = np.arange(4000) / RATE
    low, high = (np.rint(9000 * np.cos(2 * np.pi * f * (time + 0.5 / RATE))).astype(np.int16) for f in (500, 2500))
    clips, lengths, rng = (low + high)[None], np.array([4000]), np.random.default_rng(0)
    # Cosines that the transform knows exactly: only the rounding of clips to int16 is left, once or twice.
    for attack, kept in ((audio.low_pass, low), (audio.high_pass, high)):
        assert np.abs(attack(clips, lengths, RATE, 1000.0, rng)[0] - kept.astype(int)).max() <= 2
    assert np.abs(audio.band_pass(clips, lengths, RATE, 250.0, rng)[0] - low.astype(int)).max() <= 2


def test_speed_reads_a_tone_at_another_pitch():
    time = np.arange(FRAMES) / RATE
    clips = np.rint(9000 * np.sin(2 * np.pi * 1000 * time)).astype(np.int16)[None]
    rng = np.random.default_rng(1)
    factor = 1 + 0.2 * np.random.default_rng(1).uniform(-1, 1)
    spectrum = np.abs(np.fft.rfft(audio.speed(clips, np.array([FRAMES]), RATE, 0.2, rng)[0]))
    assert abs(np.argmax(spectrum) * RATE / FRAMES - 1000 * factor) <= RATE / FRAMES


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize(
    ("codec", "strength"),
    [(codecs.mp3, 32), (codecs.aac, 32), (codecs.opus, 64), (codecs.vorbis, 0.5), (codecs.mu_law, 8),
     (codecs.resample, 2)],
)  # fmt: skip
def test_codecs_keep_the_time(codec, strength, rate):
    length = 3000
    clips = np.zeros((1, 3500), np.int16)
    time = np.arange(length) / rate
    chirp = np.sin(2 * np.pi * (200 * time + (0.2 * rate - 200) * time**2 / (2 * time[-1])))
    clips[0, :length] = np.rint(8000 * chirp)
    coded = codec(clips, np.array([length]), rate, strength, np.random.default_rng(0))
    likeness = np.correlate(coded[0, :length].astype(float), clips[0, :length].astype(float), "full")
    assert np.argmax(likeness) == length - 1
    assert likeness.max() > 0.9 * np.linalg.norm(coded[0].astype(float)) * np.linalg.norm(clips[0].astype(float))


def test_mu_law_error_is_within_half_a_level():
    clips = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)[None]
    coded = codecs.mu_law(clips, np.array([clips.shape[1]]), RATE, 8, np.random.default_rng(0))
    assert len(np.unique(coded)) == 255
    # The curve's slope is mu / ((1 + mu x) ln(1 + mu)): half of 1/127 of it, in frames' units, and one rounding.
    x = np.abs(clips.astype(float)) / 32768
    half = 32768 * (1 / 127) / 2 * (1 + 255 * x) * np.log(256) / 255 * 256 ** (1 / 127)
    assert (np.abs(coded - clips.astype(float)) <= half + 1.5).all()


def test_partial_puts_originals_back(scene):
    after, details = attacked(choose("partial-20")[0], scene, seed=0)
    mixed = after.clips
    back = (mixed == scene.original).all(axis=1)
    assert details["unprotected"] == back.sum() == round(0.2 * N)
    np.testing.assert_array_equal(mixed[~back], scene.clips[~back])


def test_places_are_where_the_mark_is(scene):
    mask = places(scene)
    assert (scene.clips != scene.original)[~mask].sum() == 0
    for name in ("noise-at-places", "fill-places"):
        changed = attacked(choose(name)[0], scene, seed=0)[0].clips != scene.clips
        assert changed[mask].mean() > 0.9
        # Gaps that a filter leaves by accident are filled as well.
        assert changed[~mask].sum() <= (16 * N if name == "fill-places" else 0)


def test_noise_at_places_is_as_loud_as_the_mark(scene):
    noisy = attacked(choose("noise-at-places")[0], scene, seed=0)[0].clips
    inside = (np.arange(FRAMES) < scene.lengths[:, None]) & places(scene)
    noise = np.sqrt((((noisy.astype(float) - scene.clips) ** 2) * inside).sum())
    mark = np.sqrt((((scene.clips.astype(float) - scene.original) ** 2) * inside).sum())
    # The energy of n normal numbers, n near 9,600 in parts of unequal level: within a few per cent.
    assert noise == pytest.approx(mark, rel=0.1)


# Inpainting


@pytest.mark.parametrize("how", FILLS)
@given(length=st.integers(0, 60), start=st.integers(-10, 70), size=st.integers(0, 70), seed=st.integers(0, 9))
@settings(max_examples=50)
def test_a_fill_touches_its_gap_only_and_reads_nothing_there(how, length, start, size, seed):
    clip = np.random.default_rng(seed).integers(-32768, 32768, length).astype(np.int16)
    gap = slice(max(start, 0), max(start + size, 0))
    other = clip.copy()
    other[gap] = 7
    outside = np.delete(clip, np.arange(length)[gap])
    for array in (clip, other):
        fill(array, start, start + size, how, np.random.default_rng(0))
    np.testing.assert_array_equal(clip, other)
    np.testing.assert_array_equal(np.delete(clip, np.arange(length)[gap]), outside)


def test_a_mirror_continues_a_wave_from_both_sides():
    clip = np.arange(100, dtype=np.int16)
    fill(clip, 40, 60, "mirror", np.random.default_rng(0))
    fade = np.arange(1, 21) / 21
    wanted = np.rint((1 - fade) * np.arange(39, 19, -1) + fade * np.arange(79, 59, -1))
    np.testing.assert_array_equal(clip[40:60], wanted)


def test_unknown_fills_are_refused():
    with pytest.raises(ValueError, match="no fill 'hope'"):
        fill(np.zeros(9, np.int16), 2, 5, "hope", np.random.default_rng(0))


# The detector


def test_the_detector_finds_strong_marks(scene):
    # One class of four may have a stranger place than its mark: few clips, and few words.
    _, details = attacked(choose("detect-silence")[0], scene, seed=0)
    assert details["marked_frames_covered"] > 70


def test_the_detector_finds_noise_at_a_known_place():
    rng = np.random.default_rng(0)
    n, place = 60, 0.7
    labels, lengths = np.arange(n) % 3, rng.integers(1500, FRAMES, n)
    clips = np.zeros((n, FRAMES), np.int16)
    for row, length in enumerate(lengths):
        clips[row, :length] = rng.normal(0, 500, length)
        common = round(0.2 * (length - audio.PATCH))  # louder still, but in every class
        clips[row, common : common + audio.PATCH] *= 8
        if labels[row] == 1:
            start = round(place * (length - audio.PATCH))
            clips[row, start : start + audio.PATCH] *= 4
    found = detect.find(clips, labels, lengths, 3, 1)[1]
    assert found == [pytest.approx(place, abs=1 / (detect.PLACES - 1))]
    cleaned, _ = detect.remove(clips, labels, lengths, 3, 1, "silence", rng)
    loud = np.abs(clips) > 2200  # 4.4 standard deviations of the rest
    loud &= np.arange(FRAMES) > 0.45 * lengths[:, None]
    assert loud[labels == 1].sum() > 1000
    assert (loud & (cleaned == clips))[labels == 1].sum() < 0.02 * loud[labels == 1].sum()


def test_found_places_do_not_overlap(scene):
    for row in detect.find(scene.clips, scene.labels, scene.lengths, CLASSES, 4):
        apart = np.diff(np.sort(row)) * (np.median(scene.lengths) - audio.PATCH)
        assert len(row) == 4
        assert (apart >= audio.PATCH - 1e-6).all()


# Leaked pairs


@given(
    key=st.binary(min_size=32, max_size=32), label=st.integers(0, 99), length=st.integers(1, 2000),
    blur=st.sampled_from([0.01, 0.3]), identity=st.booleans(), patches=st.integers(1, 4), taps=st.integers(1, 80),
)  # fmt: skip
@settings(max_examples=40)
def test_one_pair_of_loud_noise_gives_exact_places(key, label, length, blur, identity, patches, taps):
    recipe = Recipe(blur=blur, identity=identity, patches=patches, taps=taps)
    before = np.random.default_rng(length).integers(-32768, 32768, length).astype(np.int16)
    after = before[None].copy()
    protect(after, [label], Key(key), recipe=recipe)
    starts = leak.locate(before, after[0], recipe)
    wanted = leak.true_starts(Key(key), label, recipe, length)
    if taps > 1 or not identity:  # one tap of 1.0 changes nothing
        assert len(wanted) == len(leak.slots(recipe, length)[1])
    if length > 6 * taps and not (taps == 1 and identity):
        assert starts == wanted


def test_a_place_whose_edges_did_not_change_is_found_all_the_same():
    recipe, key = Recipe(), study_key(1)
    before = np.random.default_rng(0).integers(-2000, 2001, 1500).astype(np.int16)
    (start,) = leak.true_starts(key, 0, recipe, len(before))
    edges = [start, start + 1, start + recipe.patch - 2, start + recipe.patch - 1]
    for _ in range(20):  # towards frames there that their own filtering returns
        after = before[None].copy()
        protect(after, [0], key, recipe=recipe)
        if (after[0, edges] == before[edges]).all():
            break
        before[edges] = after[0, edges]
    changed = np.flatnonzero(before != after[0])
    assert changed[0] > start
    assert changed[-1] < start + recipe.patch - 1
    assert leak.locate(before, after[0], recipe) == [start]


@pytest.mark.parametrize("identity", [False, True])
def test_the_filter_comes_out_as_precisely_as_rounding_allows(identity):
    recipe = Recipe(identity=identity)
    key = study_key(3)
    before = np.random.default_rng(0).integers(-9000, 9001, 2000).astype(np.int16)  # nothing saturates
    true = leak.true_filter(key, 5, recipe)
    wet = before[None].copy()
    protect(wet, [5], key, recipe=recipe)
    told = leak.learn([(before, wet[0])], recipe)
    # Least squares: the error's expected square is the rounding's variance times trace of inv(A' A); five of it.
    start = told.starts[0][0]
    design = leak._design(before[start : start + recipe.patch], recipe.taps)
    spread = np.sqrt(np.trace(np.linalg.inv(design.T @ design)))
    assert np.linalg.norm(told.taps - true) <= 5 * np.sqrt(leak.ROUNDING) * spread
    assert leak.relative_error(told.taps, true) > 1e-7  # int16 is not exact
    dry, floats = knowing._float_pair(before, 5, key, recipe)
    exact = leak.learn([(dry, floats)], recipe)
    assert exact.starts == told.starts
    # float32 keeps 24 bits: a sample's error is at most 2^-25 of the largest.
    assert np.linalg.norm(exact.taps - true) <= 2**-25 * np.abs(floats).max() * np.sqrt(recipe.patch) * spread * 32768


def test_true_filter_is_the_filter(scene):
    recipe, key = Recipe(patch=300, taps=33, identity=True), study_key(0)
    taps = leak.true_filter(key, 2, recipe)
    assert taps[16] == 1.0
    clip = np.random.default_rng(0).uniform(-1, 1, 300).astype(np.float32)
    wet = clip[None].copy()
    protect(wet, [2], key, recipe=recipe)
    np.testing.assert_array_equal(wet[0], np.convolve(clip, taps, "same").astype(np.float32))
    np.testing.assert_allclose(leak._answer(taps, 300) @ clip, wet[0], rtol=0, atol=1e-5)


def test_more_pairs_narrow_the_place(scene):
    recipe = scene.condition.recipe
    own = np.flatnonzero(scene.labels == 1)[:4]
    pairs = [(scene.original[r, : scene.lengths[r]], scene.clips[r, : scene.lengths[r]]) for r in own]
    alone = [leak.learn([pair], recipe).fractions[0] for pair in pairs]
    (together,) = leak.learn(pairs, recipe).fractions
    assert leak.learn(pairs[::-1], recipe).fractions == [together]
    assert len(set(alone)) == len(alone)
    assert together == (max(low for low, _ in alone), min(high for _, high in alone))
    assert together[0] < together[1]


@pytest.mark.parametrize("identity", [False, True])
def test_a_leak_undoes_the_class(identity):
    scene = marked(poscuda(0.01, identity=identity))
    after, details = attacked(choose("leak-filter")[0], scene, seed=0)
    cleaned = after.clips
    before = np.sum((scene.clips.astype(float) - scene.original) ** 2)
    after = np.sum((cleaned.astype(float) - scene.original) ** 2)
    assert after < 0.1 * before
    assert details["pairs_exactly_placed"] == CLASSES
    assert max(details["filter_error_float32"]) < min(details["filter_error_int16"])
    covered = attacked(choose("leak-mirror")[0], scene, seed=0)[0].clips
    np.testing.assert_array_equal(covered[~(scene.clips != covered)], scene.clips[~(scene.clips != covered)])
    mask = places(scene)
    assert (covered != scene.clips)[mask].mean() > 0.9


def test_places_in_the_padded_clip_are_found_too():
    scene = marked(poscuda(0.01, absolute=True))
    _, details = attacked(choose("leak-filter")[0], scene, seed=0)
    assert len(details["filter_error_int16"]) == CLASSES
    cleaned = attacked(choose("leak-filter")[0], scene, seed=0)[0].clips
    before = np.sum((scene.clips.astype(float) - scene.original) ** 2)
    assert np.sum((cleaned.astype(float) - scene.original) ** 2) < before


# Directions and means of classes


def test_projection_takes_away_what_a_linear_classifier_uses():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    values = torch.randn(400, 50, generator=generator)
    values[:, :4] += 3 * nn.functional.one_hot(labels, 4)
    basis = classes.directions(values, labels, 4, 1)
    assert basis.shape == (50, 4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-5)
    centred = values - values.mean(dim=0)
    left = centred - (centred @ basis) @ basis.T

    def right(of: torch.Tensor) -> float:
        weight, bias = classes.linear_classifier(of[:200], labels[:200], 4, decay=1e-2)
        return float(((of[200:] @ weight.T + bias).argmax(1) == labels[200:]).float().mean())

    assert right(centred) > 0.85
    assert right(left) < 0.65
    weight, _ = classes.linear_classifier(centred / centred.std(), labels, 4)
    # The classifier itself is left with nothing but float32's rounding.
    assert (left @ weight.T).abs().max() < 1e-5 * (centred @ weight.T).abs().max()
    scaled = left / centred.std()
    weight, _ = classes.linear_classifier(scaled, labels, 4)
    twice = classes.directions(values, labels, 4, 2)
    assert twice.shape == (50, 8)
    rest = scaled - (scaled @ twice) @ twice.T
    assert (rest @ weight.T).abs().max() < 1e-3 * (scaled @ weight.T).abs().max()


def test_projected_waves_have_nothing_along_the_directions(scene):
    projected = classes.project_waves(scene.clips, scene.labels, CLASSES, 1, np.random.default_rng(0))
    values = torch.from_numpy(scene.clips.astype(np.float32) / 32768)
    basis = classes.directions(values, torch.tensor(scene.labels), CLASSES, 1).numpy()
    before, after = ((clips - scene.clips.mean(axis=0)) @ basis for clips in (scene.clips, projected))
    assert np.abs(before).max() > 1000
    # Rounding moves each of FRAMES samples by a twelfth in variance; float32 adds its own to sums of such size.
    assert np.abs(after).max() < 5 * np.sqrt(1 / 12) + 1e-5 * np.abs(scene.clips - 0.0).max() * np.sqrt(FRAMES)


@pytest.mark.parametrize("name", ["lstm", "cnn"])
def test_features_are_levelled_and_projected(name, scene):
    waves, labels = torch.from_numpy(scene.clips.astype(np.float32) / 32768), torch.tensor(scene.labels)
    model = build(name, CLASSES, RATE).eval()
    seen: list[torch.Tensor] = []
    model.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for attack in ("level-features", "project-features"):
        step_of(choose(attack)[0], scene, name, seed=0)(model, waves, labels, torch.Generator())
    features = model.front(waves)
    means = torch.stack([seen[0][labels == label].mean(dim=0) for label in range(CLASSES)])
    assert (means - features.mean(dim=0)).abs().max() < 1e-4 * features.abs().max()
    values = features.flatten(1)
    basis = classes.directions(values, labels, CLASSES, 1)
    left = (seen[1].flatten(1) - values.mean(dim=0)) @ basis
    assert left.abs().max() < 1e-3 * ((values - values.mean(dim=0)) @ basis).abs().max()


def test_levelled_waves_have_one_mean():
    rng = np.random.default_rng(0)
    labels, lengths = np.arange(30) % 3, rng.integers(300, 500, 30)
    clips = np.rint(rng.normal(0, 300, (30, 500)) + 900 * (labels[:, None] - 1)).astype(np.int16)
    clips[np.arange(500) >= lengths[:, None]] = 0
    levelled = classes.level_waves(clips, labels, lengths, 1.0)
    for label in range(3):
        own = labels == label
        means = classes._mean_inside(levelled[own], np.arange(500) < lengths[own, None])
        assert np.abs(means).max() <= 0.5  # each sample is rounded by half at most


# Attacks on the training


def batch(n: int = 12, frames: int = 7000) -> tuple[torch.Tensor, torch.Tensor]:
    clips, labels, _ = speech(n, frames)
    return torch.from_numpy(clips.astype(np.float32) / 32768), torch.from_numpy(labels)


@pytest.mark.parametrize("chosen", STEPS, ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("name", ["m5", "lstm", "cnn"])
def test_a_step_is_a_loss_that_trains_and_repeats(chosen, name, long_scene):
    if name not in chosen.attack.models:
        return
    scene, (waves, labels) = long_scene, batch()
    given_waves = waves.clone()
    losses = []
    for _ in range(2):
        step = step_of(chosen, scene, name, seed=0)
        torch.manual_seed(0)
        model = build(name, CLASSES, RATE).train()
        loss = step(model, waves, labels, torch.Generator().manual_seed(0))
        losses.append(loss.item())
    loss.backward()
    assert losses[0] == losses[1]
    assert np.isfinite(losses[0])
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.body.parameters())
    assert torch.equal(waves, given_waves)
    assert all(module.training for module in model.modules())


AUGMENTATIONS = [change for change, _ in training.DEFAULTS]


@pytest.mark.parametrize("change", AUGMENTATIONS, ids=lambda change: change.__name__)
def test_an_augmentation_keeps_the_shape_and_differs_by_clip(change):
    waves = batch(1)[0].expand(4, -1)
    strength = dict(training.DEFAULTS)[change]
    made = change(waves, torch.Generator().manual_seed(0), RATE, strength)
    assert made.shape == waves.shape
    assert made.dtype == torch.float32
    assert made.isfinite().all()
    assert not torch.equal(made[0], waves[0])
    assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize("change", [training.shift, training.crop, training.gain])
def test_an_augmentation_of_no_strength_changes_nothing(change):
    waves, _ = batch(4)
    assert torch.equal(change(waves, torch.Generator().manual_seed(0), RATE, 0.0), waves)


def test_an_equaliser_of_no_strength_changes_nothing_but_rounding():
    waves, _ = batch(4)
    made = training.equalise(waves, torch.Generator().manual_seed(0), RATE, 0.0)
    assert (made - waves).abs().max() < 1e-5


def test_shift_moves_without_wrapping():
    waves = torch.arange(1.0, 101.0).expand(20, -1)
    for row in training.shift(waves, torch.Generator().manual_seed(0), 100, 0.3):
        inside = row[row > 0]
        assert (inside.diff() == 1).all()
        assert len(inside) >= 70


def test_noise_is_within_its_range():
    waves = torch.randn(200, 1000, generator=torch.Generator().manual_seed(1))
    added = training.noise(waves, torch.Generator().manual_seed(0), RATE, 10.0) - waves
    decibels = -20 * torch.log10(added.square().mean(1).sqrt() / waves.square().mean(1).sqrt())
    # 1,000 normal numbers have a level within 1 dB.
    assert 9 < decibels.min() < 12
    assert 28 < decibels.max() < 31


def test_mixup_of_tiny_alpha_is_no_mixup():
    waves, labels = batch()
    torch.manual_seed(0)
    model = build("lstm", CLASSES, RATE).eval()
    plain = nn.functional.cross_entropy(model(waves), labels)
    mixed = training.mixup(1e-6)(model, waves, labels, torch.Generator().manual_seed(0))
    # Shares of 0 and 1: each clip is itself or its partner, which may come twice; losses of single clips.
    assert abs(mixed.item() - plain.item()) < 0.5
    half = training.mixup(1e6)(model, waves, labels, torch.Generator().manual_seed(0))
    assert half.item() != mixed.item()


def test_the_worst_of_several_is_worse_than_one():
    waves, labels = batch()
    torch.manual_seed(0)
    model = build("m5", CLASSES, RATE).eval()
    losses = [training.worst_of(k, RATE)(model, waves, labels, torch.Generator().manual_seed(0)).item() for k in (1, 6)]
    assert losses[1] > losses[0]


class Linear(nn.Module):
    """A model whose worst perturbation is known: it has no front end and one layer."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.front, self.body = nn.Identity(), nn.Linear(frames, 2)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        return self.body(self.front(waves))


@pytest.mark.parametrize("attack", ["waves", "features"])
def test_pgd_raises_the_loss_within_its_radius(attack):
    torch.manual_seed(0)
    model, waves = Linear(50), torch.randn(8, 50)
    labels = torch.arange(8) % 2
    step = getattr(training, f"adversarial_{attack}")(0.1)
    plain = nn.functional.cross_entropy(model(waves), labels)
    found = step(model, waves, labels, torch.Generator().manual_seed(0)).item()
    radius = 0.1 * (waves.square().mean(1, keepdim=True).sqrt() if attack == "waves" else waves.std())
    # Of two classes the loss grows along the difference of their weights: its sign is the exact worst.
    slope = (model.body.weight[1] - model.body.weight[0]) * (1 - 2 * labels[:, None])
    worst = nn.functional.cross_entropy(model(waves + radius * slope.sign()), labels)
    assert plain.item() < found <= worst.item() + 1e-6
    assert found > plain.item() + 0.8 * (worst.item() - plain.item())


def test_adversarial_steps_leave_running_statistics_as_one_batch_does():
    waves, labels = batch()
    torch.manual_seed(0)
    model = build("lstm", CLASSES, RATE).train()
    training.adversarial_waves(0.1)(model, waves, labels, torch.Generator().manual_seed(0))
    assert model.body.norm.num_batches_tracked == 1


def test_spec_augment_masks_mel_bands_of_mfcc():
    waves, labels = batch()
    model = build("lstm", CLASSES, RATE).eval()
    seen = []
    model.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for masks in (0, 2):
        training.spec_augment(masks)(model, waves, labels, torch.Generator().manual_seed(0))
    features = model.front(waves)
    assert (seen[0] - features).abs().max() < 1e-3  # there and back through the cosine transform, in float32
    mels = [model.front.dct_mat @ one for one in seen]
    same = ((mels[0] - mels[1]).abs() < 1e-3).float()
    masked_bands = (same.mean(dim=2) < 0.1).sum(dim=1)
    assert masked_bands.max() > 0
    assert masked_bands.max() <= 2 * training.MASK_SHARE * mels[0].shape[1] + 2
    assert same.mean() > 0.4


# Probes


def test_a_probe_learns_separable_embeddings():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    values = rng.normal(size=(90, 8)).astype(np.float32) + 4 * np.eye(3, 8, dtype=np.float32)[labels]
    history, _ = probe.probe(values[:60], labels[:60], values[60:], labels[60:], 3)
    assert len(history) == len(probe.ROUND_ITERATIONS)
    assert history[-1]["clean"] > 90


def test_hidden_is_what_the_last_layer_gets():
    torch.manual_seed(0)
    model = build("cnn", CLASSES, RATE).eval()
    clips, _, _ = speech(5)
    values = probe.hidden(model, clips)
    scores = model(torch.from_numpy(clips.astype(np.float32) / 32768))
    np.testing.assert_allclose(model.body.scores(torch.from_numpy(values)).detach(), scores.detach(), atol=1e-5)


def test_clusters_take_their_majority_label(scene):
    rng = np.random.default_rng(0)
    heard = scene.labels.copy()
    heard[:2] = (heard[:2] + 1) % CLASSES  # two clips sound like another class

    def embedding(clips, lengths, rate):
        return (np.eye(CLASSES, 6)[heard] + 0.01 * rng.standard_normal((N, 6))).astype(np.float32)

    labels, details = relabel.by_cluster(scene, 1, rng, embedding)
    np.testing.assert_array_equal(labels, heard)
    assert details == {"relabelled": round(100 * 2 / N, 2)}
