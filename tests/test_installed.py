"""What the tests test is the installation, in this process and in those that it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import installed
import pytest

import poscuda_fast


def test_the_package_under_test_is_the_installed_one() -> None:
    assert installed.problem() is None


def test_a_package_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Elsewhere:
        def read_text(self, name: str) -> None:
            return None

        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(installed.metadata, "distribution", lambda name: Elsewhere())
    assert "run `pytest`, not `python -m pytest`" in str(installed.problem())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python knows PYTHONSAFEPATH from 3.11 on")
@pytest.mark.parametrize("folder", [installed.ROOT, Path()])
def test_children_import_it_from_any_folder(folder: Path) -> None:
    code = "import poscuda_fast; print(poscuda_fast.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == poscuda_fast.__file__


def test_modules_of_the_checkout_import_it_too() -> None:
    """Although they stand beside another one, which has no compiled kernels."""
    code = installed.run_module("benchmarks.stored")[2]
    code += "; import poscuda_fast; print(poscuda_fast.__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=installed.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == poscuda_fast.__file__
