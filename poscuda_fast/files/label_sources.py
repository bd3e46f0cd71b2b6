"""The label of each audio file: from its folder's name, a CSV file, a regular expression, or a mapping."""

from __future__ import annotations

import csv
import re
import sys
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath

from poscuda_fast.errors import DatasetError
from poscuda_fast.files.listing import refuse
from poscuda_fast.mark.labels import BLANKS

MAX_CSV_FIELD = 1 << 16


def find_labels(
    root: Path,
    names: Sequence[str],
    source: str | Mapping[str, str | int],
    *,
    also: Collection[str] = (),
    whole: bool = True,
) -> list[str | int]:
    """One label for each name, from "folder", "csv:FILE", "regex:RE" or a mapping.

    With `whole`, `names` is the whole data set but for what may have labels `also`, and labels for any other file are
    refused.

    Raises
    ------
    DatasetError
        `source` has another form or cannot be read, or it leaves a file without a label; the message names the files.
    """
    if not isinstance(source, str | Mapping):
        raise DatasetError(f"labels_from is {source!r}; expected 'folder', 'csv:FILE', 'regex:RE' or a mapping.")
    if isinstance(source, Mapping):
        return _from_mapping(root, names, source, "the mapping of labels", also=also, whole=whole)
    kind, _, rest = source.partition(":")
    if source == "folder":
        return _from_folders(root, names)
    if kind == "csv" and rest:
        return _from_mapping(root, names, _read_csv(Path(rest)), rest, also=also, whole=whole)
    if kind == "regex" and rest:
        return _from_regex(names, rest)
    raise DatasetError(f"labels_from is {source!r}; expected 'folder', 'csv:FILE', 'regex:RE' or a mapping.")


def _from_folders(root: Path, names: Sequence[str]) -> list[str | int]:
    own = root.absolute().name
    parents = [sys.intern(name.split("/")[-2]) if "/" in name else own for name in names]
    loose = [name for name in names if "/" not in name]
    # One file, or a folder that is itself a class, is fine; loose files beside class folders are not.
    if loose and len(loose) != len(names):
        refuse([f"{name} lies outside every class folder" for name in loose], "Labels cannot be read from the folders")
    return parents  # type: ignore[return-value] # a list that nobody else has


def _from_mapping(
    root: Path, names: Sequence[str], labels: Mapping[str, str | int], where: str, *, also: Collection[str], whole: bool
) -> list[str | int]:
    composed: dict[str, str | int] = {}
    twice = [name for name, label in labels.items() if composed.setdefault(_composed(name), label) != label]
    refuse([f"{name} has two labels" for name in twice], f"Labels and files do not match ({where})")
    labels = composed
    here = {_composed(name) for name in names}
    problems = [f"{name} has no label" for name in names if _composed(name) not in labels]
    known = here | {_composed(name) for name in also}
    for name, label in labels.items():
        if isinstance(label, bool) or not isinstance(label, str | int):
            problems.append(f"{name} has the label {label!r}, which is neither a name nor a number")
        elif whole and name not in known:
            problems.append(f"{name} has a label but is not an audio file there")
    refuse(problems, f"Labels and files do not match ({where}; paths are relative to {root})")
    return [labels[_composed(name)] for name in names]


def _from_regex(names: Sequence[str], pattern: str) -> list[str | int]:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise DatasetError(f"The regular expression {pattern!r} is not valid: {error}.") from None
    if compiled.groups < 1:
        raise DatasetError(f"The regular expression {pattern!r} has no group; put the label in parentheses.")
    labels: list[str | int] = []
    problems = []
    for name in names:
        match = compiled.search(PurePosixPath(name).name)
        if match is None or not match[1]:
            problems.append(f"{name} does not match {pattern!r}")
        else:
            labels.append(match[1])
    refuse(problems, "Labels cannot be read from the file names")
    return labels


def _composed(name: str) -> str:
    """A name as systems differ in writing it, in one form: NFC."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _read_csv(path: Path) -> dict[str, str]:
    """`path,label` rows; paths are relative to the audio folder."""
    if not path.is_file():
        raise DatasetError(f"{path} does not exist or is not a file; give a CSV file with the columns path and label.")
    labels: dict[str, str] = {}
    problems = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                raise DatasetError(
                    f"{path} has the columns {rows.fieldnames}; its first line must name path and label, "
                    f"separated by commas."
                )
            for row in rows:
                name, label = row["path"] or "", (row["label"] or "").strip(BLANKS)
                if max(len(name), len(label)) > MAX_CSV_FIELD:  # csv's own limit is for the whole process
                    raise csv.Error(f"line {rows.line_num} has a field of more than {MAX_CSV_FIELD:,} characters")
                pure = PurePosixPath(name)
                if pure.is_absolute() or ".." in pure.parts or not pure.parts:
                    problems.append(f"line {rows.line_num}: {name!r} is not a path inside the folder")
                elif not label:
                    problems.append(f"line {rows.line_num}: {name!r} has an empty label")
                elif "\0" in label:
                    problems.append(f"line {rows.line_num}: {name!r} has a NUL character in its label")
                elif labels.setdefault(_composed(str(pure)), label) != label or None in row:
                    problems.append(f"line {rows.line_num}: {name!r} has two labels")
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV file in UTF-8: {error}.") from None
    refuse(problems, f"{path} cannot be used")
    return labels
