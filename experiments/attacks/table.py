"""The table of all attacks: what somebody with protected data may try in order to learn from it.

An attack is one of six kinds. "audio" changes the sound of the training clips and knows nothing else; "data"
changes or exchanges training clips by what is known about classes, places or leaked pairs; "labels" changes their
labels; "front" replaces a model's own front end by one that is fitted to the training clips; "training" is a
`Step`; "probe" trains a linear layer on a frozen embedding. The clean test clips stay as they are, except for a fixed
step, such as keeping a band, that the attacker can put in front of the model for good.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from experiments.attacks import audio, classes, codecs, detect, knowing, lines, relabel, training
from experiments.attacks.audio import Clips, Ints, Transform
from experiments.attacks.probe import Embedding, stored_embedding, transferred
from experiments.attacks.scene import Scene, places
from experiments.conditions import Condition
from poscuda_fast.evaluation.attacks import Augmentation, augmented, shift
from poscuda_fast.evaluation.models import NAMES
from poscuda_fast.evaluation.training import Step

# What each attack stands for, from the literature (on images unless stated).
NONE = "early stopping: the peak is far above the final accuracy (every cell reports both)"
SHARPEN = "random sharpening and a DCT low-pass break CUDA: random short filters or equalisers, a band kept"
COIN = "COIN, random local interpolation: time warp, jittered resampling, speed change"
CODEC = "JPEG (ISS) breaks one-pixel shortcuts: MP3, AAC, Opus, Vorbis, mu-law, resampling"
PROJECT = "orthogonal projection, on waveforms, log-mel and MFCC"
AUGMENT = "strong or adversarial augmentation (UEraser): crop, shift, gain, noise, reverb, SpecAugment, mixup, loss-max"
ADVERSARIAL = "adversarial training: PGD on waveforms or features"
PARTIAL = "partial clean data: some clips of the mix are unprotected"
PRETRAINED = "pretrained features: a linear probe on a frozen embedding, relabelling by it"
DETECT = "class-mean detector without clean data, then inpainting"
LEAK = "one leaked pair of a clip before and after protection, for each class"
CUT = "the paper's stated limit: the marked region is cut out of a long recording"
PAPER = "the paper's own attacker: random noise or blur, at the right places or at random ones"
ROWS = (NONE, SHARPEN, COIN, CODEC, PROJECT, AUGMENT, ADVERSARIAL, PARTIAL, PRETRAINED, DETECT, LEAK, CUT, PAPER)

WHOLE_SPECTRUM = ("lstm", "transformer", "cnn")  # models whose front end is not the waveform itself


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes
    ----------
    name, title : str
        Its name in results and in tables; `{:g}` in the title is the strength.
    row : str
        What it stands for, one of `ROWS`.
    kind : str
        "audio", "data", "labels", "front", "training" or "probe".
    act : callable
        By kind: a `Transform`; ``(scene, strength, rng) -> (clips, details)``;
        ``(scene, strength, rng, embedding) -> (labels, details)``; ``(scene, model name, strength, rng)`` to a
        front end or a `Step`; or ``(other data set, seed) -> Embedding``.
    strengths : tuple of float
        What is tried if no strength is named.
    needs : str
        "" for any condition, "mark" if it makes no sense on unprotected data, "format 1" or "format 2" if the library
        must have marked the data in that format, "other" if it needs another data set.
    models : tuple of str
        Models for which it makes sense.
    at_test : Transform, optional
        Applied to test clips.
    """

    name: str
    title: str
    row: str
    kind: str
    act: Callable[..., Any]
    strengths: tuple[float, ...] = (1.0,)
    needs: str = ""
    models: tuple[str, ...] = NAMES
    at_test: Transform | None = None


@dataclasses.dataclass(frozen=True)
class Chosen:
    """An attack at a strength."""

    attack: Attack
    strength: float

    @property
    def name(self) -> str:
        """Its name in results."""
        return self.attack.name if self.attack.name == "none" else f"{self.attack.name}-{self.strength:g}"

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.attack.title.format(self.strength) + ", test clips too" * self.stays

    @property
    def stays(self) -> bool:
        """Whether test clips go through it too."""
        return self.attack.kind == "front" or self.attack.at_test is not None

    def applies(self, condition: Condition) -> bool:
        """Whether it makes sense for clips under this condition."""
        number = condition.recipe.format if condition.recipe is not None else None
        if self.attack.needs in ("format 1", "format 2"):
            return self.attack.needs == f"format {number}"
        return self.attack.needs != "mark" or condition.name != "clean"

    def generator(self, seed: int) -> np.random.Generator:
        """Its random numbers, different for every attack, strength and seed."""
        return np.random.default_rng([seed, zlib.crc32(self.name.encode())])


