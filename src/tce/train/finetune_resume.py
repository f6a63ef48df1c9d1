"""What `--resume` of fine-tuning means: a run in its own folder, or a file of 2020 in a new one."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tce.errors import OptionError, TceError
from tce.model.checkpoint import describe, load_classifier
from tce.model.checkpoint_formats import FINETUNED_2020, FINETUNED_LATER
from tce.options.finetune import FinetuneOptions
from tce.train.finetune_task import Finetuning
from tce.train.optim import make_optimizer

log = logging.getLogger("tce.train")


@dataclass(frozen=True)
class Resumed:
    """What `--resume` means.

    Attributes:
        in_place: go on with the run in --savedir.
        file: a fine-tuning file of the 2020 release or later to go on from, in a new run.
    """

    in_place: bool
    file: str | None = None

    def state(self, task: Finetuning, options: FinetuneOptions) -> dict[str, Any]:
        """A training state made of the file: its network and its epoch; momentum starts anew.

        Raises:
            TceError: another number of classes or another network.
        """
        assert self.file is not None
        given = load_classifier(self.file, options.model.model)
        if given.num_classes != task.classifier.num_classes:
            raise TceError(
                f"--resume {self.file}",
                expected=f"{task.classifier.num_classes} classes, as in the data",
                found=f"{given.num_classes}",
                fix="give the --data and --lists it was trained on, or start from it with --weights",
            )
        epoch = int(given.config.provenance.get("epoch", 0))
        log.info("going on from epoch %d of %s; the optimiser's momentum starts anew", epoch, self.file)
        return {
            "step": epoch * task.steps_per_epoch,
            "task": {**task.state_dict(), "model": given.state_dict()},
            "optimizer": make_optimizer(task.parameters(), options.optim).state_dict(),
            "means": {"sums": {}, "counts": {}},
            "last": {},
            "rng": [{"cpu": torch.get_rng_state()}],
        }


def what_is_resumed(resume: str | None, savedir: str, epochs: int) -> Resumed:
    """What `--resume` and `--savedir` mean together.

    Raises:
        OptionError: a pre-training file or run, a network without training state, another run's folder, or a
            file that has been trained for all the epochs already.
    """
    if resume is None:
        return Resumed(False)
    here, there = Path(savedir).resolve(), run_of(resume or savedir).resolve()
    if (there == here and _command_of(there) != "pretrain") or _began_from(here, resume):
        return Resumed(True)
    if (there / "options.json").exists():
        if _command_of(there) == "pretrain":
            raise OptionError(
                f"--resume {resume}",
                expected="a fine-tuning run",
                found="one of `tce pretrain`",
                fix=f"start from its network with --weights {there}",
            )
        raise OptionError(
            f"--resume {resume}",
            expected="the run in --savedir, which goes on in its own folder",
            found=f"--savedir {savedir}",
            fix=f"use --savedir {there}, or start a new run from its network with --weights {there}",
        )
    facts = describe(resume)
    if facts["format"] in (FINETUNED_2020, FINETUNED_LATER):
        done = int(facts["provenance"].get("epoch", 0))
        if done >= epochs:
            raise OptionError(
                "--epochs",
                expected=f"more than the {done} that {resume} has been trained for",
                found=str(epochs),
                fix="raise --epochs, or test it with --evaluate",
            )
        return Resumed(False, resume)
    kind = "a pre-training file" if facts["kind"] != "classifier" else "a network without training state"
    raise OptionError(
        f"--resume {resume}",
        expected="a fine-tuning run's folder, its checkpoints/latest.pt, or a fine-tuning file of 2020",
        found=f"{kind} ({facts['format']})",
        fix=f"start from it with --weights {resume}",
    )


def _command_of(folder: Path) -> str | None:
    """The command that made a run folder; None where its options.json does not tell."""
    return _options_of(folder).get("command")


def _began_from(folder: Path, resume: str) -> bool:
    """Whether the run in a folder was begun by the same `--resume FILE`: the command is being repeated."""
    begun = _options_of(folder).get("options", {}).get("run", {}).get("resume")
    return bool(resume) and begun == resume


def _options_of(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def run_of(path: str) -> Path:
    """The run folder of a training state in it; any other path as it is."""
    return Path(path).parent.parent if Path(path).name == "latest.pt" else Path(path)
