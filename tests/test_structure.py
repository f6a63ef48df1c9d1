"""The layout that CONTRIBUTING.md describes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import tce

ROOT = Path(tce.__file__).parent
MODULES = {
    "tce." + str(path.relative_to(ROOT).with_suffix("")).replace("/", "."): path
    for path in ROOT.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
}
# The rooms of training and evaluation, and what is in no room. `visualize` and `adaptation` grow with what is
# drawn and adapted, the later rooms with their commands; `options` has a module a command.
COUNTED = {"commands", "contrast", "data", "embedding", "evaluation", "model", "train", "video"}
MOST_MODULES, MOST_IN_A_ROOM, MOST_LINES = 95, 20, 520


def imports() -> dict[str, set[str]]:
    """Which of our modules each one imports, also inside functions, but not for types alone."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text())
        for_types = {
            child
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
            for child in ast.walk(node)
        }
        for node in ast.walk(tree):
            if node in for_types:
                continue
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            elif isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            else:
                continue
            found[name] |= names & set(MODULES) - {name}
    return found


def test_no_import_circle() -> None:
    """Modules that import nothing unvisited are taken away, until none is left or the rest is a circle."""
    left = {name: set(targets) for name, targets in imports().items()}
    left = {name: left.get(name, set()) for name in MODULES}
    while free := [name for name, targets in left.items() if not targets & set(left)]:
        for name in free:
            del left[name]
    assert not left, f"modules in or above a circle: {sorted(left)}"


def test_every_file_name_occurs_once() -> None:
    names = Counter(path.name for path in MODULES.values() if path.parent.name != "options")
    assert not [name for name, count in names.items() if count > 1]


def test_no_package_hides_a_public_function() -> None:
    packages = {path.name for path in ROOT.iterdir() if path.is_dir()}
    modules = {path.stem for path in ROOT.glob("*.py")}
    functions = {name for name in tce.__all__ if not name.startswith("_")} - tce._SUBPACKAGES
    assert not functions & (packages | modules)


def test_rooms_and_modules_stay_small() -> None:
    rooms = Counter(name.split(".")[1] if name.count(".") > 1 else "" for name in MODULES)
    assert rooms[""] + sum(rooms[room] for room in COUNTED) <= MOST_MODULES
    assert not {room: count for room, count in rooms.items() if room != "options" and count > MOST_IN_A_ROOM}
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}


def test_the_options_load_neither_torch_nor_numpy() -> None:
    names = ", ".join(name for name in MODULES if name.startswith("tce.options."))
    code = f"import sys, {names}; sys.exit(any(heavy in sys.modules for heavy in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_contributing_names_files_that_exist() -> None:
    """Also every room, so that a new one gets its row."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_0-9]+\.py)`", text)) - {"tests/test_structure.py"}
    assert not {name for name in named if not (ROOT / name).exists() and not (ROOT.parent / name).exists()}
    rooms = {name.split(".")[1] for name in MODULES if name.count(".") > 1} - {"recipes"}
    assert not {room for room in rooms if f"`{room}/`" not in text}
