"""Labels: every accepted form means the same, everything doubtful is refused."""

from __future__ import annotations

import unicodedata
from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poscuda_fast import Key, Recipe
from poscuda_fast.mark.labels import DENSE_LABELS, ClassRows, encode, integer_token, name_token, token_of
from poscuda_fast.mark.plan import make_plan

MASTER = bytes(range(32))


def tokens_of(labels: object, classes: object = None, n_clips: int | None = None) -> list[bytes]:
    """The class token of each clip."""
    found = encode(labels, classes, len(labels) if n_clips is None else n_clips)
    assert isinstance(found, ClassRows)
    assert found.rows_of(slice(None)).dtype == np.int64
    assert len(set(found.tokens)) == len(found.tokens)
    assert set(found.rows_of(slice(None)).tolist()) == set(range(len(found.tokens)))  # no class without a clip
    return [found.tokens[row] for row in found.rows_of(slice(None))]


# Accepted forms.

NUMBERS = [3, 0, 3, 7, 0]
NAMES = ["no", "yes", "no", "café", "yes"]


def object_array(items: list[object]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


@pytest.mark.parametrize(
    "labels",
    [
        NUMBERS,
        tuple(NUMBERS),
        [np.int8(3), 0, np.uint64(3), np.int32(7), 0],
        *(np.array(NUMBERS, dtype) for dtype in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", "<u2")),
        object_array(NUMBERS),
        np.array(NUMBERS)[::-1][::-1],
        np.array([[n, 9] for n in NUMBERS])[:, 0],
        range(5),
    ],
    ids=lambda labels: f"{type(labels).__name__} {getattr(labels, 'dtype', '')}",
)
def test_forms_of_integers(labels) -> None:
    numbers = NUMBERS if not isinstance(labels, range) else [0, 1, 2, 3, 4]
    assert tokens_of(labels) == [b"i" + number.to_bytes(8, "big") for number in numbers]


@pytest.mark.parametrize(
    "labels",
    [
        NAMES,
        tuple(NAMES),
        np.array(NAMES),
        np.array(NAMES, "U40"),
        [np.str_(name) for name in NAMES],
        object_array(NAMES),
    ],
    ids=lambda labels: f"{type(labels).__name__} {getattr(labels, 'dtype', '')}",
)
def test_forms_of_names(labels) -> None:
    assert tokens_of(labels) == [b"n" + name.encode("utf-8") for name in NAMES]


@pytest.mark.parametrize(
    "classes", [["no", "unused", "yes", "café"], ("no", "", "yes", "café"), np.array(["no", "?", "yes", "café"])]
)
@pytest.mark.parametrize("form", [list, tuple, np.array, np.uint8, object_array])
def test_indexes_into_classes_are_names(classes, form) -> None:
    assert tokens_of(form([0, 2, 0, 3, 2]), classes) == tokens_of(NAMES)


def test_no_labels_for_no_clips() -> None:
    for labels in ([], (), np.empty(0, np.int64), np.empty(0, "U3"), np.empty(0, object)):
        found = encode(labels, None, 0)
        assert found.tokens == ()
        assert found.rows_of(slice(None)).shape == (0,)
        assert found.rows_of(slice(None)).dtype == np.int64
    assert encode([], ["a", "b"], 0).tokens == ()
    assert encode([], [], 0).tokens == ()


LARGE = [0, 2**64 - 1, DENSE_LABELS - 1, DENSE_LABELS, DENSE_LABELS + 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 5]


@pytest.mark.parametrize("labels", [LARGE, tuple(LARGE), np.array(LARGE, np.uint64), object_array(LARGE)])
def test_large_integers_stay_exact(labels) -> None:
    assert tokens_of(labels) == [b"i" + label.to_bytes(8, "big") for label in LARGE]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), min_size=1))
def test_any_integers(labels) -> None:
    expected = [naive.class_token(label) for label in labels]
    assert tokens_of(labels) == expected
    assert tokens_of(np.array(labels, np.uint64)) == expected


def is_name(text: str) -> bool:
    """Whether a text can be the name of a class."""
    return bool(text.strip(" \t\n\v\f\r")) and not text.strip(" \t\n\v\f\r").endswith("\0") and not text.endswith("\0")


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(is_name)


