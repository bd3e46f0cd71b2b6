"""The package's extras, from its own metadata: which are usable here, and what the others lack.

Packages are looked up but never imported, so this takes milliseconds.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from poscuda_fast.text import how_to_install

DISTRIBUTION = "poscuda-fast"


def problems() -> dict[str, str | None]:
    """Extra -> what is missing and how to get it; None if it can be used."""
    names = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    return {name: _problem(name) for name in map(canonicalize_name, names)}


def _problem(extra: str) -> str | None:
    mine = [each for each in _requirements(DISTRIBUTION) if _is_of(each, extra)]
    if mine and not any(_holds(each, extra) for each in mine):
        condition = re.sub(r"\s*\band\s+extra\s*==\s*\S+", "", str(mine[0].marker)).strip()
        return f"not for Python {platform.python_version()} on {sys.platform}: it needs {condition}"
    lacking = dict.fromkeys(_lacking(DISTRIBUTION, extra, set()))
    return f"missing {', '.join(lacking)}; {how_to_install(extra)}" if lacking else None


def _lacking(distribution: str, extra: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    """The requirements of an extra that are missing, too old or too new; extras of extras are followed."""
    if (distribution, extra) in seen:
        return
    seen.add((distribution, extra))
    for each in _requirements(distribution):
        if not _holds(each, extra) or _holds(each, ""):
            continue
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            yield each.name
            continue
        if not _fits(each, version):
            yield f"{each.name}{each.specifier} (here is {version})"
        for other in map(canonicalize_name, each.extras):
            yield from _lacking(each.name, other, seen)


def _requirements(distribution: str) -> Iterator[Requirement]:
    """The requirements of a distribution, as far as they can be parsed."""
    for line in metadata.requires(distribution) or []:
        try:
            yield Requirement(line)
        except InvalidRequirement:  # of an old package; counts as installed
            continue


def _is_of(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement belongs to an extra."""
    named = re.findall(r"""\bextra\s*==\s*["']([^"']*)["']""", str(requirement.marker or ""))
    return any(canonicalize_name(name) == extra for name in named)


def _holds(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement applies here with that extra, or without any if `extra` is empty."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _fits(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:  # what cannot be read is believed
        return True
