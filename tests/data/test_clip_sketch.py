import pytest

from tce.data.clip_sketch import KEPT, clip_sketch, describe_sketch, share_seen


@pytest.mark.parametrize("seen, asked", [(range(50), range(25, 75)), (range(60), range(30))])
def test_few_clips_are_known_exactly(seen: range, asked: range) -> None:
    held = clip_sketch(f"clip{n}" for n in seen)
    assert share_seen((f"clip{n}" for n in asked), held) == len(set(seen) & set(asked)) / len(asked)


def test_many_clips_are_estimated_in_a_kilobyte() -> None:
    held = clip_sketch(f"clip{n}" for n in range(50_000))
    assert len(held) == 8 * KEPT <= 1024
    assert share_seen((f"clip{n}" for n in range(10_000, 30_000)), held) == 1.0
    assert share_seen((f"clip{n}" for n in range(40_000, 60_000)), held) == pytest.approx(0.5, abs=0.15)
    assert share_seen((f"clip{n}" for n in range(50_000, 90_000)), held) == 0.0
    assert share_seen([], held) == 0.0


def test_order_and_repetition_do_not_matter() -> None:
    assert clip_sketch(["b", "a", "b"]) == clip_sketch(["a", "b"])
    assert clip_sketch([]) == "" and share_seen(["a"], "") == 0.0


def test_a_description_counts_the_clips() -> None:
    assert describe_sketch("") == "0" and describe_sketch(clip_sketch(map(str, range(77)))) == "77"
    text = describe_sketch(clip_sketch(f"clip{n}" for n in range(9537)))
    assert text.startswith("about ") and float(text[6:].replace(",", "")) == pytest.approx(9537, rel=0.25)
    assert len(text) < 20 and describe_sketch("x" * 1024) == "unknown"
