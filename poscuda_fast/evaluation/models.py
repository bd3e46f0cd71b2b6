"""The models to train: the paper's three reference models, and one that people would train today.

Each has a fixed front end (waveform -> features, nothing to learn) and a body that is trained, so that the
features of clips that do not change are computed once.

- M5: Dai et al. 2017, on the waveform at 8 kHz, in the size of torchaudio's Speech Commands tutorial
  (32 channels, first stride 16); the paper also uses that tutorial's learning rate of 0.01.
- LSTM: one layer, 128 hidden units, on MFCC, its outputs averaged over time.
- Transformer: one encoder block, 8 heads, d = 256, on MFCC, averaged over time.
- CNN: a residual network of three stages on log-mel.
"""

from __future__ import annotations

import math

import torch
import torchaudio
from torch import Tensor, nn

NAMES = ("m5", "lstm", "transformer", "cnn")
TITLES = {"m5": "M5", "lstm": "LSTM", "transformer": "Transformer", "cnn": "CNN (log-mel)"}
M5_RATE = 8000  # Hz
WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.024
MELS = 40


class Model(nn.Module):
    """A classifier of waveforms: `body(front(waves))`."""

    def __init__(self, front: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.front, self.body = front, body

    def forward(self, waves: Tensor) -> Tensor:  # (n, frames) in [-1, 1) -> (n, classes)
        scores: Tensor = self.body(self.front(waves))
        return scores


def build(name: str, n_classes: int, sample_rate: int) -> Model:
    """A new model, its weights drawn from torch's current seed.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    n_classes : int
        Number of scores.
    sample_rate : int
        Of the waveforms, Hz.

    Raises
    ------
    ValueError
        No model has this name.
    """
    if name == "m5":
        return Model(_to_rate(sample_rate, M5_RATE), M5(n_classes))
    if name == "lstm":
        return Model(mfcc(sample_rate), LSTM(n_classes))
    if name == "transformer":
        return Model(mfcc(sample_rate), Transformer(n_classes))
    if name == "cnn":
        return Model(LogMel(sample_rate), ResidualCNN(n_classes))
    raise ValueError(f"There is no model {name!r}; choose one of {', '.join(NAMES)}.")


def mfcc(sample_rate: int) -> nn.Module:
    """(n, frames) -> (n, MELS, hops): all MFCC, from windows of 32 ms every 24 ms."""
    # log_mels, since decibels would be clamped relative to the loudest clip of the batch.
    return torchaudio.transforms.MFCC(sample_rate, n_mfcc=MELS, log_mels=True, melkwargs=_spectrum(sample_rate))


class LogMel(nn.Module):
    """(n, frames) -> (n, MELS, hops): log-mel spectra from windows of 32 ms every 24 ms."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(sample_rate, **_spectrum(sample_rate))

    def forward(self, waves: Tensor) -> Tensor:
        return torch.log(self.mel(waves) + 1e-6)


def _spectrum(sample_rate: int) -> dict[str, int]:
    window = round(WINDOW_SECONDS * sample_rate)
    return {"n_fft": window, "hop_length": round(HOP_SECONDS * sample_rate), "n_mels": MELS}


def _to_rate(sample_rate: int, rate: int) -> nn.Module:
    return nn.Identity() if sample_rate == rate else torchaudio.transforms.Resample(sample_rate, rate)


class M5(nn.Module):
    """Four convolutions, each with batch normalisation and pooling, then the mean over time.

    The wave is treated as a picture one row high, channels last: on a CPU this trains twice as fast as
    one-dimensional layers and gives the same scores.
    """

    def __init__(self, n_classes: int, channels: int = 32, stride: int = 16) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *self._block(1, channels, kernel=80, stride=stride),
            *self._block(channels, channels, kernel=3),
            *self._block(channels, 2 * channels, kernel=3),
            *self._block(2 * channels, 2 * channels, kernel=3),
        ).to(memory_format=torch.channels_last)
        self.scores = nn.Linear(2 * channels, n_classes)

    @staticmethod
    def _block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
        convolution = nn.Conv2d(inputs, outputs, (1, kernel), (1, stride))
        return convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d((1, 4))

    def forward(self, waves: Tensor) -> Tensor:  # (n, frames)
        picture = waves[:, None, None].contiguous(memory_format=torch.channels_last)  # (n, 1, 1, frames)
        scores: Tensor = self.scores(self.blocks(picture).mean(dim=(2, 3)))
        return scores


class LSTM(nn.Module):
    """One layer over normalised MFCC; the mean of its outputs is classified."""

    def __init__(self, n_classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(MELS)
        self.lstm = nn.LSTM(MELS, hidden, batch_first=True)
        self.scores = nn.Linear(hidden, n_classes)

    def forward(self, features: Tensor) -> Tensor:  # (n, MELS, hops)
        outputs, _ = self.lstm(self.norm(features).transpose(1, 2))  # (n, hops, hidden)
        scores: Tensor = self.scores(outputs.mean(dim=1))
        return scores


class Transformer(nn.Module):
    """One encoder block over normalised MFCC with sinusoidal positions; the mean over time is classified."""

    def __init__(self, n_classes: int, width: int = 256, heads: int = 8) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(MELS)
        self.embed = nn.Linear(MELS, width)
        self.block = nn.TransformerEncoderLayer(width, heads, width, dropout=0.0, batch_first=True, norm_first=True)
        self.scores = nn.Linear(width, n_classes)

    def forward(self, features: Tensor) -> Tensor:  # (n, MELS, hops)
        tokens = self.embed(self.norm(features).transpose(1, 2))  # (n, hops, width)
        outputs = self.block(tokens + positions(tokens.shape[1], tokens.shape[2]).to(tokens))
        scores: Tensor = self.scores(outputs.mean(dim=1))
        return scores


def positions(n: int, width: int) -> Tensor:
    """(n, width) sines and cosines of wavelengths from 2 pi to 20,000 pi (Vaswani et al. 2017, sec. 3.5)."""
    angles = torch.arange(n)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualCNN(nn.Module):
    """Three residual stages over a log-mel picture."""

    def __init__(self, n_classes: int, channels: int = 16) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(MELS)
        self.stem = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.stages = nn.Sequential(
            Residual(channels, channels, 1),
            Residual(channels, 2 * channels, 2),
            Residual(2 * channels, 4 * channels, 2),
        )
        self.to(memory_format=torch.channels_last)  # 1.25 times as fast on a CPU
        self.scores = nn.Linear(4 * channels, n_classes)

    def forward(self, features: Tensor) -> Tensor:  # (n, MELS, hops)
        picture = self.stages(self.stem(self.norm(features)[:, None]))  # (n, 4 * channels, MELS / 8, hops / 8)
        scores: Tensor = self.scores(picture.mean(dim=(2, 3)))
        return scores


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, picture: Tensor) -> Tensor:  # (n, inputs, height, width)
        return torch.relu(self.path(picture) + self.shortcut(picture))
