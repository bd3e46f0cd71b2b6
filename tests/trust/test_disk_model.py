"""The model of a disk itself: what must be certain is, and what may be lost can be."""

from __future__ import annotations

import numpy as np
import pytest
from disk import SECTOR, Disk, State

A, B, C = (letter * SECTOR for letter in (b"a", b"b", b"c"))


def states(disk: Disk) -> list[State]:
    found = list(disk.states(np.random.default_rng(3), 200))
    return [state for n, state in enumerate(found) if state not in found[:n]]


def after(before: State, *operations: tuple) -> list[State]:
    disk = Disk(before)
    for operation in operations:
        disk.apply(operation)
    return states(disk)


def contents(found: list[State], name: str = "f") -> set[bytes]:
    return {state[name] for state in found if name in state}


def test_a_write_is_there_or_not_and_torn_at_sectors() -> None:
    found = contents(after({"f": A + A}, ("write", "f", 0, B + B)))
    assert found == {A + A, B + B, A + B, B + A}


def test_an_older_version_may_be_what_is_there() -> None:
    assert contents(after({"f": A}, ("write", "f", 0, B), ("write", "f", 0, C))) == {A, B, C}


def test_what_is_synced_is_certain_and_what_is_not_stays_open() -> None:
    operations = ("write", "f", 0, B), ("write", "g", 0, B), ("sync", "f")
    found = after({"f": A, "g": A}, *operations)
    assert contents(found) == {B}
    assert contents(found, "g") == {A, B}
    assert after({"f": A, "g": A}, *operations, ("sync_all",)) == [{"f": B, "g": B}]


def test_a_store_through_a_mapping_may_be_on_the_disk_half_done() -> None:
    found = contents(after({"f": A}, ("store", "f", 0, B)))
    assert found == {A, B, B[: SECTOR // 2] + A[SECTOR // 2 :]}


def test_a_file_that_has_grown_holds_nothing_where_its_content_is_missing() -> None:
    assert contents(after({"f": A}, ("write", "f", SECTOR, B))) == {A, A + B, A + bytes(SECTOR)}


def test_content_cannot_be_newer_than_the_cut_that_came_before_it() -> None:
    found = contents(after({"f": A + A}, ("resize", "f", 0), ("write", "f", 0, B)))
    assert {A + A, b"", B} <= found
    assert B + A not in found
    assert A not in found


def test_a_name_is_durable_once_its_folder_is() -> None:
    create = ("create", "f"), ("write", "f", 0, A), ("sync", "f")
    assert after({}, *create) == [{}, {"f": A}]
    assert after({}, *create, ("sync_folder", "")) == [{"f": A}]
    assert after({"f": A}, ("remove", "f")) == [{"f": A}, {}]
    assert after({"f": A, "g": B}, ("rename", "f", "g")) == [{"f": A, "g": B}, {"g": A}]


def test_nothing_is_found_below_a_folder_that_is_not_there() -> None:
    operations = ("folder", "d"), ("create", "d/f"), ("sync_folder", "d")
    assert after({}, *operations) == [{}, {"d/": b"", "d/f": b""}]


@pytest.mark.parametrize("again", [None, "write", "touch"])
def test_after_a_failed_sync_only_what_is_written_again_gets_to_the_disk(again: str | None) -> None:
    operations: list[tuple] = [("write", "f", 0, B), ("sync_failed", "f")]
    if again:
        operations.append(("write", "f", 0, B) if again == "write" else ("touch", "f", 0, SECTOR))
    found = contents(after({"f": A}, *operations, ("sync", "f")))
    assert found == ({B} if again else {A, B})
