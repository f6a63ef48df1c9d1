"""Memory bank, negative mining and the contrastive losses."""

from tce.contrast.losses import InfoNCE, NCELoss, NTXent, alignment, effective_rank, uniformity
from tce.contrast.memory_bank import KeyQueue, MemoryBank
from tce.contrast.mining import Mined, Sources, curriculum_threshold, mine, quantile_threshold

__all__ = [
    "InfoNCE",
    "KeyQueue",
    "MemoryBank",
    "Mined",
    "NCELoss",
    "NTXent",
    "Sources",
    "alignment",
    "curriculum_threshold",
    "effective_rank",
    "mine",
    "quantile_threshold",
    "uniformity",
]
