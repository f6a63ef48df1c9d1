"""Kill commands at random moments, repeat them, and compare with an uninterrupted run: docs/reliability.md.

    python benchmarks/campaign.py --out OUT [--kills 30] [--only adapt embed]

Each command runs once undisturbed on generated clips. Then it is started again and again, killed with SIGKILL
at a moment drawn between its start and its end, and repeated as a user would (with --resume where it has
one) until it is done. What it wrote must equal the undisturbed result; nothing half-written, no lock, no
temporary file and no orphaned process may remain.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tce.video.synthetic import make_clips

TCE = (sys.executable, "-m", "tce")
NETWORK = ("--image-size", "32", "--device", "cpu", "--precision", "float32", "--engine", "torch")
LEFTOVERS = (".lock", ".part", ".tmp", ".writer.lock")


@dataclass(frozen=True)
class Hazard:
    """A command, how it is repeated after a kill, and what of its result counts.

    Attributes:
        name: of the command.
        arguments: given the folder of footage and the place of the output.
        again: arguments that a repetition adds.
        read: the content of the output that must be the same.
        output: name of the output.
    """

    name: str
    arguments: Callable[[Path, Path], Sequence[str]]
    read: Callable[[Path], Any]
    output: str
    again: tuple[str, ...] = ()


def embeddings(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file of embeddings."""
    with np.load(path) as file:
        return {name: file[name] for name in file}


def weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a run's network."""
    from safetensors.numpy import load_file

    return load_file(path / "model.safetensors")


def table(path: Path) -> list[Any]:
    """The rows of all tables of a database, without the times of writing."""
    import lance

    found = []
    for folder in sorted(path.glob("*.lance")):
        rows = lance.dataset(str(folder)).to_table().to_pylist()
        drop = {"rowid", "modified", "packed_at"}
        rows = [{key: value for key, value in row.items() if key not in drop} for row in rows]
        found += [folder.name, *sorted(map(repr, rows))]
    return found


def page(path: Path) -> int:
    """That a page is whole: its length in thousands of characters."""
    text = path.read_text()
    assert text.rstrip().endswith("</html>")
    return len(text) // 1000


HAZARDS = (
    Hazard("pack", lambda clips, out: (str(clips), "--out", str(out)), table, "collection"),
    Hazard(
        "embed",
        lambda clips, out: ("--ckpt", "lite2", "--input", str(clips), "--output", str(out), *NETWORK),
        embeddings,
        "e.npz",
    ),
    Hazard(
        "index", lambda clips, out: (str(clips), "--ckpt", "lite2", "--db", str(out), *NETWORK), table, "db"
    ),
    Hazard(
        "explore",
        lambda clips, out: (str(clips), "--output", str(out), "--image-size", "32", "--device", "cpu"),
        page,
        "page.html",
    ),
    Hazard(
        "adapt",
        lambda clips, out: (str(clips), "--out", str(out), *NETWORK),
        weights,
        "adapted",
        ("--resume",),
    ),
    Hazard(
        "pretrain",
        lambda clips, out: (
            *(str(clips), "--out", str(out), "--recipe", "quick", "--epochs", "6", "--batch-size", "8"),
            *(
                "--image-size",
                "32",
                "--checkpoint-minutes",
                "0.02",
                "--device",
                "cpu",
                "--precision",
                "float32",
            ),
        ),
        weights,
        "run",
        ("--resume",),
    ),
    Hazard(
        "finetune",
        lambda clips, out: (
            *("--data", str(clips), "--lists", str(clips.parent / "lists"), "--split", "01"),
            *("--savedir", str(out), "--model", "resnet18", "--epochs", "3", "--batch-size", "6"),
            *("--image-size", "32", "--device", "cpu", "--precision", "float32"),
        ),
        weights,
        "classifier",
        ("--resume",),
    ),
)


