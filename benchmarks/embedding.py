"""Embedding a video against its parts: decoding alone and the network alone, on the same cores, in one run.

On a CPU the two share the cores, so a perfect overlap reaches 1/(1/d + 1/n); on a GPU they do not, and it
reaches the slower of the two. Prints the ratios by the clock, and the CPU time of decoding and network as a
share of embed's, which other work on the machine does not touch. Absolute figures vary with the machine.

    python benchmarks/embedding.py [--video FILE] [--model resnet18] [--image-size 224] [--frames 300]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from costs import cost, in_turn

from tce.device import autocast, pick_device
from tce.embedding.embed import embed
from tce.model.encoder import FrameEncoder, build_encoder
from tce.video.open_video import open_video
from tce.video.synthetic import draw_clip, write_video


def decode(path: Path) -> None:
    with open_video(path) as video:
        for _ in video.stream(batch=64):
            pass


@torch.inference_mode()
def network(encoder: FrameEncoder, frames: int, precision: str, batch: int = 64) -> None:
    images = torch.zeros(batch, 3, encoder.image_size, encoder.image_size, device=encoder.device)
    images = images.contiguous(memory_format=torch.channels_last)  # as `preprocess` hands them over
    with autocast(encoder.device, precision):
        for start in range(0, frames, batch):
            encoder(images[: min(batch, frames - start)])


def measure(path: Path, encoder: FrameEncoder, precision: str, device: str, rounds: int) -> None:
    with open_video(path) as video:
        frames, (height, width) = len(video), video.size
    work: dict[str, Callable[[], object]] = {
        "decoding": lambda: decode(path),
        "network": lambda: network(encoder, frames, precision),
        "embed": lambda: embed(path, encoder, device=device, precision=precision),
    }
    taken = in_turn(work, rounds)
    d, n, found = (statistics.median(frames / one.clock for one in taken[name]) for name in work)
    bound = min(d, n) if encoder.device.type == "cuda" else 1 / (1 / d + 1 / n)
    cores = [
        (decoding.cores + passes.cores) / whole.cores
        for decoding, passes, whole in zip(taken["decoding"], taken["network"], taken["embed"])
    ]
    what = f"{encoder.config.architecture} {encoder.image_size} px {precision}, {width}x{height} video"
    shares = f"{found / bound:.2f} | {statistics.median(cores):.2f}"
    print(f"| {what} | {d:.0f} | {n:.0f} | {bound:.0f} | {found:.0f} | {shares} |")


def help_seconds() -> float:
    """Median of `tce --help`, a process from start to end."""
    command = [sys.executable, "-m", "tce", "--help"]
    return statistics.median(
        cost(lambda: subprocess.run(command, check=True, capture_output=True)).clock for _ in range(5)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, help="a video; by default generated ones of three sizes")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--frames", type=int, default=300, help="of the generated videos")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    encoder = build_encoder(options.model, image_size=options.image_size, seed=0).eval()
    encoder.to(pick_device(options.device))
    print(
        f"{torch.get_num_threads()} threads, {encoder.device}; frames a second, medians of {options.rounds}"
    )
    print("| network and video | decoding d | network n | bound | embed | share of the bound |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        videos = [options.video] if options.video else []
        for size in () if videos else (144, 360, 1080):
            videos.append(Path(folder) / f"{size}.mp4")
            clip = draw_clip("Wave", 0, 0, 30, size, fps=30, seed=0)
            count = options.frames if size < 1000 else options.frames // 2
            write_video(videos[-1], clip[np.arange(count) % len(clip)], fps=30)
        for video in videos:
            measure(video, encoder, options.precision, options.device, options.rounds)
    print(f"tce --help: {help_seconds():.2f} s")


if __name__ == "__main__":
    main()
