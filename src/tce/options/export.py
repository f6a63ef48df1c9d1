"""Options of the commands that take a checkpoint to another format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tce.errors import OptionError
from tce.options.checks import Pixels, Range, check_fields


@dataclass(frozen=True)
class ExportOptions:
    """Write an encoder or a classifier as ONNX, and check it against ONNX Runtime."""

    ckpt: str
    """The checkpoint, of any known format."""
    output: str
    """The file to write, ending in .onnx."""
    model: str | None = None
    """The network, checked against the file; needed where its tensors are another network's."""
    image_size: Pixels | None = None
    """Side of the square input in pixels; unset: the checkpoint's own."""
    raw: bool = False
    """Take bytes 0-255 as decoded, [batch, size, size, 3], and normalise them inside the graph."""
    opset: Annotated[int, Range(14, 20)] = 17
    """Version of ONNX' operators; 17 is read by every runtime since 2022."""

    def __post_init__(self) -> None:
        if not self.output.endswith(".onnx"):
            raise OptionError("--output", expected="a file ending in .onnx", found=repr(self.output))
        check_fields(self)