def attacked(chosen: Chosen, scene: Scene, seed: int, other: Path | None = None) -> tuple[Scene, dict[str, Any]]:
    """The scene with its training clips and labels as an attack leaves them, and what the attack found out.

    `other` is a prepared data set, for attacks that learn an embedding from one.
    """
    rng, act = chosen.generator(seed), chosen.attack.act
    if chosen.attack.kind == "audio":
        clips = act(scene.clips, scene.lengths, scene.sample_rate, chosen.strength, rng)
        return dataclasses.replace(scene, clips=clips), {}
    if chosen.attack.kind == "data":
        clips, details = act(scene, chosen.strength, rng)
        return dataclasses.replace(scene, clips=clips), details
    if chosen.attack.kind == "labels":
        assert other is not None
        labels, details = act(scene, chosen.strength, rng, transferred(other, seed))
        return dataclasses.replace(scene, labels=labels), details
    return scene, {}


def heard(chosen: Chosen, clips: Clips, lengths: Ints, sample_rate: int, seed: int) -> Clips:
    """Clean test clips as they reach a model that was trained under an attack."""
    if chosen.attack.at_test is None:
        return clips
    return chosen.attack.at_test(clips, lengths, sample_rate, chosen.strength, chosen.generator(seed))


def front_of(chosen: Chosen, scene: Scene, model: str, seed: int) -> nn.Module | None:
    """The front end that an attack puts in place of a model's own, or None."""
    if chosen.attack.kind != "front":
        return None
    front: nn.Module = chosen.attack.act(scene, model, chosen.strength, chosen.generator(seed))
    return front


def step_of(chosen: Chosen, scene: Scene, model: str, seed: int) -> Step | None:
    """The training step of an attack on the training, None for other attacks."""
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
        No attack or kind has this name.
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
            f"There is no attack {text!r}; choose a name, with or without -STRENGTH: {', '.join(by_name)}; "
            f"or a kind: audio, data, labels, front, training, probe; or all."
        ) from None


def _project(fit: Callable[..., nn.Module]) -> Callable[[Scene, str, float, np.random.Generator], nn.Module]:
    def act(scene: Scene, model: str, strength: float, rng: np.random.Generator) -> nn.Module:
        return fit(scene.clips, scene.labels, scene.n_classes, scene.sample_rate, model, int(strength), rng)

    return act


