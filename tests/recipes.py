"""Recipes of both formats, as tests give them to the library and to naive.py.

`protect`, `protect_memmap`, `protect_folder` and `ownership_test` are the library's with the paper's recipe where none
is given: one patch in a clip is easy to count.
"""

from __future__ import annotations

import functools
from typing import Any

from hypothesis import strategies as st
from naive import is_strong

import poscuda_fast
from poscuda_fast import Recipe
from poscuda_fast.recipe import MAX_FLOAT

protect, protect_memmap, protect_folder, ownership_test = (
    functools.partial(verb, recipe=Recipe.paper())
    for verb in (
        poscuda_fast.protect, poscuda_fast.protect_memmap, poscuda_fast.protect_folder, poscuda_fast.ownership_test,
    )
)  # fmt: skip


def made(sample_rate: int = 16_000, **fields: Any) -> Recipe:
    """The library's recipe for fields of naive.py; the sample rate is no part of it."""
    del sample_rate
    return Recipe.strong(**fields) if is_strong(fields) else Recipe.paper(**fields)


def rate_of(fields: dict[str, Any]) -> int:
    """The sample rate in Hz for fields of naive.py."""
    return int(fields.get("sample_rate", 16_000))


# Small patches and filters, for the second implementation is slow.
paper = st.builds(
    lambda patch, every, patches, **rest: {
        "patch": patch,
        **({"patches": patches} if every is None else {"every": patch + every}),
        **rest,
    },
    patch=st.integers(1, 12),
    taps=st.integers(1, 20),
    blur=st.sampled_from([0.01, 0.3, 1.0, 50.0, 1e30, MAX_FLOAT]) | st.floats(0.0, 10.0, exclude_min=True),
    every=st.none() | st.integers(0, 20),
    patches=st.integers(1, 8),
    identity=st.booleans(),
)
strong = st.builds(
    lambda strength, sample_rate: {"strength": strength, "sample_rate": sample_rate},
    strength=st.sampled_from([1.0, 0.01, 50.0]) | st.floats(0.01, 50.0),
    sample_rate=st.sampled_from([2_000, 8_000, 16_000, 44_100]),
)
both = paper | strong
