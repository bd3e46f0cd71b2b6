"""What a file, array or folder is, and what protecting it would do; no key needed, nothing written."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from poscuda_fast.arrays import mapped
from poscuda_fast.arrays import zarr as sharded
from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.files import headers, listing
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.listing import AudioFile
from poscuda_fast.files.paths import Paths
from poscuda_fast.mark.plan import shape
from poscuda_fast.recipe import Recipe, chosen_recipe
from poscuda_fast.undo.journal import SIDECAR, sidecar_of

_NEEDED = "--labels is needed, and --lengths where clips are padded"


def inspect(path: Path, recipe: Recipe | None, strength: float | None = None) -> dict[str, Any]:
    """Facts by name, as plain JSON values.

    Parameters
    ----------
    path : Path
        An audio file, a .npy array, the folder of a Zarr array, or a folder of audio files.
    recipe : Recipe or None
        What would be applied; None for the default.
    strength : float, optional
        Of the default recipe.

    Raises
    ------
    DatasetError
        It does not exist, or is a folder without audio.
    AudioFileError
        It cannot be protected; the message says why.
    """
    if sharded.is_zarr(path):
        return _inspect_zarr(path, chosen_recipe(recipe, strength))
    if path.is_dir():
        return _inspect_folder(path, recipe, strength)
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; give an audio file, an array or a folder.")
    if path.suffix == ".npy":
        return _inspect_npy(path, chosen_recipe(recipe, strength))
    real = Path(os.path.realpath(path))
    file = listing.read_layout(real.parent, real.name)
    layout = file.layout
    return {
        "what": f"{_kind(file)} audio file",
        "samples": f"{file.coding}, {layout.channels} channels, {layout.sample_rate} Hz",
        "frames": layout.frames,
        "seconds": round(layout.frames / max(1, layout.sample_rate), 3),
        **_effect(
            chosen_recipe(recipe, strength, listing.usual_rate([file])),
            [layout.frames],
            layout.channels * headers.CODINGS[file.coding],
        ),
        "edit": _manner(file),
        "sidecar": _sidecar(*Paths.of(real, None, None).sidecars_around()),
    }


def _inspect_npy(path: Path, recipe: Recipe) -> dict[str, Any]:
    with open(path, "rb") as file:
        layout = mapped.read_npy(file, str(path))
    return {
        "what": "NumPy array of clips",
        **_clips(layout.shape, layout.dtype, f"order {layout.order}", recipe),
        "edit": f"patches in place; {_NEEDED}",
        "sidecar": _sidecar(sidecar_of(Path(os.path.realpath(path)), folder=False)),
    }


def _inspect_zarr(path: Path, recipe: Recipe) -> dict[str, Any]:
    array, by_tasks = sharded.open_exact(path), (path / sharded.TASKS).exists()
    written = " x ".join(map(str, sharded.shards(array)))
    return {
        "what": "Zarr array of clips",
        **_clips(array.shape, array.dtype, f"{'shards' if array.shards else 'chunks'} of {written}", recipe),
        "edit": f"whole shards rewritten, each in one step; {_NEEDED}",
        "sidecar": "none: a protected copy made by shard_tasks" if by_tasks else _sidecar(path / SIDECAR),
    }


def _clips(dimensions: tuple[int, ...], dtype: np.dtype[Any], layout: str, recipe: Recipe) -> dict[str, Any]:
    """The facts about the clips of any kind of array."""
    n_clips, frames, channels = (*dimensions, 1)[:3]
    one = _effect(recipe, [frames], channels * dtype.itemsize)
    return {
        "samples": f"{dtype.name}, {channels} channels, {layout}",
        "clips": n_clips,
        "frames": frames,
        **{name: value * n_clips for name, value in one.items()},
    }


def _inspect_folder(path: Path, recipe: Recipe | None, strength: float | None) -> dict[str, Any]:
    names, others = listing.find_files(path)
    if not names:
        raise DatasetError(f"{path} has no audio files; give another folder.")
    files: list[AudioFile] = []
    refused: list[str] = []
    for name in names:
        try:
            files.append(listing.read_layout(path, name))
        except AudioFileError as error:
            refused.append(str(error))
    if n_lossy := sum(file.lossy for file in files):
        refused.insert(0, f"{n_lossy} lossy files, unless a copy turns them into FLAC (--lossy-to-flac)")
    kinds = Counter(
        f"{_kind(file)} {file.coding} {file.layout.channels} ch {file.layout.sample_rate} Hz" for file in files
    )
    return {
        "what": "folder of audio files",
        "audio files": len(names),
        "other files": len(others),
        "kinds": ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common()),
        "parent folders": len({os.path.dirname(name) for name in names}),
        **_effect(chosen_recipe(recipe, strength, listing.usual_rate(files)), [file.frames for file in files], None),
        "refused": "; ".join(refused[:3]) + (f"; and {len(refused) - 3} more" if len(refused) > 3 else "") or "none",
        "sidecar": _sidecar(*Paths.of(path, None, None).sidecars_around()),
    }


def _effect(recipe: Recipe, lengths: list[int], frame_bytes: int | None) -> dict[str, int]:
    """How much a recipe would change in clips of these lengths."""
    sizes, counts = shape(recipe, np.array(lengths, np.int64))
    facts = {"patches": int(counts.sum()), "frames in patches": int((sizes * counts).sum())}
    if frame_bytes is not None:
        facts["bytes in patches"] = facts["frames in patches"] * frame_bytes
    return facts


def _kind(file: AudioFile) -> str:
    return file.layout.format if isinstance(file.layout, Encoding) else "WAV"


def _manner(file: AudioFile) -> str:
    if file.lossy:
        return "refused: lossy, unless a copy turns it into FLAC (--lossy-to-flac)"
    if isinstance(file.layout, Encoding):
        return "decoded, marked and encoded again without loss"
    return "only the bytes of patches, in place"


def _sidecar(*paths: Path) -> str:
    for path in paths:
        if os.path.lexists(path):
            return f"{path} is there: poscuda verify shows the state"
    return "none: not protected by this library, or the sidecar was moved away"
