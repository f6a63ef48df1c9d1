"""The commands `tce export` and `tce convert`: a checkpoint as ONNX, or as model.safetensors.

ONNX files are described without the package onnx, from their fields alone.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from tce.errors import TceError
from tce.io import Result, atomic, parse_json, require_writable
from tce.model.checkpoint import describe, describe_model, load_classifier, load_encoder, save_model
from tce.model.checkpoint_reader import FILE_NAME, checkpoint_file, read_contents, start_name
from tce.model.classifier import Classifier
from tce.model.encoder import FrameEncoder
from tce.options.convert import ConvertOptions
from tce.options.export import ExportOptions

TOLERANCE = 1e-3  # of the largest output; float32 kernels of two makers differ by about 1e-6
CHECKED_BATCHES = (1, 3)

# Numbers of a model's fields in onnx.proto, and those that every model has: its version and its graph.
FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
VERSION_FIELD, GRAPH_FIELD = 1, 7
MOST_FIELDS = 100_000
MOST_SHOWN = 20  # inputs or outputs


class _Raw(nn.Module):
    """A model that takes decoded pixels: uint8 [B (, T), size, size, 3] instead of normalised floats."""

    def __init__(self, model: FrameEncoder | Classifier):
        super().__init__()
        self.model = model
        # Spelled out for the graph; `preprocess.normalise` is written for torch's own vectors.
        self.mean = torch.tensor(model.config.mean)[:, None, None] * 255
        self.std = torch.tensor(model.config.std)[:, None, None] * 255

    def forward(self, pixels: Tensor) -> Tensor:
        """The model's output, see the class."""
        images = (pixels.flatten(0, -4).permute(0, 3, 1, 2).float() - self.mean) / self.std
        if isinstance(self.model, Classifier):
            images = self.model.to_input(images)
        return self.model(images)


def export(options: ExportOptions) -> Result:
    """Write a checkpoint as an ONNX file whose first axis, the batch, is free.

    The input is `images`, normalised float32 [batch, channels, size, size] as `preprocess` gives them, or
    with `raw` uint8 [batch, size, size, 3] ([batch, differences + 1, size, size, 3] for a classifier of
    differences). The output is `embedding` [batch, D] of length 1, or `logits` [batch, classes]. The
    checkpoint's description is in the file's metadata under `tce`.

    Args:
        options: the checkpoint, and where and how to write.

    Returns:
        `output`, `opset`, `inputs`, `outputs`, and `max_abs_difference` between torch and ONNX Runtime.

    Raises:
        TceError: no checkpoint, onnx or onnxruntime not installed, a network that cannot be exported, or
            results that differ.
    """
    _require_onnx()
    require_writable(options.output)
    model = _load(options)
    size = options.image_size or model.image_size
    data = _graph(model, options, size)
    data = _with_description(data, model)
    difference, share = _compare(data, model, options.raw, size)
    with atomic(options.output) as file:
        file.write(data)
    names = {
        "inputs": {"images": _shape(model, options.raw, size)},
        "outputs": {_output(model): _sizes(model)},
    }
    text = (
        f"{options.output}: {model.config.architecture}, opset {options.opset}, "
        f"images {names['inputs']['images']} -> {_output(model)} {_sizes(model)}; "
        f"differs from torch by at most {share:.1e} of the largest output"
    )
    figures = {"output": options.output, "opset": options.opset, "max_abs_difference": difference, **names}
    return Result(text, figures)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise TceError(
            "tce export",
            expected="onnx and onnxruntime",
            found=str(error),
            fix="pip install onnx onnxruntime",
        ) from error


def _load(options: ExportOptions) -> FrameEncoder | Classifier:
    if start_name(options.ckpt) is None:
        kind = read_contents(options.ckpt, options.model, building=False).kind
        if kind == "classifier":
            return load_classifier(options.ckpt, options.model)
    return load_encoder(options.ckpt, options.model)


def _output(model: FrameEncoder | Classifier) -> str:
    return "embedding" if isinstance(model, FrameEncoder) else "logits"


def _sizes(model: FrameEncoder | Classifier) -> list[Any]:
    return ["batch", model.embedding_size if isinstance(model, FrameEncoder) else model.num_classes]


def _shape(model: FrameEncoder | Classifier, raw: bool, size: int) -> list[Any]:
    """The input's axes, the first one free."""
    differences = model.config.differences if isinstance(model, Classifier) else 0
    if not raw:
        return ["batch", 3 * differences or 3, size, size]
    stack = [differences + 1] if differences else []
    return ["batch", *stack, size, size, 3]


