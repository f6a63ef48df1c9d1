"""One of several processes: works on its part of what test_distributed.py works out in one process.

Run: python -m tests.helpers.shards RANK WORLD_SIZE RENDEZVOUS OUTPUT
"""

from __future__ import annotations

import os
import sys
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from tce.contrast import InfoNCE, MemoryBank, NCELoss, NTXent, Sources, mining
from tce.distributed import DistributedContext

ROWS, DIM, BATCH = 61, 8, 12
CASES = [  # threshold, k, whether sources are excluded
    (-1.0, 9, False),  # all random
    (0.0, 40, False),  # some random
    (0.9, 20, False),  # all mined
    (2.0, 60, False),  # every other row
    (0.3, 30, True),
    (("quantile", 0.0), 10, False),
    (("quantile", 0.4), 10, False),
    (("quantile", 1.0), 10, False),
]


def problem() -> dict[str, Tensor]:
    """Inputs, weights, clips and clips that could be read, of the whole batch."""
    draw = torch.Generator().manual_seed(5)
    return {
        "x": torch.randn(BATCH, 6, generator=draw),
        "y": torch.randn(BATCH, 6, generator=draw),
        "weight": torch.randn(6, DIM, generator=draw),
        "ids": torch.randint(0, ROWS, (BATCH,), generator=draw),
        "valid": torch.rand(BATCH, generator=draw) > 0.2,
        "sources": torch.arange(ROWS) // 3,
    }


def embed(x: Tensor, weight: Tensor) -> Tensor:
    return F.normalize(x @ weight, dim=1)


def work(context: DistributedContext) -> dict[str, Any]:
    """All checks, on a part of the batch; gradients are averaged as in data-parallel training."""
    task, count, out = problem(), context.world_size, {}
    part = slice(context.rank * BATCH // count, (context.rank + 1) * BATCH // count)
    ids, valid = task["ids"][part], task["valid"][part]
    bank = MemoryBank(ROWS, DIM, torch.Generator().manual_seed(1))

    def views() -> tuple[Tensor, Tensor, Tensor]:
        weight = task["weight"].clone().requires_grad_()
        return weight, embed(task["x"][part], weight), embed(task["y"][part], weight)

    def averaged(weight: Tensor) -> Tensor:
        grad = weight.grad.clone()
        if count > 1:
            dist.all_reduce(grad)
        return grad / count

    def mean(value: Tensor) -> Tensor:
        return torch.as_tensor(context.mean({"value": value})["value"]).float()

    for number, (threshold, k, exclude) in enumerate(CASES):
        for name in ("nce", "infonce"):
            weight, v, p = views()
            loss = NCELoss(k, ROWS, 0.2, "none") if name == "nce" else InfoNCE(0.2, "none")
            level: Any = threshold
            if isinstance(threshold, tuple):
                with patch.object(mining, "QUANTILE_ROWS", 14):  # every fourth row
                    level = bank.quantile(v.detach(), threshold[1])
            mined = bank.negatives(
                v,
                ids,
                level,
                k,
                torch.Generator().manual_seed(3),
                Sources(task["sources"]) if exclude else None,
                first_anchor=part.start,
            )
            positive = (v * p).sum(dim=1)
            if isinstance(loss, NCELoss):
                loss.estimate_z(context.all_gather(positive), context.all_gather(mined.cosine))
            value = context.global_mean(loss(positive, mined.cosine), valid)
            value.backward()
            out[f"{name} {number}"] = {
                "value": mean(value),
                "grad": averaged(weight),
                "ids": context.all_gather(mined.ids.sort(dim=1).values),
                "hard": context.all_gather(mined.hard),
            }

    weight, v, p = views()
    whole = [context.all_gather(rows) for rows in (v, p, ids, valid)]
    a, b, numbers = (rows[whole[3]] for rows in whole[:3])
    value = NTXent(0.2)(a, b, numbers[:, None] == numbers)
    value.backward()
    out["in-batch"] = {"value": value.detach(), "grad": averaged(weight)}

    weight = task["weight"].clone().requires_grad_()
    value = context.global_mean(embed(task["x"][part], weight).sin().sum(dim=1), valid)
    value.backward()
    out["global mean"] = {"value": mean(value), "grad": averaged(weight)}
    return out


if __name__ == "__main__":
    rank, world_size, rendezvous, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    torch.save(work(DistributedContext(torch.device("cpu"), rank, world_size)), output)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # a thread of gloo that is still ending would abort the interpreter's own exit
