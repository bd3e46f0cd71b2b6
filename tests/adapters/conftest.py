"""The tests of the adapters; skipped as a whole where their packages are missing, unless POSCUDA_REQUIRE_ADAPTERS=1."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from poscuda_fast import Key

NEEDED = {
    "test_huggingface.py": ("datasets",),
    "test_parquet.py": ("pyarrow",),
    "test_ray_data.py": ("ray", "pyarrow"),
    "test_torch_data.py": ("torch",),
    "test_zarr_arrays.py": ("zarr",),
    "test_zarr_by_path.py": ("zarr",),
    "test_zarr_hostile.py": ("zarr",),
}
missing = {test: [name for name in names if importlib.util.find_spec(name) is None] for test, names in NEEDED.items()}
collect_ignore = [test for test, names in missing.items() if names]
if collect_ignore and os.environ.get("POSCUDA_REQUIRE_ADAPTERS") == "1":
    raise ImportError(f"The tests of the adapters need more: {missing}; run pip install '.[adapters]'.")


def pytest_report_header() -> str | None:
    if collect_ignore:
        return f"{', '.join(collect_ignore)} of tests/adapters are skipped: run pip install '.[adapters]'"
    return None


@pytest.fixture
def key_file(tmp_path: Path, key: Key) -> Path:
    key.save(tmp_path / "my.key")
    return tmp_path / "my.key"
