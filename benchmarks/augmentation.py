"""Augmentation against its own bare tensor operations, one thread.

The bare operations get every frame's parameters ready on the device and do what must be done to the pixels:
bytes to planes, sample, colour matrix, clip, into channels_last. What the augmentation takes beyond them is
drawing and packing.
Figures are CPU time, taken in turns; frames a second carry over to no other machine, ratios do.

Run: OMP_NUM_THREADS=1 python benchmarks/augmentation.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tce.options.pretrain import AugmentOptions
from tce.train.augment import Augmentation, frames_together

CLIPS, VIEWS = 64, 2
COLORS = {"brightness": 0.5, "color_contrast": 0.5, "saturation": 0.5, "hue": 0.25}
KINDS = {
    "default": AugmentOptions(),
    "with blur": AugmentOptions(blur=0.5),
    "the paper's": AugmentOptions(crops="shared", crop_scale=(1.0, 1.0)),
}


def bare(size: int) -> Callable[[Tensor], Tensor]:
    """The default's tensor operations on random parameters."""
    m, together = CLIPS * VIEWS, frames_together(size)
    x = torch.linspace(-0.8, 0.9, size).expand(m, 1, size).contiguous()
    y = torch.linspace(-0.7, 0.8, size)[:, None].expand(m, size, 1).contiguous()
    weights, shift = torch.rand(m, 3, 3) / 255, torch.rand(m, 3, 1)
    low, high = torch.full((3, 1), -2.0), torch.full((3, 1), 2.0)

    def operations(frames: Tensor) -> Tensor:
        views = torch.empty(m, 3, size, size, memory_format=torch.channels_last)
        for first in range(0, m, together):
            part = slice(first, first + together)
            planes = frames[part].permute(0, 3, 1, 2)
            planes = planes.to(torch.float32, memory_format=torch.contiguous_format)
            grid = torch.stack([x[part].expand(-1, size, -1), y[part].expand(-1, -1, size)], dim=3)
            images = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
            offset = shift[part] + weights[part, :1] @ images.mean(dim=(2, 3))[:, :, None]
            pixels = torch.baddbmm(offset, weights[part], images.flatten(2))
            views[part] = torch.clamp_(pixels, low, high).view_as(images)
        return views

    return operations


def rates(work: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Frames a second of CPU time: medians over turns of four runs, the first to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, function in work.items():
            for run in range(4):
                start = time.process_time()
                function()
                if run:
                    taken[name].append(time.process_time() - start)
    return {name: CLIPS * VIEWS / statistics.median(times) for name, times in taken.items()}


def compare(source: int, size: int) -> None:
    """Print the rates of one size of frames and views."""
    frames = torch.randint(0, 256, (CLIPS, VIEWS, source, source, 3), dtype=torch.uint8)
    samples = np.arange(CLIPS)

    def augmented(options: AugmentOptions) -> Callable[[], object]:
        augmentation = Augmentation(options, size)
        return lambda: augmentation(frames, samples, 0, 0)

    operations = bare(size)
    pair = {"bare": lambda: operations(frames.flatten(0, 1)), "default": augmented(KINDS["default"])}
    found = rates(pair)
    share = found["default"] / found["bare"]
    print(f"{source} -> {size} px: bare {found['bare']:,.0f} frames/s, default at {share:.0%} of that")
    for name, rate in rates({name: augmented(options) for name, options in KINDS.items()}).items():
        print(f"  {name:16s} {rate:7,.0f} frames/s")


def main() -> None:
    torch.set_num_threads(1)
    print(f"{CLIPS} clips, {VIEWS} views, torch {torch.__version__}, one thread")
    for source, size in ((128, 112), (256, 224), (256, 112)):
        compare(source, size)


if __name__ == "__main__":
    main()
