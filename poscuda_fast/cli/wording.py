"""What the library says in Python's words, said in the words of the command line."""

from __future__ import annotations

import re

_SWITCHES = ("partial", "skip_unusable", "without_sidecar")
_VALUES = ("labels", "sidecar", "source", "strength")
_SUBJECTS = ("backend", "classes", "labels", "labels_from", "lengths", "sample_rate", "share", "snr", "source",
             "strength", "threads")  # fmt: skip
_FIELDS = ("blur", "every", "identity", "patch", "patches", "strength", "taps")  # of a recipe


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _any(names: tuple[str, ...]) -> str:
    return f"({'|'.join(sorted(names, key=len, reverse=True))})"


# Arguments are set off from data that look like them: nothing that belongs to a path or is quoted comes before.
_BEFORE = r"(?:(?<=^)|(?<=[ (]))"
_BEHIND = r"(?!\w)"
_RULES = [
    (re.compile(_BEFORE + pattern + _BEHIND), told)
    for pattern, told in (
        (r"restore_array or restore_folder with without_sidecar=True", "poscuda restore --without-sidecar"),
        (r"'csv:FILE', 'regex:RE' or a mapping", "'csv:FILE' or 'regex:RE'"),
        (r"lossy='flac'", "--lossy-to-flac"),
        (r"dst=None", "--in-place"),
        (r"dst=PATH|dst(?= is )", "DST"),
        (r"n_clips=NUMBER", "--clips NUMBER"),
        (_any(_SWITCHES) + "=True", lambda found: _option(found[1])),
        (_any(_VALUES) + r"=([A-Z][\w.]*)", lambda found: f"{_option(found[1])} {found[2]}"),
        (r"Recipe\." + _any(_FIELDS), lambda found: _option(found[1])),
        (_any(_SUBJECTS) + r"(?= (?:is|was|has|are) |\[\d)", lambda found: _option(found[1])),
        (r"leave sample_rate out", "leave --sample-rate out"),
    )
]


def of_command(text: str) -> str:
    """A message or a note with the names of options in place of those of arguments."""
    for pattern, told in _RULES:
        text = pattern.sub(told, text)
    return text
