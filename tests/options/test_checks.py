"""Ranges and choices that options state in their types."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from tce.errors import OptionError
from tce.options.checks import AboveZero, Positive, Range, Share, check_fields


@dataclass(frozen=True)
class Sample:
    """One field of every kind."""

    count: Positive = 1
    maybe: Positive | None = None
    seconds: AboveZero = 1.0
    share: Share = 0.5
    opset: Annotated[int, Range(14, 20)] = 17
    how: Literal["a", "b"] = "a"
    other: Literal["a", "b"] | None = None
    free: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


def test_values_within_their_ranges_pass() -> None:
    Sample(count=10**9, maybe=1, seconds=1e-9, share=0, opset=20, how="b", other="a", free="x")
    Sample(share=1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("count", 0, "--count; expected at least 1; found 0"),
        ("maybe", -1, "--maybe; expected at least 1; found -1"),
        ("seconds", 0.0, "--seconds; expected more than 0; found 0"),
        ("seconds", math.nan, "--seconds; expected more than 0; found nan"),
        ("share", 1.5, "--share; expected from 0 to 1; found 1.5"),
        ("share", math.nan, "--share; expected from 0 to 1; found nan"),
        ("opset", 13, "--opset; expected from 14 to 20; found 13"),
        ("count", "3", "--count; expected at least 1; found 3"),
        ("how", "c", "--how; expected one of a, b; found 'c'"),
        ("other", "c", "--other; expected one of a, b; found 'c'"),
    ],
)
def test_values_outside_name_the_flag(field: str, value: object, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Sample(**{field: value})  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_options_load_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, pkgutil, importlib, tce.options\n"
        "for module in pkgutil.iter_modules(tce.options.__path__):\n"
        "    importlib.import_module('tce.options.' + module.name)\n"
        "heavy = {'torch', 'numpy', 'lance', 'cv2', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
