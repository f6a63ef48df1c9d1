"""The networks that a report compares: the start, its adaptation, runs, and an untrained one beside them."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tce.data.catalog import share_seen
from tce.device import pick_device
from tce.errors import OptionError, TceError
from tce.evaluation.frozen_network import short_name
from tce.model.checkpoint import load_encoder, tensors_hash
from tce.model.encoder import ADAPTED, FrameEncoder, build_encoder
from tce.model.resnet import DEPTHS, canonical_name
from tce.reporting.footage_features import Backbone, InputShape

if TYPE_CHECKING:
    from tce.options.report import ReportOptions
    from tce.reporting.footage_features import SeenClip

DEFAULT_START = "lite2"
START, ADAPTED_NAME, UNTRAINED = "start", "adapted", "untrained"
Rows = npt.NDArray[np.float32]


@dataclass
class Candidate:
    """A network and its vectors of the footage.

    Attributes:
        name: in the report, unique.
        role: "start", "adapted", "run" or "untrained".
        backbone: what computes its features.
        encoder: the network; of "adapted" the start, until the map is fitted.
        source: what the user would give as --ckpt; empty for the untrained one.
        layer: "embedding" or "features", the vectors that are compared.
        seen: share of the footage's clips that it was trained or adapted on, as far as its file says.
        pieces: vectors of each piece's frames, [n, D], not of unit length.
        held: the same by maps that have not seen the piece's recording; None where there are none.
    """

    name: str
    role: str
    backbone: Backbone
    encoder: FrameEncoder
    source: str = ""
    layer: str = "embedding"
    seen: float = 0.0
    pieces: list[Rows] = field(default_factory=list)
    held: list[Rows] | None = None

    @property
    def unit(self) -> bool:
        """Whether frames count with length 1, as embeddings do and features do not."""
        return self.layer == "embedding"

    @property
    def facts(self) -> dict[str, Any]:
        """What it is, for report.json."""
        config = self.encoder.config
        return {
            "role": self.role,
            "source": self.source,
            "architecture": config.architecture,
            "image_size": self.backbone.shape.size,
            "crop": self.backbone.shape.resize,
            "layer": self.layer,
            "numbers": int(self.pieces[0].shape[1]) if self.pieces else None,
            "seen": self.seen,
            "hash": tensors_hash(self.encoder.state_dict()),
        }


def load_candidates(options: ReportOptions) -> list[Candidate]:
    """The start, the runs, and the untrained network, in this order; the adaptation comes later.

    Raises:
        TceError: a checkpoint that cannot be read, or a classifier.
        OptionError: two networks of one name.
    """
    device = str(pick_device(options.device))
    runs = [load_encoder(ckpt, device=device) for ckpt in options.ckpt]
    start, source = _start(options, runs, device)
    found = [_candidate(START, START, start, source, options)]
    names = options.names or tuple(map(short_name, options.ckpt))
    for name, run, ckpt in zip(names, runs, options.ckpt, strict=True):
        found.append(_candidate(name, "run", run, ckpt, options))
    untrained = _untrained(start, options.seed).to(start.device)
    found.append(_candidate(UNTRAINED, UNTRAINED, untrained, "", options))
    listed = [one.name for one in found]
    twice = next((name for name in listed if listed.count(name) > 1), None)
    if twice is not None:
        raise OptionError("--names", "a name of its own for each network", f"{twice!r} twice")
    return found


def _start(options: ReportOptions, runs: list[FrameEncoder], device: str) -> tuple[FrameEncoder, str]:
    """The start without a head: what --start names, what the first run was adapted from, or lite2."""
    if options.start is not None:
        return bare(load_encoder(options.start, device=device)), options.start
    for run in runs[:1]:
        provenance = run.config.provenance
        if provenance.get("made") == ADAPTED:
            path = (
                provenance.get("weights", {}).get("path")
                if isinstance(provenance.get("weights"), dict)
                else None
            )
            return bare(run), path if isinstance(path, str) else DEFAULT_START
    return bare(load_encoder(DEFAULT_START, device=device)), DEFAULT_START


def bare(encoder: FrameEncoder) -> FrameEncoder:
    """The encoder without its head: its embedding is the unit feature vector."""
    config = encoder.config
    config = dataclasses.replace(
        config, head="none", embedding_size=config.feature_size, rotation=False, provenance={}
    )
    return FrameEncoder(config, encoder.backbone).eval()


def _untrained(start: FrameEncoder, seed: int) -> FrameEncoder:
    """A network of the start's architecture with random weights; a ResNet-18 in place of a foreign one."""
    config = start.config
    own = canonical_name(config.architecture) in DEPTHS or config.architecture in ("lite0", "lite2")
    name = config.architecture if own else "resnet18"
    return build_encoder(
        name, head="none", image_size=config.image_size, seed=seed, resize=config.resize
    ).eval()


def _candidate(name: str, role: str, encoder: FrameEncoder, source: str, options: ReportOptions) -> Candidate:
    encoder.eval().requires_grad_(False)
    config = encoder.config
    shape = InputShape(
        options.image_size or config.image_size, "center-crop" if config.resize == "center-crop" else "squash"
    )
    facts = f"{tensors_hash(encoder.backbone.state_dict())} {shape} {config.mean} {config.std}"
    key = hashlib.sha256(facts.encode()).hexdigest()[:16]
    layer = "embedding" if role != "run" else encoder.default_layer
    return Candidate(name, role, Backbone(key, encoder, shape), encoder, source, layer)


def fill(candidate: Candidate, clips: list[SeenClip], ids: list[str]) -> None:
    """Give a candidate its vectors of all pieces, and the share of the clips that it has seen before."""
    import torch

    encoder, key = candidate.encoder, candidate.backbone.key
    candidate.pieces = []
    with torch.inference_mode():
        for clip in clips:
            for piece in clip.pieces(key):
                rows = torch.from_numpy(np.asarray(piece.features, np.float32)).to(encoder.device)
                vectors = rows if candidate.layer == "features" else encoder.head(rows)
                candidate.pieces.append(vectors.float().cpu().numpy())
    sketch = encoder.config.provenance.get("clips")
    if candidate.role == "run" and isinstance(sketch, str):
        candidate.seen = share_seen(ids, sketch)
    if not all(np.isfinite(rows).all() for rows in candidate.pieces):
        raise TceError(
            candidate.source or candidate.name,
            expected="finite vectors of this footage",
            found="NaN or infinity",
            fix="check the checkpoint",
        )
