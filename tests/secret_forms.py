"""The forms in which a secret may stand in a file, a message or a pickle."""

from __future__ import annotations

import base64
from collections.abc import Iterator


def forms_of(secret: bytes) -> Iterator[bytes]:
    """A secret as bytes, in hexadecimal, in base64 wherever it begins, as Python's text of it, and as a list."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for lead in range(3):
        text = base64.b64encode(bytes(lead) + secret)
        inner = text[-(-lead * 8 // 6) : (lead + len(secret)) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
    yield repr(secret)[2:-1].encode()
    yield b" " + " ".join(map(str, secret)).encode() + b" "