def _level_waves(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
    return classes.level_waves(scene.clips, scene.labels, scene.lengths, strength), {}


def _level_features(scene: Scene, model: str, strength: float, rng: np.random.Generator) -> Step:
    return classes.level_features(scene.clips, scene.labels, scene.n_classes, scene.sample_rate, model, strength, rng)


def _detect(how: str) -> Callable[[Scene, float, np.random.Generator], tuple[Clips, dict[str, Any]]]:
    def act(scene: Scene, strength: float, rng: np.random.Generator) -> tuple[Clips, dict[str, Any]]:
        cleaned, details = detect.remove(
            scene.clips, scene.labels, scene.lengths, scene.n_classes, int(strength), how, rng
        )
        mask = places(scene)
        if mask.any():
            details["marked_frames_covered"] = detect.hits(details["places"], mask, scene.labels, scene.lengths)
        return cleaned, details

    return act


def _augment(change: Augmentation) -> Callable[[Scene, str, float, np.random.Generator], Step]:
    def act(scene: Scene, model: str, strength: float, rng: np.random.Generator) -> Step:
        return augmented(change, scene.sample_rate, strength)

    return act


ATTACKS: tuple[Attack, ...] = (
    Attack("none", "no attack", NONE, "audio", lambda clips, *_: clips),
    Attack("short-filter", "random 15-tap filter, energy {:g}", SHARPEN, "audio", audio.short_filter, (1.0,)),
    Attack("equaliser", "random equaliser, {:g} dB", SHARPEN, "audio", audio.equaliser, (6.0,)),
    Attack("sharpen", "random sharpening, lower {:g} of the DCT", SHARPEN, "audio", audio.sharpen, (0.5,),
           at_test=audio.lower_share),
    Attack("low-pass", "below {:g} Hz", SHARPEN, "audio", audio.low_pass, (1000.0, 2000.0), at_test=audio.low_pass),
    Attack("high-pass", "above {:g} Hz", SHARPEN, "audio", audio.high_pass, (100.0, 1000.0), at_test=audio.high_pass),
    Attack("band-pass", "two octaves from {:g} Hz", SHARPEN, "audio", audio.band_pass, (500.0,),
           at_test=audio.band_pass),
    Attack("warp", "time warp, {:g}", COIN, "audio", audio.warp, (0.3,)),
    Attack("jitter", "jittered frames, {:g}", COIN, "audio", audio.jitter, (0.5,)),
    Attack("speed", "speed change, {:g}", COIN, "audio", audio.speed, (0.15,)),
    Attack("cut", "a stretch of {:g} of each clip cut out", CUT, "audio", audio.cut, (0.1, 0.3, 0.5)),
    Attack("mp3", "MP3, {:g} kbit/s", CODEC, "audio", codecs.mp3, (32.0, 16.0), at_test=codecs.mp3),
    Attack("aac", "AAC, {:g} kbit/s", CODEC, "audio", codecs.aac, (24.0, 12.0), at_test=codecs.aac),
    Attack("opus", "Opus, {:g} kbit/s", CODEC, "audio", codecs.opus, (24.0, 8.0), at_test=codecs.opus),
    Attack("vorbis", "Vorbis, quality {:g}", CODEC, "audio", codecs.vorbis, (0.0,), at_test=codecs.vorbis),
    Attack("mu-law", "mu-law, {:g} bits", CODEC, "audio", codecs.mu_law, (8.0,), at_test=codecs.mu_law),
    Attack("resample", "resampled to 1/{:g} and back", CODEC, "audio", codecs.resample, (2.0,),
           at_test=codecs.resample),
    Attack("blur", "blur of {:g} random taps", PAPER, "audio", audio.blur, (16.0,)),
    Attack("blur-regions", "{:g} random region(s) blurred", PAPER, "audio", audio.blur_regions, (1.0,)),
    Attack("noise-at-places", "noise at the known places, {:g} times the mark", PAPER, "data", knowing.noise_at_places,
           (1.0,), needs="mark"),
    Attack("fill-places", "known places inpainted, +{:g} frames", PAPER, "data", knowing.fill_places, (0.0,),
           needs="format 1"),
    Attack("project-waves", "waveforms projected, {:g} round(s)", PROJECT, "front",
           _project(classes.project_waves)),
    Attack("project-features", "features projected, {:g} round(s)", PROJECT, "front",
           _project(classes.project_features), models=WHOLE_SPECTRUM),
    Attack("level-waves", "class means of waveforms removed, {:g}", PROJECT, "data", _level_waves, (1.0,)),
    Attack("level-features", "class means of features removed, {:g}", PROJECT, "training", _level_features, (1.0,),
           models=WHOLE_SPECTRUM),
    Attack("shift", "random shift, {:g} s", AUGMENT, "training", _augment(shift), (0.1,)),
    Attack("crop", "random crop, up to {:g}", AUGMENT, "training", _augment(training.crop), (0.3,)),
    Attack("gain", "random gain, {:g} dB", AUGMENT, "training", _augment(training.gain), (12.0,)),
    Attack("noise", "white noise from {:g} dB SNR", AUGMENT, "training", _augment(training.noise), (10.0,)),
    Attack("reverb", "random reverb, {:g} s", AUGMENT, "training", _augment(training.reverb), (0.2,)),
    Attack("spec-augment", "SpecAugment, {:g} masks", AUGMENT, "training",
           lambda scene, model, strength, rng: training.spec_augment(int(strength)), (2.0,)),
    Attack("mixup", "mixup, alpha {:g}", AUGMENT, "training",
           lambda scene, model, strength, rng: training.mixup(strength), (0.4,)),
    Attack("several", "{:g} augmentations in a row", AUGMENT, "training", _augment(training.several), (3.0,)),
    Attack("worst-of", "worst of {:g} augmentations", AUGMENT, "training",
           lambda scene, model, strength, rng: training.worst_of(int(strength), scene.sample_rate), (3.0,)),
    Attack("adversarial", "PGD on waveforms, {:g} of the level", ADVERSARIAL, "training",
           lambda scene, model, strength, rng: training.adversarial_waves(strength), (0.1,)),
    Attack("adversarial-features", "PGD on features, {:g}", ADVERSARIAL, "training",
           lambda scene, model, strength, rng: training.adversarial_features(strength), (0.3,),
           models=WHOLE_SPECTRUM),
    Attack("partial", "{:g} % of the clips unprotected", PARTIAL, "data", knowing.partial, (1.0, 5.0, 20.0),
           needs="mark"),
    Attack("probe-dnsmos", "linear probe on DNSMOS features", PRETRAINED, "probe",
           lambda other, seed: stored_embedding("dnsmos-128")),
    Attack("probe-other", "linear probe on a network trained on another data set", PRETRAINED, "probe", transferred,
           needs="other"),
    Attack("relabel", "relabelled by {:g} clusters a class in features of a network trained on another data set",
           PRETRAINED, "labels", relabel.by_cluster, (10.0,), needs="other"),
    Attack("detect-mirror", "detector, {:g} place(s) inpainted", DETECT, "data", _detect("mirror"), (1.0,)),
    Attack("detect-silence", "detector, {:g} place(s) silenced", DETECT, "data", _detect("silence"), (1.0,)),
    Attack("detect-noise", "detector, {:g} place(s) filled with noise", DETECT, "data", _detect("noise"), (1.0,)),
    Attack("notch", "two lines of each class found and notched out", DETECT, "data", lines.remove),
    Attack("leak-mark", "{:g} leaked pair(s) a class, its mark subtracted", LEAK, "data", lines.leaked,
           needs="format 2"),
    Attack("leak-filter", "{:g} leaked pair(s) a class, filtered back", LEAK, "data", knowing.leaked("filter"),
           needs="format 1"),
    Attack("leak-mirror", "{:g} leaked pair(s) a class, inpainted", LEAK, "data", knowing.leaked("mirror"),
           needs="format 1"),
)  # fmt: skip
