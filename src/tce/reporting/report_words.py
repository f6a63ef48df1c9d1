"""Words and numbers as the report's page and its Markdown write them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A share in percent, with its interval."""
    if value is None:
        return "-"
    text = f"{100 * value:.1f}%"
    return text if interval is None else f"{text} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def percent_range(interval: Sequence[float]) -> str:
    """The ends of an interval in percent."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def capital(text: str) -> str:
    """The text with its first letter as a capital."""
    return text[:1].upper() + text[1:]
