"""A sidecar or key file that was damaged, cut, spliced or forged is refused or does no harm; the data stay."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from audiofiles import contents, noise, wav, write_tree
from ledger import Ledger
from recipes import protect_folder
from sidecars import edit, edited
from tampering import Array, check_damaged, damaged, outcome, reading, splice

from poscuda_fast import Key, KeyFileError, PoscudaError, SidecarError, restore_folder, verify_memmap
from poscuda_fast.arrays import mapped
from poscuda_fast.undo.journal import APPLICATION_ID, SCHEMA


@pytest.mark.slow
def test_every_flipped_byte_is_refused_or_harmless(array: Array) -> None:
    check_damaged(array, damaged(array.sealed, range(len(array.sealed)), [0xFF]), every=40)


@pytest.mark.slow
def test_every_flipped_bit_of_a_page_header_is_refused_or_harmless(array: Array) -> None:
    size = len(array.sealed)
    places = [place for place in range(size) if place % 4096 < 16 or place < 116]
    check_damaged(array, damaged(array.sealed, places, [1 << bit for bit in range(8)]), every=4)


def test_every_truncation_is_refused_or_harmless(array: Array) -> None:
    lengths = [1, 15, 16, 99, 100, 511, 512, 4095, 4096, 4097, 8191, 8192, 8193, *range(0, len(array.sealed), 301)]
    for length in lengths:
        array.set(array.protected, array.sealed[:length])
        assert outcome(array) == "refused", f"{length} bytes"
        if length:  # an empty file is no run yet
            array.set(array.protected, array.sealed[:length])
            with contextlib.suppress(PoscudaError, OSError):
                assert array.protect() == "already protected", f"{length} bytes"
            assert array.path.read_bytes() == array.protected, f"{length} bytes"


def test_a_sidecar_whose_tables_are_hidden_by_a_flipped_bit_is_no_new_one(array: Array) -> None:
    place = 100 + 4  # of SQLite's first page: how many tables there are
    assert array.sealed[place] == 2
    array.set(array.protected, array.sealed[:place] + b"\0" + array.sealed[place + 1 :])
    with pytest.raises(SidecarError):
        array.protect()
    assert array.path.read_bytes() == array.protected


def test_bytes_behind_the_end_do_no_harm(array: Array) -> None:
    array.set(array.protected, array.sealed + bytes(5_000))
    assert outcome(array) in ("refused", "restored")


@pytest.mark.parametrize("number", range(4))
def test_a_batch_of_another_run_is_refused(array: Array, number: int) -> None:
    splice(array, f"REPLACE INTO main.batch SELECT * FROM other.batch WHERE number = {number}")
    array.refuses_to_restore(f"Batch {number} of the sidecar .* is damaged")


def test_all_batches_of_another_run_are_refused(array: Array) -> None:
    splice(array, "REPLACE INTO main.batch SELECT * FROM other.batch")
    array.refuses_to_restore("Batch 0 of the sidecar .* is damaged")


def test_the_run_of_another_sidecar_is_refused(array: Array) -> None:
    splice(array, "REPLACE INTO main.run SELECT * FROM other.run")
    array.refuses_to_restore("Batch 0 of the sidecar .* is damaged")


@pytest.mark.parametrize("field", ["header", "wrapped", "tag"])
def test_a_field_of_another_run_is_refused(array: Array, field: str) -> None:
    splice(array, f"UPDATE main.run SET {field} = (SELECT {field} FROM other.run)")
    array.refuses_to_restore("was not made with the key .* or it is damaged")


def test_exchanged_batches_are_refused(array: Array) -> None:
    edit(
        array.sidecar,
        "UPDATE batch SET number = 99 WHERE number = 1",
        "UPDATE batch SET number = 1 WHERE number = 2",
        "UPDATE batch SET number = 2 WHERE number = 99",
    )
    array.refuses_to_restore("Batch 1 of the sidecar .* is damaged")


@pytest.mark.parametrize("number", range(4))
def test_a_lost_batch_of_a_finished_run_is_refused(array: Array, number: int) -> None:
    edit(array.sidecar, f"DELETE FROM batch WHERE number = {number}")
    array.refuses_to_restore("has lost batches")


def test_a_repeated_batch_is_refused(array: Array) -> None:
    edit(array.sidecar, "INSERT INTO batch SELECT 4, session, sealed FROM batch WHERE number = 3")
    array.refuses_to_restore("has lost batches")


@pytest.mark.parametrize("number", range(4))
def test_a_lost_batch_of_an_interrupted_run_is_refused(array: Array, monkeypatch: Any, number: int) -> None:
    def fail(_: object) -> None:
        raise OSError("no sync")

    array.restore()
    with monkeypatch.context() as patching:
        patching.setattr(mapped.MappedArray, "sync", fail)
        with pytest.raises(OSError, match="no sync"):
            array.protect()
    assert array.path.read_bytes() == array.protected
    edit(array.sidecar, f"DELETE FROM batch WHERE number = {number}")
    array.refuses_to_restore("has lost batches")
    with pytest.raises(SidecarError, match="has lost batches"):
        array.protect()
    assert array.path.read_bytes() == array.protected


@pytest.mark.parametrize("state", ["applying", "undoing", "undone", "final", "new", "neither", ""])
def test_a_changed_state_is_refused(array: Array, state: str) -> None:
    edit(array.sidecar, f"UPDATE run SET state = '{state}'")
    array.refuses_to_restore("was not made with the key .* or it is damaged")
    with pytest.raises(SidecarError, match="is damaged"):
        array.protect()
    assert array.path.read_bytes() == array.protected


@pytest.mark.parametrize(
    "statement",
    [
        'UPDATE run SET summary = \'{"batches": 4, "counts": {}}\'',
        'UPDATE run SET summary = CAST(\'{"batches": 4, "counts": {}}\' AS BLOB)',
        "UPDATE run SET header = CAST(replace(CAST(header AS TEXT), '\"patch\": 40', '\"patch\": 39') AS BLOB)",
        "UPDATE run SET header = 7",
        "UPDATE run SET wrapped = zeroblob(60)",
        "UPDATE run SET wrapped = zeroblob(0)",
        "UPDATE run SET tag = zeroblob(32)",
        "UPDATE run SET tag = zeroblob(0)",
        "UPDATE run SET state = CAST('complete' AS BLOB)",
    ],
)
def test_a_changed_field_is_refused(array: Array, statement: str) -> None:
    edit(array.sidecar, statement)
    array.refuses_to_restore("was not made with the key .* or it is damaged")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE batch SET session = zeroblob(16) WHERE number = 2",
        "UPDATE batch SET session = 'text' WHERE number = 2",
        "UPDATE batch SET sealed = 5 WHERE number = 2",
        "UPDATE batch SET sealed = zeroblob(0) WHERE number = 2",
        "UPDATE batch SET sealed = zeroblob(15) WHERE number = 2",
        "UPDATE batch SET sealed = CAST(sealed || 'x' AS BLOB) WHERE number = 2",
    ],
)
def test_a_changed_batch_is_refused(array: Array, statement: str) -> None:
    edit(array.sidecar, statement)
    array.refuses_to_restore("Batch 2 of the sidecar .* is damaged")


def test_a_sidecar_without_its_run_is_refused(array: Array) -> None:
    edit(array.sidecar, "DELETE FROM run")
    array.refuses_to_restore("has lost its run")


def test_another_application_id_is_refused(array: Array) -> None:
    edit(array.sidecar, f"PRAGMA application_id = {APPLICATION_ID + 1}")
    array.refuses_to_restore("is not a sidecar, or it is damaged; move it away")


def test_a_forged_sidecar_without_the_key_is_refused(array: Array) -> None:
    array.sidecar.unlink()
    header = {"kind": "array", "fingerprint": array.key.fingerprint, "run": "0" * 32}
    edit(array.sidecar, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 1", *SCHEMA.values())
    with edited(array.sidecar) as database:
        database.execute(
            "INSERT INTO run VALUES (1, ?, ?, 'complete', ?, ?)",
            (json.dumps(header).encode(), bytes(60), b"{}", bytes(32)),
        )
    array.refuses_to_restore("was not made with the key .* or it is damaged")


# Older copies


def test_the_sidecar_of_a_finished_run_put_back_after_its_undo_is_not_believed(array: Array) -> None:
    array.restore()
    array.set(array.original, array.sealed)
    with pytest.raises(SidecarError, match=r"not as it left them .* put back or changed since"):
        array.protect()
    assert array.path.read_bytes() == array.original
    assert array.restore() == "restored"
    assert array.path.read_bytes() == array.original
    assert array.protect() == "protected"
    assert array.path.read_bytes() == array.protected
    array.ledger.count("tampered", tried=2, wrong=0, what="an older sidecar")


def test_the_sidecar_of_an_undone_run_put_back_over_protected_data_restores_nothing(array: Array) -> None:
    array.restore()
    undone = array.sidecar.read_bytes()
    array.protect()
    array.set(array.protected, undone)
    assert array.restore() == "already original"  # so it says; what it is, verify tells
    assert array.path.read_bytes() == array.protected
    assert verify_memmap(array.arr, array.key).protected == 11
    array.ledger.count("tampered", tried=1, wrong=0, what="an older sidecar")


# Every byte and every length


@pytest.mark.trust
@pytest.mark.guards("I9")
def test_a_sidecar_cut_at_any_length_is_refused(array: Array) -> None:
    for length in range(1, len(array.sealed)):
        array.sidecar.write_bytes(array.sealed[:length])
        said = reading(array)
        array.ledger.count("tampered", tried=1, wrong=said is not None, what="a sidecar")
        assert said is None, f"{length} bytes"
    for length in range(0, len(array.sealed), 23):
        array.set(array.protected, array.sealed[:length])
        assert outcome(array) == "refused", f"{length} bytes"


FILES = {f"{'ab'[n % 2]}/{n}.wav": wav(noise(300 + n, seed=n)) for n in range(4)}


@pytest.mark.parametrize("step", [pytest.param(7, marks=pytest.mark.trust), 211])
@pytest.mark.parametrize("only", [None, "a/0.wav"], ids=["a folder", "one file"])
def test_the_sidecar_of_files_with_a_byte_flipped_is_refused_or_right(
    folder: Path, key: Key, ledger: Ledger, only: str | None, step: int
) -> None:
    write_tree(folder, FILES)
    root = folder if only is None else folder / only
    sidecar = folder / ".poscuda" if only is None else folder / f"{only}.poscuda"
    protect_folder(root, None, key, labels_from="folder" if only is None else {"0.wav": "a"})
    protected = contents(folder)
    sealed = sidecar.read_bytes()
    wrong = []
    changed = damaged(sealed, range(0, len(sealed), step), [0xFF])
    cuts = ((f"{length} bytes", sealed[:length]) for length in range(0, len(sealed), 13 * step))
    for name, content in itertools.chain(changed, cuts):
        write_tree(folder, protected)
        sidecar.write_bytes(content)
        try:
            restore_folder(root, key)
        except (PoscudaError, OSError):
            right = contents(folder) == {**protected, **_of_sidecars(folder)}
        else:
            found = contents(folder)
            right = {file: found[file] for file in FILES} == FILES
        ledger.count("tampered", tried=1, wrong=not right, what="a sidecar of files")
        if not right:
            wrong.append(name)
    assert wrong == []


def _of_sidecars(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if name.endswith(".poscuda")}


# Key files


@pytest.mark.guards("I9")
def test_a_key_file_with_any_byte_flipped_is_refused_or_the_same_key(tmp_path: Path, ledger: Ledger) -> None:
    key = Key(bytes(range(1, 33)))
    key.save(tmp_path / "my.key")
    content = (tmp_path / "my.key").read_bytes()
    path = tmp_path / "damaged.key"
    path.touch(0o600)
    cuts = ((f"{length} bytes", content[:length]) for length in range(len(content) - 1))
    for name, wrong in itertools.chain(damaged(content, range(len(content)), [1, 0x20, 0x80, 0xFF]), cuts):
        path.write_bytes(wrong)
        try:
            right = Key.load(path) == key  # a note was changed, not the key
        except KeyFileError:
            right = True
        ledger.count("tampered", tried=1, wrong=not right, what="a key file")
        assert right, name
