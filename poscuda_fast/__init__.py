"""Make audio data sets unlearnable in place, prove it, and undo it with the key.

    import poscuda_fast as pf

    key = pf.Key.generate()
    key.save("my.key")                                # keep it secret and backed up
    pf.protect_folder("recordings", "protected", key)  # a copy; the labels are the folders' names
    pf.verify_folder("protected", key).ok
    pf.restore_folder("protected", key)               # every byte back

`protect_folder` takes audio files, `protect_array` (also called `protect_memmap`) arrays in files, and `protect` arrays
in memory or on a GPU; `Protector` and `poscuda_fast.adapters` are for data sets in frameworks. Each protects with
`Recipe.strong()`, the default, or with `Recipe.paper()`, the method as published. `poscuda_fast.evaluation.evaluate`
measures on your own data whether it works.
"""

from __future__ import annotations

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from poscuda_fast.arrays.memory import protect as protect
    from poscuda_fast.arrays.originals import originals_of_array as originals_of_array
    from poscuda_fast.arrays.verbs import protect_array as protect_array
    from poscuda_fast.arrays.verbs import protect_memmap as protect_memmap
    from poscuda_fast.arrays.verbs import restore_array as restore_array
    from poscuda_fast.arrays.verbs import restore_memmap as restore_memmap
    from poscuda_fast.arrays.verbs import verify_array as verify_array
    from poscuda_fast.arrays.verbs import verify_memmap as verify_memmap
    from poscuda_fast.errors import AudioFileError as AudioFileError
    from poscuda_fast.errors import BusyError as BusyError
    from poscuda_fast.errors import DatasetError as DatasetError
    from poscuda_fast.errors import KeyFileError as KeyFileError
    from poscuda_fast.errors import LabelWarning as LabelWarning
    from poscuda_fast.errors import PoscudaError as PoscudaError
    from poscuda_fast.errors import SidecarError as SidecarError
    from poscuda_fast.errors import UnprotectedWarning as UnprotectedWarning
    from poscuda_fast.files.originals import originals_of_folder as originals_of_folder
    from poscuda_fast.files.verbs import protect_folder as protect_folder
    from poscuda_fast.files.verbs import restore_folder as restore_folder
    from poscuda_fast.files.verbs import verify_folder as verify_folder
    from poscuda_fast.key import Key as Key
    from poscuda_fast.ownership import Ownership as Ownership
    from poscuda_fast.ownership import ownership_test as ownership_test
    from poscuda_fast.protector import Protector as Protector
    from poscuda_fast.recipe import PaperRecipe as PaperRecipe
    from poscuda_fast.recipe import Recipe as Recipe
    from poscuda_fast.recipe import StrongRecipe as StrongRecipe
    from poscuda_fast.results import Report as Report
    from poscuda_fast.results import Verdict as Verdict
    from poscuda_fast.results import Verification as Verification
    from poscuda_fast.statement import Statement as Statement
    from poscuda_fast.statement import ownership_statement as ownership_statement
    from poscuda_fast.undo.final import drop_undo as drop_undo

__version__ = "0.1.0"

# Loaded on first use, so that importing the package stays quick.
_HOMES = {
    "arrays.memory": ("protect",),
    "arrays.originals": ("originals_of_array",),
    "arrays.verbs": (
        "protect_array", "protect_memmap", "restore_array", "restore_memmap", "verify_array", "verify_memmap",
    ),
    "errors": (
        "AudioFileError", "BusyError", "DatasetError", "KeyFileError", "LabelWarning", "PoscudaError", "SidecarError",
        "UnprotectedWarning",
    ),
    "files.originals": ("originals_of_folder",),
    "files.verbs": ("protect_folder", "restore_folder", "verify_folder"),
    "key": ("Key",),
    "ownership": ("Ownership", "ownership_test"),
    "protector": ("Protector",),
    "recipe": ("PaperRecipe", "Recipe", "StrongRecipe"),
    "results": ("Report", "Verdict", "Verification"),
    "statement": ("Statement", "ownership_statement"),
    "undo.final": ("drop_undo",),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> _typing.Any:
    if name in ("adapters", "evaluation", "reporting"):  # rooms with names that README uses
        return _importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
