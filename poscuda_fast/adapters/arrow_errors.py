"""What Arrow raises, as sentences: its own classes and texts say neither the file nor what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from poscuda_fast.errors import DatasetError

MOST_SHOWN = 160  # characters of Arrow's text
_SHOWS_VALUES = "Could not convert"  # what follows is a value, which may be a whole recording


@contextlib.contextmanager
def said(failure: str, way_out: str) -> Iterator[None]:
    """Turn what Arrow raises inside into a DatasetError: "{failure} ({reason}); {way_out}.".

    Errors of the system, which have a number or a class of their own, and exhausted memory stay what they are.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra

    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        raise DatasetError(f"{failure} ({_reason(error)}); {way_out}.") from None


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    if not lines or _SHOWS_VALUES in lines[0]:
        return type(error).__name__
    return lines[0][:MOST_SHOWN].rstrip(".")
