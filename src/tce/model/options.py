"""Options of the commands that take a checkpoint to another format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from tce.errors import OptionError


@dataclass(frozen=True)
class ConvertOptions:
    """Read a checkpoint of any known format, and write it as model.safetensors."""

    input: tyro.conf.Positional[str]
    """The checkpoint: a file, a folder with model.safetensors in it, or hf:NAME."""
    output: str
    """The file to write, ending in .safetensors, or a folder for model.safetensors and config.json."""
    model: str | None = None
    """The network, checked against the file; needed where its tensors are another network's."""
    kind: Literal["auto", "encoder", "classifier"] = "auto"
    """What to make of it; an ImageNet file can be either, and is an encoder by default."""


@dataclass(frozen=True)
class ExportOptions:
    """Write an encoder or a classifier as ONNX, and check it against ONNX Runtime."""

    ckpt: str
    """The checkpoint, of any known format."""
    output: str
    """The file to write, ending in .onnx."""
    model: str | None = None
    """The network, checked against the file; needed where its tensors are another network's."""
    image_size: int | None = None
    """Side of the square input in pixels; unset: the checkpoint's own."""
    raw: bool = False
    """Take bytes 0-255 as decoded, [batch, size, size, 3], and normalise them inside the graph."""
    opset: int = 17
    """Version of ONNX' operators; 17 is read by every runtime since 2022."""

    def __post_init__(self) -> None:
        if not self.output.endswith(".onnx"):
            raise OptionError("--output", expected="a file ending in .onnx", found=repr(self.output))
        if self.image_size is not None and self.image_size < 8:
            raise OptionError("--image-size", expected="at least 8 pixels", found=str(self.image_size))
        if not 14 <= self.opset <= 20:
            raise OptionError("--opset", expected="14 to 20", found=str(self.opset))
