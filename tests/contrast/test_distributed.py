"""Two and four processes against one, which has the whole bank and the whole batch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from tce.contrast.sharded_bank import Processes, ShardedBank, gather_rows, global_mean
from tests.helpers import shards

WORLD = 4


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict]]:
    """What each process of a group of two and of four found."""
    folder = tmp_path_factory.mktemp("shards")
    workers = [
        subprocess.Popen(
            [sys.executable, shards.__file__, str(rank), str(WORLD), folder / "meet", folder / f"{rank}.pt"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        errors = [worker.communicate(timeout=150)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, error in zip(workers, errors, strict=True):
        assert worker.returncode == 0, error
    saved = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    return {count: [each[count] for each in saved[:count]] for count in (2, 4)}


@pytest.fixture(scope="module")
def expected() -> dict:
    return shards.work(None, 0, 1)


@pytest.mark.parametrize("count", [2, 4])
def test_every_process_finds_what_one_would(count: int, results: dict, expected: dict) -> None:
    for found in results[count]:
        assert set(found) == set(expected)
        for check, figures in expected.items():
            assert set(found[check]) == set(figures)
            for name, value in figures.items():
                torch.testing.assert_close(
                    found[check][name],
                    value,
                    rtol=2e-5,
                    atol=2e-6,
                    msg=lambda m: f"{check}, {name}: {m}",  # noqa: B023
                )


def test_the_reference_is_no_accident(expected: dict) -> None:
    """Each case mines what it says, and the whole is the plain way's."""
    for number, hard in ((0, 0), (2, 20), (3, 60), (5, 0), (6, 10), (7, 10)):
        assert bool((expected[f"nce {number}"]["hard"] == hard).all())
    some = expected["nce 1"]["hard"]
    assert int(some.min()) > 0 and int(some.max()) < 40
    assert all(figures["grad"].abs().max() > 0.01 for name, figures in expected.items() if name != "rows")


def test_a_lone_process_needs_no_group() -> None:
    x = torch.randn(3, 2)
    assert gather_rows(x) is x
    assert Processes().sum(x) is x and Processes().logsumexp(x) is x
    torch.testing.assert_close(global_mean(x[:, 0]), x[:, 0].mean())
    bank = ShardedBank(5, 2, torch.Generator().manual_seed(0))
    assert len(bank) == 5
    mined = bank.negatives(nn.functional.normalize(x, dim=1), torch.tensor([0, 1, 2]), 2.0, 4)
    assert mined.ids.tolist() == [[n for n in range(5) if n != b] for b in range(3)]
