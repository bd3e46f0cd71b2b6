"""One private HTML page that shows the owner of the data what was protected."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from poscuda_fast import disk
from poscuda_fast.arrays.opening import is_array
from poscuda_fast.arrays.originals import open_array
from poscuda_fast.errors import DatasetError
from poscuda_fast.files.originals import open_files
from poscuda_fast.key import Key, check_key
from poscuda_fast.recipe import MAX_RATE, USUAL_RATE
from poscuda_fast.reporting.evaluation import Evaluation, read_evaluation
from poscuda_fast.reporting.page import Subject, render
from poscuda_fast.reporting.survey import survey_array, survey_files
from poscuda_fast.results import Progress
from poscuda_fast.secrecy import discreet
from poscuda_fast.undo.record import Run

NEEDED = ("jinja2", "matplotlib")

PathLike = str | os.PathLike[str]


@discreet
def write_report(
    src: PathLike,
    key: Key,
    out: PathLike,
    *,
    evaluation: PathLike | None = None,
    sample_rate: int = USUAL_RATE,
    sidecar: PathLike | None = None,
    progress: Progress | None = None,
) -> None:
    """Write one self-contained HTML page that shows what was protected, for the owner of the data.

    The page needs no network and no other file. It shows ten clips before and after: first those that were silent
    before, then those with the lowest SNR. Anyone who has the page can learn marks from it, so keep it as secret as
    the sidecar; only its owner can read it (mode 0600). The data and their sidecar are read and not changed.

    Parameters
    ----------
    src : path
        What was protected: a folder, an audio file, a .npy array, or the folder of a Zarr array.
    key : Key
        The key it was protected with.
    out : path
        The page to write; it must not exist.
    evaluation : path, optional
        The result that `poscuda evaluate` stored for these data; its verdict and tables are shown too.
    sample_rate : int
        Of an array's clips, Hz; audio files have their own.
    sidecar : path, optional
        The sidecar's path, if one was given when the data were protected.
    progress : callable, optional
        Called with (clips done, clips in all).

    Raises
    ------
    ImportError
        jinja2 or matplotlib is missing.
    FileExistsError
        `out` exists.
    DatasetError
        `src` or the folder of `out` does not exist, or `out` lies inside `src`; or the evaluation is damaged, or is of
        another key, recipe, labels or lengths.
    SidecarError
        There is no run, it was undone, or its undo was dropped; or the sidecar is damaged, of another key, or made for
        other data.
    ValueError
        The sample rate is out of range.
    AudioFileError, BusyError, OSError
        As for `protect_folder` and `protect_memmap`.
    """
    check_key(key)
    refuse_missing()
    source, page = Path(src), Path(out)
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, int) or not 1 <= sample_rate <= MAX_RATE:
        raise ValueError(f"sample_rate is {sample_rate!r}; expected a whole number of Hz from 1 to {MAX_RATE}.")
    _refuse_place(page, source)
    if is_array(source):
        with open_array(source, key, sidecar) as clips_run:
            judged = _evaluation(evaluation, clips_run)
            subject = _subject(source, "clips", clips_run, sample_rate)
            survey = survey_array(clips_run, sample_rate, progress)
    else:
        with open_files(source, key, sidecar) as files_run:
            judged = _evaluation(evaluation, files_run)
            subject = _subject(source, "files", files_run, None)
            survey = survey_files(files_run, progress)
    with disk.appearing(page, mode=0o600) as file:
        file.write(render(subject, survey, judged).encode())


def refuse_missing() -> None:
    """ImportError with what to install if a report cannot be made here."""
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise ImportError("poscuda report needs jinja2 and matplotlib: pip install 'poscuda-fast[report]'.")


def _evaluation(path: PathLike | None, run: Run) -> Evaluation | None:
    if path is None:
        return None
    return read_evaluation(path, run.journal.key.fingerprint, run.recipe, run.journal.header["labels"])


def _subject(source: Path, unit: str, run: Run, sample_rate: int | None) -> Subject:
    return Subject(
        # Bytes of a name that are not UTF-8 are shown as U+FFFD.
        name=os.fsencode(Path(os.path.realpath(source)).name).decode("utf-8", "replace"),
        unit=unit,
        state=run.journal.state,
        recipe=run.recipe,
        fingerprint=run.journal.key.fingerprint,
        n_clips=run.n_clips,
        n_classes=len(run.labels),
        sample_rate=sample_rate,
    )


def _refuse_place(page: Path, source: Path) -> None:
    """Refuse to write a page that exists, or one inside the data, which may be published."""
    if os.path.lexists(page):
        raise FileExistsError(f"{page} exists, and nothing is ever overwritten; choose another name for the report.")
    folder = Path(os.path.realpath(page.parent))
    if not folder.is_dir():
        raise DatasetError(f"The folder of {page} does not exist; make it, or choose another folder for the report.")
    data = Path(os.path.realpath(source))
    if data.is_dir() and (folder == data or data in folder.parents):
        raise DatasetError(
            f"{page} lies inside {source}; the report is private and must not be published with the data, so choose "
            f"another folder for it."
        )
