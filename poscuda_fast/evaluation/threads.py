"""Train on one thread: more of them wait for each other at every step, and lose minutes on a machine that is busy.

Seconds for a few epochs of 800 clips of 1 s, on 2 cores beside 0, 1 and 2 other processes that each keep a core busy
(torch 2.14, of the wheels for Linux, whose threads spin while they wait):

| threads | M5              | LSTM             | CNN             |
|---------|-----------------|------------------|-----------------|
| 1       | 4.3, 6.0, 6.0   | 2.4, 4.2, 5.5    | 2.5, 5.0, 7.2   |
| 2       | 4.0, 23.6, 17.4 | 10.6, 22.0, 56.3 | 8.1, 35.0, 13.2 |

Two threads that sleep while they wait (OMP_WAIT_POLICY=passive) take 2.5 to 12.3 s, but that is read once, when torch
is loaded, for the whole process. On one thread, sums do not depend on the number of cores either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for each operation of torch in the block; the caller's number again behind it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
