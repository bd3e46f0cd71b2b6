"""Every sealing of a log's records, by key and nonce."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from poscuda_fast.undo import log

Sealings = dict[bytes, set[bytes]]


@contextmanager
def recorded() -> Iterator[Sealings]:
    """What each key and nonce sealed, in digest: more than one thing is wrong."""
    seen: Sealings = {}

    class Recording:
        def __init__(self, key: bytes) -> None:
            self._key = bytes(key)
            self._cipher = ChaCha20Poly1305(key)
            self.decrypt = self._cipher.decrypt

        def encrypt(self, nonce: bytes, data: bytes, context: bytes) -> bytes:
            pair = hashlib.sha256(self._key + nonce).digest()
            seen.setdefault(pair, set()).add(hashlib.sha256(data + context).digest())
            return self._cipher.encrypt(nonce, data, context)

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(log, "ChaCha20Poly1305", Recording)
        yield seen


def repeated(seen: Sealings) -> int:
    """How many keys and nonces sealed several things."""
    return sum(len(things) > 1 for things in seen.values())
