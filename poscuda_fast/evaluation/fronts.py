"""Front ends: from waveforms to what a model's body gets, with nothing to learn.

What popular recipes feed their models: MFCC and log-mel spectra of the whole band, TensorFlow's MFCC up to 4 kHz, and
Kaldi's filter banks, as the Audio Spectrogram Transformer takes them.
"""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

MELS = 40
WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.024
FLOOR = 1e-6  # added to energies before their logarithm

TENSORFLOW_BAND = (20.0, 4000.0)  # Hz
TENSORFLOW_WINDOW_SECONDS, TENSORFLOW_HOP_SECONDS = 0.030, 0.020

KALDI_MELS = 64
KALDI_LOWEST = 20.0  # Hz
KALDI_WINDOW_SECONDS, KALDI_HOP_SECONDS = 0.025, 0.010
KALDI_EMPHASIS = 0.97

BC_HOP_SECONDS = 0.010


class Mfcc(nn.Module):
    """(n, frames) -> (n, MELS, hops): all MFCC of log-mel spectra; `dct_mat` (MELS, MELS) is orthonormal.

    Decibels would be clamped relative to the loudest clip of the batch.
    """

    dct_mat: Tensor

    def __init__(self, sample_rate: int, window: float, hop: float, band: tuple[float, float | None]) -> None:
        super().__init__()
        options = _spectrum(sample_rate, window, hop) | {"f_min": band[0], "f_max": band[1]}
        self.mel = torchaudio.transforms.MelSpectrogram(sample_rate, **options)
        basis = torchaudio.functional.create_dct(MELS, MELS, "ortho")
        self.register_buffer("dct_mat", basis)

    def forward(self, waves: Tensor) -> Tensor:
        return (torch.log(self.mel(waves) + FLOOR).transpose(1, 2) @ self.dct_mat).transpose(1, 2)


class LogMel(nn.Module):
    """(n, frames) -> (n, MELS, hops): log-mel spectra from windows of 32 ms."""

    def __init__(self, sample_rate: int, hop: float = HOP_SECONDS) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(sample_rate, **_spectrum(sample_rate, WINDOW_SECONDS, hop))

    def forward(self, waves: Tensor) -> Tensor:
        return torch.log(self.mel(waves) + FLOOR)


class KaldiBanks(nn.Module):
    """(n, frames) -> (n, KALDI_MELS, hops): Kaldi's log-mel banks.

    Each frame loses its mean, is pre-emphasised and windowed (Hann, as AST has it); bands lie from 20 Hz up.
    """

    window: Tensor
    banks: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.size, self.hop = round(KALDI_WINDOW_SECONDS * sample_rate), round(KALDI_HOP_SECONDS * sample_rate)
        self.fft = 2 * (1 << (self.size - 1).bit_length())  # twice Kaldi's, so that every band holds a bin
        self.register_buffer("window", torch.hann_window(self.size, periodic=False))
        banks = torchaudio.functional.melscale_fbanks(
            self.fft // 2 + 1, KALDI_LOWEST, sample_rate / 2, KALDI_MELS, sample_rate
        )
        self.register_buffer("banks", banks)

    def forward(self, waves: Tensor) -> Tensor:
        frames = waves.unfold(1, self.size, self.hop)  # (n, hops, size)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        spectra = torch.fft.rfft((frames - KALDI_EMPHASIS * before) * self.window, self.fft).abs().square()
        return torch.log(spectra @ self.banks + FLOOR).transpose(1, 2)


class MeanOff(nn.Module):
    """A front end whose features lose their mean over the clip, as sentence (cepstral) mean normalisation does."""

    def __init__(self, front: nn.Module) -> None:
        super().__init__()
        self.front = front

    def forward(self, waves: Tensor) -> Tensor:
        features: Tensor = self.front(waves)
        return features - features.mean(dim=-1, keepdim=True)


def mfcc(sample_rate: int) -> nn.Module:
    """MFCC of the whole band, from windows of 32 ms every 24 ms."""
    return Mfcc(sample_rate, WINDOW_SECONDS, HOP_SECONDS, (0.0, None))


def tensorflow_mfcc(sample_rate: int) -> nn.Module:
    """MFCC of 20 to 4,000 Hz, as TensorFlow's `speech_commands` has them, from windows of 30 ms every 20 ms."""
    lowest, highest = TENSORFLOW_BAND
    band = lowest, min(highest, sample_rate / 2)
    return Mfcc(sample_rate, TENSORFLOW_WINDOW_SECONDS, TENSORFLOW_HOP_SECONDS, band)


def to_rate(sample_rate: int, rate: int) -> nn.Module:
    """The waveform at another sample rate, Hz."""
    return nn.Identity() if sample_rate == rate else torchaudio.transforms.Resample(sample_rate, rate)


def cosine_basis(front: nn.Module) -> Tensor | None:
    """(mels, coefficients) what turns MFCC back to log-mel spectra; None for other features."""
    inner = front.front if isinstance(front, MeanOff) else front
    return inner.dct_mat if isinstance(inner, Mfcc) else None


def _spectrum(sample_rate: int, window: float, hop: float) -> dict[str, int]:
    return {"n_fft": round(window * sample_rate), "hop_length": round(hop * sample_rate), "n_mels": MELS}
