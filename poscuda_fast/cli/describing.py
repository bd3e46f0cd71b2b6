"""The data of inspect and doctor as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMES_SHOWN = 3
CLASSES_SHOWN = 8

_KINDS = {"npy_array": "NumPy array of clips", "zarr_array": "Zarr array of clips", "folder": "folder of audio files"}
_LABELS = "--labels is needed, and --lengths where clips are padded"
_EDITS = {
    ("audio_file", "samples_in_place"): "only the bytes of samples, in place",
    ("audio_file", "encode_again"): "decoded, marked and encoded again without loss",
    ("audio_file", "flac_copy"): "only in a copy, as FLAC",
    ("npy_array", "samples_in_place"): f"samples in place; {_LABELS}",
    ("zarr_array", "whole_shards"): f"whole shards rewritten, each in one step; {_LABELS}",
}
_COMPLETION = 'eval "$(poscuda completion bash)"; poscuda completion --help says where, and how for zsh and fish'

Rows = Iterator[tuple[str, object]]
Facts = dict[str, Any]


def of_inspection(facts: Facts) -> Rows:
    """The rows of `inspection.inspect`."""
    kind = facts["kind"]
    yield "what", _KINDS.get(kind) or f"{facts.get('format', '')} audio file".lstrip()
    yield from _folder(facts) if kind == "folder" else _samples(facts)
    if "mark" in facts:
        yield from _mark(facts["mark"])
    if "edit" in facts:
        yield "edit", _EDITS[kind, facts["edit"]]
    if facts["problem"] is not None:
        yield "cannot be marked", facts["problem"]
    if kind == "folder":
        yield from _unusable(facts["unusable"])
    yield from _beside(facts)


def _samples(facts: Facts) -> Rows:
    if "channels" not in facts:  # a file that cannot be read
        return
    parts = [facts.get("coding") or facts["dtype"], f"{facts['channels']} channels"]
    if "order" in facts:
        parts.append(f"order {facts['order']}")
    if "written_by" in facts:
        parts.append(f"{facts['written_by']} of {' x '.join(map(str, facts['written_shape']))}")
    if "coding" in facts:
        parts.append(f"{facts['sample_rate']} Hz")
    yield "samples", ", ".join(parts)
    if "dtype" in facts and facts["sample_rate"] is not None:
        assumed = " (assumed; --sample-rate tells it)" * facts["sample_rate_assumed"]
        yield "sample rate", f"{facts['sample_rate']:,} Hz{assumed}"
    yield from ((name, facts[name]) for name in ("clips", "frames", "seconds") if name in facts)


def _folder(facts: Facts) -> Rows:
    yield "audio files", facts["audio_files"]
    yield "other files", facts["other_files"]
    for kind in facts["kinds"]:
        yield "kind", "{files} x {format} {coding} {channels} ch {sample_rate} Hz".format(**kind)
    classes = facts["classes"]
    if classes is None:
        yield "classes", "not by folder: some files lie in none, so --labels-from tells them"
        return
    shown = [f"{name} {count}" for name, count in list(classes.items())[:CLASSES_SHOWN]]
    more = f" and {len(classes) - CLASSES_SHOWN:,} more" if len(classes) > CLASSES_SHOWN else ""
    yield "classes", f"{len(classes):,} by folder: {', '.join(shown)}{more}"


def _mark(mark: Facts) -> Rows:
    if mark["format"] == 1:
        yield "would get", "format 1: patches are filtered"
        yield "patches", mark["patches"]
        where = "in patches"
    else:
        yield "would get", f"format 2: two steady lines, {mark['level_db']:.1f} dB of full scale"
        where = "marked"
    yield from ((f"{name} {where}", mark[name]) for name in ("frames", "bytes") if name in mark)


def _unusable(unusable: list[Facts]) -> Rows:
    """How many files cannot be marked, and those with the same problem in one row."""
    yield "left unprotected", len(unusable)
    alike: dict[str, list[str]] = {}
    for one in unusable:
        alike.setdefault(one["problem"], []).append(one["name"])
    for problem, names in alike.items():
        more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
        yield f"  {len(names):,} of them", f"{', '.join(names[:NAMES_SHOWN])}{more}: {problem}"


def _beside(facts: Facts) -> Rows:
    sidecar, manifest = facts["sidecar"], facts["manifest"]
    if facts.get("made_by_tasks"):
        yield "protected", "a protected copy made by shard_tasks, which needs no sidecar"
    elif facts["state"] is None:
        yield "protected", "not by this library, or the sidecar and the manifest were moved away"
    else:
        yield "protected", "unknown: a run is recorded beside it; poscuda verify tells what the data are now"
    if sidecar is not None:
        more = f" and {facts['sidecars'] - 1:,} more" if facts["sidecars"] > 1 else ""
        yield "sidecar", f"{sidecar}{more}"
    if manifest is not None and manifest["problem"] is None:
        yield "manifest", f"{manifest['path']}: {manifest['files']:,} files, key {manifest['fingerprint']}"
    elif manifest is not None:
        yield "manifest", manifest["problem"]


def of_examination(found: Facts) -> Rows:
    """The rows of `doctor.examine`."""
    for name, version in found["versions"].items():
        package = "soundfile" if name == "libsndfile" else name  # which brings it
        yield name.replace("_", "-"), version or f"missing: run pip install --force-reinstall {package}"
    yield "platform", found["platform"]
    yield "cores", found["cores"]
    for name, state in found["backends"].items():
        yield f"backend {name}", state["problem"] or "ok"
    yield "auto", found["auto"] or "no backend works"
    for name, state in found["extras"].items():
        yield f"extra {name}", state["problem"] or "ok"
    yield "completion", _COMPLETION
    yield "ok", "yes" if found["ok"] else "no"
