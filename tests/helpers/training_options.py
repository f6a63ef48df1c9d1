"""Options of tiny runs, by their flags' names."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from tce.model.classifier import Classifier
from tce.options.finetune import (
    FinetuneOptions,
)
from tce.options.pretrain import (
    PretrainOptions,
)


def options(data: Path | str, out: Path, **flags: Any) -> FinetuneOptions:
    """Options by their flags' names, with tiny defaults."""
    flags = {"data": str(data), "savedir": str(out), "model": "tinynet:tiny", "image_size": 24, "epochs": 2,
             "batch_size": 4, "log_steps": 1, "device": "cpu", "held_out": 0.25, **flags}  # fmt: skip
    groups = {}
    for group in dataclasses.fields(FinetuneOptions):
        kind = group.default_factory
        names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        groups[group.name] = kind(**{name: flags.pop(name) for name in list(flags) if name in names})  # type: ignore[misc,operator]
    assert not flags, flags
    return FinetuneOptions(**groups)


def released_classifier(classifier: Classifier) -> dict[str, torch.Tensor]:
    """Its tensors by the names of 2020."""
    backbone = {f"module.{n}": v for n, v in classifier.backbone.state_dict().items()}
    backbone["module.conv1_custom.weight"] = backbone.pop("module.conv1.weight")
    return backbone | {f"module.fc_custom.{n}": v for n, v in classifier.fc.state_dict().items()}


def jpegs_256(footage: Path, root: Path) -> Path:
    """The published layout: <root>/v_Class_gNN_cNN/frame000001.jpg, with lists beside it."""
    split = {True: "train", False: "test"}
    lists: dict[str, list[str]] = {"trainlist01": [], "testlist01": []}
    for clip in sorted(footage.glob("*/v_*")):
        target = root / "jpegs_256" / clip.name
        target.mkdir(parents=True)
        for number, frame in enumerate(sorted(clip.iterdir()), 1):
            shutil.copy(frame, target / f"frame{number:06d}.jpg")
        label, train = clip.parent.name, "_g05" not in clip.name
        number = f" {int(label[1:]) + 1}" if train else ""
        lists[f"{split[train]}list01"].append(f"{label}/{clip.name}.avi{number}")
    (root / "UCF_list").mkdir()
    for name, lines in lists.items():
        (root / "UCF_list" / f"{name}.txt").write_text("\n".join(lines))
    (root / "UCF_list" / "classInd.txt").write_text("1 C0\n2 C1\n3 C2\n")
    return root


def pretrain_options(clips: Path, out: Path, **flags: Any) -> PretrainOptions:
    """Options by their flags' names, with tiny defaults."""
    flags = {"data": str(clips), "out": str(out), "device": "cpu", "log_steps": 2, **flags}
    flags = {
        "model": "tinynet:tiny",
        "image_size": 24,
        "embedding_size": 8,
        "window": 3,
        **flags,
    }
    flags = {"epochs": 3, "batch_size": 6, **flags}
    groups = {}
    for group in dataclasses.fields(PretrainOptions):
        kind = group.default_factory
        names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        given = {name: flags.pop(name) for name in list(flags) if name in names}
        groups[group.name] = kind(**given)  # type: ignore[misc,operator]
    assert not flags, flags
    return PretrainOptions(**groups)
