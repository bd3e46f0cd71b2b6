"""PyTorch: what is given out is what `protect` makes of it, and the source is as it was."""

from __future__ import annotations

import pickle
from collections import OrderedDict, UserDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from audio_folders import RECIPE
from audiofiles import noise

from poscuda_fast import Key, UnprotectedWarning, protect
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
    found = pickle.loads(pickle.dumps(ProtectedDataset(clips, key_file, label=2, recipe=RECIPE)))
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
    loader = torch.utils.data.DataLoader(
        ProtectedDataset(clips, key_file, label=2, recipe=RECIPE), batch_size=2, num_workers=2
    )
    found = torch.cat([waveforms for waveforms, _, _ in loader])
    assert torch.equal(found, torch.stack(expected(clips, key)))


@both_types
@all_shapes
def test_a_batch_becomes_what_protect_makes_of_it(key: Key, key_file: Path, dtype, channels) -> None:
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
    found = ProtectCollate(key_file, label=1, recipe=RECIPE, lengths=2)(batch)[0]
    wet = before.clone()
    protect(wet.numpy(), [0, 1], key, recipe=RECIPE, lengths=[300, 700])
    assert torch.equal(found, wet)
    assert torch.equal(found[0, 300:], before[0, 300:])
    with pytest.raises(TypeError, match="lengths are whole numbers of frames"):
        ProtectCollate(key_file, label=1, lengths=2)((waveforms, [0, 1], torch.tensor([0.5, 1.0])))


@both_types
@pytest.mark.parametrize("kept", [False, True], ids=["without collate", "with one that hands on"])
def test_batches_that_a_data_set_holds_are_marked_once(key: Key, key_file: Path, dtype, kept: bool) -> None:
    clips = Clips(2, dtype)
    waveforms = torch.stack(clips.waveforms)
    before = waveforms.clone()
    batches = [[waveforms, torch.tensor([16_000] * 4), LABELS]]
    collate = ProtectCollate(key_file, label=2, recipe=RECIPE, collate=(lambda batch: batch) if kept else None)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=collate)
    for _epoch in range(3):
        (found,) = loader
        assert torch.equal(found[0], torch.stack(expected(clips, key)))
    assert torch.equal(waveforms, before)
    assert isinstance(found, list)


class Named(NamedTuple):
    wave: torch.Tensor
    word: str


ITEMS = {
    "SPEECHCOMMANDS": (lambda clip: (clip, 16_000, "yes", "speaker", 0), 0, 2),
    "list": (lambda clip: [clip, "yes"], 0, -1),
    "named tuple": (lambda clip: Named(clip, "yes"), 0, 1),
    "dict": (lambda clip: OrderedDict(wave=clip, word="yes"), "wave", "word"),
    "mapping": (lambda clip: UserDict(wave=clip, word="yes"), "wave", "word"),
}


@pytest.mark.parametrize(("item", "audio", "label"), ITEMS.values(), ids=ITEMS)
def test_items_keep_their_type(key: Key, key_file: Path, item: Any, audio: Any, label: Any) -> None:
    clip = torch.from_numpy(noise(700)[:, 0].copy())
    wet = clip.clone()
    protect([wet.numpy()], ["yes"], key, recipe=RECIPE)
    made = item(clip)
    found = ProtectedDataset([made], key_file, audio=audio, label=label, recipe=RECIPE)[0]
    assert type(found) is type(made)
    assert (len(found), found[label]) == (len(made), "yes")
    assert torch.equal(found[audio], wet)
    assert made[audio] is clip
    assert not torch.equal(clip, wet)


WAVE = torch.zeros((1, 50))
UNUSABLE = [
    ((WAVE, 16_000, "a", "b", 0), 4.0, KeyError, "label is 4.0, but the tuple has 5 entries"),
    ((WAVE, 0), 2, KeyError, "label is 2, but the tuple has 2 entries; pass another"),
    ({"audio": WAVE}, 1, KeyError, r"audio is 0, but the dict has the keys \['audio'\]"),
    (WAVE, 1, TypeError, "An item or batch is a Tensor; expected a tuple, list or dict"),
    ((WAVE.numpy(), 0), 1, TypeError, r"audio=0 is a ndarray; expected a tensor.*torch\.from_numpy"),
    ((WAVE.bfloat16(), 0), 1, TypeError, r"dtype torch\.bfloat16; int16 and float32 .*waveform\.float\(\)"),
    ((WAVE.double(), 0), 1, TypeError, r"dtype torch\.float64; int16 and float32"),
    ((WAVE.clone().requires_grad_(), 0), 1, TypeError, r"requires gradients.*waveform\.detach\(\)"),
    ((WAVE.to("meta"), 0), 1, TypeError, "on the device meta; expected cpu or cuda"),
    ((WAVE[0, 0], 0), 1, ValueError, r"has shape \(\); expected . or . dimensions"),
]


@pytest.mark.parametrize(("item", "label", "error", "sentence"), UNUSABLE)
def test_what_cannot_be_used_is_said(key_file: Path, item, label, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        ProtectedDataset([item], key_file, label=label)[0]
    with pytest.raises(error, match=sentence):
        ProtectCollate(key_file, label=label)(item)


def test_labels_and_classes_that_cannot_be_used_are_said(key_file: Path) -> None:
    for kind in (ProtectedDataset, ProtectCollate):
        options = {"dataset": []} if kind is ProtectedDataset else {}
        with pytest.raises(TypeError, match="classes is the single text 'yes no'"):
            kind(**options, key_file=key_file, label=1, classes="yes no")
        with pytest.raises(TypeError, match="required keyword-only argument: 'label'"):
            kind(**options, key_file=key_file)
    with pytest.raises(TypeError, match=r"labels\[0\] is \[0, 1\]; labels are integers"):
        ProtectedDataset([(WAVE, torch.tensor([0, 1]))], key_file, label=1)[0]
    with pytest.raises(TypeError, match="label=1 is a str; expected a sequence"):
        ProtectCollate(key_file, label=1)((WAVE, "a"))


def test_the_pickle_of_a_collate_function_has_no_key(key_file: Path) -> None:
    collate = ProtectCollate(key_file, label=1, recipe=RECIPE)
    collate((torch.zeros((2, 500), dtype=torch.int16), [0, 1]))
    pickled = pickle.dumps(collate)
    assert bytes(range(32)) not in pickled
    assert pickle.loads(pickled)((torch.zeros((1, 500), dtype=torch.int16), [0]))[0].any()


def test_items_that_cannot_be_marked_are_left_on_request(key_file: Path) -> None:
    class Mixed(Clips):
        def __getitem__(self, n: int) -> tuple[torch.Tensor, int, str]:
            waveform, *others = super().__getitem__(n)
            return (waveform.double() if n == 1 else waveform, *others)

    clips = Mixed(1, torch.float32)
    with pytest.raises(TypeError, match=r"dtype torch\.float64"):
        ProtectedDataset(clips, key_file, label=2)[1]
    dataset = ProtectedDataset(clips, key_file, label=2, skip_unusable=True)
    with pytest.warns(
        UnprotectedWarning, match=r"^1 audio entries(.|\n)*Item 1 has a waveform of dtype torch\.float64"
    ):
        assert torch.equal(dataset[1][0], clips[1][0])
    assert not torch.equal(dataset[0][0], clips[0][0])
    with pytest.raises(TypeError, match="audio=1 is a int; expected a tensor"):
        ProtectedDataset(clips, key_file, label=2, audio=1, skip_unusable=True)[0]
