"""The front ends hear what they say they hear: bands, offsets, means."""

from __future__ import annotations

import math

import pytest
import torch
import torchaudio

from poscuda_fast.evaluation import fronts
from poscuda_fast.evaluation.models import MODELS, build

EPSILON = torch.finfo(torch.float32).eps


def noise(n: int, frames: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(n, frames, generator=torch.Generator().manual_seed(seed))


def tone(hertz: float, frames: int, rate: int) -> torch.Tensor:
    return 0.1 * torch.cos(2 * math.pi * hertz / rate * torch.arange(frames))[None]


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_mfcc_are_torchaudios(rate: int) -> None:
    window, hop = round(fronts.WINDOW_SECONDS * rate), round(fronts.HOP_SECONDS * rate)
    options = {"n_fft": window, "hop_length": hop, "n_mels": fronts.MELS}
    theirs = torchaudio.transforms.MFCC(rate, fronts.MELS, norm="ortho", log_mels=True, melkwargs=options)
    waves = noise(3, rate)
    # float32 sums of MELS terms of at most |log 1e-6| in size.
    torch.testing.assert_close(fronts.mfcc(rate)(waves), theirs(waves), rtol=0, atol=fronts.MELS * 14 * EPSILON)


def test_tensorflows_mfcc_end_at_4_khz() -> None:
    front, whole = fronts.tensorflow_mfcc(16_000), fronts.mfcc(16_000)
    # A tone that begins and ends at its top goes on in the mirror images at both ends.
    waves, high = noise(1, 16_001), tone(6000, 16_001, 16_000)
    # 2 kHz beside its line a Hann window of 480 frames is 120 dB down and more: float32's rounding is above it.
    assert (front(waves + high) - front(waves)).abs().max() < 0.01
    assert (whole(waves + high) - whole(waves)).abs().max() > 1
    low = tone(1000, 16_001, 16_000)
    assert (front(waves + low) - front(waves)).abs().max() > 1


def test_tensorflows_mfcc_at_8_khz_are_of_the_whole_band() -> None:
    front, waves = fronts.tensorflow_mfcc(8000), noise(1, 8000)
    assert (front(waves + tone(3800, 8000, 8000)) - front(waves)).abs().max() > 0.5


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_kaldis_banks_do_not_hear_an_offset(rate: int) -> None:
    front, waves = fronts.KaldiBanks(rate), noise(2, rate)
    banks = front(waves)
    assert banks.shape[:2] == (2, fronts.KALDI_MELS)
    # An offset of 0.25 costs two bits of each sample, and a band's energy is a sum of hundreds of them.
    assert (front(waves + 0.25) - banks).abs().max() < 0.01
    assert (fronts.LogMel(rate)(waves + 0.25) - fronts.LogMel(rate)(waves)).abs().max() > 1


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_each_of_kaldis_bands_holds_a_bin(rate: int) -> None:
    assert (fronts.KaldiBanks(rate).banks.sum(dim=0) > 0).all()


def test_kaldis_banks_are_their_definition() -> None:
    """One frame by hand: no mean, each sample less 0.97 of the one before, Hann, energies, banks, logarithm."""
    front, wave = fronts.KaldiBanks(8000), noise(1, 200).double()
    frame = wave[0] - wave[0].mean()
    emphasised = frame.clone()
    emphasised[1:] -= 0.97 * frame[:-1]
    emphasised[0] -= 0.97 * frame[0]
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(200).double() / 199)
    energies = torch.fft.rfft(emphasised * window, 512).abs().square()
    wanted = torch.log(energies @ front.banks.double() + 1e-6)
    torch.testing.assert_close(front(wave.float())[0, :, 0].double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, kind in MODELS.items() if kind.spectral])
def test_without_its_mean_a_feature_does_not_tell_the_channel(name: str) -> None:
    """A gain is a constant in the logarithm of every band; the floor of 1e-6 is far below."""
    plain, off = (build(name, 3, 8000, mean_off=mean_off).front for mean_off in (False, True))
    waves = noise(2, 8000)
    features = off(waves)
    assert features.mean(dim=-1).abs().max() < 1e-4
    assert (features - off(4 * waves)).abs().max() < 0.1
    assert (plain(waves) - plain(4 * waves)).abs().max() > 1
    torch.testing.assert_close(features, plain(waves) - plain(waves).mean(dim=-1, keepdim=True))


@pytest.mark.parametrize("name", [name for name, kind in MODELS.items() if not kind.spectral])
def test_a_waveform_has_no_mean_to_lose(name: str) -> None:
    assert not isinstance(build(name, 3, 8000, mean_off=True).front, fronts.MeanOff)


def test_only_mfcc_can_be_turned_back() -> None:
    mfcc = fronts.mfcc(8000)
    for front in (mfcc, fronts.MeanOff(mfcc)):
        basis = fronts.cosine_basis(front)
        assert basis is mfcc.dct_mat
        torch.testing.assert_close(basis @ basis.T, torch.eye(fronts.MELS), rtol=0, atol=fronts.MELS * EPSILON)
    for other in (fronts.LogMel(8000), fronts.MeanOff(fronts.LogMel(8000)), fronts.KaldiBanks(8000)):
        assert fronts.cosine_basis(other) is None


def test_another_rate_keeps_the_seconds() -> None:
    assert fronts.to_rate(16_000, 8000)(noise(2, 16_000)).shape == (2, 8000)
    waves = noise(2, 8000)
    assert fronts.to_rate(8000, 8000)(waves) is waves
