"""The command `tce convert`: any known checkpoint to model.safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tce.errors import TceError
from tce.io import require_writable
from tce.model.checkpoint import describe, load_classifier, load_encoder, save_model
from tce.model.checkpoint_reader import FILE_NAME, checkpoint_file, read_contents, start_name
from tce.options.convert import ConvertOptions
from tce.result import Result

if TYPE_CHECKING:
    from tce.model.classifier import Classifier
    from tce.model.encoder import FrameEncoder


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
