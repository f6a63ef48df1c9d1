"""Contrastive losses on cosines; always float32, whatever the autocast."""

from tce.contrast.loss.infonce import InfoNCE
from tce.contrast.loss.nce import NCELoss
from tce.contrast.loss.ntxent import NTXent

__all__ = ["InfoNCE", "NCELoss", "NTXent"]
