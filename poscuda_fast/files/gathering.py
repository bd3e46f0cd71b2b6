"""Gathers the audio files that are to be marked: each has a label and can be marked, or is named with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from poscuda_fast.errors import AudioFileError, DatasetError
from poscuda_fast.files import encoded, label_sources, listing, preflight
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.table import FileTable, is_encoded, is_lossy
from poscuda_fast.key import holds_key
from poscuda_fast.recipe import Recipe
from poscuda_fast.system_errors import sentence

Label = str | int
Map = Callable[[Callable[[str], str | None], Sequence[str]], Iterable[str | None]]


class Gathered(NamedTuple):
    """What a run is about.

    Attributes
    ----------
    files : FileTable
        The files to mark.
    labels : list of str or int
        The label of each.
    others : list of str
        Names of files that are not audio, or are left unprotected, in order.
    left_out : dict
        Name and reason of what `partial` leaves out.
    unprotected : dict
        Name and reason of audio that `skip_unusable` leaves unprotected.
    """

    files: FileTable
    labels: list[Label]
    others: list[str]
    left_out: dict[str, str]
    unprotected: dict[str, str]


def gather(
    paths: Paths,
    labels_from: str | Mapping[str, Label],
    recipe: Recipe,
    *,
    lossy: str = "refuse",
    known: Callable[[str], bool] = lambda _: False,
    editing: bool = False,
    partial: bool = False,
    skip_unusable: bool = False,
    mapped: Map = map,
) -> Gathered:
    """List what lies at the source, with labels, and find what cannot be used, all of it at once.

    Encoded files that are not `known`, by their names in the target, are decoded to their end. `lossy` is what becomes
    of lossy files. With `editing`, files must be such that they can be edited in place. `mapped` is what `map` does,
    or does it in threads.

    Raises
    ------
    DatasetError
        There is no audio, or none that can be used; a key lies among the files; labels do not fit; or files cannot be
        used, unless `partial` or `skip_unusable` allow to go on without them. The message names them.
    """
    odd: dict[str, str] = {}
    names, others = paths.find(left_out=odd)
    _refuse_keys(paths, others)
    unusable: dict[str, str] = {}
    found = FileTable()
    for name in names:
        try:
            found.append(listing.read_layout(paths.source, name))
        except AudioFileError as error:
            unusable[name] = str(error)
        except OSError as error:
            unusable[name] = sentence(error)
    for name, problem in _problems(paths, found, recipe, lossy, known, mapped):
        unusable.setdefault(name, problem)
    if editing:
        odd.update(preflight.unsafe(paths.root, found))
    if not partial:
        problems = [*odd.values(), *(() if skip_unusable else unusable.values())]
        listing.refuse(problems, f"{len(problems)} of {len(names) + len(odd)} files in {paths.data} cannot be used")
    found = FileTable(file for file in found if file.name not in unusable) if unusable else found
    found = FileTable(file for file in found if file.name not in odd) if odd else found
    if not found:
        reasons = [*odd.values(), *unusable.values()]
        listing.refuse(reasons, f"None of the {len(names)} audio files in {paths.data} can be used")
    left = {name: unusable.pop(name) for name in list(unusable)} if not skip_unusable else {}
    labels = label_sources.find_labels(
        paths.source, found.names, labels_from, also={*odd, *left, *unusable}, whole=paths.only is None
    )
    return Gathered(found, labels, sorted([*others, *unusable]) if unusable else list(others), odd | left, unusable)


def _refuse_keys(paths: Paths, others: Iterable[str]) -> None:
    keys = [name for name in others if holds_key(paths.source / name)]
    listing.refuse(
        [f"{name} holds a key; move it out of the folder" for name in keys],
        f"Anyone who gets {paths.target} would get a key with it",
    )


def _problems(
    paths: Paths,
    files: FileTable,
    recipe: Recipe,
    lossy: str,
    known: Callable[[str], bool],
    mapped: Map,
) -> Iterator[tuple[str, str]]:
    """(name, problem) of files that cannot be marked though their headers can be read."""
    yield from listing.unmarkable(files, recipe)
    if lossy == "refuse":
        for file in files.of(is_lossy):
            problem = (
                f"{file.name} is lossy, so it cannot be edited exactly; a copy can turn it into FLAC (lossy='flac'), "
                f"or leave it unprotected (skip_unusable=True)"
            )
            yield file.name, problem
    yield from preflight.unwritable(files)
    new = [file.name for file in files.of(is_encoded) if not (file.lossy and lossy == "refuse")]
    new = [name for name in new if not known(name)]
    for name, reason in zip(new, mapped(lambda name: _undecodable(paths.source, name), new), strict=True):
        if reason is not None:
            yield name, reason


def _undecodable(root: Path, name: str) -> str | None:
    """Why a file cannot be decoded to its end; None if it can."""
    try:
        with encoded.opened(f"{root}/{name}") as source:
            encoded.examine(source, name)
    except (AudioFileError, DatasetError) as error:
        return str(error)
    except OSError as error:
        return sentence(error)
    return None
