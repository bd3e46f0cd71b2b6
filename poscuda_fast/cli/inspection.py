"""What a file, array or folder is, and what protecting it would do, as data; no key needed, nothing written."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from poscuda_fast.arrays import mapped
from poscuda_fast.arrays import zarr as sharded
from poscuda_fast.cli.wording import of_command
from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.files import encoded, layouts, listing
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.table import AudioFile, Names
from poscuda_fast.mark import codings
from poscuda_fast.mark.lines import level_db
from poscuda_fast.mark.plan import shape
from poscuda_fast.recipe import USUAL_RATE, PaperRecipe, Recipe, StrongRecipe, check_rate
from poscuda_fast.system_errors import reason
from poscuda_fast.text import one_line
from poscuda_fast.undo.journal import manifest_of, sidecar_of
from poscuda_fast.undo.manifest import Manifest

LOSSY = "is lossy; a copy can turn it into FLAC (--lossy-to-flac)"

Facts = dict[str, Any]


def inspect(path: Path, recipe: Recipe, sample_rate: int | None = None) -> Facts:
    """Facts by name, as plain JSON values: numbers, codes, and a sentence only where there is a problem.

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
        Format 2 has no mark for an array's sample rate, or one was given for audio files, which have their own.
    DatasetError
        It does not exist, or is a folder without audio.
    AudioFileError
        It is neither audio nor an array of clips.
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
    return _inspect_file(path, recipe)


def _inspect_file(path: Path, recipe: Recipe) -> Facts:
    real = Path(os.path.realpath(path))
    facts: Facts = {"kind": "audio_file", "path": str(path)}
    paths = Paths.of(real, None, None)
    try:
        file = listing.read_layout(real.parent, real.name)
    except AudioFileError as error:
        if not layouts.has_name_of_audio(real.name) and not layouts.holds_sound(str(real), real.name):
            raise
        facts |= {"usable": False, "problem": _without_name(str(error), real.name)}
        return facts | _beside(paths.sidecars_around(), paths.manifests_around())
    layout, problem = file.layout, _problem(file, recipe)
    return {
        **facts,
        **_samples(file),
        "frames": layout.frames,
        "seconds": round(layout.frames / max(1, layout.sample_rate), 3),
        "mark": _mark(recipe, [layout.frames], layout.channels * codings.CODINGS[file.coding]),
        "edit": _manner(file),
        "usable": problem is None,
        "problem": problem,
        **_beside(paths.sidecars_around(), paths.manifests_around()),
    }


def _inspect_npy(path: Path, recipe: Recipe, sample_rate: int | None) -> Facts:
    real = Path(os.path.realpath(path))
    with open(path, "rb") as file:
        layout = mapped.read_npy(file, str(path))
    return {
        "kind": "npy_array",
        "path": str(path),
        **_clips(layout.shape, layout.dtype, recipe, sample_rate),
        "order": layout.order,
        "edit": "samples_in_place",
        **_beside([sidecar_of(real)], [manifest_of(real)]),
    }


def _inspect_zarr(path: Path, recipe: Recipe, sample_rate: int | None) -> Facts:
    real = Path(os.path.realpath(path))
    array = sharded.open_exact(path)
    return {
        "kind": "zarr_array",
        "path": str(path),
        **_clips(array.shape, array.dtype, recipe, sample_rate),
        "written_by": "shards" if array.shards else "chunks",
        "written_shape": list(sharded.shards(array)),
        "edit": "whole_shards",
        "made_by_tasks": (path / sharded.TASKS).exists(),
        **_beside([sidecar_of(real)], [manifest_of(real)]),
    }


def _clips(dimensions: tuple[int, ...], dtype: np.dtype[Any], recipe: Recipe, sample_rate: int | None) -> Facts:
    """The facts about the clips of any kind of array."""
    n_clips, frames, channels = (*dimensions, 1)[:3]
    has_rate = isinstance(recipe, StrongRecipe)
    return {
        "dtype": dtype.name,
        "channels": channels,
        "sample_rate": check_rate(USUAL_RATE if sample_rate is None else sample_rate) if has_rate else None,
        "sample_rate_assumed": has_rate and sample_rate is None,
        "clips": n_clips,
        "frames": frames,
        "mark": _mark(recipe, [frames], channels * dtype.itemsize, n_clips),
        "usable": True,
        "problem": None,
    }


