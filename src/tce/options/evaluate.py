"""The options of `tce evaluate`, and the table of protocols; importing them costs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tce.errors import OptionError
from tce.options.checks import (
    AboveZero,
    Pixels,
    Positive,
    Seed,
    Share,
    check_fields,
    labels_amount,
    split_names,
)
from tce.options.network import RANDOM

PLACEHOLDER = "{split}"
ALL = "all"


@dataclass(frozen=True)
class ProtocolSpec:
    """What must be known of a protocol before anything heavy is imported.

    To add a protocol, write its function and add a row to `PROTOCOLS`; help, checks, tables, pictures,
    `--protocol all` and `tce compare` follow from it.

    Attributes:
        function: `module:function`, from an `Evaluator` and a `SplitClips` to a `SplitResult`.
        main_metrics: `tce compare` draws the first of these that a result has.
        flags: options of `EvaluateOptions` that only this protocol (and others that name them) uses.
        needs_classifier: it evaluates a fine-tuned classifier.
        needs_train: it uses labelled training clips.
        needs_labels: it uses the test clips' classes.
        needs_flags: options without a default that it cannot do without.
    """

    function: str
    main_metrics: tuple[str, ...]
    flags: tuple[str, ...] = ()
    needs_classifier: bool = False
    needs_train: bool = True
    needs_labels: bool = True
    needs_flags: tuple[str, ...] = ()


PROTOCOLS: dict[str, ProtocolSpec] = {
    "frames": ProtocolSpec(
        "tce.evaluation.protocols:frames", ("top1",), needs_classifier=True, needs_train=False
    ),
    "linear": ProtocolSpec(
        "tce.evaluation.protocols:linear", ("top1",), ("labels", "penalty", "layer", "center")
    ),
    "knn": ProtocolSpec(
        "tce.evaluation.protocols:knn", ("top1",), ("labels", "k", "temperature", "layer", "center")
    ),
    "fewshot": ProtocolSpec(
        "tce.evaluation.fewshot:fewshot",
        ("logistic@5", "logistic@1", "centroid@1"),
        ("shots", "draws", "penalty", "layer", "center"),
    ),
    "retrieval": ProtocolSpec("tce.evaluation.protocols:retrieval", ("recall@1",), ("layer", "center")),
    "shortcut": ProtocolSpec(
        "tce.evaluation.shortcut:shortcut",
        ("group_minus_class",),
        ("group", "k", "temperature", "layer", "center"),
        needs_train=False,
        needs_flags=("group",),
    ),
    "coherence": ProtocolSpec(
        "tce.evaluation.coherence:coherence",
        ("tau", "effective_rank"),  # smoothness would be highest for a collapsed network
        ("gap", "layer"),
        needs_train=False,
        needs_labels=False,
    ),
}
if TYPE_CHECKING:
    Protocol = str
else:
    Protocol = Literal[(*PROTOCOLS, ALL)]


@dataclass(frozen=True)
class EvaluateOptions:
    """Network, clips and protocol."""

    ckpt: str
    """Checkpoint in any known format, a run folder, hf:NAME, or `random` for an untrained --model. "{split}"
    in it is replaced by each split."""
    data: str
    """Folder of videos or frame folders (any depth), or a collection made by `tce pack`."""
    protocol: Protocol = "knn"
    """frames: a classifier on 19 stacks (or frames) a clip (paper); linear, knn: class accuracy of a frozen
    network's features; fewshot: the same with 1, 2, 5, ... labelled clips a class; retrieval: search training
    clips with test clips; shortcut: whether people or cameras (--group) are recognised better than classes;
    coherence: how embeddings move in time; all: every protocol that fits the network, with an untrained one
    beside it."""
    lists: str | None = None
    """Folder of the dataset's lists. Without it, classes are the names of the sub-folders, and 30% of
    each class's clips, whole groups, are the test clips."""
    split: str = "01"
    """Split of the lists; several as 01,02,03, or `all`: the means over them are reported too."""
    model: str | None = None
    """Network's name: checked against the file, needed for `--ckpt random` and foreign networks."""
    out: str | None = None
    """Folder for result.json, predictions and pictures; by default
    evaluation/CHECKPOINT/PROTOCOL-DATA-SPLIT."""
    samples: Positive | None = None
    """Samples of a clip, evenly spaced; by default 19 for frames (paper), 16 for coherence, 8 for
    the others."""
    crop: Literal["squash", "center-crop", "ten-crop"] | None = None
    """How frames become square; by default as the checkpoint was trained. ten-crop: ten views, averaged."""
    image_size: Pixels | None = None
    """Side of the network's input in pixels; by default the size that the checkpoint was trained with."""
    layer: Literal["features", "embedding"] | None = None
    """Vectors to evaluate: backbone features, or the embedding; by default features, but the embedding of an
    adapted network and for coherence."""
    center: str | None = None
    """Subtract the mean of each group's clips (a person's, a camera's), for all but frames and coherence:
    "group" (the lists' or table's column), "recording", "folder", or a pattern such as _(p[0-9]+)_ for the
    clip's id. Test clips' frames take part without their labels. Groups must not be
    classes."""
    k: Positive = 20
    """Neighbours that vote, for knn and shortcut."""
    temperature: AboveZero = 0.07
    """Temperature of the votes, exp(similarity / temperature), for knn and shortcut; small values weight the
    nearest most."""
    penalty: AboveZero | None = None
    """Weight of the squared coefficients, for linear and fewshot; by default chosen on held-out training
    groups, 0.0001 where there are too few and for fewshot."""
    shots: tuple[Positive, ...] = (1, 2, 5, 10, 20)
    """Labelled clips of each class, for fewshot."""
    draws: Positive = 20
    """Random choices of the labelled clips, for fewshot."""
    group: str | None = None
    """Groups of clips (a person's, a camera's), for shortcut: "group" (the lists' or table's column),
    "recording", "folder", or a pattern with one group in parentheses for the clip's id, such as
    _(p[0-9]+)_."""
    gap: Positive = 1
    """Frames from one frame to its neighbour, for coherence."""
    labels: str | None = None
    """Training labels to use: a share of each class as 10%, or a number as 5/class; by default all."""
    max_missing: Share = 0.05
    """Largest share of the listed clips that may lack a video."""
    batch_size: Positive = 64
    """Samples in a pass of the network."""
    seed: Seed = 0
    """Seed of untrained weights, of held-out and labelled clips, and of the bootstrap."""
    workers: Positive = 2
    """Decoding threads."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of the network's passes; auto measures both for a moment and takes the faster one."""
    engine: Literal["auto", "torch", "onnxruntime"] = "auto"
    """What runs the backbone; auto measures PyTorch and ONNX Runtime and takes the faster one."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ckpt == RANDOM:
            self._check_random()
        self._check_flags()
        if self.labels is not None:
            labels_amount(self.labels)
        split_names(self.split)

    def _check_random(self) -> None:
        if self.model is None:
            raise OptionError(
                "--ckpt random", expected="--model as well", found="none", fix="add --model resnet18"
            )
        if self.protocol != ALL and PROTOCOLS[self.protocol].needs_classifier:
            raise OptionError(
                f"--protocol {self.protocol}",
                expected="a fine-tuned classifier",
                found="--ckpt random",
                fix="use --protocol knn or linear, or fine-tune from scratch: tce finetune without --weights",
            )

    def _check_flags(self) -> None:
        """Refuse a flag that the protocol does not use, or the lack of one that it needs."""
        for name in PROTOCOLS[self.protocol].needs_flags if self.protocol != ALL else ():
            if getattr(self, name) is None:
                raise OptionError(
                    f"--protocol {self.protocol}",
                    expected=f"--{name} as well",
                    found="none",
                    fix=f"add --{name}",
                )
        if not self.shots:
            raise OptionError("--shots", expected="a number of labelled clips or more", found="none")
        for name in dict.fromkeys(flag for spec in PROTOCOLS.values() for flag in spec.flags):
            users = [protocol for protocol, spec in PROTOCOLS.items() if name in spec.flags]
            given = getattr(self, name)
            if given != _default(name) and self.protocol not in (*users, ALL):
                raise OptionError(
                    f"--{name.replace('_', '-')}",
                    expected=f"--protocol {' or '.join(users)}",
                    found=f"--protocol {self.protocol}",
                )


def _default(name: str) -> Any:
    return EvaluateOptions.__dataclass_fields__[name].default
