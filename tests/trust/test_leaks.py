"""Whatever a run shows, keeps, logs, pickles or leaves behind, no secret is in it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audiofiles import contents
from leak_scenes import RECIPES, Scenes, names, prepare
from ledger import Ledger
from secret_search import Secrets

import poscuda_fast
from poscuda_fast import Key, SidecarError
from poscuda_fast.undo.journal import Journal

MASTER = hashlib.sha256(b"a key that the search knows").digest()
TESTS = Path(__file__).parents[1]
SCENES = [name for name in vars(Scenes) if name.startswith("scene_")]
DATA = ("wavs/", "copy/", "out/", "clips.npy")  # the data themselves are no leak


class Stage:
    """A folder with keys and data, and the search for all that is secret about them."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self.folder = folder
        self.secrets = Secrets(MASTER, prepare(folder), names(), RECIPES[recipe])
        Key(MASTER).save(folder / "my.key")
        Key(hashlib.sha256(b"another").digest()).save(folder / "other.key")
        (folder / "kept").mkdir()

    def add_journal_keys(self) -> None:
        """What only the sidecar's key opens is secret too."""
        for sidecar in (
            self.folder / "clips.npy.poscuda",
            self.folder / "copy.poscuda",
            self.folder / "wavs.poscuda",
        ):
            if sidecar.exists() and sidecar.stat().st_size:
                try:
                    with Journal(sidecar, Key(MASTER)) as journal:
                        if journal._log is not None:
                            self.secrets.add_bytes("a journal key", journal._log._keys._journal)
                except SidecarError:
                    continue

    def hits(self, ledger: Ledger) -> list[str]:
        """Every secret in every file but the data and the keys; counted."""
        found = []
        for name, content in contents(self.folder, hidden=True).items():
            if name.endswith(".key"):
                continue
            is_data = name.startswith(DATA) and not name.endswith((".poscuda", "-journal", ".json"))
            hits = self.secrets.find(content, originals=not is_data)
            place = name.split("/")[-1].split(" ")[0] if name.startswith("kept/") else "files"
            ledger.count("leaks", scanned=1, bytes=len(content), hits=len(hits), places=place)
            found += [f"{hit} in {name}" for hit in hits]
        return found


@pytest.mark.guards("I11")
@pytest.mark.parametrize("recipe", [pytest.param("1", marks=pytest.mark.slow), "2"])
@pytest.mark.parametrize("scene", SCENES)
def test_no_scene_shows_a_secret(tmp_path: Path, ledger: Ledger, scene: str, recipe: str) -> None:
    stage = Stage(tmp_path, recipe)
    package = Path(poscuda_fast.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, str(TESTS / "trust/leak_scenes.py"), str(tmp_path), scene, recipe],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (package, TESTS)))},
        capture_output=True,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if "killed" in scene else 0), done.stderr.decode()
    (tmp_path / "kept" / "stdout").write_bytes(done.stdout)
    (tmp_path / "kept" / "stderr").write_bytes(done.stderr)
    before = contents(tmp_path, hidden=True)  # opening a sidecar takes a hot journal away
    assert before
    assert stage.hits(ledger) == []
    stage.add_journal_keys()
    assert stage.hits(ledger) == []


COMMANDS = """
keygen new.key
protect wavs out --key my.key --dry-run
protect wavs out --key my.key --json
protect wavs --in-place --key my.key
protect wavs --in-place --key other.key
verify out --key my.key
verify out
verify out --key other.key
restore wavs --key my.key --json
restore out --key other.key
protect clips.npy --in-place --key my.key --labels labels.npy --patch 60 --paper
verify clips.npy --key my.key
restore clips.npy --key my.key
inspect wavs/a/0.wav --json
inspect clips.npy
inspect my.key
drop-undo out --key my.key --yes
doctor
protect missing out2 --key my.key
protect wavs out --key missing.key
""".strip().splitlines()


@pytest.mark.slow
@pytest.mark.guards("I11")
def test_no_command_shows_a_secret(tmp_path: Path, ledger: Ledger) -> None:
    stage = Stage(tmp_path, "2")
    np.save(tmp_path / "labels.npy", np.arange(6) % 3)
    for number, line in enumerate(COMMANDS):
        code = "from poscuda_fast.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *line.split()],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        kept = tmp_path / "kept"
        time.sleep(0.02)
        for name in ("cmdline", "environ"):
            source = Path(f"/proc/{process.pid}/{name}")
            if source.exists():
                (kept / f"{name} {number}").write_bytes(source.read_bytes())
        stdout, stderr = process.communicate()
        assert b"Traceback" not in stderr
        assert process.returncode in (0, 1, 2), line
        (kept / f"stdout {number}").write_bytes(stdout)
        (kept / f"stderr {number}").write_bytes(stderr)
    assert stage.hits(ledger) == []


