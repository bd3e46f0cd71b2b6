"""What the command line prints is text, and a run does not fail because it cannot be printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import readme
from audiofiles import noise, wav, write_tree

import poscuda_fast
from poscuda_fast import DatasetError, Key, Verification, protect_folder, verify_folder
from poscuda_fast.cli import main, options, printing
from poscuda_fast.text import message, one_line

COMMAND = (sys.executable, "-W", "error", "-c", "from poscuda_fast.cli import main; main()")
ESCAPES = "x\x1b[2K\x1b]0;title\x07\x1b[8mhidden\x9b\u202e.wav"
LINES = "y.wav\nneither            0\nrun                complete\n  all is well.wav"
FOREIGN = "Dvořák 日本語 ŋ.wav"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
SHELL = pytest.mark.skipif(os.name == "nt", reason="this needs a shell that closes streams")


def run(*words: object, cwd: Path, encoding: str | None = None, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, **({"PYTHONIOENCODING": encoding} if encoding else {})}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run([*COMMAND, *map(str, words)], cwd=cwd, env=env, check=False, timeout=120, **options)


def in_shell(redirections: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    script = f'exec "$@" {redirections}'
    return subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, *map(str, words)], cwd=cwd, capture_output=True, check=False
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with my.key, and `data`, a small data set."""
    Key(bytes(range(32))).save(tmp_path / "my.key")
    write_tree(tmp_path / "data", {f"{label}/{n}.wav": wav(noise(2000, seed=n)) for label in "ab" for n in (1, 2)})
    return tmp_path


def protected(place: Path, *names: str) -> Path:
    """The data set, protected in place with files of these names, which are then damaged."""
    write_tree(place / "data", {f"a/{name}": wav(noise(2000, seed=9)) for name in names})
    protect_folder(place / "data", None, Key(bytes(range(32))))
    for name in names:
        (place / "data" / "a" / name).write_bytes(b"damaged")
    return place / "data"


# Names.


@pytest.mark.parametrize("text", [ESCAPES, LINES, "\ud800", "\r", "a\tb", "\u2028", "\x7f"])
def test_one_line_is_printable_and_one_line_and_stays_itself(text: str) -> None:
    assert one_line(text).isprintable()
    assert one_line(one_line(text)) == one_line(text)
    assert one_line(f"{FOREIGN} {text}").startswith(FOREIGN)


def test_a_message_keeps_the_lines_of_its_list_and_no_others() -> None:
    assert message("two problems:\n  one\n  two\nthree\x1b") == "two problems:\n  one\n  two\\nthree\\x1b"
    assert str(DatasetError(f"{ESCAPES} is bad", 5)) == str((f"{one_line(ESCAPES)} is bad", 5))


@pytest.mark.parametrize("name", [ESCAPES, LINES], ids=["escapes", "lines"])
def test_a_name_moves_no_cursor_and_forges_no_line(place: Path, name: str) -> None:
    done = run("verify", protected(place, name), "--key", "my.key", cwd=place)
    assert done.returncode == 1
    assert done.stdout.decode().splitlines()[-1].split(maxsplit=1) == ["missing", f"a/{one_line(name)}"]
    (place / "data" / "a" / name).write_bytes(b"RIFF")
    (place / "data.poscuda").unlink()
    (place / "data.poscuda.json").unlink()
    refused = run("protect", "data", "copy", "--key", "my.key", cwd=place)
    shown = run("inspect", "data", cwd=place)
    assert (refused.returncode, shown.returncode) == (2, 0)
    for output in (done.stdout, refused.stderr, shown.stdout):
        lines = output.decode().splitlines()
        assert all(line.isprintable() for line in lines)
        assert not [
            line for line in lines if line.startswith(("neither            0", "run                complete"))
        ] or (output is done.stdout and sum(line.startswith("run  ") for line in lines) == 1)
    assert len(refused.stderr.decode().splitlines()) == 2


@pytest.mark.parametrize("name", [ESCAPES, LINES], ids=["escapes", "lines"])
def test_the_messages_of_the_library_are_text_too(place: Path, name: str) -> None:
    write_tree(place / "data", {f"a/{name}": b"RIFF"})
    with pytest.raises(DatasetError) as caught:
        protect_folder(place / "data", None, Key(bytes(range(32))))
    assert [line.isprintable() for line in str(caught.value).split("\n")] == [True, True]


