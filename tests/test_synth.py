"""Synthetic speech: seeded, varied, and told apart by its words."""

from __future__ import annotations

import numpy as np

from poscuda_fast.cli import synth


def test_equal_arguments_give_equal_samples_and_others_do_not() -> None:
    spoken = synth.speak("yes", 1, 2)
    assert spoken.dtype == np.int16
    assert 0.35 <= len(spoken) / synth.SAMPLE_RATE <= 0.75
    assert np.array_equal(spoken, synth.speak("yes", 1, 2))
    for other in (("yes", 1, 3), ("yes", 2, 2), ("no", 1, 2)):
        assert not np.array_equal(spoken, synth.speak(*other))
    assert not np.array_equal(spoken, synth.speak("yes", 1, 2, seed=1))


def test_nothing_clips_and_nothing_is_silent() -> None:
    for word in synth.WORDS:
        spoken = synth.speak(word, 0, 0)
        assert 6000 <= np.abs(spoken.astype(int)).max() <= 20000


def test_the_words_differ_in_their_spectra() -> None:
    """The mean spectrum of a word over some speakers is nearer to that of other speakers than other words are."""

    def spectrum(word: str, speakers: range) -> np.ndarray:
        spectra = [np.abs(np.fft.rfft(synth.speak(word, s, 0), 16_000))[100:4000] for s in speakers]
        smooth = [np.log(np.convolve(s, np.ones(200), "same")) for s in spectra]
        mean = np.mean(smooth, axis=0)
        return mean - mean.mean()

    known = {word: spectrum(word, range(6)) for word in synth.WORDS}
    for word in synth.WORDS:
        new = spectrum(word, range(6, 12))
        assert min(known, key=lambda other: float(np.square(known[other] - new).sum())) == word
