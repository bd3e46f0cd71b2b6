"""The table of all attacks: what somebody who holds protected data may try in order to learn from it.

An attack is one of four kinds. "audio" changes the sound of the training clips and knows nothing else; "data"
changes or exchanges training clips by what is known of classes, places or leaked pairs; "training" is a
`train.Step`; "probe" trains a linear layer on a frozen embedding. None changes the clean test clips.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments import attack_audio, attack_classes, attack_codecs, attack_detect, attack_leak, attack_training
from experiments.attack_audio import Clips, Ints, Transform
from experiments.attack_probe import Embedding, stored_embedding, transferred
from experiments.conditions import Condition, noisy, touched
from experiments.inpaint import fill
from experiments.models import NAMES
from experiments.train import FULL_SCALE, Step
from poscuda_fast import Key, Recipe, protect

# What each attack stands for, from the literature (on images unless said).
NONE = "early stopping: the peak is far above the final accuracy (every cell reports both)"
SHARPEN = "random sharpening and a DCT low-pass break CUDA: random short filters or equalisers, a band kept"
COIN = "COIN, random local interpolation: time warp, jittered resampling, speed change"
CODEC = "JPEG (ISS) breaks one-pixel shortcuts: MP3, Opus, Vorbis, mu-law, resampling"
PROJECT = "orthogonal projection, on waveforms, log-mel and MFCC"
AUGMENT = "strong or adversarial augmentation (UEraser): crop, shift, gain, noise, reverb, SpecAugment, mixup, loss-max"
ADVERSARIAL = "adversarial training: PGD on waveforms or features"
PARTIAL = "partial clean data: some clips of the mix are unprotected"
PRETRAINED = "pretrained features and a linear probe"
DETECT = "class-mean detector without clean data, then inpainting"
LEAK = "one leaked pair of a clip before and after protection, for each class"
PAPER = "the paper's own attacker: random noise or blur, at the right places or at random ones"
ROWS = (NONE, SHARPEN, COIN, CODEC, PROJECT, AUGMENT, ADVERSARIAL, PARTIAL, PRETRAINED, DETECT, LEAK, PAPER)

WHOLE_SPECTRUM = ("lstm", "transformer", "cnn")  # models whose front end is not the waveform itself


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """What an attack is given.

    `original`, `condition` and `key` are for attacks that somebody's mistake has given more than the
    protected clips (leaked pairs, known places, unprotected clips), and for saying how right an attack was.

    Attributes
    ----------
    clips : (n, L) int16
        The training clips as published.
    original : (n, L) int16
        The same before they were marked.
    labels, lengths : (n,) int64
    n_classes, sample_rate : int
    condition : Condition
    key : Key
    """

    clips: Clips
    original: Clips
    labels: Ints
    lengths: Ints
    n_classes: int
    sample_rate: int
    condition: Condition
    key: Key


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes
    ----------
    name, title : str
        As results and tables call it; `{:g}` in the title is the strength.
    row : str
        What it stands for, one of `ROWS`.
    kind : str
        "audio", "data", "training" or "probe".
    act : callable
        By kind: a `Transform`; ``(scene, strength, rng) -> (clips, details)``;
        ``(scene, model name, strength, rng) -> Step``; or ``(other data set, seed) -> Embedding``.
    strengths : tuple of float
        What a run tries when none is named; the first is the default.
    needs : str
        "" for any condition, "mark" where it means nothing on unprotected data (there, no attack), "recipe"
        where the library must have done the marking, "other" where it needs another data set.
    models : tuple of str
        Models that it makes sense for.
    """

    name: str
    title: str
    row: str
    kind: str
    act: Callable[..., Any]
    strengths: tuple[float, ...] = (1.0,)
    needs: str = ""
    models: tuple[str, ...] = NAMES


@dataclasses.dataclass(frozen=True)
class Chosen:
    """An attack at a strength."""

    attack: Attack
    strength: float

    @property
    def name(self) -> str:
        """As results call it."""
        return self.attack.name if self.attack.name == "none" else f"{self.attack.name}-{self.strength:g}"

    @property
    def title(self) -> str:
        """As tables call it."""
        return self.attack.title.format(self.strength)

    def applies(self, condition: Condition) -> bool:
        """Whether it means anything for clips marked so."""
        marked = condition.name != "clean"
        return {"mark": marked, "recipe": condition.recipe is not None}.get(self.attack.needs, True)

    def generator(self, seed: int) -> np.random.Generator:
        """Its random numbers: others for every attack, strength and seed."""
        return np.random.default_rng([seed, zlib.crc32(self.name.encode())])


