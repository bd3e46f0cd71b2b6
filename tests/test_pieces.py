"""Long files: the same bytes as in one piece, whole after a kill between any two pieces, and little memory."""

from __future__ import annotations

import functools
import io
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
from poscuda_fast.files import converted, pieces, target
from poscuda_fast.files.encoded import Reader, decode, encode
from poscuda_fast.files.kept import KeptFile
from poscuda_fast.files.originals import originals_of_folder
from poscuda_fast.files.records import unpack
from poscuda_fast.undo.journal import Journal

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


def without_manifest(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(root).items() if name != "poscuda.json"}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1500)
    monkeypatch.setattr(target, "PIECES_PER_BATCH", 3)


@pytest.fixture
def whole(tmp_path: Path, key: Key, request: pytest.FixtureRequest) -> dict[str, bytes]:
    """The files as protecting leaves them, and the manifest, without division."""
    recipe = request.node.callspec.params.get("recipe", Recipe.strong())
    write_files(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(pieces, "PIECE_BYTES", 1 << 20)
        protect_folder(tmp_path / "whole", None, key, recipe=recipe)
    return contents(tmp_path / "whole")


@recipes
@both_ways
@pytest.mark.usefixtures("small_pieces")
def test_files_in_pieces_become_what_they_become_whole(tmp_path, key, whole, recipe, copying):
    before = write_files(tmp_path / "src")
    root = tmp_path / "dst" if copying else tmp_path / "src"
    seen: list[tuple[int, int]] = []
    report = protect_folder(
        tmp_path / "src", root if copying else None, key, recipe=recipe, progress=lambda *n: seen.append(n)
    )
    assert seen == [(n, 7) for n in range(1, 8)]
    assert contents(root) == whole
    with Journal(root / ".poscuda", key) as journal:
        parts = [record for payload in journal.payloads() for record, _ in unpack(payload)]
        assert journal.n_batches() > 10
    assert sum(record.name == "no/b.wav" for record in parts) > 10
    assert sum(record.name == "no/c.flac" for record in parts) > 5
    found = verify_folder(root, key)
    assert (found.protected, found.ok) == (7, True)
    assert protect_folder(tmp_path / "src", root if copying else None, key, recipe=recipe).state == "already protected"
    originals = {name: original for name, _, original, now in originals_of_folder(root, key) if now == whole[name]}
    assert originals == before
    assert restore_folder(root, key).frames_changed == report.frames_changed
    assert without_manifest(root) == before
    assert verify_folder(root, key).original == 7


def kill_at(moment: int, *, after: bool) -> None:
    """Kill this process before or after batch number `moment` is committed."""
    real = Journal.append
    count = iter(range(1000))

    def append(self: Journal, payload: bytes) -> None:
        deadly = next(count) == moment
        if deadly and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, payload)
        if deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append  # type: ignore[method-assign]


@needs_fork
@both_ways
@pytest.mark.parametrize("moment", [0, 1, 3, 6, 8, 10, 12, 13])
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
@pytest.mark.usefixtures("small_pieces")
def test_a_run_that_was_killed_between_pieces(tmp_path, key, whole, moment, after, copying):
    before = write_files(tmp_path / "src")
    root = tmp_path / "dst" if copying else tmp_path / "src"
    call = functools.partial(protect_folder, tmp_path / "src", root if copying else None, key)

    def stopped() -> None:
        kill_at(moment, after=after)
        call()

    assert in_child(stopped) == -signal.SIGKILL
    if copying:
        assert all(whole[name] == content for name, content in contents(root).items())
    if moment or after:  # something is in the journal
        stopped_there = verify_folder(root, key)
        assert stopped_there.state == "applying"
        assert set(stopped_there.neither) <= {"no/b.wav", "yes/d.wav"}
    copy = tmp_path / "restored"
    if not copying:
        subprocess.run(["cp", "-a", tmp_path / "src", copy], check=True)
        assert restore_folder(copy, key).state == "restored"
        assert without_manifest(copy) == before
        assert not [name for name in contents(copy, hidden=True) if "part" in name]

    # Killed once more, a little later, then finished.
    def stopped_again() -> None:
        kill_at(1, after=not after)
        call()

    assert in_child(stopped_again) in (-signal.SIGKILL, 0)
    assert call().state in ("protected", "already protected")
    assert contents(root) == whole
    assert not [name for name in contents(root, hidden=True) if "part" in name]
    assert verify_folder(root, key).ok
    assert restore_folder(root, key).state == "restored"
    assert without_manifest(root) == before


@needs_fork
@both_ways
@pytest.mark.parametrize("at", [8, 9, 10, 12])
@pytest.mark.usefixtures("small_pieces")
def test_a_restore_that_was_killed_between_files(tmp_path, key, at, copying):
    before = write_files(tmp_path / "src")
    root = tmp_path / "dst" if copying else tmp_path / "src"
    protect_folder(tmp_path / "src", root if copying else None, key)
    assert in_child(lambda: restore_folder(root, key, progress=audiofiles.killer(at))) == -signal.SIGKILL
    assert restore_folder(root, key).state == "restored"
    assert without_manifest(root) == before


@needs_fork
@pytest.mark.parametrize(("name", "moment"), [("no/b.wav", 3), ("no/c.flac", 9)])
@pytest.mark.usefixtures("small_pieces")
def test_a_long_file_that_changed_after_a_kill_is_not_read_again(tmp_path, key, name, moment):
    src = tmp_path / "src"
    write_files(src)

    def stopped() -> None:
        kill_at(moment, after=True)
        protect_folder(src, None, key)

    assert in_child(stopped) == -signal.SIGKILL
    with Journal(src / ".poscuda", key) as journal:
        done = [one.end for payload in journal.payloads() for one, _ in unpack(payload) if one.name == name]
    content = bytearray((src / name).read_bytes())
    assert 0 < done[-1] < len(content)
    content[60] ^= 1
    (src / name).write_bytes(content)
    with pytest.raises((DatasetError, SidecarError), match=r"changed|cannot be used"):
        protect_folder(src, None, key)


