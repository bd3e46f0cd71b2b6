"""PyTorch: what is given out is what `protect` makes of it, and the source is as it was."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from audio_folders import RECIPE
from audiofiles import noise

from poscuda_fast import Key, protect
from poscuda_fast.adapters.torch_data import ProtectCollate, ProtectedDataset

LABELS = ["yes", "no", "yes", "no"]


class Clips:
    """A data set in memory, as torchaudio's give items: waveform, rate, label."""

    def __init__(self, channels: int | None, dtype: torch.dtype) -> None:
        self.channels = channels
        shape = (channels or 1, 700)
        made = [noise(shape[1], shape[0], seed=n).T.astype(np.float32) / 40_000 for n in range(4)]
        if dtype == torch.int16:
            made = [(clip * 32_767).astype(np.int16) for clip in made]
        self.waveforms = [torch.from_numpy(clip.copy() if channels else clip[0].copy()) for clip in made]

    def __len__(self) -> int:
        return 4

    def __getitem__(self, n: int) -> tuple[torch.Tensor, int, str]:
        return self.waveforms[n], 16_000, LABELS[n]


def expected(clips: Clips, key: Key) -> list[torch.Tensor]:
    wet = [clip.clone() for clip in clips.waveforms]
    protect([clip.numpy().T if clips.channels else clip.numpy() for clip in wet], LABELS, key, recipe=RECIPE)
    return wet


both_types = pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
all_shapes = pytest.mark.parametrize("channels", [None, 1, 2])


@both_types
@all_shapes
def test_items_are_protected_and_the_source_is_not(key: Key, key_file: Path, dtype, channels) -> None:
    clips = Clips(channels, dtype)
    before = [clip.clone() for clip in clips.waveforms]
    found = pickle.loads(pickle.dumps(ProtectedDataset(clips, key_file, recipe=RECIPE)))
    assert bytes(range(32)) not in pickle.dumps(found)
    assert len(found) == 4
    for n, wanted in enumerate(expected(clips, key)):
        waveform, rate, label = found[n]
        assert torch.equal(waveform, wanted)
        assert (rate, label) == (16_000, LABELS[n])
        assert not torch.equal(waveform, before[n])
    assert all(torch.equal(one, other) for one, other in zip(clips.waveforms, before, strict=True))


def test_workers_of_a_loader_protect_too(key: Key, key_file: Path) -> None:
    clips = Clips(1, torch.int16)
    loader = torch.utils.data.DataLoader(ProtectedDataset(clips, key_file, recipe=RECIPE), batch_size=2, num_workers=2)
    found = torch.cat([waveforms for waveforms, _, _ in loader])
    assert torch.equal(found, torch.stack(expected(clips, key)))


@both_types
@all_shapes
def test_a_batch_is_protected_where_it_is(key: Key, key_file: Path, dtype, channels) -> None:
    clips = Clips(channels, dtype)

    def collate(items):
        return {"audio": torch.stack([item[0] for item in items]), "label": [item[2] for item in items]}

    protector = ProtectCollate(key_file, recipe=RECIPE, collate=collate, audio="audio", label="label")
    batch = protector([clips[n] for n in range(4)])
    assert torch.equal(batch["audio"], torch.stack(expected(clips, key)))


def test_padding_of_a_batch_stays(key: Key, key_file: Path) -> None:
    waveforms = torch.from_numpy(noise(2 * 700).reshape(2, 700).copy())
    before = waveforms.clone()
    lengths = torch.tensor([300, 700])
    batch = (waveforms, torch.tensor([0, 1]), lengths)
    found = ProtectCollate(key_file, recipe=RECIPE, lengths=2)(batch)[0]
    wet = before.clone()
    protect(wet.numpy(), [0, 1], key, recipe=RECIPE, lengths=[300, 700])
    assert torch.equal(found, wet)
    assert torch.equal(found[0, 300:], before[0, 300:])
    assert found is waveforms


def test_the_pickle_of_a_collate_function_has_no_key(key_file: Path) -> None:
    collate = ProtectCollate(key_file, recipe=RECIPE)
    collate((torch.zeros((2, 500), dtype=torch.int16), [0, 1]))
    pickled = pickle.dumps(collate)
    assert bytes(range(32)) not in pickled
    assert pickle.loads(pickled)((torch.zeros((1, 500), dtype=torch.int16), [0]))[0].any()