@settings(deadline=None)
@given(st.lists(texts, min_size=1))
def test_any_names(labels) -> None:
    expected = [naive.class_token(label) for label in labels]
    assert tokens_of(labels) == expected
    assert tokens_of(object_array(labels)) == expected
    assert tokens_of([unicodedata.normalize("NFD", label) for label in labels]) == expected


def test_spellings_of_one_name_are_one_class() -> None:
    found = encode(["caf\u00e9", "cafe\u0301", "\u212b", "\u00c5", "A\u030a", "cafe"], None, 6)
    assert len(found.tokens) == 3
    assert found.rows_of(slice(None))[0] == found.rows_of(slice(None))[1]
    assert found.rows_of(slice(None))[2] == found.rows_of(slice(None))[3] == found.rows_of(slice(None))[4]


def test_only_blanks_and_spellings_are_made_alike() -> None:
    """Neither case nor width make two names one."""
    names = ["yes", "Yes", "y es", "\u00a0yes", "y\u200bes", "\uff59es", "\ufb01", "fi", "y\0es", "3", "٣"]
    assert len(encode(names, None, len(names)).tokens) == len(names)
    assert tokens_of(["yes ", " yes", "\tyes\n", "\vyes\f\r"]) == [b"nyes"] * 4


def test_text_that_is_a_number_is_that_number() -> None:
    assert tokens_of([3]) == [b"i\0\0\0\0\0\0\0\3"] == [integer_token(3)] == [token_of("3")] == [token_of(3)]
    for labels in (["3"], [" 3\n"], ["3", 3][:1], np.array(["3"]), np.array([b"3"]), [b"3"], [np.array(3)]):
        assert tokens_of(labels) == [integer_token(3)]
    assert tokens_of([2**64 - 1, str(2**64 - 1)]) == [integer_token(2**64 - 1)] * 2
    for name in ("03", "+3", "-3", "3.0", "٣", "3 3", "0x3", str(2**64), "00"):
        assert tokens_of([name]) == [name_token(name)]
    assert tokens_of([3], ["a", "b", "c", "3"]) == [integer_token(3)]
    assert tokens_of(["3"], ["a", "b", "c", "d"]) == [name_token("d")]


def test_numbers_and_names_may_stand_side_by_side() -> None:
    for labels in ([0, "a", "0"], object_array([0, "a", "0"]), ["0", "a", "0"]):
        assert tokens_of(labels) == [integer_token(0), name_token("a"), integer_token(0)]
    with pytest.raises(TypeError, match="labels are names and classes is given too"):
        encode([0, "a"], ["x", "y"], 2)
    with pytest.raises(ValueError, match="A label is 2, but classes has 2 names"):
        encode(["0", "2"], ["x", "y"], 2)


HELD = ["a", "b", "a", "b"]


def test_labels_as_people_hold_them() -> None:
    forms = [tuple(HELD), dict(enumerate(HELD)).values(), np.array(HELD, "S"), [name.encode() for name in HELD]]
    if hasattr(np.dtypes, "StringDType"):
        forms.append(np.array(HELD, np.dtypes.StringDType()))
    for labels in forms:
        assert tokens_of(labels) == [name_token(name) for name in HELD]
    assert tokens_of(np.ma.array([0, 1], mask=[False, False])) == [integer_token(0), integer_token(1)]