@pytest.mark.usefixtures("small_pieces")
def test_one_changed_piece_is_one_changed_file(tmp_path, key):
    before = write_files(tmp_path / "src")
    protect_folder(tmp_path / "src", None, key)
    path = tmp_path / "src/no/b.wav"
    marked = path.read_bytes()
    path.write_bytes(before["no/b.wav"][:9000] + marked[9000:])
    assert verify_folder(tmp_path / "src", key).neither == ("no/b.wav",)
    with pytest.raises(SidecarError, match=r"1 clips or files are not as it left them \(no/b\.wav\)"):
        protect_folder(tmp_path / "src", None, key)
    path.write_bytes(marked[:-1] + b"x")  # outside the samples
    assert verify_folder(tmp_path / "src", key).neither == ("no/b.wav",)
    with pytest.raises(SidecarError, match=r"1 files or clips .*:\n  no/b\.wav$"):
        restore_folder(tmp_path / "src", key)
    assert restore_folder(tmp_path / "src", key, partial=True).state == "partly restored"
    path.write_bytes(marked)
    assert restore_folder(tmp_path / "src", key).state == "restored"
    assert without_manifest(tmp_path / "src") == before


@pytest.mark.usefixtures("small_pieces")
def test_the_original_of_a_long_file_is_read_anywhere(tmp_path, key):
    before = write_files(tmp_path / "src")
    protect_folder(tmp_path / "src", None, key)
    content = before["no/c.flac"]
    with Journal(tmp_path / "src/.poscuda", key) as journal:
        last = [one for payload in journal.payloads() for one, _ in unpack(payload) if one.name == "no/c.flac"][-1]
        assert last.is_last
        assert not last.is_whole
        assert io.BufferedReader(KeptFile(last, journal)).read() == content
        file = KeptFile(last, journal)
        for place in (len(content) - 5, 3, 7000, 0, 1499, 1500, len(content)):
            file.seek(place)
            got = file.read(10)
            assert content[place:].startswith(got)
            assert bool(got) == (place < len(content))
        assert file.seek(-5, io.SEEK_END) == len(content) - 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("small_pieces")
def test_what_is_wrong_with_the_sidecar_is_not_called_a_wrong_file(tmp_path, key, monkeypatch):
    write_files(tmp_path / "src")
    protect_folder(tmp_path / "src", None, key)
    with Journal(tmp_path / "src/.poscuda", key) as journal:
        last = [one for payload in journal.payloads() for one, _ in unpack(payload) if one.name == "no/c.flac"][-1]

        def damaged(number: int) -> bytes:
            raise SidecarError("batch is damaged")

        monkeypatch.setattr(journal, "payload", damaged)
        with pytest.raises(SidecarError, match="batch is damaged"):
            Reader(io.BufferedReader(KeptFile(last, journal)), "c.flac")


@pytest.mark.parametrize("form", [("MP3", "MPEG_LAYER_III", "mp3"), ("OGG", "VORBIS", "ogg")], ids=["MP3", "Ogg"])
@pytest.mark.parametrize("piece", [500, 4000, 1 << 20])
def test_a_lossy_file_becomes_the_same_flac_in_pieces(tmp_path, form, piece):
    audiofiles.lossy(tmp_path / "a", form[0], form[1], 90_000)
    content = (tmp_path / "a").read_bytes()
    expected = encode(decode(content, "a"))
    found = list(converted.to_flac(io.BytesIO(content), "a", piece))
    assert b"".join(one.content for one in found) == expected
    assert {one.size for one in found} == {len(expected)}
    assert [one.begin for one in found] == list(range(0, len(expected), piece))


@needs_fork
@pytest.mark.parametrize("moment", [None, 0, 1, 2])
def test_a_long_lossy_file_becomes_protected_flac(tmp_path, key, monkeypatch, moment):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1500)
    monkeypatch.setattr(pieces, "MOST_FLAC_BYTES", 6000)
    monkeypatch.setattr(target, "PIECES_PER_BATCH", 2)
    (tmp_path / "src/yes").mkdir(parents=True)
    audiofiles.lossy(tmp_path / "src/yes/b.mp3", "MP3", "MPEG_LAYER_III", 30_000)
    audiofiles.lossy(tmp_path / "src/yes/a.mp3", "MP3", "MPEG_LAYER_III", 600)
    call = functools.partial(protect_folder, tmp_path / "src", tmp_path / "dst", key, lossy="flac")
    if moment is not None:

        def stopped() -> None:
            kill_at(moment, after=True)
            call()

        assert in_child(stopped) == -signal.SIGKILL
    assert call().state == "protected"
    content = (tmp_path / "src/yes/b.mp3").read_bytes()
    plain = decode(content, "b").samples
    wet, _ = audiofiles.protected(plain, "PCM_16", "yes", key, Recipe.strong())
    assert audiofiles.read_samples(tmp_path / "dst/yes/b.flac", "PCM_16").tobytes() == wet.tobytes()
    assert verify_folder(tmp_path / "dst", key).ok
    restore_folder(tmp_path / "dst", key)
    assert (tmp_path / "dst/yes/b.flac").read_bytes() == encode(decode(content, "b"))


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
assert restore_folder(root, key).state == "restored"
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
