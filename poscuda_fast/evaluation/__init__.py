"""Test whether protection works on your files: small models train on them, clean and protected; needs PyTorch.

`evaluate` does all of it, on the clips of a `Folder` or an `Array`. No other part of the library imports torch.
"""

from __future__ import annotations

import importlib as _importlib
import typing as _typing

from poscuda_fast.errors import require as _require

if _typing.TYPE_CHECKING:
    from poscuda_fast.evaluation.sources import Array as Array
    from poscuda_fast.evaluation.sources import Folder as Folder
    from poscuda_fast.evaluation.study import evaluate as evaluate

# Loaded on first use: decoding files or reading a result needs no PyTorch.
_HOME = {"Array": "sources", "Folder": "sources", "evaluate": "study"}

__all__ = ["Array", "Folder", "evaluate"]


def __getattr__(name: str) -> _typing.Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _require("torch", "experiments")
    return getattr(_importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
