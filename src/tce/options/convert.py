"""Options of `tce convert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from tce.errors import OptionError

FILES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".pkl", ".onnx", ".npz", ".npy", ".h5", ".json")


@dataclass(frozen=True)
class ConvertOptions:
    """Convert a checkpoint of any known format to model.safetensors."""

    input: tyro.conf.Positional[str]
    """The checkpoint: a file, a folder with model.safetensors in it, or hf:NAME."""
    output: str
    """The file to write, ending in .safetensors, or a folder for model.safetensors and config.json."""
    model: str | None = None
    """The network, checked against the file; needed where its tensors are another network's."""
    kind: Literal["auto", "encoder", "classifier"] = "auto"
    """What to make of it; an ImageNet file can be either, and is an encoder by default."""

    def __post_init__(self) -> None:
        if self.output.lower().endswith(FILES):
            raise OptionError(
                "--output",
                "a file ending in .safetensors, or a folder",
                self.output,
                "convert writes safetensors; for ONNX use tce export",
            )
