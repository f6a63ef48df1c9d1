"""Checks of option values: ranges, choices, splits."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tce.errors import OptionError


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


HIGHEST_SEED = 2**63 - 1  # what NumPy and torch both take


def check_seed(seed: int) -> None:
    """Check `--seed`.

    Raises:
        OptionError: below 0, or beyond 63 bits.
    """
    if not 0 <= seed <= HIGHEST_SEED:
        raise OptionError("--seed", expected=f"a whole number from 0 to {HIGHEST_SEED}", found=str(seed))


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


def check_choices(options: Any) -> None:
    """Check every field that has a closed list of values, for callers that tyro did not check.

    Raises:
        OptionError: a value outside its list, naming the flag.
    """
    for name, hint in get_type_hints(type(options)).items():
        value = getattr(options, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            flag = "--" + name.replace("_", "-")
            raise OptionError(
                flag, expected="one of " + ", ".join(map(str, get_args(hint))), found=repr(value)
            )


def at_least(flag: str, value: float | None, low: float) -> None:
    """Check a number's lower end; None passes.

    Raises:
        OptionError: `value` is below `low`.
    """
    if value is not None and not value >= low:  # which NaN is not either
        raise OptionError(flag, expected=f"at least {low:g}", found=f"{value:g}")


def within(flag: str, value: float, low: float, high: float) -> None:
    """Check a number's range.

    Raises:
        OptionError: `value` is outside [low, high].
    """
    if not low <= value <= high:
        raise OptionError(flag, expected=f"between {low:g} and {high:g}", found=f"{value:g}")


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