def test_labels_of_arrow_and_pandas() -> None:
    pa, pd = pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    expected = [name_token(name) for name in HELD]
    for labels in (
        pa.array(HELD),
        pa.chunked_array([HELD[:1], HELD[1:]]),
        pa.array(HELD).dictionary_encode(),
        pa.array(HELD, pa.large_string()),
        pd.Series(HELD, dtype="category"),
        pd.Series(HELD, index=[3, 1, 0, 2]),
        pd.Series(HELD, dtype="string"),
    ):
        assert tokens_of(labels) == expected
    for labels in (pa.array(["a", None, "a", "b"]), pd.Series(["a", None, "a", "b"])):
        with pytest.raises(TypeError, match=r"labels\[1\] is .*, so it is missing; leave such clips out"):
            tokens_of(labels)
    with pytest.raises(ValueError, match=r"labels has shape \(4, 1\); .*: labels\.reshape\(-1\)"):
        tokens_of(pd.DataFrame({"label": HELD}))


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (np.ma.array([0, 1, 0], mask=[0, 1, 0]), r"labels\[1\] is masked; leave such clips out"),
        (np.eye(3, dtype=int), r"labels\.argmax\(axis=1\)"),
        (np.zeros((3, 1), int), r"labels\.reshape\(-1\)"),
        (np.zeros(3, [("label", int)]), r"Give one field of them, such as labels\['label'\]"),
        (np.zeros(3), r"labels\.astype\(np\.int64\)"),
        ([b"caf\xe9"], "which is not text in UTF-8; decode the labels first"),
    ],
    ids=["mask", "one-hot", "column", "structured", "float", "Latin-1"],
)
def test_labels_that_are_refused_come_with_what_works(labels, advice) -> None:
    with pytest.raises((TypeError, ValueError), match=advice):
        encode(labels, None, len(labels))


@settings(deadline=None)
@given(st.data())
def test_another_class_changes_no_class(data) -> None:
    """Filters and places of a class do not depend on which other classes there are, nor on their order."""
    kind = data.draw(st.sampled_from([st.integers(0, 2**64 - 1), texts]))
    few = data.draw(st.lists(kind, min_size=1, max_size=4))
    more = data.draw(st.permutations([*few, *data.draw(st.lists(kind, max_size=4))]))
    plans = {}
    for name, labels in {"few": few, "more": more}.items():
        lengths = np.full(len(labels), 1000)
        plans[name] = make_plan(Key(MASTER), Recipe.paper(taps=4, patches=3), labels, None, lengths)
    for clip, label in enumerate(few):
        other = list(more).index(label)
        a, b = plans["few"].of_clip(clip), plans["more"].of_clip(other)
        assert a.starts.tolist() == b.starts.tolist()
        assert np.array_equal(plans["few"].marks.taps[a.rows], plans["more"].marks.taps[b.rows])


def test_classes_may_grow_and_be_reordered() -> None:
    assert tokens_of([0, 1], ["no", "yes"]) == tokens_of([2, 0], ["yes", "?", "no"])


# Refusals.


@pytest.mark.parametrize("n_clips", [0, 1, 4, 6, 100])
def test_one_label_for_each_clip(n_clips) -> None:
    for labels in (NUMBERS, np.array(NUMBERS), NAMES, np.array(NAMES)):
        with pytest.raises(ValueError, match=f"labels has 5 entries for {n_clips} clips"):
            encode(labels, None, n_clips)


@pytest.mark.parametrize("form", [list, np.array, np.int8, object_array])
def test_negative_labels_are_refused(form) -> None:
    with pytest.raises(ValueError, match=r"labels\[2\] is -1; integer labels"):
        tokens_of(form([0, 3, -1, -2]))


def test_labels_beyond_64_bits_are_refused() -> None:
    for labels in ([0, 2**64], object_array([0, 2**64])):
        with pytest.raises(ValueError, match=rf"labels\[1\] is {2**64}; integer labels go from 0 to 2\*\*64 - 1"):
            tokens_of(labels)


@pytest.mark.parametrize(
    "entry",
    [
        1.0,
        True,
        np.True_,
        np.float32(1),
        1j,
        Fraction(1),
        [1],
        (),
        np.array([1]),
        "odd".encode,
    ],
)
def test_an_entry_of_another_kind_is_refused(entry) -> None:
    for form in (list, tuple, object_array):
        with pytest.raises(TypeError, match=r"labels\[1\] is .*; labels are integers from 0 or class names") as caught:
            tokens_of(form([0, entry, 2]))
        assert repr(entry) in str(caught.value)
        with pytest.raises(TypeError, match=r"labels\[0\] is "):
            tokens_of(form([entry]))


@pytest.mark.parametrize("dtype", ["f8", "f4", "?", "c16", "m8[s]", "M8[s]", "V2"])
def test_an_array_of_another_kind_is_refused(dtype) -> None:
    labels = np.zeros(3, dtype)
    with pytest.raises(TypeError, match=r"labels has dtype .*; labels are integers from 0 or class names") as caught:
        tokens_of(labels)
    assert str(labels.dtype) in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (3, 1, 1)])
