"""The backends as parameters of tests: NumPy's and numba's must be here, the others are tested where they are."""

from __future__ import annotations

import pytest

from poscuda_fast.kernels import BACKENDS, why_missing

OPTIONAL = {
    "native": [pytest.mark.skipif(why_missing("native") is not None, reason="the native kernels are not installed")],
    "cuda": [pytest.mark.needs_cuda],
}

each_backend = pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=OPTIONAL.get(name, [])) for name in BACKENDS]
)


def here() -> list[str]:
    """Those that can be used here."""
    return [name for name in BACKENDS if name not in OPTIONAL or why_missing(name) is None]