def run(command: Sequence[str], kill_after: float | None = None) -> tuple[int, str]:
    """Exit code and output of a command, which is killed after some seconds."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        text, _ = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)  # the command alone: its children have to notice
        text, _ = process.communicate()
    return process.returncode, text


def orphans(mark: str) -> list[str]:
    """Processes of ours whose command was killed, some seconds after."""
    for _ in range(50):
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            if folder.name == str(os.getpid()):
                continue
            try:
                if f"TCE_CAMPAIGN={mark}".encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        if not found:
            return []
        time.sleep(0.2)
    return found


def same(first: Any, second: Any) -> bool:
    """Equality of what a hazard reads."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)
    return bool(first == second)


def strange(folder: Path) -> list[str]:
    """Files that should not be there after a command is done."""
    return [str(path) for path in folder.rglob("*") if path.name.endswith(LEFTOVERS)]


def attempt(hazard: Hazard, clips: Path, folder: Path, seconds: float, draw: random.Random) -> dict[str, int]:
    """One series: killed until it is done; how often it was killed."""
    out, kills = folder / hazard.output, 0
    command = [*TCE, hazard.name, *hazard.arguments(clips, out)]
    while True:
        again = hazard.again if kills and out.exists() else ()
        code, text = run([*command, *again], draw.uniform(0.2, seconds) if kills < 3 else None)
        if code == -signal.SIGKILL:
            kills += 1
            continue
        if code and "Traceback" not in text and again and "--resume" in text:  # nothing there to resume yet
            code, text = run(command)
        if code:
            raise SystemExit(f"{hazard.name} failed after {kills} kills:\n{text[-3000:]}")
        return {"kills": kills}


def examine(hazard: Hazard, clips: Path, out: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill one command `kills` times in all, in series of up to three; what was found."""
    draw, done, found = random.Random(seed), 0, {"command": hazard.name, "series": 0, "different": 0}
    whole = out / f"{hazard.name}-whole"
    whole.mkdir(parents=True)
    started = time.monotonic()
    code, text = run([*TCE, hazard.name, *hazard.arguments(clips, whole / hazard.output)])
    if code:
        raise SystemExit(f"{hazard.name} failed:\n{text[-3000:]}")
    seconds = time.monotonic() - started
    expected = hazard.read(whole / hazard.output)
    left: list[str] = []
    while done < kills:
        folder = out / f"{hazard.name}-{found['series']}"
        folder.mkdir()
        done += attempt(hazard, clips, folder, seconds, draw)["kills"]
        found["series"] += 1
        found["different"] += not same(expected, hazard.read(folder / hazard.output))
        left += strange(folder)
        shutil.rmtree(folder)
    return found | {"kills": done, "left": left, "orphans": orphans(os.environ["TCE_CAMPAIGN"])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=30, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[hazard.name for hazard in HAZARDS])
    options = parser.parse_args()
    mark = os.environ["TCE_CAMPAIGN"] = str(os.getpid())
    options.out.mkdir(parents=True, exist_ok=True)
    clips = options.out / "clips"
    if not clips.exists():
        make_clips(clips, classes=2, per_class=6, frames=12, size=48, groups=3, test_groups=1)
    print("| command | killed | series | results that differ | files left | processes left |")
    print("|---|---|---|---|---|---|")
    report = []
    for hazard in [hazard for hazard in HAZARDS if hazard.name in options.only]:
        work = options.out / f"work-{mark}"
        found = examine(hazard, clips / "videos", work, options.kills, options.seed)
        shutil.rmtree(work)
        report.append(found)
        print(
            f"| `{hazard.name}` | {found['kills']} | {found['series']} | {found['different']} "
            f"| {len(found['left'])} | {len(found['orphans'])} |",
            flush=True,
        )
    (options.out / "campaign.json").write_text(json.dumps(report, indent=2))
    if any(found["different"] or found["left"] or found["orphans"] for found in report):
        raise SystemExit("something was left or differs: see campaign.json")


if __name__ == "__main__":
    main()
