from __future__ import annotations

import numpy as np
import pytest
from scenes import FRAMES, RATE, padding

from experiments.attacks import audio, codecs
from experiments.attacks.table import ATTACKS

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
    [(codecs.mp3, 32), (codecs.aac, 32), (codecs.opus, 64)],
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


@pytest.mark.parametrize("semitones", [-2.0, 1.0])
def test_pitch_moves_a_tone_and_keeps_its_length_and_level(semitones):
    wave = 9000 * np.sin(2 * np.pi * 1000 * np.arange(8000) / RATE)
    shifted = audio._shifted(wave, semitones)
    assert len(shifted) == 8000
    spectrum = np.abs(np.fft.rfft(shifted))
    assert abs(np.argmax(spectrum) - 1000 * 2 ** (semitones / 12)) <= 1
    inner = shifted[1000:-1000]
    assert np.sqrt(np.mean(inner**2)) == pytest.approx(
        9000 / np.sqrt(2),
        rel=0.15,  # phases of neighbouring bins drift apart
    )


def test_the_gate_takes_a_steady_tone_and_leaves_a_loud_burst():
    time = np.arange(8000) / RATE
    tone = 300 * np.sin(2 * np.pi * 1000 * time)
    burst = np.where((time > 0.4) & (time < 0.5), 12_000 * np.sin(2 * np.pi * 2500 * time), 0)
    clips = np.rint(tone + burst).astype(np.int16)[None]
    gated = audio.gate(clips, np.array([8000]), RATE, 1.0, np.random.default_rng(0))[0].astype(float)
    quiet = time < 0.3
    assert np.sqrt(np.mean(gated[quiet] ** 2)) < 0.3 * np.sqrt(np.mean(tone[quiet] ** 2))
    loud = (time > 0.42) & (time < 0.48)
    assert np.sqrt(np.mean(gated[loud] ** 2)) > 0.6 * np.sqrt(np.mean(burst[loud] ** 2))
