"""The table of all attacks: what somebody with protected data may try in order to learn from it.

An attack is one of five kinds. "audio" changes the sound of the training clips and knows nothing else; "data" changes
or exchanges training clips by what is known about classes or leaked pairs; "front" replaces a model's own front end
by one that is fitted to the training clips; "training" is a `Step`; "probe" trains a linear layer on a frozen
embedding. The clean test clips stay as they are, except for a fixed step, such as keeping a band, that the attacker
can put in front of the model for good.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from experiments.attacks import audio, classes, codecs, lines, steps
from experiments.attacks.audio import Clips, Ints, Transform
from experiments.attacks.probe import transferred
from experiments.attacks.scene import Scene
from poscuda_fast.evaluation.augmenting import Augmentation, Step, augmented
from poscuda_fast.evaluation.models import MODELS

KINDS = ("audio", "data", "front", "training", "probe")


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack.

    `act` is, by kind, a `Transform`; ``(scene, strength, rng) -> (clips, details)``; ``(scene, model name, strength,
    rng)`` to a front end or a `Step`; or ``(other data set, seed) -> Embedding``.
    """

    name: str
    title: str  # with the strength for {:g}
    kind: str  # one of KINDS
    act: Callable[..., Any]
    strengths: tuple[float, ...] = (1.0,)  # what is tried if none is named
    needs: str = ""  # "mark": no sense on unprotected data; "spectrum": none for waveforms; "other": another data set
    at_test: Transform | None = None  # applied to test clips


@dataclasses.dataclass(frozen=True)
class Chosen:
    """An attack at a strength."""

    attack: Attack
    strength: float

    @property
    def name(self) -> str:
        """Its name in results."""
        return self.attack.name if len(self.attack.strengths) < 2 else f"{self.attack.name}-{self.strength:g}"

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.attack.title.format(self.strength) + ", test clips too" * self.stays

    @property
    def stays(self) -> bool:
        """Whether test clips go through it too."""
        return self.attack.kind == "front" or self.attack.at_test is not None

    def applies(self, condition: str, model: str) -> bool:
        """Whether it makes sense for clips under this condition and for this model."""
        if self.attack.needs == "mark":
            return condition != "clean"
        return self.attack.needs != "spectrum" or MODELS[model].spectral

    def generator(self, seed: int) -> np.random.Generator:
        """Its random numbers, different for every attack, strength and seed."""
        return np.random.default_rng([seed, zlib.crc32(f"{self.attack.name}-{self.strength:g}".encode())])


def attacked(chosen: Chosen, scene: Scene, seed: int) -> tuple[Scene, dict[str, Any]]:
    """The scene with its training clips as an attack leaves them, and what the attack found out."""
    rng, act = chosen.generator(seed), chosen.attack.act
    clips, details = scene.clips, {}
    if chosen.attack.kind == "audio":
        clips = act(scene.clips, scene.lengths, scene.sample_rate, chosen.strength, rng)
    elif chosen.attack.kind == "data":
        clips, details = act(scene, chosen.strength, rng)
    return dataclasses.replace(scene, clips=clips), details


def heard(chosen: Chosen, clips: Clips, lengths: Ints, sample_rate: int, seed: int) -> Clips:
    """Clean test clips as they reach a model that was trained under an attack."""
    if chosen.attack.at_test is None:
        return clips
    return chosen.attack.at_test(clips, lengths, sample_rate, chosen.strength, chosen.generator(seed))


def made_for(chosen: Chosen, kind: str, scene: Scene, model: str, seed: int) -> Any:
    """The front end in place of a model's own, or the training step, if the attack is of that kind; else None."""
    if chosen.attack.kind != kind:
        return None
    return chosen.attack.act(scene, model, chosen.strength, chosen.generator(seed))


def choose(text: str) -> list[Chosen]:
    """Attacks by name ("mp3": all its usual strengths), name and strength ("mp3-32"), kind ("audio"), or "all".

    Raises
    ------
    ValueError
        No attack or kind has this name.
    """
    usual = [Chosen(attack, strength) for attack in ATTACKS for strength in attack.strengths]
    found = [one for one in usual if text in ("all", one.attack.name, one.attack.kind, one.name)]
    if not found:
        names = ", ".join(attack.name for attack in ATTACKS)
        raise ValueError(
            f"There is no attack {text!r}; choose a name, with -STRENGTH if it has several: {names}; or a kind: "
            f"{', '.join(KINDS)}; or all."
        )
    return found