def _inspect_folder(path: Path, recipe: Recipe) -> Facts:
    names, others = listing.find_files(path)
    if not names:
        raise DatasetError(f"{path} has no audio files; give another folder.")
    files: list[AudioFile] = []
    unusable: list[Facts] = []
    for name in names:
        try:
            files.append(listing.read_layout(path, name))
            problem = _problem(files[-1], recipe)
        except AudioFileError as error:
            problem = _without_name(str(error), name)
        except OSError as error:
            problem = reason(error)
        if problem is not None:
            unusable.append({"name": name, "problem": problem})
    kinds = Counter(tuple(_samples(file).items()) for file in files)
    paths = Paths.of(path, None, None)
    return {
        "kind": "folder",
        "path": str(path),
        "audio_files": len(names),
        "other_files": len(others),
        "kinds": [{**dict(kind), "files": count} for kind, count in kinds.most_common()],
        "classes": _classes(Path(os.path.realpath(path)), names),
        "frames": sum(file.frames for file in files),
        "mark": _mark(recipe, [file.frames for file in files], None),
        "usable": not unusable,
        "problem": None,
        "unusable": unusable,
        "left_unprotected": len(unusable),
        **_beside(paths.sidecars_around(), paths.manifests_around()),
    }


def _classes(root: Path, names: Names) -> dict[str, int] | None:
    """Audio files by the name of their folder; None if some lie in none, so that labels come from elsewhere."""
    folders = Counter(os.path.basename(os.path.dirname(name)) for name in names)
    if set(folders) == {""}:
        return {root.name: len(names)}  # a folder that is itself a class
    return None if "" in folders else dict(sorted(folders.items()))


def _samples(file: AudioFile) -> Facts:
    """How a file's samples are stored."""
    layout = file.layout
    return {
        "format": layout.format if isinstance(layout, Encoding) else layout.container,
        "coding": file.coding,
        "channels": layout.channels,
        "sample_rate": layout.sample_rate,
        "lossy": file.lossy,
    }


def _problem(file: AudioFile, recipe: Recipe) -> str | None:
    """Why a file whose header can be read cannot be marked, without its name; None if it can."""
    if file.lossy:
        return LOSSY
    problem = listing.rate_problem(file.name, file.layout.sample_rate, recipe)
    if problem is None and isinstance(file.layout, Encoding):
        return encoded.writing_problem(file.layout)
    return None if problem is None else problem.removeprefix(file.name).lstrip()


def _without_name(problem: str, name: str) -> str:
    """The reason that an error of the library gives, in the words of the command."""
    reason = problem.removeprefix(f"{one_line(name)} cannot be used: ").removesuffix(".")
    return of_command(reason)


def _mark(recipe: Recipe, lengths: list[int], frame_bytes: int | None, n: int = 1) -> Facts:
    """What a recipe would change in clips of these lengths, `n` of each."""
    if isinstance(recipe, StrongRecipe):
        frames, facts = sum(lengths) * n, {"strength": recipe.strength, "level_db": round(level_db(recipe), 2)}
    elif isinstance(recipe, PaperRecipe):
        sizes, counts = shape(recipe, np.array(lengths, np.int64))
        frames, facts = int((sizes * counts).sum()) * n, {"patches": int(counts.sum()) * n}
    else:
        raise TypeError(f"recipe is a {type(recipe).__name__}; expected one of the two formats.")
    n_bytes = {} if frame_bytes is None else {"bytes": frames * frame_bytes}
    return {"format": recipe.format, **facts, "frames": frames, **n_bytes}


def _manner(file: AudioFile) -> str:
    """A code for how a file would be edited."""
    if file.lossy:
        return "flac_copy"
    return "encode_again" if isinstance(file.layout, Encoding) else "samples_in_place"


def _beside(sidecars: list[Path], manifests: list[Path]) -> Facts:
    """What lies beside data that were protected, whole or as part of others, the nearest first."""
    sidecars = [path for path in sidecars if os.path.lexists(path)]
    manifests = [path for path in manifests if path.is_file()]
    return {
        "sidecar": str(sidecars[0]) if sidecars else None,
        "sidecars": len(sidecars),
        "manifest": _manifest(manifests[0]) if manifests else None,
        "state": "unknown" if sidecars or manifests else None,
    }


def _manifest(path: Path) -> Facts:
    """What a manifest records, or why it cannot be read."""
    try:
        manifest = Manifest.read(path)
    except DatasetError as error:
        return {"path": str(path), "files": None, "fingerprint": None, "recipe": None, "problem": str(error)}
    return {
        "path": str(path),
        "files": len(manifest.files),
        "fingerprint": manifest.fingerprint,
        "recipe": manifest.recipe.to_dict(),
        "problem": None,
    }
