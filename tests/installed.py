"""The package under test is the installed one; what else the checkout holds stands behind it on the path."""

from __future__ import annotations

import json
import os
import sys
import warnings
from importlib import metadata
from pathlib import Path

import poscuda_fast
from poscuda_fast.kernels import why_missing

ROOT = Path(__file__).parents[1]


def problem() -> str | None:
    """Why these tests would not test the installation, as a sentence; None if they do."""
    package = Path(poscuda_fast.__file__).parent
    try:
        installed = metadata.distribution("poscuda-fast")
    except metadata.PackageNotFoundError:
        return "poscuda-fast is not installed here: run pip install '.[test]'."
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    editable = origin.get("dir_info", {}).get("editable", False)
    wanted = Path(ROOT if editable else str(installed.locate_file(""))) / "poscuda_fast"
    if package.resolve() != wanted.resolve():
        return (
            f"The package that would be tested is {package}, and the installed one is {wanted}: "
            "run `pytest`, not `python -m pytest`, and take the checkout out of PYTHONPATH."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            missing = why_missing("native")
    except RuntimeWarning as stale:
        return str(stale)
    return missing if os.environ.get("POSCUDA_REQUIRE_NATIVE") == "1" else None


def run_module(name: str, *arguments: object) -> list[str]:
    """The command of `python -m name`, for a module of the checkout, with the installed package before it."""
    code = (
        "import runpy, sys; "
        f"sys.path[:] = [*filter(None, sys.path), {str(ROOT)!r}]; "
        f"runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", code, *map(str, arguments)]
