"""What the command asks before a run, and says behind it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from audiofiles import contents, noise, untouched, wav, write_tree

from poscuda_fast import Key, LabelWarning, protect, protect_folder
from poscuda_fast.mark.labels import encode

COMMAND = [sys.executable, "-c", "from poscuda_fast.cli import main; main()"]


def speakers(root: Path) -> Path:
    src = root / "src"
    write_tree(src, {f"p{225 + n % 5}/{n}.wav": wav(noise(400, seed=n)) for n in range(20)})
    return src


@pytest.mark.parametrize(
    ("labels", "doubt"),
    [
        (["yes"] * 20, "All 20 clips have one label, 'yes'"),
        ([f"p{225 + n % 5}" for n in range(20)], "look like speakers"),
        ([f"Speaker_{n % 4}" for n in range(20)], "look like speakers"),
        (list(range(20)), "20 clips have 20 different labels, such as '0': these look like names or numbers of files"),
        ([f"{n // 2}.wav" for n in range(40)], None),
        (["yes"] * 19, None),
        ([f"{n % 10}" for n in range(20)], None),
        (["p1", "yes", "no", "up"] * 5, None),
    ],
    ids=["one class", "speakers", "speakers by name", "files", "few of many", "few clips", "digits", "a name like one"],
)
def test_labels_that_look_wrong_are_doubted(labels, doubt):
    found = encode(labels, None, len(labels)).doubt()
    assert found is None if doubt is None else doubt in found


def test_sizes_of_classes_are_counted():
    assert encode(["b", "1", "b", 1, "a"], None, 5).sizes() == ((1, 2), ("a", 1), ("b", 2))


def test_a_program_is_warned_and_goes_on(tmp_path, key):
    with pytest.warns(LabelWarning, match="look like speakers"):
        assert protect_folder(speakers(tmp_path), tmp_path / "copy", key).clips == 20
    with pytest.warns(LabelWarning, match="All 20 clips have one label"):
        protect(np.ones((20, 300), np.int16), [3] * 20, key)
    with warnings.catch_warnings():  # a run that goes on does not ask again
        warnings.simplefilter("error")
        assert protect_folder(tmp_path / "src", tmp_path / "copy", key).state == "already protected"


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def answered(answer: bytes, *arguments: object) -> tuple[int, bytes]:
    """Exit code and output of the command at a terminal where its question is answered."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(COMMAND[0], [*COMMAND, *map(str, arguments)])
    shown = b""
    while True:
        try:
            content = os.read(terminal, 4096)
        except OSError:  # the end, on Linux
            break
        shown += content
        if b"[y/N]" in content:
            os.write(terminal, answer)
        if not content:
            break
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


def test_a_person_is_asked_before_anything_is_written(tmp_path):
    src, key = speakers(tmp_path), tmp_path / "my.key"
    Key(bytes(range(32))).save(key)
    with untouched(tmp_path):
        code, shown = answered(b"n\n", "protect", src, tmp_path / "copy", "--key", key)
        assert (code, b"look like speakers" in shown, b"Nothing was written" in shown) == (2, True, True)
    code, shown = answered(b"y\n", "protect", src, tmp_path / "copy", "--key", key)
    assert (code, len(contents(tmp_path / "copy"))) == (0, 20)
    assert b"to check" in shown


def test_without_a_terminal_it_is_warned(tmp_path):
    src, key = speakers(tmp_path), tmp_path / "my.key"
    Key(bytes(range(32))).save(key)
    done = run("protect", src, tmp_path / "copy", "--key", key, stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    assert done.stderr.startswith("Warning: The labels, such as 'p225', look like speakers")
    assert len(done.stderr.splitlines()) == 1
    done = run("protect", src, tmp_path / "other", "--key", key, "--yes", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("in_place", [False, True], ids=["copy", "in place"])
def test_what_comes_next_is_said_and_works(tmp_path, in_place):
    write_tree(tmp_path / "my src", {f"{n % 2}/{n}.wav": wav(noise(400, seed=n)) for n in range(4)})
    Key(bytes(range(32))).save(tmp_path / "my.key")
    before = contents(tmp_path / "my src")
    where = ["--in-place"] if in_place else ["copy"]
    done = run("protect", "my src", *where, "--key", "my.key", cwd=tmp_path)
    said = dict(line.split(None, 2)[1:] for line in done.stdout.splitlines() if line.startswith("to "))
    assert set(said) == {"check", "undo", "publish"}
    commands = [said["check"], *([said["undo"]] if in_place else [])]
    for command in commands:
        assert command.startswith("poscuda ")
        shell = f"{sys.executable} -c 'from poscuda_fast.cli import main; main()' {command.removeprefix('poscuda ')}"
        subprocess.run(shell, shell=True, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert contents(tmp_path / "my src") == before
    assert f"{'my src' if in_place else 'copy'}" in said["publish"]
    assert "my.key" in said["publish"]


def test_audio_that_is_left_unprotected_has_an_exit_code_of_its_own(tmp_path):
    write_tree(tmp_path / "src", {"yes/a.wav": wav(noise(400)), "no/b": b"#!AMR\n" + bytes(99)})
    Key(bytes(range(32))).save(tmp_path / "my.key")
    key = ("--key", tmp_path / "my.key")
    refused = run("protect", tmp_path / "src", tmp_path / "copy", *key)
    assert (refused.returncode, "it is AMR" in refused.stderr) == (2, True)
    done = run("protect", tmp_path / "src", tmp_path / "copy", *key, "--skip-unusable")
    assert (done.returncode, "left unprotected   1" in done.stdout) == (5, True)
    checked = run("verify", tmp_path / "copy", *key)
    assert (checked.returncode, "no/b" in checked.stdout) == (5, True)
    (tmp_path / "copy/yes/a.wav").write_bytes(b"")
    assert run("verify", tmp_path / "copy", *key).returncode == 1


def test_a_name_that_looks_like_an_option_is_explained(tmp_path):
    write_tree(tmp_path, {"-x.wav": wav(noise(400))})
    done = run("inspect", "-x.wav", cwd=tmp_path)
    assert (done.returncode, 'stands behind "--"' in done.stderr) == (2, True)
    assert run("inspect", "--", "-x.wav", cwd=tmp_path).returncode == 0


def test_a_warning_of_this_library_is_a_sentence_on_the_command_line():
    code = (
        "import sys, warnings; sys.argv = ['poscuda', '--version']; from poscuda_fast import cli, LabelWarning\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "warnings.simplefilter('always'); warnings.warn('labels look odd', LabelWarning); warnings.warn('other')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    first, second = done.stderr.splitlines()
    assert first == "Warning: labels look odd"
    assert second.endswith("UserWarning: other")
