"""The options of `tce evaluate`, `tce compare` and `tce classify`; importing them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tce.errors import OptionError
from tce.options.checks import check_seed, labels_amount, split_names

Protocol = Literal["frames", "linear", "knn", "retrieval", "coherence"]
RANDOM = "random"
PLACEHOLDER = "{split}"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is judged, on which clips, and by which protocol."""

    ckpt: str
    """Checkpoint in any known format, a run folder, hf:NAME, or `random` for an untrained --model. "{split}"
    in it stands for the split, where every split has its own."""
    data: str
    """A folder of videos or frame folders at any depth, or a collection made by `tce pack`."""
    protocol: Protocol = "knn"
    """frames: a classifier on 19 stacks (or frames) a clip (paper); linear, knn: on a frozen network's
    features; retrieval: test clips ask for training clips; coherence: how embeddings move in time."""
    lists: str | None = None
    """Folder of the dataset's lists. Without it, classes are the names of the sub-folders, and 30% of
    each class's clips, whole groups, are the test clips."""
    split: str = "01"
    """Split of the lists; several as 01,02,03, or `all` for each of them: means are given too."""
    model: str | None = None
    """Network's name: checked against the file, needed for `--ckpt random` and foreign networks."""
    out: str | None = None
    """Folder for result.json, predictions and pictures; unset: evaluation/CHECKPOINT/PROTOCOL-DATA-SPLIT."""
    samples: int | None = None
    """Samples a clip, spread evenly; unset: 19 for frames (paper), 8 for linear, knn and retrieval, 16 for
    coherence."""
    crop: Literal["squash", "center-crop", "ten-crop"] | None = None
    """How frames become squares; unset: as the checkpoint says. ten-crop: ten views a sample, averaged."""
    image_size: int | None = None
    """Side of the network's input in pixels; unset: as the checkpoint says."""
    layer: Literal["features", "embedding"] | None = None
    """What is compared: backbone features, or the embedding; unset: features, for coherence embedding."""
    k: int = 20
    """Neighbours that vote, for knn."""
    temperature: float = 0.07
    """Of the votes: exp(similarity / temperature), for knn; small values trust the nearest most."""
    penalty: float | None = None
    """Weight of the squared coefficients, for linear; unset: chosen on held-out training groups."""
    gap: int = 1
    """Frames from one frame to its neighbour, for coherence."""
    labels: str | None = None
    """Training labels that may be used: a share of each class as 10%, or a number as 5/class; unset: all."""
    max_missing: float = 0.05
    """Largest share of the listed clips that may be without footage."""
    batch_size: int = 64
    """Samples in a pass of the network."""
    seed: int = 0
    """Of the untrained weights, of held-out and kept clips, and of the bootstrap."""
    workers: int = 2
    """Decoding threads."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of the network's passes; auto measures both for a moment and takes the faster one."""

    def __post_init__(self) -> None:
        for flag, value in (
            ("--samples", self.samples),
            ("--k", self.k),
            ("--gap", self.gap),
            ("--batch-size", self.batch_size),
            ("--workers", self.workers),
        ):
            if value is not None and value < 1:
                raise OptionError(flag, expected="1 or more", found=str(value))
        if self.image_size is not None and self.image_size < 8:
            raise OptionError("--image-size", expected="8 or more", found=str(self.image_size))
        if not self.temperature > 0:
            raise OptionError("--temperature", expected="more than 0", found=f"{self.temperature:g}")
        if self.penalty is not None and not self.penalty > 0:
            raise OptionError("--penalty", expected="more than 0", found=f"{self.penalty:g}")
        if not 0 <= self.max_missing <= 1:
            raise OptionError("--max-missing", expected="a share from 0 to 1", found=f"{self.max_missing:g}")
        if self.ckpt == RANDOM and self.model is None:
            raise OptionError(
                "--ckpt random", expected="--model as well", found="none", fix="add --model resnet18"
            )
        if self.ckpt == RANDOM and self.protocol == "frames":
            raise OptionError(
                "--protocol frames",
                expected="a fine-tuned classifier",
                found="--ckpt random",
                fix="use --protocol knn or linear, or fine-tune from scratch: tce finetune without --weights",
            )
        if self.layer == "embedding" and self.protocol == "frames":
            raise OptionError("--layer", expected="nothing beside --protocol frames", found=self.layer)
        for flag, given, protocols in (
            ("--labels", self.labels is not None, ("knn", "linear")),
            ("--k", self.k != 20, ("knn",)),
            ("--temperature", self.temperature != 0.07, ("knn",)),
            ("--penalty", self.penalty is not None, ("linear",)),
            ("--gap", self.gap != 1, ("coherence",)),
        ):
            if given and self.protocol not in protocols:
                wanted = f"--protocol {' or '.join(protocols)}"
                raise OptionError(flag, expected=wanted, found=f"--protocol {self.protocol}")
        if self.labels is not None:
            labels_amount(self.labels)
        check_seed(self.seed)
        split_names(self.split)
