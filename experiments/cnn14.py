"""CNN14 of the PANNs (Kong et al. 2020), as far as its embedding, for the checkpoints that its authors published."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor, nn
from torch.nn import functional
from torchlibrosa.stft import LogmelFilterBank, Spectrogram

CHECKPOINT_VARIABLE = "POSCUDA_PANN_CHECKPOINT"
SOURCE = "doi:10.5281/zenodo.3987831"
DIMENSIONS = 2048
_MEL_BANDS = 64
_WIDTHS = (64, 128, 256, 512, 1024, 2048)
_CLASSES = 527  # of AudioSet; this layer is loaded only so that the model matches the file


@dataclass(frozen=True)
class Config:
    """One published variant: its front end, and its file."""

    sample_rate: int
    n_fft: int
    hop: int
    fmin: int  # Hz
    fmax: int  # Hz
    file: str


CONFIGS = {
    "pann-16k": Config(16_000, 512, 160, 50, 8_000, "Cnn14_16k_mAP=0.438.pth"),
    "pann-32k": Config(32_000, 1024, 320, 50, 14_000, "Cnn14_mAP=0.431.pth"),
}

# Beside the weights the published files hold the state of a sampler, in arrays that NumPy 1 wrote. Building an
# array runs no code from the file, so arrays are allowed; everything else is refused.
_ARRAYS: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float32", "float64")),
    *((getattr(multiarray, name), f"numpy.core.multiarray.{name}") for name in ("_reconstruct", "scalar")),
]


class Block(nn.Module):
    """Two 3x3 convolutions, each normalised and rectified."""

    def __init__(self, wide_in: int, wide: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide_in, wide, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.bn2 = nn.BatchNorm2d(wide)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))


class Cnn14(nn.Module):
    """(n, frames) float32 in [-1, 1) at `config.sample_rate` -> (n, 2048); names as in the published state dict."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.spectrogram_extractor = Spectrogram(n_fft=config.n_fft, hop_length=config.hop)
        self.logmel_extractor = LogmelFilterBank(
            sr=config.sample_rate,
            n_fft=config.n_fft,
            n_mels=_MEL_BANDS,
            fmin=config.fmin,
            fmax=config.fmax,
            top_db=None,
        )
        self.bn0 = nn.BatchNorm2d(_MEL_BANDS)
        for number, (wide_in, wide) in enumerate(zip((1, *_WIDTHS), _WIDTHS, strict=False), start=1):
            setattr(self, f"conv_block{number}", Block(wide_in, wide))
        self.fc1 = nn.Linear(DIMENSIONS, DIMENSIONS)
        self.fc_audioset = nn.Linear(DIMENSIONS, _CLASSES)

    def forward(self, samples: Tensor) -> Tensor:
        x = self.logmel_extractor(self.spectrogram_extractor(samples))  # (n, 1, steps, bands)
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        for number in range(1, len(_WIDTHS) + 1):
            x = getattr(self, f"conv_block{number}")(x)
            if number < len(_WIDTHS):
                x = functional.avg_pool2d(x, 2)
        x = x.mean(dim=3)  # (n, 2048, steps)
        return functional.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))


def find(name: str, checkpoint: str | os.PathLike[str] | None = None) -> Path:
    """The checkpoint's file: `checkpoint`, or POSCUDA_PANN_CHECKPOINT; in a folder, under either spelling.

    Raises
    ------
    FileNotFoundError
        If neither is given, or there is no such file; the message says what to set and which file to get.
    """
    file = CONFIGS[name].file
    given = checkpoint if checkpoint is not None else os.environ.get(CHECKPOINT_VARIABLE)
    if not given:
        raise FileNotFoundError(
            f"{name} needs its checkpoint {file} ({SOURCE}): pass its path as `checkpoint`, or set "
            f"{CHECKPOINT_VARIABLE} to the file or its folder. dnsmos-128 needs none."
        )
    path = Path(given)
    if path.is_file():
        return path
    for spelling in (file, file.replace("=", "%3D")):
        if (path / spelling).is_file():
            return path / spelling
    raise FileNotFoundError(
        f"There is neither a file {path} nor {file} in it (or {file.replace('=', '%3D')}, as some downloads are "
        f"named); {name} needs that checkpoint."
    )


def load(name: str, checkpoint: str | os.PathLike[str] | None = None) -> Cnn14:
    """The model with its published weights, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        As in `find`.
    ValueError
        If the file does not hold exactly this model's weights.
    """
    path = find(name, checkpoint)
    model = Cnn14(CONFIGS[name])
    try:
        with torch.serialization.safe_globals(_ARRAYS):
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
    except Exception as error:  # unpickling, a missing key, other shapes: torch raises a different class for each
        raise ValueError(
            f"{path} does not hold the weights of {name}, or holds more than arrays beside them; get "
            f"{CONFIGS[name].file} again ({SOURCE})."
        ) from error
    return model.eval()
