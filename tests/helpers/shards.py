"""One of several processes: works on its share of what test_distributed.py works out in one process.

Run: python shards.py RANK WORLD RENDEZVOUS OUTPUT
"""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from tce.contrast import InfoNCE, MemoryBank, NCELoss, NTXent, Sources, mining
from tce.contrast.sharded_bank import Processes, ShardedBank, gather_rows, global_mean

ROWS, DIM, BATCH = 61, 8, 12  # 61 rows do not divide evenly
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
    """Inputs, weights, clips and failed slots of the whole batch."""
    draw = torch.Generator().manual_seed(5)
    return {
        "x": torch.randn(BATCH, 6, generator=draw),
        "y": torch.randn(BATCH, 6, generator=draw),
        "weight": torch.randn(6, DIM, generator=draw),
        "ids": torch.randint(0, ROWS, (BATCH,), generator=draw),
        "ok": torch.rand(BATCH, generator=draw) > 0.2,
        "sources": torch.arange(ROWS) // 3,
    }


def embed(x: Tensor, weight: Tensor) -> Tensor:
    return F.normalize(x @ weight, dim=1)


def contrast(
    bank: MemoryBank, loss: NCELoss | InfoNCE, v: Tensor, p: Tensor, case: tuple
) -> dict[str, Tensor]:
    """The loss of the whole batch for one case of mining."""
    task = problem()
    threshold, k, exclude = case
    if isinstance(threshold, tuple):
        with patch.object(mining, "QUANTILE_ROWS", 14):  # every fourth row
            threshold = bank.quantile(v.detach(), threshold[1])
    mined = bank.negatives(
        v,
        task["ids"],
        threshold,
        k,
        torch.Generator().manual_seed(3),
        Sources(task["sources"]) if exclude else None,
    )
    value = loss((v * p).sum(dim=1), mined.cosine, task["ok"], mined.absent, bank.over)
    out = {"value": value, "ids": mined.ids.sort(dim=1).values, "hard": mined.hard}
    if isinstance(loss, NCELoss):
        out["z"] = loss.Z.clone()
        out["fit"] = loss.normalisation(None, mined.cosine.detach() * 0.9, None, mined.absent, bank.over)
    return out


def work(group: Any, rank: int, count: int) -> dict[str, Any]:
    """All checks, on a share of the batch; gradients are averaged as in data-parallel training."""
    task, out = problem(), {}
    share = slice(rank * BATCH // count, (rank + 1) * BATCH // count)

    def views() -> tuple[Tensor, Tensor, Tensor]:
        weight = task["weight"].clone().requires_grad_()
        both = [gather_rows(embed(task[name][share], weight), group) for name in "xy"]
        return weight, both[0], both[1]

    def averaged(weight: Tensor) -> Tensor:
        grad = weight.grad.clone()
        if count > 1:
            dist.all_reduce(grad, group=group)
        return grad / count

    bank = bank_of(group, count)
    for number, case in enumerate(CASES):
        for name in ("nce", "infonce"):
            weight, v, p = views()
            loss = NCELoss(case[1], ROWS, 0.2) if name == "nce" else InfoNCE(0.2)
            result = contrast(bank, loss, v, p, case)
            result["value"].backward()
            result["grad"] = averaged(weight)
            out[f"{name} {number}"] = {key: value.detach() for key, value in result.items()}
    weight, v, p = views()
    cosine, absent = bank.every(v, task["ids"], Sources(task["sources"]))
    value = InfoNCE(0.2)((v * p).sum(dim=1), cosine, task["ok"], absent, bank.over)
    value.backward()
    out["every row"] = {"value": value.detach(), "grad": averaged(weight)}

    weight, v, p = views()
    value = NTXent(0.2)(v, p, task["ids"], weights=task["ok"])
    value.backward()
    out["in-batch"] = {"value": value.detach(), "grad": averaged(weight)}

    weight = task["weight"].clone().requires_grad_()
    losses = embed(task["x"][share], weight).sin().sum(dim=1)
    value = global_mean(losses, task["ok"][share], group)
    value.backward()
    mean = Processes(group).sum(value.detach()) / count
    out["global mean"] = {"value": mean, "grad": averaged(weight)}

    v = embed(task["x"], task["weight"])
    out["rows"] = {"own": bank.own(task["ids"]), "drift": bank.drift(task["ids"], v)}
    bank.update(task["ids"], v)
    out["rows"]["updated"] = bank.rows.clone()
    if isinstance(bank, ShardedBank):
        box = [bank.whole()]
        assert (box[0] is None) == (rank > 0)
        dist.broadcast_object_list(box, group=group, group_src=0)
        out["rows"]["updated"] = box[0]
        other = bank_of(group, count)
        other.load_whole(box[0])
        assert torch.equal(other.rows, bank.rows)
        assert len(bank) == ROWS and len(bank.rows) < ROWS
    return out


def bank_of(group: Any, count: int) -> MemoryBank:
    draw = torch.Generator().manual_seed(1)
    if count == 1:
        return MemoryBank(ROWS, DIM, draw, momentum=0.3)
    return ShardedBank(ROWS, DIM, draw, momentum=0.3, group=group)


if __name__ == "__main__":
    rank, world, rendezvous, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    pair = dist.new_group([0, 1])
    results = {world: work(None, rank, world)}
    if rank < 2:
        results[2] = work(pair, rank, 2)
    torch.save(results, output)
    dist.barrier()
    dist.destroy_process_group()