def _sample(model: FrameEncoder | Classifier, raw: bool, size: int, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    shape = [batch, *_shape(model, raw, size)[1:]]
    if raw:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.randn(shape, generator=generator)


def _graph(model: FrameEncoder | Classifier, options: ExportOptions, size: int) -> bytes:
    """The model's trace as an ONNX file."""
    network: nn.Module = _Raw(model) if options.raw else model
    buffer = io.BytesIO()
    output = _output(model)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer's remarks on sizes that are constant on purpose
            torch.onnx.export(
                network.eval(),
                # More than one, or the tracer takes the batch for a constant.
                (_sample(model, options.raw, size, 2),),
                buffer,  # type: ignore[arg-type]
                input_names=["images"],
                output_names=[output],
                dynamic_axes={"images": {0: "batch"}, output: {0: "batch"}},
                opset_version=options.opset,
                dynamo=False,  # the exporter that needs no further package
            )
    except Exception as error:  # whatever a foreign network's operators make the exporter raise
        raise TceError(
            f"{model.config.architecture}",
            expected=f"a network that ONNX can express at opset {options.opset}",
            found=str(error).strip().splitlines()[0],
            fix="try a higher --opset",
        ) from error
    return buffer.getvalue()


def _with_description(data: bytes, model: FrameEncoder | Classifier) -> bytes:
    import onnx

    graph = onnx.load_from_string(data)
    description = describe_model(model)
    description.pop("network")
    axes = graph.graph.output[0].type.tensor_type.shape.dim
    axes[1].dim_value = _sizes(model)[1]  # the tracer does not see that it is constant
    onnx.helper.set_model_props(graph, {"tce": json.dumps(description, sort_keys=True)})
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


def _compare(data: bytes, model: FrameEncoder | Classifier, raw: bool, size: int) -> tuple[float, float]:
    """The largest difference between ONNX Runtime's and torch's results over several batch sizes.

    Returns:
        The difference itself, and as a share of the batch's largest number, or of 1 where that is less.
    """
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # which its builds for Windows send
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    network: nn.Module = _Raw(model) if raw else model
    worst = share = 0.0
    for batch in CHECKED_BATCHES:
        images = _sample(model, raw, size, batch)
        with torch.no_grad():
            expected = network(images).numpy()
        found = session.run(None, {"images": images.numpy()})[0]
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        largest = max(1.0, float(np.abs(expected).max()))
        if not difference <= TOLERANCE * largest:
            raise TceError(
                f"{model.config.architecture} as ONNX",
                expected=f"torch's results within {TOLERANCE:g}",
                found=f"a difference of {difference:.2g} at batch {batch}; nothing was written",
            )
        worst, share = max(worst, difference), max(share, difference / largest)
    return worst, share


def convert(options: ConvertOptions) -> Result:
    """Write a checkpoint in our format; its numbers stay as they are.

    Args:
        options: the checkpoint, and where to write.

    Returns:
        What was found and written: `input`, `output` and `describe`'s entries for the new file.

    Raises:
        TceError: no checkpoint, not of the wanted kind, or the output is the input or cannot be written.
    """
    target = Path(options.output)
    target = target if target.suffix == ".safetensors" else target / FILE_NAME
    require_writable(target)
    foreign = start_name(options.input)
    source = Path(options.input) if foreign is not None else checkpoint_file(options.input)
    if source.resolve() in (target.resolve(), target.resolve().parent):  # the latter: a transformers folder
        raise TceError(f"--output {target}", expected="another place than the input", found="the same")
    load = load_classifier if _kind(options, foreign) == "classifier" else load_encoder
    model: FrameEncoder | Classifier = load(options.input, options.model)
    written = save_model(target, model)
    facts = describe(written)
    was = (
        "Hugging Face"
        if (foreign or "").startswith("hf:")
        else facts["provenance"].get("format", facts["format"])
    )
    text = (
        f"{options.input} ({was}) -> {written}: {facts['kind']}, {facts['architecture']}, "
        f"{facts['parameters']:,} parameters, hash {facts['hash'][:12]}"
    )
    return Result(text, {"input": options.input, "output": str(written), **facts})


def _kind(options: ConvertOptions, foreign: str | None) -> str:
    if options.kind != "auto":
        return options.kind
    if foreign is not None:
        return "encoder"
    kind = read_contents(options.input, options.model, building=False).kind
    return "classifier" if kind == "classifier" else "encoder"


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
