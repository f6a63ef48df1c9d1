"""Runs every command once on tiny clips, in this process, while Python itself may open no connection.

python -m tests.helpers.every_command FOLDER
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import sys
from pathlib import Path

from tce import cli
from tce.model.checkpoint import save_model
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder
from tce.video.synthetic import draw_clip, make_clips, write_video

SIZE = 32
LEFT_OUT = {"demo"}  # three minutes of commands that are run here one by one


def forbid(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: no name is looked up and no connection made, except on the loopback."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
        if host not in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()):
            raise RuntimeError(f"a name was looked up: {host}")
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not ipaddress.ip_address(address[0]).is_loopback:
            raise RuntimeError(f"a connection was opened: {address}")
    if event == "urllib.Request":
        raise RuntimeError(f"an address was asked for: {arguments[0]}")


def command_lines(folder: Path) -> dict[str, str]:
    """A command line of each command, in an order in which they can be run."""
    clips = make_clips(folder / "clips", classes=2, per_class=4, frames=6, size=48, groups=4, test_groups=2)
    videos, lists = clips.videos, clips.lists
    one, two = sorted(map(str, videos.rglob("*.mp4")))[:2]
    long = folder / "long.mp4"
    write_video(long, draw_clip("Wave", 0, 0, 45, 48, 15, 0), 15)
    start = save_model(
        folder / "start", build_encoder("resnet18", image_size=SIZE, head="none", seed=0)
    ).parent
    labels = save_model(
        folder / "classifier",
        classifier_from_encoder(build_encoder("resnet18", image_size=SIZE), 2, 0, clips.classes),
    ).parent
    torch = "--engine torch"
    training = f"--image-size {SIZE} --batch-size 4 --epochs 1 --workers 1 --device cpu --model resnet18"
    return {
        "pack": f"{videos} --out {folder}/packed --workers 1",
        "check": f"{videos}",
        "adapt": f"{videos} --out {folder}/adapted --start {start} {torch} --workers 1",
        "pretrain": f"{folder}/packed --out {folder}/own {training}",
        "embed": f"--ckpt {start} --input {one} --output {folder}/e.npz {torch}",
        "index": f"{videos} --ckpt {start} --db {folder}/db {torch}",
        "search": f"--db {folder}/db --video {two} --top 2",
        "near-duplicates": f"{folder}/db --threshold 0.99",
        "subset": f"{folder}/db --size 3 --outliers 0 --typical 0 --csv {folder}/subset.csv",
        "discover": f"{long} --ckpt {start} --out {folder}/found --clusters 2 --examples 0 {torch}",
        "cycles": f"{long} --ckpt {start} --longest 1 {torch}",
        "tsne": f"--embeddings {folder}/e.npz --output {folder}/map.png",
        "heat": f"{one} --output {folder}/heat.png --ckpt {start} {torch}",
        "explore": f"{videos} --output {folder}/page.html --ckpt {start}",
        "finetune": f"--data {videos} --lists {lists} --weights {start} --savedir {folder}/tuned {training}",
        "evaluate": f"--ckpt {start} --data {folder}/packed --lists {lists} --out {folder}/knn --device cpu",
        "compare": f"{folder}/knn {folder}/knn --names a b --output {folder}/c.png",
        "report": f"{videos} --start {start} --out {folder}/report {torch} --workers 1",
        "classify": f"{videos} --ckpt {labels} --output {folder}/classes.csv",
        "convert": f"{start}/model.safetensors --output {folder}/converted",
        "export": f"--ckpt {start} --output {folder}/encoder.onnx",
        "publish": f"{start} --to {folder}/shared",
        "doctor": f"--no-test --folder {folder}",
        "info": f"{videos} {start} {folder}/packed {folder}/e.npz",
    }


def main(folder: Path) -> None:
    """Run them, and print a line of JSON: command -> exit code, and those without a command line."""
    lines = command_lines(folder)
    sys.addaudithook(forbid)
    os.chdir(folder)
    codes = {name: cli.main([name, *line.split()]) for name, line in lines.items()}
    missing = sorted(set(cli.COMMANDS) - set(lines) - LEFT_OUT)
    print("\n" + json.dumps({"codes": codes, "missing": missing}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
