"""A sidecar or key file that was damaged, cut, spliced or forged is refused or does no harm; the data stay."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from crash_states import put
from crashes import VERBS
from kills import beginnings
from ledger import Ledger
from stages import SCENES, Scene, place, small_batches
from tampering import Tampered, flipped

from poscuda_fast import Key, KeyFileError

ALL = [name for name in SCENES if name != "ZarrArray"]


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with small_batches(), tempfile.TemporaryDirectory(dir=place()) as folder:
        yield SCENES[request.param](Path(folder))


def check(
    tampered: Tampered,
    ledger: Ledger,
    sidecars: Iterable[tuple[object, bytes]],
    *,
    refused: bool,
    verb: str = "restore",
) -> None:
    """Each of some sidecars is refused, or at least does no harm."""
    problems = []
    for name, sidecar in sidecars:
        found = tampered.outcome(sidecar, verb)
        wrong = found.wrong or ("it was not refused" if refused and not found.refused else None)
        ledger.count("tampered", tried=1, wrong=wrong is not None, what="a sidecar")
        if wrong is not None:
            problems.append(f"{name}: {wrong}")
    assert not problems, problems[:20]


@pytest.mark.parametrize("scene", ["FloatArray", "EncodedFolder"], indirect=True)
def test_flipped_bytes_are_refused(scene: Scene, ledger: Ledger) -> None:
    tampered = Tampered(scene, "protected")
    check(tampered, ledger, flipped(tampered.sidecar, range(0, len(tampered.sidecar), 29)), refused=True)


@pytest.mark.trust
@pytest.mark.guards("I9")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("begin", ["protected", "half protected", "half restored"])
@pytest.mark.parametrize("scene", ALL, indirect=True)
def test_every_flipped_byte_is_refused(scene: Scene, ledger: Ledger, begin: str, verb: str) -> None:
    tampered = Tampered(scene, begin)
    mask, end = {"protect": 0x01, "restore": 0xFF}[verb], tampered.end()
    check(tampered, ledger, flipped(tampered.sidecar, range(end), mask), refused=True, verb=verb)
    torn = range(end, len(tampered.sidecar))  # what a kill left of a record is not read
    check(tampered, ledger, flipped(tampered.sidecar, torn, mask), refused=False, verb=verb)


@pytest.mark.guards("I9")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("every", [31, pytest.param(1, marks=pytest.mark.trust)], ids=["some lengths", "all lengths"])
@pytest.mark.parametrize("scene", ["RawArray", "WavFolder"], indirect=True)
def test_a_sidecar_cut_anywhere_does_no_harm(scene: Scene, ledger: Ledger, every: int, verb: str) -> None:
    tampered = Tampered(scene, "protected")
    cuts = ((n, tampered.sidecar[:n]) for n in range(0, len(tampered.sidecar), every))
    check(tampered, ledger, cuts, refused=False, verb=verb)


@pytest.mark.guards("I9")
@pytest.mark.parametrize("scene", ["RawArray", "EncodedFolder"], indirect=True)
def test_records_that_are_exchanged_left_out_or_repeated_are_refused(scene: Scene, ledger: Ledger) -> None:
    tampered = Tampered(scene, "protected")
    edges, sealed = tampered.edges(), tampered.sidecar
    records = [sealed[a:b] for a, b in itertools.pairwise(edges)]
    n = len(records)
    spliced = {}
    for one, other in itertools.combinations(range(n), 2):
        order = list(range(n))
        order[one], order[other] = other, one
        spliced[f"{one} and {other} exchanged"] = order
    for one in range(n - 1):
        spliced[f"{one} left out"] = [*range(one), *range(one + 1, n)]
        spliced[f"{one} repeated"] = [*range(one + 1), one, *range(one + 1, n)]
    sidecars = ((name, sealed[: edges[0]] + b"".join(records[k] for k in order)) for name, order in spliced.items())
    check(tampered, ledger, sidecars, refused=True)


@pytest.mark.guards("I9")
@pytest.mark.parametrize("scene", ["RawArray", "WavFolder"], indirect=True)
def test_records_of_another_run_are_refused(scene: Scene, ledger: Ledger) -> None:
    tampered = Tampered(scene, "protected")
    edges, sealed = tampered.edges(), tampered.sidecar
    put(scene.root, beginnings(scene)["protected"])
    other = scene.sidecar.read_bytes()
    assert len(other) == len(sealed)
    assert other != sealed
    pieces = itertools.pairwise([0, *edges])
    sidecars = ((f"{a} to {b}", sealed[:a] + other[a:b] + sealed[b:]) for a, b in pieces)
    check(tampered, ledger, sidecars, refused=True)


@pytest.mark.parametrize("scene", ["RawArray"], indirect=True)
def test_bytes_behind_the_end_are_refused_unless_a_crash_may_have_left_them(scene: Scene, ledger: Ledger) -> None:
    tampered = Tampered(scene, "protected")
    behind = {"zeros": bytes(5000), "text": b"x" * 5000, "a record": tampered.sidecar[-100:], "few": b"abc"}
    for name, content in behind.items():
        sidecars = [(name, tampered.sidecar + content)]
        check(tampered, ledger, sidecars, refused=name in ("text", "a record"))


def test_the_sidecars_of_other_kinds_of_data_are_refused(ledger: Ledger) -> None:
    with small_batches(), tempfile.TemporaryDirectory(dir=place()) as folder:
        made = {}
        for name in ("RawArray", "NpyArray", "WavFolder", "OneWav"):
            root = Path(folder, name)
            root.mkdir()
            made[name] = Tampered(SCENES[name](root), "protected")
        for one, other in itertools.permutations(made, 2):
            check(made[one], ledger, [(other, made[other].sidecar)], refused=True)


@pytest.mark.guards("I9")
def test_a_key_file_with_any_byte_flipped_is_refused_or_the_same_key(tmp_path: Path, ledger: Ledger) -> None:
    key = Key(bytes(range(1, 33)))
    key.save(tmp_path / "my.key")
    content = (tmp_path / "my.key").read_bytes()
    path = tmp_path / "damaged.key"
    path.touch(0o600)
    masks = [1, 0x20, 0x80, 0xFF]
    changed = itertools.chain.from_iterable(flipped(content, range(len(content)), mask) for mask in masks)
    cuts = ((f"{length} bytes", content[:length]) for length in range(len(content) - 1))
    for name, wrong in itertools.chain(changed, cuts):
        path.write_bytes(wrong)
        try:
            right = Key.load(path) == key  # a note was changed, not the key
        except KeyFileError:
            right = True
        ledger.count("tampered", tried=1, wrong=not right, what="a key file")
        assert right, name