@pytest.mark.parametrize("field", ["fingerprint", "files", "label", "poscuda", "recipe"])
def test_the_fields_of_a_manifest_are_shown_as_text(place: Path, field: str) -> None:
    root = protected(place)
    beside = root.with_name(f"{root.name}.poscuda.json")
    manifest = json.loads(beside.read_text(encoding="utf-8"))
    if field == "files":
        manifest["files"] = {ESCAPES + LINES: next(iter(manifest["files"].values()))}
    elif field == "label":
        for entry in manifest["files"].values():
            entry["label"] = ESCAPES + LINES
    else:
        manifest[field] = ESCAPES + LINES
    beside.write_text(json.dumps(manifest), encoding="utf-8")
    for words in (["verify", root], ["verify", root, "--key", "my.key"], ["protect", root, "copy", "--key", "my.key"]):
        done = run(*words, cwd=place)
        assert done.returncode in (0, 1, 2)
        for output in (done.stdout, done.stderr):
            assert all(line.isprintable() for line in output.decode().splitlines())


def test_a_result_is_a_table_whatever_its_values_are() -> None:
    shown = str(Verification(1, 0, 0, (), (LINES, ESCAPES), (), ESCAPES))
    assert len(shown.splitlines()) == 10
    assert all(line.isprintable() for line in shown.splitlines())


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp1252:strict", "utf-8", "utf-16"])
def test_what_an_encoding_does_not_have_is_escaped(place: Path, encoding: str) -> None:
    root = protected(place, FOREIGN)
    codec = encoding.partition(":")[0]
    done = run("verify", root, "--key", "my.key", cwd=place, encoding=encoding)
    assert done.returncode == 1, done.stderr
    expected = FOREIGN.encode(codec, "backslashreplace").decode(codec)
    assert f"a/{expected}" in done.stdout.decode(codec)
    assert run("verify", root, "--key", "my.key", "--json", cwd=place, encoding=encoding).returncode == 1
    (root / "a" / FOREIGN).write_bytes(b"RIFF")
    for suffix in (".poscuda", ".poscuda.json"):
        root.with_name(root.name + suffix).unlink()
    refused = run("protect", root, place / "copy", "--key", "my.key", cwd=place, encoding=encoding)
    assert refused.returncode == 2
    assert b"Traceback" not in refused.stderr
    assert "wav cannot be used: it holds text" in refused.stderr.decode(codec)
    shown = run("inspect", root, cwd=place, encoding=encoding)
    assert shown.returncode == 0, shown.stderr
    assert run("keygen", "ключ.key", cwd=place, encoding=encoding).returncode == 0
    usage = run("protect", root, "--label", "日本", "--nö", cwd=place, encoding=encoding)
    assert usage.returncode == 2
    assert b"Traceback" not in usage.stderr


# Streams that fail.


