"""What `tce adapt` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tce.options.adapt import AdaptOptions
from tce.progress import format_seconds


def summary_text(figures: dict[str, Any], options: AdaptOptions, path: Path) -> str:
    """What the command prints."""
    lines = [
        f"{options.start} at {figures['image_size']} px on {options.footage}: {figures['clips']} clips, "
        f"{figures['frames']} frames, {figures['seconds']:.0f} s"
    ]
    trained = figures["contrastive"]
    if figures["skipped"]:
        lines.append(f"skipped {len(figures['skipped'])} clips (reasons above)")
    if figures["held_out"]:
        first = "contrastive" if trained and trained["kept"] else "start"
        lines.append(
            f"frames that find their own clip among {figures['held_out']} held-out ones: "
            f"{first} {figures['start']:.1%}, adapted {figures['adapted']:.1%} "
            f"(chance {figures['chance']:.1%}): {figures['reason']}"
        )
    else:
        lines.append("too few clips to hold any out: adapted strongly regularised, and not checked")
    if trained:
        lines += _trained_text(trained)
    if figures["kept_start"]:
        lines.append("the adaptation is not clearly better there, so the start is kept as it is")
    if figures["shrinkage"] is None:
        lines.append(f"wrote {path}: embeddings of {figures['embedding_size']} numbers")
    else:
        lines.append(
            f"wrote {path}: embeddings of {figures['embedding_size']} numbers "
            f"(shrinkage {figures['shrinkage']:g})"
        )
    if figures["contrastive_seconds"]:
        more = format_seconds(figures["contrastive_seconds"])
        lines.append(f"--method contrastive would take about {more} more on this machine")
    return "\n".join(lines)


def _trained_text(trained: dict[str, Any]) -> list[str]:
    first, last = trained["loss"]
    lines = [
        f"contrastive: {trained['steps']} steps in {format_seconds(trained['seconds'])}, loss {first:.2f} to "
        f"{last:.2f}",
        f"on {trained['held_out']} clips of {trained['held_out_recordings']} recordings left out of the "
        f"training: start {trained['start']:.1%}, linear {trained['linear']:.1%}, contrastive and linear "
        f"{trained['contrastive']:.1%}: {trained['reason']}",
    ]
    if not trained["kept"]:
        lines.append("the training is not clearly better there, so the last blocks stay as they were")
    return lines
