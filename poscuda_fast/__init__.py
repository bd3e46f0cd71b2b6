"""Make audio data sets unlearnable in place, prove it, and undo it with the key.

Names are loaded on first use, so that importing the package stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poscuda_fast.errors import AudioFileError as AudioFileError
    from poscuda_fast.errors import BusyError as BusyError
    from poscuda_fast.errors import DatasetError as DatasetError
    from poscuda_fast.errors import KeyFileError as KeyFileError
    from poscuda_fast.errors import PoscudaError as PoscudaError
    from poscuda_fast.errors import SidecarError as SidecarError
    from poscuda_fast.final import drop_undo as drop_undo
    from poscuda_fast.folder import protect_folder as protect_folder
    from poscuda_fast.folder import restore_folder as restore_folder
    from poscuda_fast.folder import verify_folder as verify_folder
    from poscuda_fast.key import Key as Key
    from poscuda_fast.memmap import protect_memmap as protect_memmap
    from poscuda_fast.memmap import restore_memmap as restore_memmap
    from poscuda_fast.memmap import verify_memmap as verify_memmap
    from poscuda_fast.memory import protect as protect
    from poscuda_fast.ownership import Ownership as Ownership
    from poscuda_fast.ownership import ownership_test as ownership_test
    from poscuda_fast.protector import Protector as Protector
    from poscuda_fast.recipe import PaperRecipe as PaperRecipe
    from poscuda_fast.recipe import Recipe as Recipe
    from poscuda_fast.recipe import StrongRecipe as StrongRecipe
    from poscuda_fast.report import Report as Report
    from poscuda_fast.verification import Verification as Verification

__version__ = "0.1.0"

_HOME = {
    "AudioFileError": "errors",
    "BusyError": "errors",
    "DatasetError": "errors",
    "Key": "key",
    "KeyFileError": "errors",
    "Ownership": "ownership",
    "PaperRecipe": "recipe",
    "PoscudaError": "errors",
    "Protector": "protector",
    "Recipe": "recipe",
    "Report": "report",
    "SidecarError": "errors",
    "StrongRecipe": "recipe",
    "Verification": "verification",
    "drop_undo": "final",
    "ownership_test": "ownership",
    "protect": "memory",
    "protect_folder": "folder",
    "protect_memmap": "memmap",
    "restore_folder": "folder",
    "restore_memmap": "memmap",
    "verify_folder": "folder",
    "verify_memmap": "memmap",
}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
