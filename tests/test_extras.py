"""What doctor says of extras is read from metadata, and right for every kind of requirement."""

from __future__ import annotations

import email.message
import platform
import subprocess
import sys
from importlib import metadata

import pytest

from poscuda_fast.cli import doctor, extras

INSTALLED = {"ray": "2.40.1", "pyarrow": "16.1", "torch": "2.13.0+cpu", "numba-cuda": "0.30", "numpy": "2.0.0"}
REQUIRES = {
    "poscuda-fast": [
        "numpy>=2.0",
        'pyarrow>=17; extra == "parquet"',
        "absent-one >= 1 ; extra == 'single'",
        'torch<2.15,>=2.11; extra == "torch"',
        'torch (>=2.13.0) ; extra == "old_style"',
        'poscuda-fast[parquet,torch]; extra == "all"',
        'poscuda-fast[circle]; extra == "circle"',
        'numba-cuda[cu12]>=0.30; extra == "cuda12"',
        'absent>=3; python_version < "3.2" and extra == "past"',
        'absent>=3; python_version >= "3.10" and extra == "present"',
        'absent>=3; (sys_platform == "none" or os_name != "none") and extra == "either"',
        'absent>=3; python_version ~= "3.10" and extra == "strange"',
        'absent @ https://example.org/absent-1.whl ; extra == "address"',
        'ray==2.40.*; extra == "pattern"',
        'pyarrow~=16.0; extra == "near"',
        'ray!=2.40.1; extra == "not-this"',
        'not a requirement; extra == "unreadable"',
    ],
    "numba-cuda": ["numpy", 'cuda-parts; extra == "cu12"', 'cuda-more; sys_platform == "none" and extra == "cu12"'],
}


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    named = email.message.Message()
    for name in ("parquet", "single", "torch", "old-style", "all", "circle", "cuda12", "past", "present", "either",
                 "strange", "address", "pattern", "near", "not-this", "unreadable"):  # fmt: skip
        named["Provides-Extra"] = name

    def version(name: str) -> str:
        if name not in INSTALLED | REQUIRES:
            raise metadata.PackageNotFoundError(name)
        return INSTALLED.get(name, "0.1.0")

    monkeypatch.setattr(metadata, "metadata", lambda name: named)
    monkeypatch.setattr(metadata, "requires", REQUIRES.get)
    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize(
    ("extra", "lacking"),
    [
        ("parquet", "pyarrow>=17 (here is 16.1)"),
        ("single", "absent-one"),
        ("torch", None),
        ("old-style", None),
        ("all", "pyarrow>=17 (here is 16.1)"),
        ("circle", None),
        ("cuda12", "cuda-parts"),
        ("present", "absent"),
        ("either", "absent"),
        ("strange", "absent"),
        ("address", "absent"),
        ("pattern", None),
        ("near", None),
        ("not-this", "ray!=2.40.1 (here is 2.40.1)"),
        ("unreadable", None),
    ],
)
@pytest.mark.usefixtures("described")
def test_a_state_tells_what_is_missing_and_how_to_get_it(extra: str, lacking: str | None) -> None:
    expected = (
        None if lacking is None else f"missing {lacking}; run pip install '.[{extra}]' in a checkout of poscuda_fast"
    )
    assert extras.problems()[extra] == expected


@pytest.mark.usefixtures("described")
def test_an_extra_that_is_not_for_this_python_says_so() -> None:
    here = f"Python {platform.python_version()} on {sys.platform}"
    assert extras.problems()["past"] == f'not for {here}: it needs python_version < "3.2"'


def test_the_real_metadata_is_understood() -> None:
    """What the tests themselves need is here; and no requirement is read as one of all extras or of none."""
    problems = extras.problems()
    assert problems["test"] is None
    asked = list(extras._requirements("poscuda-fast"))
    assert len(asked) == len(metadata.requires("poscuda-fast") or [])
    assert all(any(extras._is_of(each, extra) for each in asked) for extra in problems)
    found = doctor.examine()["extras"]
    assert found == {name: {"ok": text is None, "problem": text} for name, text in problems.items()}


def test_asking_imports_no_package_of_an_extra() -> None:
    code = "from poscuda_fast.cli import extras; import sys; extras.problems(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"dask", "datasets", "matplotlib", "numba", "numpy", "pyarrow", "pytest", "ray", "scipy", "torch"}
    assert not heavy & set(done.stdout.split())
