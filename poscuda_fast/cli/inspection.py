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
from poscuda_fast.files import listing
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.table import AudioFile
from poscuda_fast.mark import codings
from poscuda_fast.mark.lines import level_db
from poscuda_fast.mark.plan import shape
from poscuda_fast.recipe import USUAL_RATE, PaperRecipe, Recipe, StrongRecipe, check_rate
from poscuda_fast.undo.journal import manifest_of, sidecar_of
from poscuda_fast.undo.manifest import Manifest

_NEEDED = "--labels is needed, and --lengths where clips are padded"


def inspect(path: Path, recipe: Recipe, sample_rate: int | None = None) -> dict[str, Any]:
    """Facts by name, as plain JSON values.

    Parameters
    ----------
    path : Path
        An audio file, a .npy array, the folder of a Zarr array, or a folder of audio files.
    recipe : Recipe
        What would be applied.
    sample_rate : int, optional
        Of an array, Hz.

    Raises
    ------
    ValueError
        Format 2 has no mark for the sample rate, or one was given for audio files, which have their own.
    DatasetError
        It does not exist, or is a folder without audio.
    AudioFileError
        It cannot be protected; the message says why.
    """
    if sharded.is_zarr(path):
        return _inspect_zarr(path, recipe, sample_rate)
    if path.suffix == ".npy" and path.is_file():
        return _inspect_npy(path, recipe, sample_rate)
    if sample_rate is not None:
        raise ValueError(f"sample_rate is {sample_rate}, but {path} is not an array; audio files have their own.")
    if path.is_dir():
        return _inspect_folder(path, recipe)
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; give an audio file, an array or a folder.")
    real = Path(os.path.realpath(path))
    file = listing.read_layout(real.parent, real.name)
    layout = file.layout
    if isinstance(recipe, StrongRecipe):
        check_rate(layout.sample_rate)
    return {
        "what": f"{_kind(file)} audio file",
        "samples": f"{file.coding}, {layout.channels} channels, {layout.sample_rate} Hz",
        "frames": layout.frames,
        "seconds": round(layout.frames / max(1, layout.sample_rate), 3),
        **_effect(recipe, [layout.frames], layout.channels * codings.CODINGS[file.coding]),
        "edit": _manner(file, recipe),
        **_beside(real, *Paths.of(real, None, None).sidecars_around()),
    }


def _inspect_npy(path: Path, recipe: Recipe, sample_rate: int | None) -> dict[str, Any]:
    real = Path(os.path.realpath(path))
    with open(path, "rb") as file:
        layout = mapped.read_npy(file, str(path))
    return {
        "what": "NumPy array of clips",
        **_clips(layout.shape, layout.dtype, f"order {layout.order}", recipe, sample_rate),
        "edit": f"{_marked_parts(recipe)} in place; {_NEEDED}",
        **_beside(real, sidecar_of(real)),
    }


def _inspect_zarr(path: Path, recipe: Recipe, sample_rate: int | None) -> dict[str, Any]:
    real = Path(os.path.realpath(path))
    array, by_tasks = sharded.open_exact(path), (path / sharded.TASKS).exists()
    written = " x ".join(map(str, sharded.shards(array)))
    return {
        "what": "Zarr array of clips",
        **_clips(
            array.shape, array.dtype, f"{'shards' if array.shards else 'chunks'} of {written}", recipe, sample_rate
        ),
        "edit": f"whole shards rewritten, each in one step; {_NEEDED}",
        **({"sidecar": "none: a protected copy made by shard_tasks"} if by_tasks else _beside(real, sidecar_of(real))),
    }


def _clips(
    dimensions: tuple[int, ...], dtype: np.dtype[Any], layout: str, recipe: Recipe, sample_rate: int | None
) -> dict[str, Any]:
    """The facts about the clips of any kind of array."""
    n_clips, frames, channels = (*dimensions, 1)[:3]
    rate = {}
    if isinstance(recipe, StrongRecipe):
        assumed = " (assumed; --sample-rate tells it)" * (sample_rate is None)
        rate = {"sample rate": f"{check_rate(USUAL_RATE if sample_rate is None else sample_rate):,} Hz{assumed}"}
    return {
        "samples": f"{dtype.name}, {channels} channels, {layout}",
        **rate,
        "clips": n_clips,
        "frames": frames,
        **_effect(recipe, [frames], channels * dtype.itemsize, n_clips),
    }


def _inspect_folder(path: Path, recipe: Recipe) -> dict[str, Any]:
    names, others = listing.find_files(path)
    if not names:
        raise DatasetError(f"{path} has no audio files; give another folder.")
    files: list[AudioFile] = []
    refused: list[str] = []
    for name in names:
        try:
            files.append(listing.read_layout(path, name))
            if isinstance(recipe, StrongRecipe):
                check_rate(files[-1].layout.sample_rate)
        except AudioFileError as error:
            refused.append(str(error))
        except ValueError as error:
            refused.append(f"{name}: {error}")
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
        **_effect(recipe, [file.frames for file in files], None),
        "refused": "; ".join(refused[:3]) + (f"; and {len(refused) - 3} more" if len(refused) > 3 else "") or "none",
        **_beside(Path(os.path.realpath(path)), *Paths.of(path, None, None).sidecars_around()),
    }


def _effect(recipe: Recipe, lengths: list[int], frame_bytes: int | None, n: int = 1) -> dict[str, Any]:
    """What a recipe would change in clips of these lengths, `n` of each."""
    if isinstance(recipe, StrongRecipe):
        frames = sum(lengths) * n
        mark = f"format 2: two steady lines, {level_db(recipe):.1f} dB of full scale"
        facts = {"mark": mark, "frames marked": frames}
        return facts if frame_bytes is None else facts | {"bytes marked": frames * frame_bytes}
    if not isinstance(recipe, PaperRecipe):
        raise TypeError(f"recipe is a {type(recipe).__name__}; expected one of the two formats.")
    sizes, counts = shape(recipe, np.array(lengths, np.int64))
    patches, frames = int(counts.sum()) * n, int((sizes * counts).sum()) * n
    facts = {"mark": "format 1: patches are filtered", "patches": patches, "frames in patches": frames}
    return facts if frame_bytes is None else facts | {"bytes in patches": frames * frame_bytes}


def _kind(file: AudioFile) -> str:
    return file.layout.format if isinstance(file.layout, Encoding) else "WAV"


def _marked_parts(recipe: Recipe) -> str:
    return "patches" if isinstance(recipe, PaperRecipe) else "samples"


def _manner(file: AudioFile, recipe: Recipe) -> str:
    if file.lossy:
        return "refused: lossy, unless a copy turns it into FLAC (--lossy-to-flac)"
    if isinstance(file.layout, Encoding):
        return "decoded, marked and encoded again without loss"
    return f"only the bytes of {_marked_parts(recipe)}, in place"


def _beside(data: Path, *sidecars: Path) -> dict[str, Any]:
    """What lies beside data that were protected, whole or as part of others."""
    there = [path for path in sidecars if os.path.lexists(path)]
    facts = {"sidecar": "none: not protected by this library, or the sidecar was moved away"}
    if there:
        more = f" and {len(there) - 1:,} more" if len(there) > 1 else ""
        facts["sidecar"] = f"{there[0]}{more}: poscuda verify shows the state"
    path = manifest_of(data)
    if path.is_file():
        try:
            manifest = Manifest.read(path)
        except DatasetError as error:
            return {**facts, "manifest": str(error)}
        facts["manifest"] = f"{path}: {len(manifest.files):,} files, key {manifest.fingerprint}"
    return facts
