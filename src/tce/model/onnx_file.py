"""Recognise an ONNX file by its content, and describe its inputs and outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from tce.errors import TceError
from tce.model.tensor_file import parse_json

# Numbers of a model's fields in onnx.proto, and those that every model has: its version and its graph.
FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
VERSION_FIELD, GRAPH_FIELD = 1, 7
MOST_FIELDS = 100_000
MOST_SHOWN = 20  # inputs or outputs


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an ONNX model: protobuf's fields from its first byte to its last, a graph among them.

    ONNX files have no signature. Only the fields' headers are read.
    """
    size = Path(path).stat().st_size
    found: set[int] = set()
    with open(path, "rb") as file:
        for _ in range(MOST_FIELDS):
            if file.tell() == size:
                break
            tag = _varint(file)
            field = None if tag is None else tag >> 3
            length = _varint(file) if tag is not None and tag & 7 in (0, 2) else None
            if field not in FIELDS or length is None:
                return False
            if tag is not None and tag & 7 == 2:
                if file.tell() + length > size:
                    return False
                file.seek(length, os.SEEK_CUR)
            found.add(field)
        return file.tell() == size and {VERSION_FIELD, GRAPH_FIELD} <= found


def _varint(file: BinaryIO) -> int | None:
    """Protobuf's integer of variable length; None at the file's end or beyond ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    return None


def describe_onnx(path: str | os.PathLike[str]) -> dict[str, Any]:
    """An ONNX model's facts; files of weights beside it are not opened.

    Returns:
        `format`, and where the onnx library is installed `opset`, `producer`, `inputs` and `outputs` (name to
        type and axes; a free axis has a name), and `tce` with the description of a model that `tce export`
        wrote.

    Raises:
        TceError: the model is damaged.
    """
    if not is_onnx(path):
        raise TceError(str(path), "an ONNX model", "something else, or a damaged file", "export it again")
    try:
        import onnx
    except ImportError:
        return {"format": "ONNX"}
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        raise TceError(str(path), "an ONNX model", "a damaged file", "export it again") from error
    facts: dict[str, Any] = {
        "format": "ONNX",
        "opset": max((entry.version for entry in model.opset_import if not entry.domain), default=None),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": {item.name: _type(item) for item in model.graph.input[:MOST_SHOWN]},
        "outputs": {item.name: _type(item) for item in model.graph.output[:MOST_SHOWN]},
    }
    notes = {entry.key: entry.value for entry in model.metadata_props}
    if "tce" in notes:
        facts["tce"] = parse_json(notes["tce"], f"{path}: its description")
    return facts


def _type(item: Any) -> str:
    """A tensor's type and axes, such as float32 [batch, 3, 224, 224]."""
    import onnx

    tensor = item.type.tensor_type
    if not item.type.HasField("tensor_type"):
        return "not a tensor"
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except (KeyError, TypeError):
        kind = "unknown type"
    axes = [axis.dim_param or str(axis.dim_value or "?") for axis in tensor.shape.dim]
    return f"{kind} [{', '.join(axes)}]"
