"""Two and four processes, each with a part of the batch, against one with the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tce.distributed import DistributedContext
from tests.helpers import shards

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of several processes found."""
    folder, count = tmp_path_factory.mktemp("shards"), request.param
    command = [sys.executable, "-m", "tests.helpers.shards"]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(count), folder / "meet", folder / f"{rank}.pt"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in range(count)
    ]
    try:
        errors = [worker.communicate(timeout=150)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, error in zip(workers, errors, strict=True):
        assert worker.returncode == 0, error
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


@pytest.fixture(scope="module")
def expected() -> dict:
    return shards.work(DistributedContext(torch.device("cpu")))


def test_every_process_finds_what_one_would(found: list[dict], expected: dict) -> None:
    for process in found:
        assert set(process) == set(expected)
        for check, figures in expected.items():
            assert set(process[check]) == set(figures)
            for name, value in figures.items():
                torch.testing.assert_close(
                    process[check][name],
                    value,
                    rtol=2e-5,
                    atol=2e-6,
                    msg=lambda m: f"{check}, {name}: {m}",  # noqa: B023
                )


def test_the_reference_is_no_accident(expected: dict) -> None:
    """Each case mines what it says, and trains."""
    for number, hard in ((0, 0), (2, 20), (3, 60), (5, 0), (6, 10), (7, 10)):
        assert bool((expected[f"nce {number}"]["hard"] == hard).all())
    some = expected["nce 1"]["hard"]
    assert int(some.min()) > 0 and int(some.max()) < 40
    assert all(figures["grad"].abs().max() > 0.01 for figures in expected.values())


def test_a_lone_process_needs_no_group() -> None:
    x, context = torch.randn(3, 2), DistributedContext(torch.device("cpu"))
    assert context.all_gather(x) is x
    torch.testing.assert_close(context.global_mean(x[:, 0]), x[:, 0].mean())
    torch.testing.assert_close(
        context.global_mean(x[:, 0], torch.tensor([True, False, True])), x[[0, 2], 0].mean()
    )
    assert float(context.global_mean(x[:, 0], torch.zeros(3, dtype=torch.bool))) == 0.0
