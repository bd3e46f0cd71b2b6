"""Audio that cannot be marked: all of it is named at once, or left unprotected and listed."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

import audiofiles
import pytest
from audiofiles import contents, noise, untouched, wav, write_tree

from poscuda_fast import DatasetError, SidecarError, protect_folder, restore_folder, verify_folder

UNUSABLE = {
    "yes/8bit.wav": "its samples are 8-bit PCM",
    "yes/cut.wav": "it was cut short",
    "yes/a.webm": "it is WebM or Matroska that cannot be read here",
    "no/b.mp3": "is lossy",
    "no/noext": "it is AMR",
    "no/broken.flac": "its last frame is cut",
    "no/slow.wav": "a sample rate of 1,000 Hz",
}


def folder(root: Path) -> Path:
    """Good files, and one of every kind that cannot be marked."""
    src = root / "src"
    good = {f"{label}/{n}.wav": wav(noise(800, seed=n)) for label in ("no", "yes") for n in range(2)}
    eight_bits = bytearray(wav(noise(100)))
    eight_bits[34], eight_bits[32] = 8, 1
    write_tree(
        src,
        {
            **good,
            "notes.txt": b"about",
            "yes/8bit.wav": bytes(eight_bits),
            "yes/cut.wav": wav(noise(100))[:-9],
            "yes/a.webm": b"\x1a\x45\xdf\xa3" + bytes(99),
            "no/noext": b"#!AMR\n" + bytes(99),
            "no/slow.wav": wav(noise(100), rate=1000),
        },
    )
    audiofiles.lossy(src / "no/b.mp3", "MP3", "MPEG_LAYER_III")
    audiofiles.encoded(src / "no/broken.flac", noise(9000), "FLAC", "PCM_16")
    whole = (src / "no/broken.flac").read_bytes()
    (src / "no/broken.flac").write_bytes(whole[: len(whole) // 2])
    return src


@pytest.mark.parametrize("copying", [False, True], ids=["in place", "copy"])
@pytest.mark.parametrize("dry_run", [False, True], ids=["", "dry run"])
def test_all_that_cannot_be_marked_is_named_at_once(tmp_path, key, copying, dry_run):
    src = folder(tmp_path)
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"7 of 11 files in .* cannot be used") as caught:
        protect_folder(src, tmp_path / "copy" if copying else None, key, dry_run=dry_run)
    for name, reason in UNUSABLE.items():
        assert re.search(rf"{re.escape(name)} .*{re.escape(reason)}", str(caught.value)), name


def test_in_place_it_is_left_as_it_is_and_listed(tmp_path, key):
    src = folder(tmp_path)
    before = contents(src)
    report = protect_folder(src, None, key, skip_unusable=True)
    assert (report.state, report.clips, len(report.unprotected), report.left_out) == ("protected", 4, 7, ())
    assert "left unprotected   7" in str(report)
    now = contents(src)
    assert {name for name in before if now[name] == before[name]} == {*UNUSABLE, "notes.txt"}
    found = verify_folder(src, key)
    assert (found.protected, set(found.unprotected), found.ok, found.recorded_ok) == (4, set(UNUSABLE), False, True)
    assert verify_folder(src).unprotected == found.unprotected
    again = protect_folder(src, None, key, skip_unusable=True)
    assert (again.state, len(again.unprotected)) == ("already protected", 7)
    restore_folder(src, key)
    assert contents(src) == before


def test_in_a_copy_it_stands_as_it_is_and_is_listed(tmp_path, key):
    src, copy = folder(tmp_path), tmp_path / "copy"
    report = protect_folder(src, copy, key, skip_unusable=True)
    assert (report.state, report.clips, len(report.unprotected)) == ("protected", 4, 7)
    assert {name for name, content in contents(copy).items() if content == contents(src)[name]} == {
        *UNUSABLE,
        "notes.txt",
    }
    for found in (verify_folder(copy, key), verify_folder(copy), verify_folder(copy, key, source=src)):
        assert (found.protected, set(found.unprotected)) == (4, set(UNUSABLE))
    assert protect_folder(src, copy, key, skip_unusable=True).state == "already protected"


def test_labels_are_not_needed_for_what_is_left_unprotected(tmp_path, key):
    src = folder(tmp_path)
    labels = {f"{label}/{n}.wav": label for label in ("no", "yes") for n in range(2)}
    assert protect_folder(src, None, key, labels_from=labels, skip_unusable=True).clips == 4
    with pytest.raises(DatasetError, match=r"yes/1\.wav has no label"):
        protect_folder(src, tmp_path / "copy", key, labels_from={"no/0.wav": "no"}, skip_unusable=True)


def test_a_folder_in_which_nothing_can_be_marked_is_refused(tmp_path, key):
    write_tree(tmp_path / "src", {"yes/noext": b"#!AMR\n" + bytes(99)})
    with untouched(tmp_path), pytest.raises(DatasetError, match=r"None of the 1 audio files in .* can be used"):
        protect_folder(tmp_path / "src", None, key, skip_unusable=True)


def test_partial_leaves_it_out_of_a_copy(tmp_path, key):
    src, copy = folder(tmp_path), tmp_path / "copy"
    report = protect_folder(src, copy, key, partial=True)
    assert (len(report.left_out), report.unprotected) == (7, ())
    assert set(contents(copy)) == set(contents(src)) - set(UNUSABLE)


def test_restoring_gives_the_time_of_the_last_change_back(tmp_path, key):
    src = tmp_path / "src"
    write_tree(src, {"yes/a.wav": wav(noise(800)), "yes/long.wav": wav(noise(600_000, 2))})
    audiofiles.encoded(src / "yes/b.flac", noise(800), "FLAC", "PCM_16")
    (src / "no").mkdir()
    audiofiles.encoded(src / "no/c.aiff", noise(800), "AIFF", "PCM_24")
    times = {path: 10**18 + 1001 * n for n, path in enumerate(sorted(src.rglob("*.*")))}
    for path, time in times.items():
        os.utime(path, ns=(0, time))
    protect_folder(src, tmp_path / "copy", key)
    for path, time in times.items():
        assert (tmp_path / "copy" / path.relative_to(src)).stat().st_mtime_ns == time
    protect_folder(src, None, key)
    assert all(path.stat().st_mtime_ns != time for path, time in times.items())
    restore_folder(src, key)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_copy_says_how_many_hidden_files_and_empty_folders_it_has_not(tmp_path, key):
    src = tmp_path / "src"
    write_tree(src, {"yes/a.wav": wav(noise(800)), ".git/config": b"", "yes/._a.wav": b"", ".env": b""})
    (src / "empty/inside").mkdir(parents=True)
    note = "3 hidden files or folders and 1 empty folder are not in the copy"
    in_place = "3 hidden files or folders were not looked at, and are as they were"
    assert in_place in protect_folder(src, None, key, dry_run=True).notes
    assert note in protect_folder(src, tmp_path / "copy", key, dry_run=True).notes
    assert note in protect_folder(src, tmp_path / "copy", key).notes
    assert set(contents(tmp_path / "copy", hidden=True)) == {"yes/a.wav"}


@pytest.mark.parametrize("dry_run", [False, True], ids=["", "dry run"])
def test_what_a_lossy_file_loses_as_flac_is_said(tmp_path, key, dry_run):
    src = tmp_path / "src"
    write_tree(src, {"yes/a.wav": wav(noise(800))})
    audiofiles.lossy(src / "yes/b.mp3", "MP3", "MPEG_LAYER_III")
    report = protect_folder(src, tmp_path / "copy", key, lossy="flac", dry_run=dry_run)
    assert any("1 file or folder did not keep their pictures, and tags" in note for note in report.notes)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_before_anything_is_written(tmp_path, key, monkeypatch, code):
    src = tmp_path / "src"
    write_tree(src, {"yes/a.wav": wav(noise(800))})

    def refuse(_: int, __: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with untouched(tmp_path), pytest.raises(SidecarError, match="a file system that gives no locks"):
        protect_folder(src, None, key)


def test_a_report_says_the_classes_and_the_snr(tmp_path, key):
    src = tmp_path / "src"
    quiet = noise(800) // 64
    write_tree(src, {"yes/a.wav": wav(noise(800)), "no/b.wav": wav(noise(800, seed=1)), "1/c.wav": wav(quiet)})
    for dst in (tmp_path / "copy", None):
        report = protect_folder(src, dst, key)
        assert report.class_sizes == ((1, 1), ("no", 1), ("yes", 1))
        assert report.lowest_snr_file == "1/c.wav"
        assert report.snr_db_lowest < report.snr_db_median
        assert "classes            3: 1 (1), no (1), yes (1)" in str(report)
        assert f"lowest {report.snr_db_lowest:.1f} dB (1/c.wav)" in str(report)
    assert protect_folder(src, None, key).snr_db_median is None


def test_what_was_left_unprotected_in_a_copy_is_marked_once_it_is_mended(tmp_path, key):
    src, copy = tmp_path / "src", tmp_path / "copy"
    bad = wav(noise(100))[:-9]
    write_tree(
        src, {"yes/a.wav": wav(noise(800)), "no/b.wav": wav(noise(800, seed=1)), "no/c.wav": bad, "no/d.wav": bad}
    )
    assert len(protect_folder(src, copy, key, skip_unusable=True).unprotected) == 2
    (src / "no/c.wav").write_bytes(wav(noise(800, seed=2)))
    report = protect_folder(src, copy, key, skip_unusable=True)
    assert (report.state, report.clips, len(report.unprotected)) == ("protected", 3, 1)
    assert (copy / "no/c.wav").read_bytes() not in (bad, (src / "no/c.wav").read_bytes())
    (src / "no/d.wav").unlink()
    (copy / "no/d.wav").unlink()
    write_tree(src, {"no/e.flac": b""})
    audiofiles.encoded(src / "no/e.flac", noise(800, seed=3), "FLAC", "PCM_16")
    report = protect_folder(src, copy, key)
    assert (report.state, report.clips, report.unprotected) == ("protected", 4, ())
    assert verify_folder(copy, key, source=src).protected == 4


def test_an_output_that_somebody_changed_is_not_replaced_when_its_source_is_mended(tmp_path, key):
    src, copy = tmp_path / "src", tmp_path / "copy"
    write_tree(src, {"yes/a.wav": wav(noise(800)), "no/c.wav": wav(noise(100))[:-9]})
    protect_folder(src, copy, key, skip_unusable=True)
    (src / "no/c.wav").write_bytes(wav(noise(800, seed=2)))
    (copy / "no/c.wav").write_bytes(b"mine")
    with untouched(tmp_path), pytest.raises(SidecarError, match=r"no/c\.wav"):
        protect_folder(src, copy, key)


def test_archives_and_arrays_are_named_in_the_report(tmp_path, key):
    write_tree(tmp_path / "src", {"yes/a.wav": wav(noise(800)), "a.zip": b"PK\3\4" + bytes(30), "b.npy": b"\x93NUMPY"})
    note = "2 archives, arrays or tables, in which nothing is marked: a.zip, b.npy"
    for dst in (tmp_path / "copy", None):
        assert note in protect_folder(tmp_path / "src", dst, key).notes


def test_hard_links_are_no_reason_to_skip(tmp_path, key):
    write_tree(tmp_path / "src", {"yes/a.wav": wav(noise(800)), "yes/b.wav": wav(noise(800))})
    os.link(tmp_path / "src/yes/a.wav", tmp_path / "twin")
    with untouched(tmp_path), pytest.raises(DatasetError, match="hard links"):
        protect_folder(tmp_path / "src", None, key, skip_unusable=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_not_taken_for_no_audio(tmp_path, key):
    write_tree(tmp_path / "src", {"yes/a.wav": wav(noise(800)), "yes/nosuffix": wav(noise(800))})
    (tmp_path / "src/yes/nosuffix").chmod(0)
    with pytest.raises(DatasetError, match="yes/nosuffix"):
        protect_folder(tmp_path / "src", None, key)
