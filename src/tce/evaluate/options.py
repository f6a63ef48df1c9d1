"""The options of `tce evaluate`, `tce compare` and `tce classify`; importing them costs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tce.errors import OptionError

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
    """Split of the lists; several as 01,02,03, or `all` for these three: means over splits are given too."""
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
    precision: Literal["float32", "bf16"] = "float32"
    """bf16 is faster where the processor has it."""

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
        _check_seed(self.seed)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, one by one."""
        return split_names(self.split)


@dataclass(frozen=True)
class CompareOptions:
    """Which results are set side by side."""

    runs: Positional[tuple[str, ...]]
    """Folders of `tce evaluate` or `tce finetune`, or result.json files; differences are to the first."""
    names: tuple[str, ...] = ()
    """A name for each, in the table and chart; unset: the folders' names."""
    output: str = "compare.png"
    """Bar chart to write; the table is written beside it as .csv."""
    metric: str | None = None
    """Which figure the bars show, such as top1 or recall@5; unset: each protocol's first."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if len(self.runs) < 1:
            raise OptionError("RUN", expected="one result or more", found="none")
        if self.names and len(self.names) != len(self.runs):
            raise OptionError(
                "--names",
                expected=f"one for each of the {len(self.runs)} results",
                found=str(len(self.names)),
            )
        _check_seed(self.seed)


@dataclass(frozen=True)
class ClassifyOptions:
    """Which video is classified by which network."""

    video: Annotated[Positional[str], arg(metavar="VIDEO")]
    """A video file, or a folder of frames."""
    ckpt: str
    """A fine-tuned classifier in any known format, or a run folder of `tce finetune`."""
    model: str | None = None
    """Network's name, checked against the file."""
    classes: str | None = None
    """File of class names, one a line or as UCF101's classInd.txt; for checkpoints that lack them."""
    top: int = 5
    """How many classes are told."""
    samples: int = 64
    """Samples spread evenly over the video."""
    output: str | None = None
    """Picture of the classes along time; unset: VIDEO's name with .classes.png, in the current folder."""
    crop: Literal["squash", "center-crop"] | None = None
    """How frames become squares; unset: as the checkpoint says."""
    image_size: int | None = None
    """Side of the network's input in pixels; unset: as the checkpoint says."""
    batch_size: int = 32
    """Samples in a pass of the network."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16 is faster where the processor has it."""

    def __post_init__(self) -> None:
        for flag, value in (
            ("--top", self.top),
            ("--samples", self.samples),
            ("--batch-size", self.batch_size),
        ):
            if value < 1:
                raise OptionError(flag, expected="1 or more", found=str(value))
        if self.image_size is not None and self.image_size < 8:
            raise OptionError("--image-size", expected="8 or more", found=str(self.image_size))


def split_names(text: str) -> tuple[str, ...]:
    """`01`, `1`, `01,02,03` or `all` as names of two digits; other names stay.

    Raises:
        OptionError: no name, or one twice.
    """
    if text == "all":
        return ("01", "02", "03")
    names = tuple(f"{int(name):02d}" if re.fullmatch(r"\d", name) else name for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise OptionError("--split", expected="a split as 01, several as 01,02,03, or all", found=repr(text))
    return names


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise OptionError("--seed", expected="0 or more", found=str(seed))


def labels_amount(text: str) -> tuple[float, int]:
    """Share and count of `10%` or `5/class`; the one that is not given is 0.

    Raises:
        OptionError: another form, or not above 0.
    """
    number, sign, rest = text.partition("%") if text.endswith("%") else text.partition("/class")
    try:
        value = float(number) if sign == "%" else int(number)
        good = bool(sign) and not rest and (0 < value <= 100 if sign == "%" else value > 0)
    except ValueError:
        good = False
    if not good:
        raise OptionError(
            "--labels", expected="a share such as 10% or a number such as 5/class", found=repr(text)
        )
    return (value / 100, 0) if sign == "%" else (0.0, int(value))