# The search has to find what is there


def in_text(values: np.ndarray) -> bytes:
    return repr(values.tolist()).encode()


PLANTED: dict[str, Callable[[Key, list[np.ndarray]], bytes]] = {
    "the key": lambda key, clips: MASTER,
    "the key in hexadecimal": lambda key, clips: MASTER.hex().encode(),
    "the key in capitals": lambda key, clips: MASTER.hex().upper().encode(),
    "the key in base64": lambda key, clips: base64.b64encode(b"1" + MASTER + b"2345"),
    "the key in a URL": lambda key, clips: base64.urlsafe_b64encode(b"12" + MASTER),
    "the key as Python shows it": lambda key, clips: repr(b"12" + MASTER).encode(),
    "the key as a list": lambda key, clips: json.dumps([5, *MASTER, 7]).encode(),
    "a derived key": lambda key, clips: key.derive(b"sidecar", b"wrap", length=32),
    "a patch": lambda key, clips: patch_of(key, clips).tobytes(),
    "a patch in text": lambda key, clips: in_text(patch_of(key, clips)),
    "a patch as NumPy shows it": lambda key, clips: repr(patch_of(key, clips)).encode(),
    "positions": lambda key, clips: in_text(plan_of(key, clips).of_clip(0).starts),
    "positions as NumPy shows them": lambda key, clips: repr(plan_of(key, clips).of_clip(0).starts).encode(),
    "positions as bytes": lambda key, clips: plan_of(key, clips).of_clip(0).starts.tobytes(),
    "positions as other bytes": lambda key, clips: plan_of(key, clips).of_clip(0).starts.astype(">i4").tobytes(),
    "a mark": lambda key, clips: plan_of(key, clips).marks.taps[0].tobytes(),
    "a mark in doubles": lambda key, clips: plan_of(key, clips).marks.taps[1].astype(float).tobytes(),
    "a mark in text": lambda key, clips: in_text(plan_of(key, clips).marks.taps[0]),
    "a mark as NumPy shows it": lambda key, clips: repr(plan_of(key, clips).marks.taps[0]).encode(),
}


def plan_of(key: Key, clips: list[np.ndarray]) -> poscuda_fast.mark.plan.Plan:
    from poscuda_fast.mark.plan import make_plan

    return make_plan(key, RECIPES["1"], names(), None, np.array([len(clip) for clip in clips]))


def patch_of(key: Key, clips: list[np.ndarray]) -> np.ndarray:
    patches = plan_of(key, clips).of_clip(1)
    return clips[1][patches.starts[2] : patches.starts[2] + patches.sizes[2]]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[np.ndarray], Secrets]:
    clips = prepare(tmp_path_factory.mktemp("searched"))
    return clips, Secrets(MASTER, clips, names(), RECIPES["1"])


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_the_search_finds_what_is_planted(
    searched: tuple[list[np.ndarray], Secrets], planted: Callable[[Key, list[np.ndarray]], bytes]
) -> None:
    clips, secrets = searched
    assert secrets.find(b"before " + planted(Key(MASTER), clips) + b" behind")
    assert secrets.find(b"before nothing behind" * 50) == []


@pytest.mark.slow
def test_without_its_guard_a_traceback_shows_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leak_scenes import Kept

    from poscuda_fast import secrecy

    monkeypatch.setattr(secrecy, "_clear", lambda traceback, callers: True)
    stage = Stage(tmp_path, "1")
    scenes = Scenes(tmp_path, RECIPES["1"], Kept(tmp_path / "kept"))
    for line in range(1, 1500, 9):
        with scenes.failing_at(line, OSError):
            try:
                scenes.protect()
            except OSError as error:
                scenes.kept.error(error)
    found = {
        hit for path in (tmp_path / "kept").iterdir() if path.name[:5] in ("local", "trace")
        for hit in stage.secrets.find(path.read_bytes())
    }  # fmt: skip
    assert found