@pytest.mark.parametrize("dtype", ["i8", "U2"])
def test_labels_have_one_axis(shape, dtype) -> None:
    with pytest.raises(ValueError, match=r"labels has shape \(.*; expected one dimension") as caught:
        encode(np.zeros(shape, dtype), None, 3)
    assert str(shape) in str(caught.value)
    with pytest.raises(ValueError, match=r"labels has shape \(\)"):
        encode(np.array(3), None, 1)


@pytest.mark.parametrize("labels", ["yes", "", b"yes"])
def test_a_single_text_is_not_labels(labels) -> None:
    with pytest.raises(TypeError, match=f"labels is the single text {labels!r}"):
        encode(labels, None, 3)


@pytest.mark.parametrize("labels", [None, 3, 3.5], ids=repr)
def test_what_is_not_a_sequence_is_refused(labels) -> None:
    with pytest.raises(TypeError, match="labels is") as caught:
        encode(labels, None, 1)
    assert type(labels).__name__ in str(caught.value) or repr(labels) in str(caught.value)


@pytest.mark.parametrize("labels", [{5, 3, 99}, frozenset({5, 3, 99}), {5: "a", 3: "b", 99: "c"}], ids=repr)
def test_a_collection_without_an_order_of_clips_is_refused(labels) -> None:
    """A set has no order and a dict gives its keys: either would label the wrong clips in silence."""
    with pytest.raises(TypeError, match="labels is"):
        encode(labels, None, 3)


def test_empty_and_impossible_names_are_refused() -> None:
    for labels in (["a", ""], np.array(["a", ""])):
        with pytest.raises(ValueError, match="empty name"):
            tokens_of(labels)
    with pytest.raises(ValueError, match="ends in a NUL"):
        tokens_of(["a", "a\0"])
    with pytest.raises(ValueError, match=r"'a\\ud800' is not valid Unicode"):
        tokens_of(["a\ud800"])


@pytest.mark.parametrize("index", [3, 4, 2**20, 2**40])
def test_an_index_beyond_classes_is_refused(index) -> None:
    with pytest.raises(ValueError, match=rf"labels\[1\] is {index}, but classes has 3 names"):
        tokens_of([0, index, 1], ["a", "b", "c"])
    with pytest.raises(ValueError, match="but classes has 0 names"):
        tokens_of([0], [])


@pytest.mark.parametrize("labels", [NAMES, np.array(NAMES), object_array(NAMES)])
def test_names_and_classes_exclude_each_other(labels) -> None:
    with pytest.raises(TypeError, match="labels are names and classes is given too"):
        tokens_of(labels, ["no", "yes", "café"])


@pytest.mark.parametrize(
    ("classes", "places"),
    [(["a", "b", "a"], "0 and 2"), (["x", "caf\u00e9", "cafe\u0301"], "1 and 2"), (["\u212b", "\u00c5"], "0 and 1")],
)
def test_classes_with_one_name_twice_are_refused(classes, places) -> None:
    with pytest.raises(ValueError, match=rf"classes names .* twice \(entries {places}\)"):
        tokens_of([0], classes)


@pytest.mark.parametrize("name", [3, None, b"a", True, 1.5])
def test_class_names_are_text(name) -> None:
    with pytest.raises(TypeError, match=r"classes\[1\] is .*; class names are strings") as caught:
        tokens_of([0], ["a", name])
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("classes", ["ab", b"ab"])
def test_a_single_text_is_not_classes(classes) -> None:
    with pytest.raises(TypeError, match=f"classes is the single text {classes!r}"):
        tokens_of([0], classes)


@pytest.mark.parametrize("classes", [["a", ""], ["a", "b\ud800"]])
def test_an_impossible_class_name_in_use_is_refused(classes) -> None:
    assert tokens_of([0], classes) == [b"na"]
    with pytest.raises(ValueError, match=r"empty name|not valid Unicode"):
        tokens_of([0, 1], classes)


def test_the_callers_labels_are_not_touched() -> None:
    labels, classes = np.array([2, 0, 1]), ["a", "b", "c"]
    encode(labels, classes, 3)
    assert labels.tolist() == [2, 0, 1]
    assert classes == ["a", "b", "c"]
