"""Runs of the version whose options were --loss, --mining and so on, and no --method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tce.errors import OptionError
from tce.train.pretrain import pretrain
from tests.helpers.run_files import rows, same, saved
from tests.helpers.training_options import pretrain_options as options

EARLIER = {
    "mining": "curriculum",
    "fill_bank": True,
    "bank_momentum": 0.0,
    "momentum_encoder": 0.0,
    "own_row_positive": "no",
    "rotation": 0.0,
    "negatives": None,
    "threshold_low": None,
    "threshold_high": 1.0,
    "threshold_rate": 5.0,
    "threshold_by": "similarity",
    "constant_z": "estimated",
}


def write_as_earlier(out: Path, loss: str, augment: dict[str, Any] | None = None, **contrast: Any) -> None:
    """Turn a run's options.json into what the earlier version wrote."""
    record = json.loads((out / "options.json").read_text())
    groups = record["options"]
    del groups["contrast"]["method"]
    tce = {name: value for name, value in groups.pop("tce").items() if value != EARLIER[name]}
    groups["contrast"] |= {"loss": loss, **EARLIER, **tce, **contrast}
    del groups["moco"]
    groups["augment"] |= {"jitter": "linear", **(augment or {})}
    groups["optim"]["chunks"], groups["run"]["bank"] = 1, "copies"
    (out / "options.json").write_text(json.dumps(record))


@pytest.mark.parametrize(("loss", "flags"), [("ntxent", {}), ("nce", {"method": "tce", "rotation": 0.5})])
def test_a_run_whose_method_exists_is_resumed_exactly(
    clips: Path, tmp_path: Path, loss: str, flags: dict[str, Any]
) -> None:
    pretrain(options(clips, tmp_path / "whole", **flags))
    pretrain(options(clips, tmp_path / "run", max_steps=2, **flags))
    write_as_earlier(tmp_path / "run", loss)
    pretrain(options(clips, tmp_path / "run", resume=True, **flags))
    assert same(saved(tmp_path / "whole"), saved(tmp_path / "run"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "run")


def test_other_options_than_the_earlier_run_had_are_named(clips: Path, tmp_path: Path) -> None:
    pretrain(options(clips, tmp_path, max_steps=2))
    write_as_earlier(tmp_path, "ntxent")
    with pytest.raises(OptionError, match=r"--method contradicts .*; expected --method simclr; found tce"):
        pretrain(options(clips, tmp_path, method="tce", resume=True))


@pytest.mark.parametrize(
    ("loss", "contrast", "augment", "told"),
    [
        ("nce", {}, {"jitter": "released"}, "--jitter released"),
        ("infonce", {"mining": "all", "momentum_encoder": 0.99}, {}, "--loss infonce"),
        ("nce", {"bank_momentum": 0.5}, {}, "--bank-momentum"),
        ("nce", {"own_row_positive": "only"}, {}, "--own-row-positive only"),
        ("ntxent", {"rotation": 0.5}, {}, "--rotation beside --loss ntxent"),
    ],
)
def test_a_method_that_no_longer_exists_is_one_line(
    clips: Path, tmp_path: Path, loss: str, contrast: dict, augment: dict, told: str
) -> None:
    pretrain(options(clips, tmp_path, max_steps=1))
    before = (tmp_path / "checkpoints" / "latest.pt").read_bytes()
    write_as_earlier(tmp_path, loss, augment, **contrast)
    with pytest.raises(OptionError) as caught:
        pretrain(options(clips, tmp_path, resume=True))
    assert f"found one with {told}, which this version does not have" in str(caught.value)
    assert f"--weights {tmp_path}" in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "checkpoints" / "latest.pt").read_bytes() == before
    restarted = options(clips, tmp_path / "new", model="tinynet:tiny", weights=str(tmp_path), max_steps=1)
    pretrain(restarted)  # the network still loads
