"""Tables of names and of files hold what lists of them would."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from audiofiles import write_tree
from hypothesis import given
from hypothesis import strategies as st

from poscuda_fast.disk import STAMP_BYTES
from poscuda_fast.files.containers import Uncompressed
from poscuda_fast.files.encoded import Encoding
from poscuda_fast.files.listing import find_files
from poscuda_fast.files.table import AudioFile, FileTable, Names, is_encoded, is_lossy

texts = st.text(st.characters(exclude_characters="\0"), min_size=1)  # surrogates too: names that are not UTF-8
layouts = st.one_of(
    st.builds(
        Uncompressed, st.just(44), st.integers(0, 9), st.just(1), st.sampled_from(["PCM_16", "FLOAT"]), st.just(8000)
    ),
    st.builds(
        Encoding, st.sampled_from(["FLAC", "OGG"]), st.just("PCM_16"), st.integers(0, 9), st.just(2), st.just(16_000)
    ),
)


@given(st.sets(texts), st.lists(texts))
def test_names_are_found_where_they_are(names: set[str], others: list[str]) -> None:
    ordered = sorted(names)
    table = Names(ordered)
    assert list(table) == ordered
    assert table[:3] == ordered[:3]
    for name in [*ordered, *others, *reversed(ordered)]:
        assert table.find(name) == (ordered.index(name) if name in names else None)


@pytest.mark.parametrize("names", [["b", "a"], ["a", "a"], ["é", "z"]])
def test_names_out_of_order_are_refused(names: Sequence[str]) -> None:
    with pytest.raises(ValueError, match="order of names; sort them"):
        Names(names)


@given(st.dictionaries(texts, st.tuples(layouts, st.binary(min_size=STAMP_BYTES, max_size=STAMP_BYTES), st.booleans())))
def test_a_table_of_files_is_as_a_list_of_them(given: dict[str, tuple[Uncompressed | Encoding, bytes, bool]]) -> None:
    files = [
        AudioFile(name, layout, f"{name}.flac" if renamed else name, stamp)
        for name, (layout, stamp, renamed) in sorted(given.items())
    ]
    table = FileTable(files)
    assert list(table) == files
    assert list(table[1:]) == files[1:]
    assert table[-1:][0] == files[-1] if files else not table
    assert table.frames.tolist() == [file.frames for file in files]
    assert table.rates.tolist() == [file.layout.sample_rate for file in files]
    assert list(table.of(is_encoded)) == [file for file in files if isinstance(file.layout, Encoding)]
    assert list(table.of(is_lossy)) == [file for file in files if file.lossy]


def test_a_new_stamp_is_that_of_one_file() -> None:
    layout = Uncompressed(44, 8, 1, "PCM_16", 8000)
    table = FileTable(AudioFile(name, layout, name, bytes([n]) * STAMP_BYTES) for n, name in enumerate("abc"))
    table.restamp(1, b"x" * STAMP_BYTES)
    assert [table.stamp(n)[:1] for n in range(3)] == [b"\0", b"x", b"\2"]
    with pytest.raises(ValueError, match="length"):
        table.restamp(1, b"short")


def test_files_are_found_in_the_order_of_their_names(tmp_path) -> None:
    names = ["a-b/1.wav", "a.wav", "a/1.wav", "a/b.wav", "a/b/1.wav", "a0.wav", "a b/1.wav", "é/1.wav", "z/1.wav"]
    write_tree(tmp_path, dict.fromkeys(names, b""))
    assert list(find_files(tmp_path)[0]) == sorted(names)