@FULL
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["verify", "--help"], ["doctor", "--json"]], ids=" ".join)
def test_a_full_stdout_is_told_by_the_exit_code(place: Path, words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = run(*words, cwd=place, stdout=full)
    assert done.returncode == 4
    assert done.stderr.decode() == (
        "poscuda: the run is finished, but its result could not be printed (No space left on device).\n"
    )


@FULL
def test_a_finished_run_stays_finished_where_nothing_can_be_printed(place: Path) -> None:
    with open("/dev/full", "wb") as full:
        for words, code in (
            (["protect", "data", "--in-place", "--key", "my.key"], 4),
            (["verify", "data", "--key", "my.key", "--json"], 4),
            (["keygen", "new.key"], 4),
            (["demo", "--out", "demo"], 4),
            (["protect", "data", "--in-place", "--key", "my.key", "--quiet"], 0),
        ):
            done = run(*words, cwd=place, stdout=full)
            assert done.returncode == code, done.stderr
            assert done.stderr.count(b"\n") == (code == 4)
    assert Key.load(place / "new.key")
    assert verify_folder(place / "data", Key(bytes(range(32)))).protected == 4
    assert (place / "demo" / "protected.poscuda.json").exists()
    (place / "data" / "a" / "1.wav").unlink()
    with open("/dev/full", "wb") as full:
        done = run("verify", "data", "--key", "my.key", cwd=place, stdout=full)
    assert done.returncode == 1  # says more
    assert b"could not be printed" in done.stderr


@FULL
def test_a_full_stderr_changes_no_exit_code(place: Path) -> None:
    with open("/dev/full", "wb") as full:
        assert run("verify", "nothing", cwd=place, stderr=full).returncode == 2
        assert run("dance", cwd=place, stderr=full).returncode == 2
        assert run("protect", "data", "--in-place", "--key", "my.key", cwd=place, stderr=full).returncode == 0
        assert run("keygen", "new.key", cwd=place, stdout=full, stderr=full).returncode == 4


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["doctor"], 0),
        (["inspect", "data"], 0),
        (["verify", "data", "--key", "my.key"], 1),
        (["verify", "data", "--key", "my.key", "--json"], 1),
        (["completion", "bash"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_pipe_that_its_reader_closed_changes_no_exit_code(place: Path, words: list[str], code: int) -> None:
    protected(place, "3.wav")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(*words, cwd=place, stdout=writing)
        assert (done.returncode, done.stderr) == (code, b"")
        assert run("verify", "nothing", cwd=place, stderr=writing).returncode == 2
    finally:
        os.close(writing)


@SHELL
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code_and_no_file(place: Path, closed: str) -> None:
    before = {path: path.read_bytes() for path in (place / "data").rglob("*.wav")}
    assert in_shell(closed, "protect", "data", "--in-place", "--key", "my.key", cwd=place).returncode == 0
    assert verify_folder(place / "data", Key(bytes(range(32)))).protected == 4
    assert in_shell(closed, "verify", "data", "--key", "my.key", cwd=place).returncode == 0
    assert in_shell(closed, "verify", "nothing", cwd=place).returncode == 2
    assert in_shell(closed, "dance", cwd=place).returncode == 2
    assert (
        in_shell(
            f"{closed} </dev/null" if "<" not in closed else closed, "drop-undo", "data", "--key", "my.key", cwd=place
        ).returncode
        == 2
    )
    assert in_shell(closed, "restore", "data", "--key", "my.key", cwd=place).returncode == 0
    assert {path: path.read_bytes() for path in before} == before


@SHELL
def test_no_file_gets_the_number_of_a_closed_stream(place: Path) -> None:
    code = """
import os
from poscuda_fast.cli import printing
printing.begin()
print(os.open("my.key", os.O_RDONLY), file=open("number", "w"))
"""
    closed = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", closed, "sh", sys.executable, "-c", code], cwd=place, check=False)
    assert done.returncode == 0
    assert int((place / "number").read_text()) > 2


def test_a_progress_bar_that_cannot_be_drawn_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise BrokenPipeError

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr("threading.Thread.start", refuse)
    with options.progress_bar(Path("data"), quiet=False) as progress:
        for done in range(3):
            progress(done + 1, 3)
            time.sleep(0.06)
    monkeypatch.setattr(sys, "stderr", None)
    with options.progress_bar(Path("data"), quiet=False) as progress:
        assert progress is None


@pytest.mark.parametrize("command", ["protect", "verify", "restore", "drop-undo", "inspect"])
def test_a_terminal_is_told_at_once_what_is_looked_at(tmp_path: Path, command: str) -> None:
    """Before there is anything to count; what is no terminal is not."""
    pty = pytest.importorskip("pty", reason="there are no terminals of this kind here")
    folder = readme.recordings(tmp_path / "recordings")
    Key(bytes(range(32))).save(tmp_path / "my.key")
    if command in ("verify", "restore", "drop-undo"):
        protect_folder(folder, None, Key(bytes(range(32))))
    key = ["--key", "my.key"] * (command != "inspect") + ["--yes"] * (command in ("protect", "drop-undo"))
    words = [command, "recordings", *["out"] * (command == "protect"), *key]
    ours, theirs = pty.openpty()
    code = "from poscuda_fast.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, check=False
    )
    os.close(theirs)
    told = os.read(ours, 1000).decode(errors="replace")
    os.close(ours)
    assert done.returncode in (0, 1), told
    assert "Looking at recordings ..." in told
    quiet = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, check=False)
    assert b"Looking" not in quiet.stderr