def _project_features(scene: Scene, model: str, strength: float, rng: np.random.Generator) -> nn.Module:
    known = scene.clips, scene.labels, scene.n_classes, scene.sample_rate
    return classes.project_features(*known, model, int(strength), rng)


def _level_features(scene: Scene, model: str, strength: float, rng: np.random.Generator) -> Step:
    return classes.level_features(scene.clips, scene.labels, scene.n_classes, scene.sample_rate, model, strength, rng)


def _augment(change: Augmentation) -> Callable[[Scene, str, float, np.random.Generator], Step]:
    return lambda scene, model, strength, rng: augmented(change, scene.sample_rate, strength)


def _toolkit(name: str) -> Attack:
    return Attack(name, f"{name}'s recipe, on every clip", "training",
                  lambda scene, model, strength, rng: steps.toolkit(name, scene.sample_rate))  # fmt: skip


ATTACKS: tuple[Attack, ...] = (
    Attack("none", "no attack", "audio", lambda clips, *_: clips),
    Attack("notch-lines", "two lines of each class found on the comb and taken off", "data", lines.remove),
    Attack("notch-peaks", "{:g} notches at the peaks of a class's average spectrum", "data", lines.notch_peaks,
           (2.0, 6.0)),
    Attack("sines", "{:g} fitted sines taken off each clip", "audio", lines.subtract_sines, (2.0, 6.0),
           at_test=lines.subtract_sines),
    Attack("fold-clips", "each clip's mean over all periods taken off", "audio", lines.fold_clips,
           at_test=lines.fold_clips),
    Attack("fold-classes", "each class's mean over all periods taken off", "data", lines.fold_classes),
    Attack("level-features", "class means of features taken off", "training", _level_features, needs="spectrum"),
    Attack("project-features", "features projected", "front", _project_features, needs="spectrum"),
    Attack("gate", "spectral gating (noisereduce)", "audio", audio.gate, at_test=audio.gate),
    Attack("speed", "resampled by up to {:.0%}", "audio", audio.speed, (0.15,)),
    Attack("pitch", "pitch shifted by up to {:g} semitones", "audio", audio.pitch, (2.0,)),
    Attack("equaliser", "random equaliser, {:g} dB", "audio", audio.equaliser, (6.0,)),
    Attack("low-pass", "below {:g} Hz", "audio", audio.low_pass, (600.0,), at_test=audio.low_pass),
    Attack("high-pass", "above {:g} Hz", "audio", audio.high_pass, (1000.0,), at_test=audio.high_pass),
    Attack("mp3", "MP3, {:g} kbit/s", "audio", codecs.mp3, (32.0, 64.0, 128.0), at_test=codecs.mp3),
    Attack("opus", "Opus, {:g} kbit/s", "audio", codecs.opus, (16.0, 64.0), at_test=codecs.opus),
    Attack("aac", "AAC, {:g} kbit/s", "audio", codecs.aac, (32.0,), at_test=codecs.aac),
    *(_toolkit(name) for name in steps.TOOLKITS),
    Attack("noise", "white noise from {:g} dB SNR", "training", _augment(steps.noise), (10.0,)),
    Attack("reverb", "random reverb, {:g} s", "training", _augment(steps.reverb), (0.2,)),
    Attack("mixup", "mixup, alpha {:g}", "training", lambda scene, model, strength, rng: steps.mixup(strength), (0.4,)),
    Attack("several", "{:g} augmentations in a row", "training", _augment(steps.several), (3.0,)),
    Attack("worst-of", "worst of {:g} augmentations", "training",
           lambda scene, model, strength, rng: steps.worst_of(int(strength), scene.sample_rate), (3.0,)),
    Attack("adversarial", "PGD on waveforms, {:g} of the level", "training",
           lambda scene, model, strength, rng: steps.adversarial_waves(strength), (0.1,)),
    Attack("adversarial-features", "PGD on features, {:g}", "training",
           lambda scene, model, strength, rng: steps.adversarial_features(strength), (0.3,), needs="spectrum"),
    Attack("partial", "{:g} % of the clips unprotected", "data", lines.partial, (1.0, 5.0, 20.0), needs="mark"),
    Attack("leak", "{:g} leaked pair a class, its mark subtracted", "data", lines.leaked, needs="mark"),
    Attack("probe", "linear probe on a network trained on another data set", "probe", transferred, needs="other"),
)  # fmt: skip
