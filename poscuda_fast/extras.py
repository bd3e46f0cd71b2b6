"""The package's extras, as its own metadata names them: which are usable here, and what the others lack.

Packages are looked up and never imported, so that the answer takes milliseconds.
"""

from __future__ import annotations

import ast
import operator
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

DISTRIBUTION = "poscuda-fast"
_REQUIREMENT = re.compile(
    r"\s*([\w.-]+)\s*(?:\[([^]]*)\])?([^;]*)(?:;(.*))?", re.DOTALL
)  # name, extras, bounds, marker
_BOUND = re.compile(r"\s*\(?\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)\s*\)?\s*")
_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.GtE: operator.ge, ast.LtE: operator.le, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Gt: operator.gt,
    ast.Lt: operator.lt, ast.In: lambda part, whole: part in whole, ast.NotIn: lambda part, whole: part not in whole,
}  # fmt: skip


def states() -> dict[str, str]:
    """Extra -> "ok", or what is missing and how to get it."""
    names = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    return {name: _state(name) for name in map(_normal, names)}


def _state(extra: str) -> str:
    markers = [_parts(line)[3] for line in metadata.requires(DISTRIBUTION) or []]
    mine = [marker for marker in markers if _names(marker, extra)]
    if mine and not any(_holds(marker, extra) for marker in mine):
        condition = re.sub(r"\s*\band\s+extra\s*==\s*\S+", "", mine[0]).strip()
        return f"not for Python {platform.python_version()} on {sys.platform}: it needs {condition}"
    lacking = dict.fromkeys(_lacking(DISTRIBUTION, extra, set()))
    return f"missing {', '.join(lacking)}; run pip install '{DISTRIBUTION}[{extra}]'" if lacking else "ok"


def _lacking(distribution: str, extra: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    """What an extra asks for and is not here, or too old or new; extras that it names are followed."""
    if (distribution, extra) in seen:
        return
    seen.add((distribution, extra))
    for line in metadata.requires(distribution) or []:
        name, inner, bounds, marker = _parts(line)
        if not _holds(marker, extra) or _holds(marker, ""):
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name
            continue
        if not _within(version, bounds):
            yield f"{name}{bounds.strip()} (here is {version})"
        for other in filter(None, map(_normal, inner.split(","))):
            yield from _lacking(name, other, seen)


def _parts(line: str) -> tuple[str, str, str, str]:
    """Name, extras, bounds of the version, and marker of a requirement, the last three empty where it has none."""
    match = _REQUIREMENT.match(line)
    return ("", "", "", "") if match is None else (match[1], match[2] or "", match[3], match[4] or "")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _release(version: str) -> tuple[int, ...]:
    """1.2.0+cpu -> (1, 2): zeros at the end are dropped, since 1.2 is 1.2.0."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in re.sub(r"(?:\.0+)+$", "", match[0]).split(".")) if match else ()


def _within(version: str, bounds: str) -> bool:
    """Whether a version keeps to bounds; what cannot be read here is believed."""
    found = (_BOUND.fullmatch(bound) for bound in bounds.split(","))
    return all(_BOUNDS[bound[1]](_release(version), _release(bound[2])) for bound in found if bound)


def _names(marker: str, extra: str) -> bool:
    """Whether a marker is about an extra."""
    return extra in map(_normal, re.findall(r"""\bextra\s*==\s*["']([^"']*)["']""", marker))


def _holds(marker: str, extra: str) -> bool:
    """Whether a marker is true here with that extra, or with none if it is empty."""
    if not marker.strip():
        return True
    try:
        return bool(_value(ast.parse(marker.strip(), mode="eval").body, _environment(extra)))
    except (SyntaxError, LookupError, TypeError):  # "~=", which is not Python, or a name that is not known here
        return _names(marker, extra)


def _environment(extra: str) -> dict[str, str]:
    return {
        "extra": extra,
        "implementation_name": sys.implementation.name,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_system": platform.system(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }


def _value(node: ast.expr, environment: dict[str, str]) -> Any:
    """A marker reads as an expression of Python; versions are compared as numbers."""
    match node:
        case ast.BoolOp(op=op, values=values):
            return (all if isinstance(op, ast.And) else any)(_value(each, environment) for each in values)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            one, other = _value(left, environment), _value(right, environment)
            if {"python_version", "python_full_version"} & {getattr(left, "id", ""), getattr(right, "id", "")}:
                one, other = _release(one), _release(other)
            elif "extra" in (getattr(left, "id", ""), getattr(right, "id", "")):
                one, other = _normal(one), _normal(other)
            return _COMPARISONS[type(op)](one, other)
        case ast.Name(id=name):
            return environment[name]
        case ast.Constant(value=str(text)):
            return text
    raise TypeError(f"A marker has a {type(node).__name__}; expected comparisons joined by and, or.")
