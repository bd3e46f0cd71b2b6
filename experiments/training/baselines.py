"""Class-wise error-minimising noise (Huang et al. 2021), fitted to a data set with M5 as the surrogate.

In turns, the surrogate is trained on noisy clips and the noise is changed to lower its loss, until the surrogate is
right on 99 %.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from experiments.data.dataset import Dataset
from experiments.training.conditions import Clips, Condition, Ints
from poscuda_fast import Key
from poscuda_fast.evaluation.models import build
from poscuda_fast.evaluation.padded import FULL_SCALE

ROUNDS, TRAIN_STEPS, STOP = 40, 10, 99.0  # Huang et al. 2021, sec. 4: stop at 99 % accuracy
NAMES = ("emin-14",)  # dB, as the paper's recipe at b = 0.01 on FSDD


def error_minimising(data: Dataset, rows: Ints, snr_db: float, seed: int) -> Condition:
    """Class-wise error-minimising noise for some clips, scaled so that their median SNR is `snr_db`."""
    levels = [np.sqrt(np.mean(np.square(data.clips[row, : data.lengths[row]], dtype=np.float64))) for row in rows]
    rms = float(np.median(levels)) / FULL_SCALE * 10 ** (-snr_db / 20)
    noise = _minimise(data, rows, rms, seed)
    samples = np.rint(noise.numpy() * FULL_SCALE).astype(np.int64)  # (classes, frames)

    def mark(clips: Clips, labels: Ints, lengths: Ints, key: Key) -> None:
        inside = np.arange(clips.shape[1]) < lengths[:, None]
        clips[:] = np.clip(clips + samples[labels] * inside, -32768, 32767)

    settings = {"snr_db": snr_db, "rounds": ROUNDS, "train_steps": TRAIN_STEPS, "stop_percent": STOP}
    return Condition(f"emin-{snr_db:g}", f"error-minimising noise, {snr_db:g} dB", mark, None, settings)


def _minimise(data: Dataset, rows: Ints, rms: float, seed: int) -> Tensor:
    """(classes, frames) noise of the given RMS, full scale 1."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    waves = torch.from_numpy(data.clips[rows]).float() / FULL_SCALE
    inside = torch.arange(waves.shape[1]) < torch.from_numpy(data.lengths[rows])[:, None]
    labels = torch.from_numpy(data.labels[rows])
    surrogate = build("m5", len(data.classes), data.sample_rate)
    optimizer = torch.optim.Adam(surrogate.body.parameters(), lr=0.01)
    noise = rms * torch.randn(len(data.classes), waves.shape[1], generator=generator).sign()
    for _ in range(ROUNDS):
        surrogate.train()
        for _ in range(TRAIN_STEPS):
            chosen = torch.randint(len(rows), (128,), generator=generator)
            scores = surrogate(waves[chosen] + noise[labels[chosen]] * inside[chosen])
            optimizer.zero_grad()
            nn.functional.cross_entropy(scores, labels[chosen]).backward()
            optimizer.step()
        surrogate.eval()
        right = 0
        for chosen in torch.randperm(len(rows), generator=generator).split(128):
            noise.requires_grad_()
            scores = surrogate(waves[chosen] + noise[labels[chosen]] * inside[chosen])
            (slope,) = torch.autograd.grad(nn.functional.cross_entropy(scores, labels[chosen]), noise)
            right += int((scores.argmax(1) == labels[chosen]).sum())
            # A step of a tenth of the bound against the gradient's sign, and back within the bound.
            noise = (noise.detach() - 0.1 * rms * slope.sign()).clamp(-rms, rms)
        if 100.0 * right / len(rows) >= STOP:
            break
    return noise * (rms / noise.square().mean(dim=1, keepdim=True).sqrt())
