"""What the system refused, as a sentence: the path, the system's reason, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

_ROOM = "make room on that disk"
_RIGHTS = "change its permissions, or those of its folder, or run the command as its owner"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: f"{_ROOM}, or have your quota raised",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose a disk that takes larger ones",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "that disk may only be read: mount it for writing, or choose another path",
    errno.ENOENT: "see that it is there, and that nothing moves it meanwhile",
    errno.EEXIST: "move it away, or choose another name",
    errno.EISDIR: "it is a folder: give a file",
    errno.ENOTDIR: "a part of the path is a file: give another path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "it is a link, or links go in a circle: give the file itself",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or use fewer threads",
    errno.ENFILE: "end other programs, which hold too many files open",
    errno.EIO: "look at the disk, which may be failing, and at the system's log",
    errno.ESTALE: "mount that network disk again",
    errno.EPIPE: "see that what reads it stays open",
}
_USUAL = "see that it can be read and written"


def is_of_system(error: OSError) -> bool:
    """Whether the system raised an error, rather than this library, which says all of it in a sentence."""
    return error.errno is not None or not error.args


def reason(error: OSError) -> str:
    """The system's reason, and what to do."""
    said = error.strerror or f"the system refused it without a reason ({type(error).__name__})"
    return f"{said}; {_ADVICE.get(error.errno or 0, _USUAL)}"


def sentence(error: OSError, given: Sequence[Path] = ()) -> str:
    """The path, the reason and what to do. Where the system names no path, it is one of those `given`."""
    named = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | Path)]
    places = " and ".join(named) or " or ".join(map(str, given)) or "a file"
    return f"{places}: {reason(error)}."
