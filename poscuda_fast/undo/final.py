"""Dropping the undo: protected data then stay protected, even for those who have the key."""

from __future__ import annotations

import os
import time
from pathlib import Path

from poscuda_fast import disk
from poscuda_fast.disk import PathLike
from poscuda_fast.errors import DatasetError
from poscuda_fast.key import Key, check_key
from poscuda_fast.results import Report, Tally
from poscuda_fast.secrecy import discreet
from poscuda_fast.undo import copies
from poscuda_fast.undo.journal import Journal, sidecar_of
from poscuda_fast.undo.record import refuse_without_run, settings_of


@discreet
def drop_undo(path: PathLike, key: Key, *, sidecar: PathLike | None = None) -> Report:
    """Permanently destroy the originals that a finished run keeps in its sidecar.

    Nobody can restore the data from it afterwards, with or without the key. The data are not touched. The sidecar
    stays, a few KiB, and still prevents the data from being marked twice. `verify_folder` then compares with the
    manifest; `verify_array` has nothing left to compare with and raises SidecarError. If the process is killed, the
    undo is either complete or gone; make the same call again to finish.

    Parameters
    ----------
    path : path
        What was protected in place: a folder, an audio file, or the file or folder of an array.
    key : Key
        The key it was protected with.
    sidecar : path, optional
        As given when it was protected.

    Returns
    -------
    Report
        The counts of the run, with state "final".

    Raises
    ------
    SidecarError
        The sidecar is missing, damaged or made with another key, or its run is not finished. Nothing was written.
    DatasetError
        `path` does not exist, or is a copy, whose undo is its source.
    BusyError, OSError
        As for `protect_memmap`.

    Notes
    -----
    The journal's key is overwritten in the file (FORMAT.md, "Sidecar"). This does not reach backups and snapshots of
    the sidecar, or old blocks that a disk keeps.
    """
    begun = time.perf_counter()
    check_key(key)
    data = Path(os.path.realpath(path))
    if not data.exists():
        raise DatasetError(f"{path} does not exist; give the folder, the audio file or the array that was protected.")
    with (
        disk.locked(data),
        Journal(sidecar_of(data) if sidecar is None else Path(sidecar), key) as journal,
    ):
        refuse_without_run(journal)
        copies.refuse_drop(journal, data)
        journal.make_final()
        tally, settings = Tally(**journal.summary["counts"]), settings_of(journal)
    return tally.report("final", settings, time.perf_counter() - begun)
