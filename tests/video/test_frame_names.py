"""The order of images in a folder, and which of them are one video."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tce.video.folder import name_series, natural_key, several_videos


def test_natural_order() -> None:
    names = ["f10.jpg", "f9.jpg", "f2.jpg", "a1b10.jpg", "a1b9.jpg", "10.jpg", "9.jpg", "f07.jpg", "f7.jpg"]
    assert sorted(names, key=natural_key) == [
        *("9.jpg", "10.jpg", "a1b9.jpg", "a1b10.jpg"),
        *("f2.jpg", "f07.jpg", "f7.jpg", "f9.jpg", "f10.jpg"),
    ]


@given(st.lists(st.integers(0, 10**8), unique=True, max_size=12), st.integers(0, 9), st.text(max_size=5))
def test_numbered_names_are_ordered_by_number(counts: list[int], zeros: int, prefix: str) -> None:
    names = [f"{prefix}_{count:0{zeros}d}.jpg" for count in counts]
    expected = [f"{prefix}_{count:0{zeros}d}.jpg" for count in sorted(counts)]
    assert sorted(names, key=natural_key) == expected


@given(st.lists(st.text(alphabet="0123456789aب²٣_.", max_size=6), unique=True, max_size=20))
def test_the_order_of_any_names_is_their_own_and_not_the_listings(names: list[str]) -> None:
    other = list(names)
    other.reverse()
    other.sort(key=natural_key)
    assert sorted(names, key=natural_key) == other


@given(st.lists(st.from_regex(r"\A(a|b1_|x 2)?[0-9]{1,3}(_y)?\.jpg\Z"), unique=True, max_size=8))
def test_names_are_grouped_by_what_surrounds_their_last_number(names: list[str]) -> None:
    expected: dict[str, list[str]] = {}
    for name in names:
        stem, tail = name.removesuffix(".jpg"), ""
        if stem.endswith("_y"):
            stem, tail = stem.removesuffix("_y"), "_y"
        expected.setdefault(stem.rstrip("0123456789") + "*" + tail, []).append(name)
    assert {pattern.removesuffix(".jpg"): own for pattern, own in name_series(names).items()} == expected


@pytest.mark.parametrize(
    ("names", "series"),
    [
        ("cam1_1 cam2_1 cam1_2 cam2_2", ["cam1_*", "cam2_*"]),
        ("cam_1_0001 cam_1_0002 cam_2_0001 cam_2_0002", ["cam_1_*", "cam_2_*"]),
        ("0001_left 0001_right 0002_left 0002_right", ["*_left", "*_right"]),
        ("rgb_1 rgb_2 depth_1 depth_2", ["rgb_*", "depth_*"]),
        ("1 2 side_1 side_2", ["*", "side_*"]),
        ("a_12-00-59 a_12-01-00 b_12-00-59 b_12-01-00", ["a_*", "b_*"]),
        ("frame_1 frame_2 cover last9", []),
        ("7 08 9 010", []),
        ("2024-01-31_23-59-58 2024-01-31_23-59-59 2024-02-01_00-00-00 2024-02-01_00-00-01", []),
        ("IMG_20240131_235959 IMG_20240131_235958 IMG_20240201_000000 IMG_20240201_000001", []),
        ("0h59m58s 0h59m59s 1h00m00s 1h00m01s", []),
        ("flow_x_1 flow_x_2 flow_y_1 flow_y_2", []),
        ("img_1 img_2 flow_x_1 flow_x_2", []),
        ("cat dog", []),
        ("", []),
    ],
)
def test_series_of_different_names_are_different_videos(names: str, series: list[str]) -> None:
    """But a date and a time of day count on over all their fields."""
    assert list(several_videos([f"{name}.png" for name in names.split()])) == series


def test_masks_of_the_same_names_are_a_series_of_their_own() -> None:
    assert list(several_videos(["0.jpg", "0.png", "1.jpg", "1.png"])) == ["*.jpg", "*.png"]
    assert not several_videos(["0.jpg", "1.jpg", "2.png", "3.png"]), "no name occurs twice"
