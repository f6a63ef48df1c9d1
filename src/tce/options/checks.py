"""Checks of option values. A field states its range in its type; `check_fields` checks all fields at once.

workers: Positive | None = None
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tce.errors import OptionError

HIGHEST_SEED = 2**63 - 1  # what NumPy and torch both take


@dataclass(frozen=True)
class Range:
    """The numbers that a field may hold; None as a value always passes.

    Attributes:
        low: least value.
        high: greatest value.
        above: what the value must exceed.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None

    def __contains__(self, value: float) -> bool:  # NaN lies in no range
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
        )

    def __str__(self) -> str:
        words = [f"more than {self.above:g}"] if self.above is not None else []
        if self.low is not None:
            words.append(f"at least {self.low:g}" if self.high is None else f"from {self.low:g}")
        if self.high is not None:
            words.append(f"at most {self.high:g}" if self.low is None else f"to {_number(self.high)}")
        return " ".join(words)


Positive = Annotated[int, Range(1)]
TwoOrMore = Annotated[int, Range(2)]
NotNegative = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, HIGHEST_SEED)]
Pixels = Annotated[int, Range(8, 4096)]  # side of a network's input
AboveZero = Annotated[float, Range(above=0)]
FromZero = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Momentum = Annotated[float, Range(0, 0.999999)]


@functools.cache
def _rules(kind: type) -> dict[str, tuple[tuple[Any, ...], Range | None]]:
    """By field: its choices, where they are a closed list, and its range."""
    rules: dict[str, tuple[tuple[Any, ...], Range | None]] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        choices: tuple[Any, ...] = ()
        span = None
        for part in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
            if get_origin(part) is tuple:  # of any number of one kind of value
                part = get_args(part)[0]
            marks = get_args(part)[1:] if get_origin(part) is Annotated else ()
            bare = get_args(part)[0] if marks else part
            span = next((mark for mark in marks if isinstance(mark, Range)), span)
            if get_origin(bare) is Literal:
                choices += get_args(bare)
            elif bare is type(None):
                choices += (None,)
        closed = choices not in ((), (None,)) and "Literal" in str(hint)
        rules[name] = (choices if closed else (), span)
    return rules


def check_fields(options: Any) -> None:
    """Check every field that states a range or a closed list of values.

    Raises:
        OptionError: a value outside, naming the flag.
    """
    for name, (choices, span) in _rules(options.__class__).items():
        value, flag = getattr(options, name), "--" + name.rstrip("_").replace("_", "-")
        if choices and value not in choices:
            listed = ", ".join(str(choice) for choice in choices if choice is not None)
            raise OptionError(flag, expected=f"one of {listed}", found=repr(value))
        for one in value if isinstance(value, tuple) else (value,):
            if span is not None and one is not None and (isinstance(one, str) or one not in span):
                raise OptionError(flag, expected=str(span), found=_number(one))


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def split_names(text: str) -> tuple[str, ...]:
    """`01`, `1` or `01,02,03` as names of two digits; other names stay, `all` too: see `choose_splits`.

    Raises:
        OptionError: no name, or one twice.
    """
    names = tuple(f"{int(name):02d}" if re.fullmatch(r"\d", name) else name for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise OptionError("--split", expected="a split as 01, several as 01,02,03, or all", found=repr(text))
    return names


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


def check_crops(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    """Check the ranges that random crops are drawn from.

    Raises:
        OptionError: an end out of range, or the ends the wrong way round.
    """
    low, high = scale
    if not 0 < low <= high <= 1:
        raise OptionError("--crop-scale", expected="0 < smallest <= largest <= 1", found=f"{low:g} {high:g}")
    low, high = ratio
    if not 0 < low <= high:
        raise OptionError("--crop-ratio", expected="0 < narrowest <= widest", found=f"{low:g} {high:g}")


def some_input(inputs: tuple[str, ...]) -> None:
    """Check `--input`.

    Raises:
        OptionError: nothing given.
    """
    if isinstance(inputs, tuple) and not any(inputs):
        raise OptionError("--input", "at least one video or folder", "none")
