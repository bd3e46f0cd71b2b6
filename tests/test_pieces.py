"""Long files: the same bytes as in one piece, whole after a kill between any two pieces, and little memory."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import audiofiles
import numpy as np
import pytest
import soundfile
from audiofiles import chunk, contents, in_child, noise, wav, write_tree

from poscuda_fast import DatasetError, Key, Recipe, SidecarError, protect_folder, restore_folder, verify_folder
from poscuda_fast.files import pieces, target
from poscuda_fast.files.encoded import Reader, decode
from poscuda_fast.files.kept import KeptFile, KeptPiece
from poscuda_fast.files.originals import originals_of_folder
from poscuda_fast.files.paths import Paths
from poscuda_fast.files.records import Record
from poscuda_fast.files.target import recorded
from poscuda_fast.undo.journal import Journal, Kind
from poscuda_fast.undo.steps import Records

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
both_ways = pytest.mark.parametrize("copying", [True, False], ids=["copy", "in place"])
recipes = pytest.mark.parametrize(
    "recipe", [Recipe.strong(), Recipe.paper(patch=50, blur=0.3, every=90), Recipe.paper(patch=900)], ids=str
)
EXTRA = chunk(b"LIST", b"INFO" + bytes(5001))


def write_files(root: Path) -> dict[str, bytes]:
    """Two files of each of several kinds: long ones, and short ones before, between and behind them."""
    write_tree(root, {
        "no/a.wav": wav(noise(40)),
        "no/b.wav": wav(noise(3000, 2, "PCM_24"), "PCM_24", 44100, before=EXTRA, after=EXTRA),
        "yes/d.wav": wav(noise(4000, 1, "FLOAT"), "FLOAT", 8000),
        "yes/e.wav": wav(noise(50)),
    })  # fmt: skip
    audiofiles.encoded(root / "no/c.flac", noise(5000, 2), "FLAC", "PCM_16", 22050, title="c")
    audiofiles.encoded(root / "yes/f.aiff", noise(3000, 1, "PCM_24"), "AIFF", "PCM_24")
    audiofiles.encoded(root / "yes/g.flac", noise(60), "FLAC", "PCM_16")
    return contents(root)


def manifest_of(root: Path) -> dict[str, Any]:
    return json.loads(root.with_name(f"{root.name}.poscuda.json").read_bytes())


def recorded_parts(root: Path, key: Key) -> list[Record]:
    """The pieces that a sidecar records, in order."""
    paths = Paths.of(root, None, None)
    with Journal(paths.sidecar, key) as journal, contextlib.closing(recorded(journal, paths, None)) as target:
        return [record for one in Records(journal, target) for record in one.batch.records]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1500)
    monkeypatch.setattr(target, "KEPT_BYTES", 1500)
    monkeypatch.setattr(target, "PIECES_PER_BATCH", 3)


@pytest.fixture
def whole(tmp_path: Path, key: Key, request: pytest.FixtureRequest) -> dict[str, bytes]:
    """The files as protecting leaves them without division."""
    callspec = getattr(request.node, "callspec", None)
    recipe = Recipe.strong() if callspec is None else callspec.params.get("recipe", Recipe.strong())
    write_files(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(pieces, "PIECE_BYTES", 1 << 20)
        patching.setattr(target, "KEPT_BYTES", 1 << 20)
        protect_folder(tmp_path / "whole", None, key, recipe=recipe)
    return contents(tmp_path / "whole")


@recipes
@pytest.mark.usefixtures("small_pieces")
def test_files_in_pieces_become_what_they_become_whole(tmp_path, key, whole, recipe):
    root = tmp_path / "src"
    before = write_files(root)
    seen: list[tuple[int, int]] = []
    report = protect_folder(root, None, key, recipe=recipe, progress=lambda *n: seen.append(n))
    assert seen == sorted(seen)
    assert (seen[-1], {total for _, total in seen}) == ((7, 7), {7})
    assert contents(root) == whole
    assert manifest_of(root) == manifest_of(tmp_path / "whole")
    parts = recorded_parts(root, key)
    assert sum(record.name == "no/b.wav" for record in parts) > 10
    assert sum(record.name == "no/c.flac" for record in parts) > 5
    assert [parts[n].begin for n in range(1, len(parts)) if parts[n].begin] == [
        parts[n - 1].end for n in range(1, len(parts)) if parts[n].begin
    ]
    found = verify_folder(root, key)
    assert (found.protected, found.ok) == (7, True)
    assert protect_folder(root, None, key, recipe=recipe).state == "already protected"
    originals = {name: original for name, _, original, now in originals_of_folder(root, key) if now == whole[name]}
    assert originals == before
    assert restore_folder(root, key).frames_changed == report.frames_changed
    assert contents(root) == before
    assert verify_folder(root, key).original == 7


def kill_at(moment: int, *, after: bool) -> None:
    """Kill this process before or after record number `moment` is durable; the first is that of the first batch."""
    real = Journal.append
    count = iter(range(1000))

    def append(self: Journal, kind: Kind, payload: bytes) -> None:
        deadly = next(count) == moment
        if deadly and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, kind, payload)
        if deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append  # type: ignore[method-assign]


@needs_fork
@pytest.mark.parametrize("moment", [0, 1, 3, 6, 8, 10, 12, 13])
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.usefixtures("small_pieces")
def test_a_run_that_was_killed_between_pieces(tmp_path, key, whole, moment, after):
    root, copy = tmp_path / "src", tmp_path / "restored"
    before = write_files(root)
    call = functools.partial(protect_folder, root, None, key)

    def stopped() -> None:
        kill_at(moment, after=after)
        call()

    assert in_child(stopped) == -signal.SIGKILL
    stopped_there = verify_folder(root, key)
    assert stopped_there.state == "applying"
    assert set(stopped_there.neither) <= {"no/b.wav", "yes/d.wav"}
    subprocess.run(["cp", "-a", root, copy], check=True)
    subprocess.run(["cp", "-a", f"{root}.poscuda", f"{copy}.poscuda"], check=True)
    assert restore_folder(copy, key).state == "restored"
    assert contents(copy, hidden=True) == before

    # Killed once more, a little later, then finished.
    def stopped_again() -> None:
        kill_at(1, after=not after)
        call()

    assert in_child(stopped_again) in (-signal.SIGKILL, 0)
    assert call().state in ("protected", "already protected")
    assert contents(root, hidden=True) == whole
    assert manifest_of(root) == manifest_of(tmp_path / "whole")
    assert verify_folder(root, key).ok
    assert restore_folder(root, key).state == "restored"
    assert contents(root, hidden=True) == before


@needs_fork
@pytest.mark.parametrize("at", [8, 9, 10, 12])
@pytest.mark.usefixtures("small_pieces")
def test_a_restore_that_was_killed_between_files(tmp_path, key, at):
    root = tmp_path / "src"
    before = write_files(root)
    protect_folder(root, None, key)
    assert in_child(lambda: restore_folder(root, key, progress=audiofiles.killer(at))) == -signal.SIGKILL
    assert restore_folder(root, key).state == "restored"
    assert contents(root, hidden=True) == before


@needs_fork
@pytest.mark.parametrize(("name", "moment", "byte"), [("no/b.wav", 3, 5100), ("no/c.flac", 9, 60)])
@pytest.mark.usefixtures("small_pieces")
def test_a_long_file_that_changed_after_a_kill_is_refused(tmp_path, key, name, moment, byte):
    src = tmp_path / "src"
    write_files(src)

    def stopped() -> None:
        kill_at(moment, after=True)
        protect_folder(src, None, key)

    assert in_child(stopped) == -signal.SIGKILL
    ends = [record.end for record in recorded_parts(src, key) if record.name == name]
    content = bytearray((src / name).read_bytes())
    assert byte < ends[-1] < len(content)
    content[byte] ^= 1
    (src / name).write_bytes(content)
    before = contents(src)
    with pytest.raises((DatasetError, SidecarError), match=r"changed|cannot be used"):
        protect_folder(src, None, key)
    assert contents(src) == before


@pytest.mark.usefixtures("small_pieces")
def test_a_file_of_which_a_part_was_put_back_is_finished_either_way(tmp_path, key, whole):
    root = tmp_path / "src"
    before = write_files(root)
    protect_folder(root, None, key)
    path = root / "no/b.wav"
    marked = path.read_bytes()
    for verb, done, after in ((protect_folder, "protected", whole), (restore_folder, "restored", before)):
        path.write_bytes(before["no/b.wav"][:9000] + marked[9000:])
        assert verify_folder(root, key).neither == ("no/b.wav",)
        arguments = (root, None, key) if verb is protect_folder else (root, key)
        assert verb(*arguments).state == done
        assert contents(root) == after


@pytest.mark.usefixtures("small_pieces")
def test_one_changed_piece_is_one_changed_file(tmp_path, key, whole):
    root = tmp_path / "src"
    before = write_files(root)
    protect_folder(root, None, key)
    path = root / "no/b.wav"
    marked = path.read_bytes()
    path.write_bytes(marked[:-1] + b"x")  # outside the samples: nobody watches that
    assert verify_folder(root, key).ok
    assert protect_folder(root, None, key).state == "already protected"
    path.write_bytes(marked[:9000] + bytes([marked[9000] ^ 0xFF]) + marked[9001:])
    assert verify_folder(root, key).neither == ("no/b.wav",)
    for verb, arguments in ((protect_folder, (root, None, key)), (restore_folder, (root, key))):
        with pytest.raises(SidecarError, match=r"1 files or clips .*:\n  no/b\.wav$"):
            verb(*arguments)
    assert contents(root) == {**whole, "no/b.wav": path.read_bytes()}
    report = restore_folder(root, key, partial=True)
    assert (report.state, len(report.left_out)) == ("partly restored", 1)
    path.write_bytes(marked)
    assert restore_folder(root, key).state == "restored"
    assert contents(root) == before


# The original of an encoded file, as the sidecar keeps it


def kept(content: bytes, size: int) -> list[KeptPiece]:
    return [
        KeptPiece(n, min(n + size, len(content)), lambda n=n: content[n : n + size])
        for n in range(0, len(content), size)
    ]


def test_the_original_of_a_long_file_is_read_anywhere(tmp_path):
    audiofiles.encoded(tmp_path / "c.flac", noise(5000, 2), "FLAC", "PCM_16")
    content = (tmp_path / "c.flac").read_bytes()
    assert io.BufferedReader(KeptFile(kept(content, 1500))).read() == content
    file = KeptFile(kept(content, 1500))
    assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
    for place in (len(content) - 5, 3, 7000, 0, 1499, 1500, len(content)):
        file.seek(place)
        assert file.tell() == place
        got = file.read(10)
        assert content[place:].startswith(got)
        assert bool(got) == (place < len(content))
    assert file.seek(-5, io.SEEK_END) == len(content) - 5
    assert file.seek(2, io.SEEK_CUR) == len(content) - 3
    assert "1500" in repr(kept(content, 1500)[0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_wrong_with_the_sidecar_is_not_called_a_wrong_file(tmp_path):
    audiofiles.encoded(tmp_path / "c.flac", noise(5000, 2), "FLAC", "PCM_16")

    def damaged() -> bytes:
        raise SidecarError("record 3 was changed")

    some = [piece._replace(read=damaged) for piece in kept((tmp_path / "c.flac").read_bytes(), 1500)]
    with pytest.raises(SidecarError, match="record 3 was changed"):
        Reader(io.BufferedReader(KeptFile(some)), "c.flac")


def test_samples_of_a_lossy_file_do_not_depend_on_the_blocks_they_are_read_in(tmp_path, monkeypatch):
    audiofiles.lossy(tmp_path / "a", "MP3", "MPEG_LAYER_III", 30_000)
    content = (tmp_path / "a").read_bytes()
    whole = decode(content, "a").samples
    for block in (300, 1152, 4096):
        monkeypatch.setattr("poscuda_fast.files.encoded.SAMPLES_PER_BLOCK", block)
        assert decode(content, "a").samples.tobytes() == whole.tobytes()


CHILD = """
import sys, threading, time
from pathlib import Path
import soundfile
from poscuda_fast import Key, protect_folder, restore_folder, verify_folder

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) // 1024

