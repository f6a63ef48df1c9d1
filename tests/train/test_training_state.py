from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tce.errors import TceError
from tce.train.training_state import _FirstError, load_training_state, save_training_state


def state() -> dict[str, Any]:
    return {
        "step": 3,
        "task": {"net": {"w": torch.ones(2)}},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"params": [0]}]},
        "means": {"sums": {"loss": 0.5}, "counts": {"loss": 2}},
        "last": {"loss": 0.25, "step": 3},
        "rng": [{"cpu": torch.get_rng_state()}],
    }


def test_it_is_read_back_as_written(tmp_path: Path) -> None:
    save_training_state(tmp_path / "latest.pt", state())
    found = load_training_state(tmp_path / "latest.pt", fix="")
    assert found["step"] == 3 and torch.equal(found["task"]["net"]["w"], torch.ones(2))
    assert found["last"] == state()["last"] and torch.equal(found["rng"][0]["cpu"], state()["rng"][0]["cpu"])


def set_to(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update({name: value})


TAMPERED: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    *[(lambda c, name=name: c.pop(name), f'no entry "{name}"') for name in state()],
    (set_to("step", "3"), '"step" that is not a number of steps'),
    (set_to("step", True), '"step" that is not a number of steps'),
    (set_to("step", 2.5), '"step" that is not a number of steps'),
    (set_to("step", -1), '"step" that is not a number of steps'),
    (set_to("step", torch.tensor(3)), '"step" that is not a number of steps'),
    (set_to("task", []), '"task" that is not a mapping'),
    (set_to("optimizer", {}), '"optimizer" that is not the state of an optimizer'),
    (set_to("optimizer", {"state": {}, "param_groups": [1]}), '"optimizer" that is not'),
    (set_to("means", {"sums": {"a": 1.0}, "counts": {}}), '"means" that is not'),
    (set_to("means", {"sums": {"a": 1.0}, "counts": {"a": 0}}), '"means" that is not'),
    (set_to("means", {"sums": {"a": "x"}, "counts": {"a": 1}}), '"means" that is not'),
    (set_to("last", None), '"last" that is not a mapping of numbers'),
    (set_to("last", {"loss": []}), '"last" that is not a mapping of numbers'),
    (set_to("rng", []), '"rng" that is not the state'),
    (set_to("rng", [{}]), '"rng" that is not the state'),
    (set_to("rng", [{"cpu": torch.zeros(3)}]), '"rng" that is not the state'),
    (set_to("rng", [{"cpu": torch.get_rng_state(), "cuda": 5}]), '"rng" that is not the state'),
    (set_to("format", "something else"), "another kind of file"),
]


@pytest.mark.parametrize(("change", "problem"), TAMPERED)
def test_every_entry_is_checked(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    content = {"format": "tce training state 1", **state()}
    change(content)
    torch.save(content, tmp_path / "latest.pt")
    with pytest.raises(TceError) as caught:
        load_training_state(tmp_path / "latest.pt", fix="start again")
    assert problem in str(caught.value) and str(caught.value).endswith("; start again")


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("echo never",)


def test_torchs_advice_is_never_repeated(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    whole = io.BytesIO()
    torch.save(state(), whole)
    evil = io.BytesIO()
    torch.save({"step": Evil()}, evil)
    contents = [b"", b"text", whole.getvalue()[:300], whole.getvalue()[:-40], evil.getvalue()]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(TceError) as caught:
            load_training_state(path, fix="start again")
        assert "weights_only" not in str(caught.value) and len(str(caught.value)) < 300, caught.value
        assert "cannot be used" in str(caught.value)


def test_the_disks_error_is_the_one_that_is_raised(tmp_path: Path) -> None:
    """torch.save finishes its archive after a failed write, with an error of its own in the disk's place."""

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 1000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    output = _FirstError(Full())
    torch.save({"weights": torch.zeros(10_000)}, output)
    assert output.error is not None and output.error.strerror == "No space left on device"