def attacked(chosen: Chosen, scene: Scene, seed: int) -> tuple[Clips, dict[str, Any]]:
    """The training clips after an attack, and what it found out; the clips as they are where it changes none."""
    rng = chosen.generator(seed)
    if chosen.attack.kind == "audio":
        transform: Transform = chosen.attack.act
        return transform(scene.clips, scene.lengths, scene.sample_rate, chosen.strength, rng), {}
    if chosen.attack.kind == "data":
        clips, details = chosen.attack.act(scene, chosen.strength, rng)
        return clips, details
    return scene.clips, {}


def step_of(chosen: Chosen, scene: Scene, model: str, seed: int) -> Step | None:
    """The training step of an attack on the training, None for any other."""
    if chosen.attack.kind != "training":
        return None
    step: Step = chosen.attack.act(scene, model, chosen.strength, chosen.generator(seed))
    return step


def embedding_of(chosen: Chosen, other: Path | None, seed: int) -> Embedding:
    """The frozen embedding of a probe."""
    embedding: Embedding = chosen.attack.act(other, seed)
    return embedding


def choose(text: str) -> list[Chosen]:
    """Attacks by name ("mp3": all its usual strengths), name and strength ("mp3-24") or kind ("audio").

    Raises
    ------
    ValueError
        There is none of that name.
    """
    if text == "all":
        return [Chosen(attack, strength) for attack in ATTACKS for strength in attack.strengths]
    found = [
        Chosen(attack, strength)
        for attack in ATTACKS
        for strength in attack.strengths
        if text in (attack.name, attack.kind)
    ]
    if found:
        return found
    name, _, strength = text.rpartition("-")
    by_name = {attack.name: attack for attack in ATTACKS}
    try:
        return [Chosen(by_name[name], float(strength))]
    except (KeyError, ValueError):
        raise ValueError(
            f"There is no attack {text!r}; choose a name, with -STRENGTH or without, of {', '.join(by_name)}; "
            f"or a kind: audio, data, training, probe; or all."
        ) from None


