"""Options of `tce convert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from tce.errors import OptionError

FILES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".pkl", ".onnx", ".npz", ".npy", ".h5", ".json")


@dataclass(frozen=True)
class ConvertOptions:
    """Checkpoint to convert, and file to write."""

    input: tyro.conf.Positional[str]
    """Checkpoint: a file, a folder that holds model.safetensors, or hf:NAME."""
    output: str
    """File to write, ending in .safetensors, or folder for model.safetensors and config.json."""
    model: str | None = None
    """Network's name: checked against the file, needed for foreign networks."""
    kind: Literal["auto", "encoder", "classifier"] = "auto"
    """What to write; an ImageNet file can be either, and becomes an encoder by default."""

    def __post_init__(self) -> None:
        if self.output.lower().endswith(FILES):
            raise OptionError(
                "--output",
                "a file ending in .safetensors, or a folder",
                self.output,
                "convert writes safetensors; for ONNX use tce export",
            )
