"""One private HTML page that shows the owner of the data what was protected."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from poscuda_fast import disk
from poscuda_fast.arrays.opening import is_array
from poscuda_fast.arrays.originals import ArrayRun, CopiedArray, open_array
from poscuda_fast.errors import DatasetError
from poscuda_fast.files.copied import CopiedFiles
from poscuda_fast.files.originals import FilesRun, open_files
from poscuda_fast.key import Key, check_key
from poscuda_fast.recipe import USUAL_RATE, PaperRecipe, check_rate
from poscuda_fast.reporting.evaluation import Evaluation, read_evaluation
from poscuda_fast.reporting.page import Subject, render
from poscuda_fast.reporting.survey import survey_array, survey_files
from poscuda_fast.results import Progress
from poscuda_fast.secrecy import discreet
from poscuda_fast.text import how_to_install
from poscuda_fast.undo.record import Run, recorded_share, settings_of

NEEDED = ("jinja2", "matplotlib")

PathLike = str | os.PathLike[str]


@discreet
def write_report(
    src: PathLike,
    key: Key,
    out: PathLike,
    *,
    evaluation: PathLike | None = None,
    sample_rate: int | None = None,
    sidecar: PathLike | None = None,
    progress: Progress | None = None,
) -> None:
    """Write one self-contained HTML page that shows what was protected, for the owner of the data.

    The page needs no network and no other file. It shows clips before, after and as the difference: a typical one,
    whose SNR is nearest the median, and ten that were silent before or have the lowest SNR. A blind test on it counts
    how often its reader tells before and after apart. Anyone who has the page can learn marks from it, so keep it as
    secret as the sidecar; only its owner can read it (mode 0600). The data and their sidecar are read and not changed.

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
    sample_rate : int, optional
        Of an array's clips in format 1, Hz; 16,000 is assumed otherwise. Audio files have their own, and in format 2
        an array's sidecar records it.
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
        another key, recipe, labels or lengths, or only a share of the clips is marked.
    SidecarError
        There is no run, it was undone, or its undo was dropped; or the sidecar is damaged, of another key, or made for
        other data.
    TypeError, ValueError
        The sample rate is no whole number, out of range, or not the one that the sidecar records.
    AudioFileError, BusyError, OSError
        As for `protect_folder` and `protect_memmap`.
    """
    check_key(key)
    refuse_missing()
    source, page = Path(src), Path(out)
    if sample_rate is not None:
        sample_rate = check_rate(sample_rate)
    _refuse_place(page, source)
    if is_array(source):
        with open_array(source, key, sidecar) as clips_run:
            judged = _evaluation(evaluation, clips_run)
            rate, words = _rate_of_array(clips_run, sample_rate)
            subject = _subject(source, "clips", clips_run, words)
            survey = survey_array(clips_run, rate, progress)
    else:
        with open_files(source, key, sidecar) as files_run:
            judged = _evaluation(evaluation, files_run)
            subject = _subject(source, "files", files_run, _rates_of_files(files_run))
            survey = survey_files(files_run, progress)
    with disk.appearing(page, mode=0o600) as file:
        file.write(render(subject, survey, judged).encode())


def refuse_missing() -> None:
    """ImportError with what to install if a report cannot be made here."""
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise ImportError(f"poscuda report needs jinja2 and matplotlib: {how_to_install('report')}.")


def _evaluation(path: PathLike | None, run: ArrayRun | CopiedArray | FilesRun | CopiedFiles) -> Evaluation | None:
    if path is None:
        return None
    if recorded_share(run.journal) is not None:
        raise DatasetError(
            f"Only a share of the clips is marked, according to {run.journal.path}, and evaluations are of data that "
            f"are marked throughout; leave the evaluation out."
        )
    return read_evaluation(path, run.journal.key.fingerprint, run.recipe, run.labels_mac)


def _rate_of_array(run: Run, given: int | None) -> tuple[int, str]:
    """The sample rate of an array's clips in Hz, and what the page says of it."""
    if isinstance(run.recipe, PaperRecipe):  # records none
        return (USUAL_RATE, f"taken to be {USUAL_RATE:,} Hz (assumed)") if given is None else (given, f"{given:,} Hz")
    settings = settings_of(run.journal)
    (rate,) = settings.sample_rates
    if given is not None and given != rate:
        raise ValueError(
            f"sample_rate is {given}, and {run.journal.path} records {rate:,} Hz, for which the marks were made; leave "
            f"it out, or restore the array and protect it again with the right one."
        )
    return rate, f"taken to be {rate:,} Hz (assumed)" if settings.rate_assumed else f"{rate:,} Hz"


def _rates_of_files(run: Run) -> str:
    """What the page says of the sample rates of files; empty in format 1, which records none."""
    if isinstance(run.recipe, PaperRecipe):
        return ""
    return ", ".join(f"{rate:,}" for rate in settings_of(run.journal).sample_rates) + " Hz"


def _subject(source: Path, unit: str, run: Run, sample_rate: str) -> Subject:
    return Subject(
        # Bytes of a name that are not UTF-8 are shown as U+FFFD.
        name=os.fsencode(Path(os.path.realpath(source)).name).decode("utf-8", "replace"),
        unit=unit,
        state=run.journal.state,
        recipe=run.recipe,
        fingerprint=run.journal.key.fingerprint,
        n_clips=run.n_clips,
        n_classes=len(run.tokens),
        sample_rate=sample_rate,
        is_share=recorded_share(run.journal) is not None,
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
