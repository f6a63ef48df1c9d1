"""Mining and NCE loss, forward and backward, against a straightforward implementation and a training step.

Every figure is CPU time of one thread, taken in turns with the others, so that what else runs on the machine
touches all of them alike; ratios carry over, milliseconds do not.

Run: OMP_NUM_THREADS=1 python benchmarks/mining.py [--size 9537 240000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tce.contrast import MemoryBank, NCELoss, curriculum_threshold

BATCH, DIM, NEGATIVES, TEMPERATURE = 100, 128, 8192, 0.07
TIMES = (0.0, 0.1, 0.375, 0.5, 1.0)  # shares of the training that is done


def embeddings(n: int, generator: torch.Generator) -> Tensor:
    """Unit vectors [n, D] of mean cosine 0.7, as one network's are early in training."""
    centre = torch.ones(DIM)
    return F.normalize(torch.randn(n, DIM, generator=generator) + 1.53 * centre, dim=1)


def per_row(v: Tensor, p: Tensor, rows: Tensor, instance_ids: Tensor, threshold: float, z: float) -> Tensor:
    """Each anchor by itself: top-k, a multinomial over the bank, gathered rows, a batched product."""
    size = len(rows)
    k = min(NEGATIVES, size - 1)
    similarity = (v @ rows.T).detach()
    ids = torch.empty(len(v), k, dtype=torch.long)
    for b in range(len(v)):
        row = similarity[b].clone()
        row[instance_ids[b]] = 2.0
        row[row >= threshold] = -2.0
        mined = row.topk(min(k, int((row > -2.0).sum()))).indices
        weight = torch.ones(size)
        weight[instance_ids[b]] = 0.0
        weight[mined] = 0.0
        drawn = torch.multinomial(weight, k - len(mined), replacement=True) if len(mined) < k else mined[:0]
        ids[b] = torch.cat([mined, drawn])
    candidates = torch.cat([p[:, None], rows[ids.view(-1)].view(len(v), k, DIM)], dim=1)  # [B, K+1, D]
    cosine = torch.bmm(candidates, v[:, :, None])[:, :, 0]  # [B, K+1]
    chance = torch.exp(cosine / TEMPERATURE) / z
    noise = k / size
    right = torch.log(chance[:, 0] / (chance[:, 0] + noise))
    wrong = torch.log(noise / (chance[:, 1:] + noise)).sum(dim=1)
    return -(right + wrong).mean()


def cpu_times(work: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each piece of work, which take turns of four runs, the first to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, function in work.items():
            for run in range(4):
                start = time.process_time()
                function()
                if run:
                    taken[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def training_step(image_size: int) -> Callable[[], None]:
    """The bare network: one pass over a batch of frames, forward, backward and optimiser step."""
    from tce.model.encoder import build_encoder

    encoder = build_encoder("resnet18", image_size=image_size).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(BATCH, 3, image_size, image_size).to(memory_format=torch.channels_last)

    def step() -> None:
        optimiser.zero_grad()
        encoder(images).square().sum().backward()
        optimiser.step()

    return step


def compare(size: int, t: float, repeats: int, network: bool) -> None:
    """Print the times and ratios at one size of the bank and one time of the training."""
    generator = torch.Generator().manual_seed(0)
    bank = MemoryBank(size, DIM)
    bank.rows.copy_(embeddings(size, generator))
    k = min(NEGATIVES, size - 1)
    loss = NCELoss(k, size, TEMPERATURE)
    v, p = embeddings(BATCH, generator).requires_grad_(), embeddings(BATCH, generator)
    instance_ids = torch.randperm(size, generator=generator)[:BATCH]
    loss.estimate_z(None, v.detach() @ bank.rows.T)
    threshold, z = curriculum_threshold(t), float(loss.Z)
    share = 0.0

    def ours() -> None:
        nonlocal share
        mined = bank.negatives(v, instance_ids, threshold, k, generator)
        loss((v * p).sum(dim=1), mined.cosine).backward()
        share = float(mined.hard_share)

    work = {"ours": ours, "per row": lambda: per_row(v, p, bank.rows, instance_ids, threshold, z).backward()}
    if network:
        work["network"] = training_step(112)
    ms = cpu_times(work, repeats)
    line = f"N {size:7,}  t {t:5.3f}  threshold {threshold:6.3f}  hard {share:4.0%}  "
    line += f"ours {ms['ours']:7.1f} ms  per row {ms['per row']:8.1f} ms  {ms['per row'] / ms['ours']:5.1f} x"
    if network:
        line += f"  {ms['ours'] / ms['network']:5.1%} of one pass of ResNet-18 ({ms['network']:.0f} ms)"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[9537, 240_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-network", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"B {BATCH}, D {DIM}, K {NEGATIVES}, torch {torch.__version__}, one thread")
    for size in arguments.size:
        for t in TIMES:
            compare(size, t, arguments.repeats, network=t == TIMES[-1] and not arguments.no_network)


if __name__ == "__main__":
    main()
