"""Options of runs that were started before `--method` took the place of `--loss`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tce.errors import OptionError

METHOD_OF_LOSS = {"ntxent": "simclr", "nce": "tce"}
TCE_FIELDS = (
    *("negatives", "threshold_by", "threshold_low", "threshold_high", "threshold_rate"),
    *("constant_z", "own_row_positive", "rotation"),
)


def current_options(record: Mapping[str, Any], out: str) -> Mapping[str, Any]:
    """What a run's options.json holds, in the present groups.

    Args:
        record: the file's content.
        out: the run folder, for the message.

    Raises:
        OptionError: the run's method no longer exists.
    """
    groups = record.get("options", {})
    contrast = groups.get("contrast", {})
    if record.get("command") != "pretrain" or "method" in contrast or "loss" not in contrast:
        return record
    gone = removed_options(groups)
    if gone:
        raise OptionError(
            f"--resume {out}",
            expected="a run of --method tce, simclr or moco",
            found=f"one with {gone[0]}, which this version does not have",
            fix=f"start a new run from its network with --weights {out}",
        )
    method = METHOD_OF_LOSS[contrast["loss"]]
    tce = {name: contrast[name] for name in TCE_FIELDS if name in contrast} if method == "tce" else {}
    return {**record, "options": {**groups, "contrast": {**contrast, "method": method}, "tce": tce}}


def removed_options(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Options of an earlier version, in its groups, that changed what is learned and no longer exist."""
    contrast, augment = groups.get("contrast", {}), groups.get("augment", {})
    loss, mining = contrast.get("loss"), contrast.get("mining", "curriculum")
    used = {
        f"--loss {loss}": loss not in METHOD_OF_LOSS,
        f"--mining {mining}": loss != "ntxent" and mining != "curriculum",
        "--own-row-positive only": contrast.get("own_row_positive") == "only",
        "--momentum-encoder": contrast.get("momentum_encoder", 0) > 0,
        "--bank-momentum": contrast.get("bank_momentum", 0) > 0,
        f"--rotation beside --loss {loss}": loss == "ntxent" and contrast.get("rotation", 0) > 0,
        "--jitter released": augment.get("jitter", "linear") == "released",
        "--chunks": groups.get("optim", {}).get("chunks", 1) > 1,
    }
    return [flag for flag, given in used.items() if given]