# The last handler.


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[int, str]:
    """The exit code and the message of a command that fails so."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(poscuda_fast, "verify_folder", fail)
    monkeypatch.setattr(sys, "argv", ["poscuda", "verify", "nothing"])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (MemoryError(), 3, "poscuda: there is too little memory; close other programs"),
        (MemoryError("of 5 bytes"), 3, "poscuda: there is too little memory (of 5 bytes); close"),
        (OSError(), 3, "poscuda: nothing: the system refused it without a reason (OSError); see that"),
        (
            OSError(28, "No space left on device", "a\x1b"),
            3,
            "poscuda: a\\x1b: No space left on device; make room on that disk.",
        ),
        (BrokenPipeError(32, "Broken pipe"), 3, "poscuda: nothing: Broken pipe; see that what reads it stays open."),
        (RuntimeError("can't start new thread"), 3, "poscuda: the system gives this process no more threads"),
        (RecursionError("too deep"), 3, "not foreseen: RecursionError: too deep (poscuda_fast.cli.editing, line"),
        (KeyError("x\n"), 3, "not foreseen: KeyError: 'x\\n' (poscuda_fast.cli"),
        (AssertionError(), 3, "not foreseen: AssertionError: without a message"),
        (ZeroDivisionError("division\nby zero\x1b"), 3, "ZeroDivisionError: division\\nby zero\\x1b"),
        (UnicodeEncodeError("ascii", "\u1234", 0, 1, "no"), 2, "poscuda: 'ascii' codec can't encode"),
        (ValueError(), 2, "poscuda: ValueError\n"),
        (ValueError("a\x1b\nrun  complete"), 2, "poscuda: a\\x1b\\nrun  complete\n"),
        (KeyboardInterrupt(), 130, "poscuda: interrupted; run the same command again"),
    ],
)
def test_whatever_fails_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, sentence: str
) -> None:
    found, shown = told(monkeypatch, capsys, error)
    assert found == code
    assert sentence in shown
    assert "Traceback" not in shown
    assert shown.endswith("Run the same command again to finish.\n") == (code == 3)
    assert all(line.isprintable() for line in shown.splitlines())


def test_an_error_that_was_not_foreseen_tells_its_place(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("poscuda_fast.files.verbs.Paths", None)
    monkeypatch.setattr(sys, "argv", ["poscuda", "verify", str(place)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 3
    assert "(poscuda_fast.files.verbs, line " in capsys.readouterr().err


NO_THREADS = """
import sys, threading
import numpy, poscuda_fast.arrays.verbs, poscuda_fast.files.verbs
def refuse(*_): raise RuntimeError("can't start new thread")
threading._start_new_thread = refuse
if hasattr(threading, "_start_joinable_thread"): threading._start_joinable_thread = lambda *a, **k: refuse()
from poscuda_fast.cli import main
main()
"""


@pytest.mark.parametrize("kind", ["array", "folder"])
def test_where_there_are_no_more_threads_a_run_ends_with_a_sentence(place: Path, kind: str) -> None:
    np.save(place / "clips.npy", np.random.default_rng(0).integers(-999, 999, (20, 2000)).astype(np.int16))
    np.save(place / "labels.npy", np.arange(20) % 2)
    before = (place / "clips.npy").read_bytes()
    words = {"array": ["clips.npy", "--labels", "labels.npy"], "folder": ["data"]}[kind]
    command = [sys.executable, "-c", NO_THREADS, "protect", *words, "--in-place", "--key", "my.key", "--threads"]
    for threads in ("1", "4"):
        done = subprocess.run([*command, threads], cwd=place, capture_output=True, text=True, check=False, timeout=120)
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 3), done.stderr
        assert (done.returncode == 0) == (done.stderr == "")
        if done.returncode:
            assert "no more threads (can't start new thread)" in done.stderr
    if kind == "array":
        assert (place / "clips.npy").read_bytes() != before
    assert run("protect", *words, "--in-place", "--key", "my.key", cwd=place).returncode == 0
    assert run("restore", words[0], "--key", "my.key", cwd=place).returncode == 0
    assert (place / "clips.npy").read_bytes() == before


@SHELL
def test_folders_may_lie_in_each_other_as_deeply_as_the_system_allows(place: Path) -> None:
    inner = place / "data" / "a"
    home = os.open(inner, os.O_RDONLY)
    for _ in range(1200):  # by descriptors: a path has a limit of its own
        os.mkdir("d", dir_fd=home)
        below = os.open("d", os.O_RDONLY, dir_fd=home)
        os.close(home)
        home = below
    os.close(home)
    done = run("inspect", "data", cwd=place)
    subprocess.run(["rm", "-rf", inner / "d"], check=True)  # pytest cannot
    assert done.returncode == 0, done.stderr
    assert b"audio files        4" in done.stdout


def test_printing_again_forgets_what_failed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        encoding = "ascii"

        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", Full())
    printing.say("one")
    assert printing.untold() == "No space left on device"
    monkeypatch.undo()
    assert printing.untold() == "No space left on device"
    printing.begin()
    assert printing.untold() == ""
