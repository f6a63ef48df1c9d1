"""Compare ways to pre-train at an equal budget of images; the tables of docs/results.md come from here.

Usage: python benchmarks/methods.py --data DATA --out FOLDER --stage choose
  DATA    the folder that holds gestures/ and fights/, each with videos/ and lists/
  choose  letters A-L, from each person to the other: what the default recipe is chosen by
  report  the chosen ones, once: letters M-Y both ways, gestures split 03, fights split 01
  table   print what is done so far

Every run is one line of FOLDER/results.jsonl; a run that stands there is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PAPER = ["--method", "tce", "--crops", "shared", "--window", "1", "--views", "separate", "--rotation", "1"]
IN_BATCH = ["--method", "simclr", "--crops", "independent", "--views", "joint"]
QUEUE = ["--method", "moco", "--crops", "independent", "--window", "16"]


@dataclass(frozen=True)
class Method:
    """A way to pre-train: its flags, and how many images of a clip pass the network in an epoch."""

    flags: tuple[str, ...]
    images: int


METHODS = {
    "untrained": Method((), 0),
    "paper: NCE, mined bank rows, shared crop, rotation": Method((*PAPER,), 3),
    "paper + own old row as positive": Method((*PAPER, "--own-row-positive", "also"), 3),
    "momentum encoder, queue of keys (MoCo)": Method((*QUEUE,), 2),
    "same frame, in-batch (SimCLR)": Method((*IN_BATCH, "--positives", "same"), 2),
    "neighbours within 4, in-batch": Method((*IN_BATCH, "--window", "4"), 2),
    "neighbours within 16, in-batch": Method((*IN_BATCH, "--window", "16"), 2),
    "neighbours within 16, in-batch, no same source": Method(
        (*IN_BATCH, "--window", "16", "--exclude-same-source"), 2
    ),
    "neighbours within 16, in-batch, two-layer head": Method(
        (*IN_BATCH, "--window", "16", "--head", "mlp"), 2
    ),
}
REPORTED = (
    "untrained",
    "paper: NCE, mined bank rows, shared crop, rotation",
    "same frame, in-batch (SimCLR)",
    "neighbours within 16, in-batch",
)


@dataclass(frozen=True)
class Task:
    """Footage with lists of training and test clips."""

    name: str
    footage: Path
    lists: Path
    split: str


def letters(source: Path, target: Path, wanted: str) -> Path:
    """UCF101-style lists with only the clips of some letters."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*list0*.txt"):
        lines = [line for line in file.read_text().splitlines() if re.match(rf"Letter[{wanted}]/", line)]
        (target / file.name).write_text("\n".join(lines) + "\n")
    (target / "classInd.txt").write_text((source / "classInd.txt").read_text())
    return target


def tce(*arguments: object) -> dict:
    """Run a command of tce with --json, on one thread."""
    command = [sys.executable, "-m", "tce", *map(str, arguments), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def packed(footage: Path, out: Path) -> Path:
    """The footage as a collection of small frames."""
    tce("pack", footage, "--out", out, "--short-side", 80)
    return out


def run(method: str, task: Task, seed: int, out: Path, budget: int, size: int) -> dict:
    """Pre-train on a task's training clips, then classify its test clips by their nearest neighbours."""
    folder = out / "runs" / re.sub(r"\W+", "-", f"{method}_{task.name}_{seed}")
    evaluated = ["--data", task.footage, "--lists", task.lists, "--split", task.split, "--image-size", size]
    chosen = METHODS[method]
    if chosen.images:
        clips = sum(1 for _ in (task.lists / f"trainlist{task.split}.txt").open())
        per_epoch = clips // 64 * 64 * chosen.images
        schedule = ["--epochs", max(1, round(budget / per_epoch)), "--seed", seed, "--monitor-epochs", 0]
        fixed = ["--image-size", size, "--batch-size", 64, "--precision", "bf16", "--lr", 0.06, "--force"]
        data = [task.footage, "--lists", task.lists, "--split", task.split, "--out", folder]
        tce("pretrain", *data, *schedule, *fixed, *chosen.flags)
        ckpt = ["--ckpt", folder / "model.safetensors"]
    else:
        ckpt = ["--ckpt", "random", "--model", "resnet18", "--seed", seed]
    metrics = tce("evaluate", *ckpt, *evaluated, "--protocol", "knn", "--out", folder / "knn")
    return {"method": method, "task": task.name, "seed": seed, "budget": budget, "knn": metrics["top1"]}


def table(rows: list[dict]) -> str:
    """Markdown: a row a method, a column a task; mean over seeds, and their range."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = ["| method | " + " | ".join(tasks) + " | mean |", "|---|" + "---|" * (len(tasks) + 1)]
    for method in METHODS:
        cells, means = [], []
        for task in tasks:
            found = [100 * row["knn"] for row in rows if row["method"] == method and row["task"] == task]
            if found:
                means.append(statistics.mean(found))
                spread = f" ({min(found):.1f}-{max(found):.1f})" if len(found) > 1 else ""
                cells.append(f"{means[-1]:.1f}{spread}")
            else:
                cells.append("")
        if means:
            lines.append(f"| {method} | " + " | ".join(cells) + f" | {statistics.mean(means):.1f} |")
    return "\n".join(lines)


def tasks_of(stage: str, data: Path, out: Path) -> list[Task]:
    """The stage's footage and lists."""
    gestures = packed(data / "gestures" / "videos", out / "gestures")
    lists = data / "gestures" / "lists"
    if stage == "choose":
        chosen = letters(lists, out / "lists" / "A-L", "A-L")
        return [
            Task("A-L g01 to g02", gestures, chosen, "01"),
            Task("A-L g02 to g01", gestures, chosen, "02"),
        ]
    others = letters(lists, out / "lists" / "M-Y", "M-Y")
    fights = packed(data / "fights" / "videos", out / "fights")
    return [
        Task("M-Y g01 to g02", gestures, others, "01"),
        Task("M-Y g02 to g01", gestures, others, "02"),
        Task("gestures split 03", gestures, lists, "03"),
        Task("fights split 01", fights, data / "fights" / "lists", "01"),
    ]


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", choices=("choose", "report", "table"), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", help="only these; default: all (choose), the reported ones")
    parser.add_argument("--budget", type=int, default=30_000, help="images that pass the network in a run")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one core each")
    args = parser.parse_args()
    log = args.out / "results.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if args.stage != "table":
        done = {(row["method"], row["task"], row["seed"]) for row in rows}
        methods = args.methods or (list(METHODS) if args.stage == "choose" else REPORTED)
        tasks = tasks_of(args.stage, args.data, args.out)
        todo = [(m, t, s) for s in args.seeds for m in methods for t in tasks if (m, t.name, s) not in done]
        with ThreadPoolExecutor(args.jobs) as pool, log.open("a") as file:
            jobs = [pool.submit(run, m, t, s, args.out, args.budget, args.image_size) for m, t, s in todo]
            for job in jobs:
                rows.append(job.result())
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
