"""What computes a frozen backbone's features: PyTorch, or ONNX Runtime where that is faster on this machine.

PyTorch is the reference. On a CPU, ONNX Runtime fuses batch normalisation and activations into the
convolutions, which about halves the time of mobile networks.
"""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tce.device import autocast
from tce.errors import OptionError, TceError
from tce.model.classifier import Classifier

if TYPE_CHECKING:
    from tce.model.encoder import FrameEncoder

log = logging.getLogger("tce.model")

ENGINES = ("auto", "torch", "onnxruntime")
MEASURED_BATCH = 4
ROUNDS = 2
WORTH_MEASURING = 300  # frames; for fewer the conversion takes longer than it saves
CLEARLY_FASTER = 1.1  # below this ratio the reference is kept
TOLERANCE = 1e-4  # of the largest feature
OPSET = 17


@dataclass(frozen=True)
class FeatureEngine:
    """Normalised inputs float [B, C, h, w] -> features float32 [B, F], on the network's device.

    It holds the weights of the time when it was made; make another one after training.

    Attributes:
        name: "torch" or "onnxruntime".
        run: the pass itself.
        precision: of torch's pass, "float32" or "bf16"; ONNX Runtime computes in float32.
    """

    name: str
    run: Callable[[Tensor], Tensor]
    precision: str = "float32"

    def __call__(self, images: Tensor) -> Tensor:
        """The features, see the class."""
        return self.run(images)


def pick_engine(
    encoder: FrameEncoder | Classifier,
    engine: str = "auto",
    image_size: int | None = None,
    precision: str = "float32",
    frames: int | None = None,
) -> FeatureEngine:
    """The engine for a network's features.

    Args:
        encoder: an encoder or a classifier, in evaluation mode, on its device.
        engine: "torch", "onnxruntime" (on a CPU only), or "auto": both are measured for a few seconds and
            the faster one is taken, torch where they are about equal or ONNX Runtime cannot be used.
        image_size: side of the images in pixels; the network's by default.
        precision: of torch's pass, "float32" or "bf16".
        frames: how many images will come, where known: for a few hundred nothing is measured.

    Raises:
        OptionError: an unknown engine, or onnxruntime on another device than a CPU.
        TceError: onnxruntime was asked for and is not installed, or cannot express the network.
    """
    if engine not in ENGINES:
        raise OptionError("--engine", expected=", ".join(ENGINES), found=repr(engine))
    reference = _torch_engine(encoder, precision)
    on_cpu = encoder.device.type == "cpu"
    pays = on_cpu and (frames is None or frames >= WORTH_MEASURING)
    if engine == "torch" or (engine == "auto" and not pays):
        return reference
    if not on_cpu:
        raise OptionError(
            "--engine onnxruntime",
            expected="--device cpu",
            found=str(encoder.device),
            fix="use --engine torch",
        )
    size = image_size or encoder.image_size
    channels = int(getattr(encoder.backbone, "in_channels", 3))  # 15 for stacks of differences
    try:
        other = _onnx_engine(encoder.backbone, _images(size, 2, channels))
        _require_equal(_torch_engine(encoder, "float32"), other, _images(size, 3, channels))
    except TceError as error:
        if engine == "onnxruntime":
            raise
        log.debug("engine torch: %s", error)
        return reference
    return (
        other
        if engine == "onnxruntime"
        else _faster(reference, other, _images(size, MEASURED_BATCH, channels))
    )


def _torch_engine(encoder: FrameEncoder | Classifier, precision: str) -> FeatureEngine:
    backbone, device = encoder.backbone, encoder.device

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        with autocast(device, precision):
            return backbone(images).float()

    return FeatureEngine("torch", run, precision)


def _onnx_engine(backbone: nn.Module, sample: Tensor) -> FeatureEngine:
    try:
        import onnx  # noqa: F401  # which torch's exporter needs
        import onnxruntime
    except ImportError as error:
        raise TceError(
            "--engine onnxruntime",
            expected="onnx and onnxruntime",
            found=str(error),
            fix="pip install onnx onnxruntime, or use --engine torch",
        ) from error
    onnxruntime.disable_telemetry_events()  # which its builds for Windows send
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    # Waiting threads that spin would take the time of those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        _graph(backbone, sample), options, providers=["CPUExecutionProvider"]
    )

    def run(images: Tensor) -> Tensor:
        (features,) = session.run(None, {"images": images.float().contiguous().numpy()})
        return torch.from_numpy(features)

    return FeatureEngine("onnxruntime", run)


def _graph(backbone: nn.Module, sample: Tensor) -> bytes:
    """The backbone as an ONNX file with a free batch, traced on two inputs or more.

    Of one alone the tracer would take the batch for a constant.
    """
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the tracer's remarks on sizes that are constant on purpose
            torch.onnx.export(
                backbone,
                (sample,),
                buffer,  # type: ignore[arg-type]
                input_names=["images"],
                output_names=["features"],
                dynamic_axes={"images": {0: "batch"}, "features": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,  # the exporter that needs no further package
            )
    except Exception as error:  # whatever a foreign network's operators make the exporter raise
        raise TceError(
            "--engine onnxruntime",
            expected=f"a network that ONNX can express at opset {OPSET}",
            found=(str(error).strip() or type(error).__name__).splitlines()[0],
            fix="use --engine torch",
        ) from error
    return buffer.getvalue()


def _images(size: int, batch: int, channels: int) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(batch))


def _require_equal(reference: FeatureEngine, other: FeatureEngine, images: Tensor) -> None:
    expected, found = reference(images), other(images)
    scale = max(float(expected.abs().max()), 1e-6)
    if found.shape != expected.shape or not (found - expected).abs().max() <= TOLERANCE * scale:
        raise TceError(
            "--engine onnxruntime",
            expected=f"torch's features within {TOLERANCE:g}",
            found=f"a difference of {float((found - expected).abs().max()) / scale:.2g}"
            if found.shape == expected.shape
            else f"another shape, {list(found.shape)}",
            fix="use --engine torch",
        )


def _faster(reference: FeatureEngine, other: FeatureEngine, images: Tensor) -> FeatureEngine:
    """The faster one; passes alternate and the best of each counts, against other work on the machine."""
    best = {reference.name: float("inf"), other.name: float("inf")}
    for one in (reference, other):  # the first pass also plans and takes memory
        one(images)
    for _ in range(ROUNDS):
        for one in (reference, other):
            start = time.perf_counter()
            one(images)
            best[one.name] = min(best[one.name], time.perf_counter() - start)
    rates = {name: MEASURED_BATCH / seconds for name, seconds in best.items()}
    chosen = other if rates[other.name] > CLEARLY_FASTER * rates[reference.name] else reference
    log.info(
        "engine %s: %s", chosen.name, ", ".join(f"{name} {rate:.0f} images/s" for name, rate in rates.items())
    )
    return chosen