def _project_waves(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    return attack_classes.project_waves(scene.clips, scene.labels, scene.n_classes, int(strength), rng), {}


def _level_waves(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    return attack_classes.level_waves(scene.clips, scene.labels, scene.lengths, strength), {}


def _project_features(scene: Scene, model: str, strength: float, rng: np.random.Generator) -> Step:
    return attack_classes.project_features(
        scene.clips, scene.labels, scene.n_classes, scene.sample_rate, model, int(strength), rng
    )


def _level_features(scene: Scene, model: str, strength: float, rng: np.random.Generator) -> Step:
    return attack_classes.level_features(
        scene.clips, scene.labels, scene.n_classes, scene.sample_rate, model, strength, rng
    )


def _detect(how: str) -> Callable[[Scene, float, np.random.Generator], tuple[Clips, dict[str, Any]]]:
    def act(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
        cleaned, details = attack_detect.remove(
            scene.clips, scene.labels, scene.lengths, scene.n_classes, int(strength), how, rng
        )
        mask = places(scene)
        if mask.any():
            details["marked_frames_covered"] = attack_detect.hits(details["places"], mask, scene.labels, scene.lengths)
        return cleaned, details

    return act


def _noise_at_places(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Noise wherever the mark is, `strength` times as strong as the mark is in that clip."""
    seed = int(rng.integers(2**32))
    noise = noisy(scene.condition, scene.original, scene.labels, scene.lengths, scene.key, seed).astype(np.float64)
    return attack_audio.rounded(scene.clips + strength * (noise - scene.original)), {}


def _fill_places(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """Inpainting of every stretch that the mark touches, and `strength` frames on each side."""
    cleaned = scene.clips.copy()
    for row, (mask, length) in enumerate(zip(places(scene), scene.lengths, strict=True)):
        edges = np.flatnonzero(np.diff(mask[:length].astype(np.int8), prepend=0, append=0))
        for start, stop in _joined(edges.reshape(-1, 2)):
            fill(cleaned[row, :length], int(start - strength), int(stop + strength), "mirror", rng)
    return cleaned, {}


def _joined(runs: NDArray[np.int64], gap: int = 16) -> list[tuple[int, int]]:
    """Runs of touched frames, those less than `gap` apart as one: a filter may leave a frame by accident."""
    joined: list[tuple[int, int]] = []
    for start, stop in runs.tolist():
        if joined and start - joined[-1][1] < gap:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def places(scene: Scene) -> NDArray[np.bool_]:
    """(n, L) the frames that the mark touches."""
    return touched(scene.condition, scene.clips.shape, scene.labels, scene.lengths, scene.key)


def _leak(how: str) -> Callable[[Scene, float, np.random.Generator], tuple[Clips, dict[str, Any]]]:
    """`strength` leaked pairs a class; "filter" filters the others back, a name of inpaint.FILLS inpaints them."""

    def act(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
        recipe = scene.condition.recipe
        assert recipe is not None
        cleaned = scene.clips.copy()
        frames = np.full_like(scene.lengths, scene.clips.shape[1]) if _padded(scene.condition) else scene.lengths
        details: dict[str, Any] = {"filter_error_int16": [], "filter_error_float32": [], "pairs_exactly_placed": 0}
        for label in np.unique(scene.labels):
            own = np.flatnonzero(scene.labels == label)
            rows = rng.permutation(own)[: int(strength)]
            pairs = [(scene.original[row, : frames[row]], scene.clips[row, : frames[row]]) for row in rows]
            leak = attack_leak.learn(pairs, recipe)
            true = attack_leak.true_filter(scene.key, int(label), recipe)
            details["filter_error_int16"].append(_short(attack_leak.relative_error(leak.taps, true)))
            floats = [_float_pair(before, int(label), scene.key, recipe) for before, _ in pairs]
            taps = attack_leak.estimate(floats, [attack_leak.locate(*pair, recipe) for pair in floats], recipe)
            details["filter_error_float32"].append(_short(attack_leak.relative_error(taps, true)))
            details["pairs_exactly_placed"] += sum(
                starts == attack_leak.true_starts(scene.key, int(label), recipe, len(before))
                for starts, (before, _) in zip(leak.starts, pairs, strict=True)
            )
            for row in own:
                if how == "filter":
                    attack_leak.undo(cleaned[row, : frames[row]], leak, recipe)
                else:
                    attack_leak.cover(cleaned[row, : frames[row]], leak, recipe, how, rng)
        return cleaned, details

    return act


def _float_pair(before: Clips, label: int, key: Key, recipe: Recipe) -> attack_leak.Pair:
    """What leaks from data that are kept as float32."""
    dry = before.astype(np.float32) / np.float32(FULL_SCALE)
    wet = dry[None].copy()
    protect(wet, [label], key, recipe=recipe)
    return dry, wet[0]


def _padded(condition: Condition) -> bool:
    """Whether places are drawn in the padded clip."""
    return condition.settings.get("place") == "padded"


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _partial(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    """`strength` % of the clips as they were before they were marked."""
    chosen = rng.permutation(len(scene.clips))[: round(len(scene.clips) * strength / 100)]
    mixed = scene.clips.copy()
    mixed[chosen] = scene.original[chosen]
    return mixed, {"unprotected": len(chosen)}


def _augment(change: attack_training.Augmentation) -> Callable[[Scene, str, float, np.random.Generator], Step]:
    def act(scene: Scene, model: str, strength: float, rng: np.random.Generator) -> Step:
        return attack_training.augmented(change, scene.sample_rate, strength)

    return act


ATTACKS: tuple[Attack, ...] = (
    Attack("none", "no attack", NONE, "audio", lambda clips, *_: clips),
    Attack("short-filter", "random 15-tap filter, energy {:g}", SHARPEN, "audio", attack_audio.short_filter, (1.0,)),
    Attack("equaliser", "random equaliser, {:g} dB", SHARPEN, "audio", attack_audio.equaliser, (6.0,)),
    Attack("sharpen", "random sharpening, lower {:g} of the DCT", SHARPEN, "audio", attack_audio.sharpen, (0.5,)),
    Attack("low-pass", "below {:g} Hz", SHARPEN, "audio", attack_audio.low_pass, (1000.0, 2000.0)),
    Attack("high-pass", "above {:g} Hz", SHARPEN, "audio", attack_audio.high_pass, (100.0, 1000.0)),
    Attack("band-pass", "two octaves from {:g} Hz", SHARPEN, "audio", attack_audio.band_pass, (500.0,)),
    Attack("warp", "time warp, {:g}", COIN, "audio", attack_audio.warp, (0.3,)),
    Attack("jitter", "jittered frames, {:g}", COIN, "audio", attack_audio.jitter, (0.5,)),
    Attack("speed", "speed change, {:g}", COIN, "audio", attack_audio.speed, (0.15,)),
    Attack("mp3", "MP3, {:g} kbit/s", CODEC, "audio", attack_codecs.mp3, (32.0, 16.0)),
    Attack("opus", "Opus, {:g} kbit/s", CODEC, "audio", attack_codecs.opus, (24.0, 8.0)),
    Attack("vorbis", "Vorbis, quality {:g}", CODEC, "audio", attack_codecs.vorbis, (0.0,)),
    Attack("mu-law", "mu-law, {:g} bits", CODEC, "audio", attack_codecs.mu_law, (8.0,)),
    Attack("resample", "resampled to 1/{:g} and back", CODEC, "audio", attack_codecs.resample, (2.0,)),
    Attack("blur", "blur of {:g} random taps", PAPER, "audio", attack_audio.blur, (16.0,)),
    Attack("blur-regions", "{:g} random region(s) blurred", PAPER, "audio", attack_audio.blur_regions, (1.0,)),
    Attack("noise-at-places", "noise at the known places, {:g} times the mark", PAPER, "data", _noise_at_places,
           (1.0,), needs="mark"),
    Attack("fill-places", "known places inpainted, +{:g} frames", PAPER, "data", _fill_places, (0.0,), needs="mark"),
    Attack("project-waves", "waveforms projected, {:g} round(s)", PROJECT, "data", _project_waves, (1.0,)),
    Attack("project-features", "features projected, {:g} round(s)", PROJECT, "training", _project_features, (1.0,),
           models=WHOLE_SPECTRUM),
    Attack("level-waves", "class means of waveforms removed, {:g}", PROJECT, "data", _level_waves, (1.0,)),
    Attack("level-features", "class means of features removed, {:g}", PROJECT, "training", _level_features, (1.0,),
           models=WHOLE_SPECTRUM),
    Attack("shift", "random shift, {:g} s", AUGMENT, "training", _augment(attack_training.shift), (0.1,)),
    Attack("crop", "random crop, up to {:g}", AUGMENT, "training", _augment(attack_training.crop), (0.3,)),
    Attack("gain", "random gain, {:g} dB", AUGMENT, "training", _augment(attack_training.gain), (12.0,)),
    Attack("noise", "white noise from {:g} dB SNR", AUGMENT, "training", _augment(attack_training.noise), (10.0,)),
    Attack("reverb", "random reverb, {:g} s", AUGMENT, "training", _augment(attack_training.reverb), (0.2,)),
    Attack("spec-augment", "SpecAugment, {:g} masks", AUGMENT, "training",
           lambda scene, model, strength, rng: attack_training.spec_augment(int(strength)), (2.0,)),
    Attack("mixup", "mixup, alpha {:g}", AUGMENT, "training",
           lambda scene, model, strength, rng: attack_training.mixup(strength), (0.4,)),
    Attack("several", "{:g} augmentations in a row", AUGMENT, "training", _augment(attack_training.several), (3.0,)),
    Attack("worst-of", "worst of {:g} augmentations", AUGMENT, "training",
           lambda scene, model, strength, rng: attack_training.worst_of(int(strength), scene.sample_rate), (3.0,)),
    Attack("adversarial", "PGD on waveforms, {:g} of the level", ADVERSARIAL, "training",
           lambda scene, model, strength, rng: attack_training.adversarial_waves(strength), (0.1,)),
    Attack("adversarial-features", "PGD on features, {:g}", ADVERSARIAL, "training",
           lambda scene, model, strength, rng: attack_training.adversarial_features(strength), (0.3,),
           models=WHOLE_SPECTRUM),
    Attack("partial", "{:g} % of the clips unprotected", PARTIAL, "data", _partial, (1.0, 5.0, 20.0), needs="mark"),
    Attack("probe-dnsmos", "linear probe on DNSMOS features", PRETRAINED, "probe",
           lambda other, seed: stored_embedding("dnsmos-128")),
    Attack("probe-other", "linear probe on a network trained on another data set", PRETRAINED, "probe", transferred,
           needs="other"),
    Attack("detect-mirror", "detector, {:g} place(s) inpainted", DETECT, "data", _detect("mirror"), (1.0,)),
    Attack("detect-silence", "detector, {:g} place(s) silenced", DETECT, "data", _detect("silence"), (1.0,)),
    Attack("detect-noise", "detector, {:g} place(s) filled with noise", DETECT, "data", _detect("noise"), (1.0,)),
    Attack("leak-filter", "{:g} leaked pair(s) a class, filtered back", LEAK, "data", _leak("filter"), needs="recipe"),
    Attack("leak-mirror", "{:g} leaked pair(s) a class, inpainted", LEAK, "data", _leak("mirror"), needs="recipe"),
)  # fmt: skip
