"""Many files and large arrays: memory and progress are as they should be, and Ctrl-C leaves what can be finished."""

from __future__ import annotations

import os
from pathlib import Path

import load
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read off /proc")

MIB_FOR_A_START = 64
BYTES_A_FILE = 2_500  # the list of files, their labels and what the manifest tells of each


@pytest.mark.slow
@pytest.mark.parametrize("n_files", [1_000, pytest.param(10_000, marks=pytest.mark.trust)])
def test_a_folder_of_many_files(tmp_path: Path, n_files: int) -> None:
    found = load.folder(tmp_path, n_files, 1, np.random.default_rng(n_files))
    right = found["wrong"] == 0 and found["ends"]
    right = right and found["peak_mib"] < MIB_FOR_A_START + n_files * BYTES_A_FILE / load.MEBIBYTE
    assert right, found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="this system does not tell holes")
@pytest.mark.parametrize("gigabytes", [1, pytest.param(20, marks=pytest.mark.trust)])
def test_a_part_of_a_sparse_array(tmp_path: Path, gigabytes: int) -> None:
    found = load.sparse(tmp_path, gigabytes, 1, np.random.default_rng(gigabytes))
    right = found["wrong"] == 0 and found["ends"] and found["peak_mib"] < MIB_FOR_A_START
    assert right, found
