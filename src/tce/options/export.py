"""Options of the commands that take a checkpoint to another format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tce.errors import OptionError
from tce.options.checks import Pixels, Range, check_fields


@dataclass(frozen=True)
class ExportOptions:
    """Checkpoint to export, and file to write."""

    ckpt: str
    """Checkpoint in any known format."""
    output: str
    """File to write, ending in .onnx."""
    model: str | None = None
    """Network's name: checked against the file, needed for foreign networks."""
    image_size: Pixels | None = None
    """Side of the square input in pixels; by default the size that the checkpoint was trained with."""
    raw: bool = False
    """Export a graph that takes bytes 0-255, [batch, size, size, 3], and normalises them."""
    opset: Annotated[int, Range(14, 20)] = 17
    """Version of ONNX's operators; runtimes since 2022 read 17."""

    def __post_init__(self) -> None:
        if not self.output.endswith(".onnx"):
            raise OptionError("--output", expected="a file ending in .onnx", found=repr(self.output))
        check_fields(self)
