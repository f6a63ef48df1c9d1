"""Memory bank, negative mining and the contrastive losses."""

from tce.contrast.embedding_stats import alignment, effective_rank, uniformity
from tce.contrast.loss import InfoNCE, NCELoss, NTXent
from tce.contrast.memory_bank import MemoryBank
from tce.contrast.mining import (
    Mined,
    Sources,
    curriculum_threshold,
    mine,
    mine_blockwise,
    mine_negatives,
    mine_negatives_blockwise,
    quantile_threshold,
)

__all__ = [
    "InfoNCE",
    "MemoryBank",
    "Mined",
    "NCELoss",
    "NTXent",
    "Sources",
    "alignment",
    "curriculum_threshold",
    "effective_rank",
    "mine",
    "mine_blockwise",
    "mine_negatives",
    "mine_negatives_blockwise",
    "quantile_threshold",
    "uniformity",
]