def watch():
    while not done:
        seen.append(resident())
        time.sleep(0.005)

tiny, src, dst = sys.argv[1:]
key, root = Key(bytes(range(32))), dst or src
protect_folder(tiny, None, key), verify_folder(tiny, key), restore_folder(tiny, key)  # imports what is needed
before, seen, done = resident(), [], []
thread = threading.Thread(target=watch)
thread.start()
assert protect_folder(src, dst or None, key, dry_run=True).state == "untouched"
assert protect_folder(src, dst or None, key).state == "protected"
assert verify_folder(root, key).protected == 1
assert protect_folder(src, dst or None, key).state == "already protected"
assert dst or restore_folder(root, key).state == "restored"
done.append(True)
thread.join()
print(max(seen) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@both_ways
@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_a_long_file_takes_little_memory(tmp_path: Path, suffix: str, copying: bool) -> None:
    """Ten minutes of 48 kHz stereo, 110 MB as WAV."""
    second = (np.random.default_rng(0).standard_normal((48_000, 2)) * 2000).astype(np.int16)
    with soundfile.SoundFile(tmp_path / f"long.{suffix}", "w", 48_000, 2, "PCM_16") as file:
        for n in range(600):
            file.write(np.roll(second, n, axis=0))
    soundfile.write(tmp_path / f"tiny.{suffix}", second[:9000], 48_000)
    dst = str(tmp_path / f"copy.{suffix}") if copying else ""
    command: list[Any] = [sys.executable, "-c", CHILD, tmp_path / f"tiny.{suffix}", tmp_path / f"long.{suffix}", dst]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) <= 64, f"{done.stdout} MiB"
