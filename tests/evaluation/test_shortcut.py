"""The shortcut: votes by a slow loop, chance in closed form, the rules of the reading, and the command."""

import json

import numpy as np
import pytest

from tce.errors import OptionError, TceError
from tce.evaluation.evaluate import evaluate
from tce.evaluation.probes import unit_rows
from tce.evaluation.shortcut import chance_level, knn_hits, reading
from tce.options.evaluate import EvaluateOptions


def layout(rng, classes=4, groups=3, recordings=2, pieces=3):
    """Every class in every group, several recordings each: class, group, recording of each clip."""
    label, group, recording, _ = np.indices((classes, groups, recordings, pieces)).reshape(4, -1)
    return label, group, (label * groups + group) * recordings + recording


@pytest.mark.parametrize("without_group", [False, True])
def test_votes_equal_a_loop(without_group):
    rng = np.random.default_rng(0)
    label, group, recording = layout(rng)
    vectors = unit_rows(rng.normal(size=(len(label), 6)).astype(np.float32))
    found = knn_hits(vectors, label, recording, group if without_group else None, 5, 0.1)
    for query in range(len(label)):
        rest = [i for i in range(len(label)) if recording[i] != recording[query]]
        rest = [i for i in rest if not without_group or group[i] != group[query]]
        rest.sort(key=lambda i: -float(vectors[i] @ vectors[query]))
        votes = np.zeros(4)
        for i in rest[:5]:
            votes[label[i]] += np.exp(float(vectors[i].astype(float) @ vectors[query]) / 0.1)
        assert found[query] == (votes.argmax() == label[query])


def test_what_cannot_be_right_does_not_count():
    label, group, recording = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), np.arange(5)
    vectors = unit_rows(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
    found = knn_hits(vectors, label, recording, group, 20, 0.07)  # more neighbours than there are
    assert np.isnan(found).tolist() == [False, False, False, False, True]


def test_chance_of_one_vote_is_the_share_of_clips_that_may_vote():
    label, group, recording = layout(np.random.default_rng(0))
    right = np.zeros(len(label))
    # 72 clips less the recording's 3; of the class 18 - 3. In other groups: 12 of 48.
    assert chance_level(label, recording, None, right, 1, 0) == pytest.approx(15 / 69, abs=0.01)
    assert chance_level(label, recording, group, right, 1, 0) == pytest.approx(12 / 48, abs=0.01)


def test_chance_of_many_votes_names_the_larger_group():
    group = np.repeat([0, 1], [90, 10])
    level = chance_level(group, np.arange(100), None, np.zeros(100), 21, 0)
    assert level == pytest.approx(0.9, abs=0.002), "the large group is named always, the small one never"


def embedded(of, rng, noise=0.05):
    places = np.eye(of.max() + 1)[of]
    return unit_rows((places + noise * rng.normal(size=places.shape)).astype(np.float32))


@pytest.mark.parametrize("knows", ["group", "class", "both"])
def test_embeddings_of_groups_and_of_classes(knows):
    rng = np.random.default_rng(3)
    label, group, recording = layout(rng, recordings=4)
    parts = {"group": embedded(group, rng), "class": embedded(label, rng)}
    vectors = unit_rows(np.hstack(list(parts.values()))) if knows == "both" else parts[knows]
    of_class = knn_hits(vectors, label, recording, group, 10, 0.07)
    of_group = knn_hits(vectors, group, recording, None, 10, 0.07)
    assert (of_class.mean() > 0.95) == (knows != "group")
    assert (of_group.mean() > 0.95) == (knows != "class")


def test_the_readings_rules():
    chance = {"group_knn": 0.5}

    def read(group, gap, change):
        ends = {"group_knn": group, "group_minus_class": gap, "other_minus_all": change}
        return reading({"group_knn": 0.8, "other_minus_all": -0.125}, chance, ends)

    above, below, around = (0.1, 0.3), (-0.3, -0.1), (-0.1, 0.1)
    assert read((0.4, 0.9), above, around).startswith("no shortcut shows")
    assert read((0.6, 0.9), above, around).startswith("shortcut: groups are distinguished (80%, chance 50%)")
    assert "but classes better" in read((0.6, 0.9), below, around)
    assert "about as well as classes" in read((0.6, 0.9), around, around)
    assert read((0.6, 0.9), above, above).endswith("the class is right 12.5 points more often")
    assert read((0.6, 0.9), above, below).endswith("without them it loses 12.5 points")
    assert read((0.6, 0.9), above, around).endswith("that the interval shows")
    assert read(None, None, None) == "no reading: intervals need two recordings or more"


def options(data, networks, out, **flags):
    flags = {"group": "group", "k": 3, "samples": 2, "precision": "float32", "device": "cpu", **flags}
    return EvaluateOptions(
        ckpt=networks.encoder,
        data=str(data.footage),
        protocol="shortcut",
        lists=str(data.lists),
        out=str(out),
        **flags,
    )


def test_from_clips_to_result(data, networks, tmp_path):
    result = evaluate(options(data, networks, tmp_path / "one"))
    content = json.loads((tmp_path / "one" / "result.json").read_text())
    assert content["figures"] == ["class_knn", "class_knn_other_groups", "group_knn", "group_minus_class"]
    assert content["data"]["test_clips"] == 32, "training clips are queries too"
    assert content["settings"]["groups"] == 4
    assert content["settings"]["removed"] == "hits of the same recording"
    level = content["chance_levels"]
    normed = [
        (content[name] - level[name]) / (1 - level[name]) for name in ("group_knn", "class_knn_other_groups")
    ]
    assert content["group_minus_class"] == pytest.approx(normed[0] - normed[1])
    low, high = content["intervals"]["group_minus_class"]
    assert low < content["group_minus_class"] < high
    assert content["splits"]["01"]["reading"] in result.text
    # The stripes' colour is the group's: an untrained network sees it.
    assert content["group_knn"] > 2 * level["group_knn"]


def test_recordings_and_patterns_as_groups(data, networks, tmp_path):
    result = evaluate(options(data, networks, tmp_path / "one", group="recording"))
    assert result.figures["settings"]["removed"] == "the clip itself"
    by_pattern = evaluate(options(data, networks, tmp_path / "two", group=r"_(g[0-9]+)_"))
    by_column = evaluate(options(data, networks, tmp_path / "three"))
    assert by_pattern.metrics == by_column.metrics
    with pytest.raises(TceError, match=r"--group v_\(\[A-Z\]\).*each class in one group only"):
        evaluate(options(data, networks, tmp_path / "four", group="v_([A-Z])"))
    with pytest.raises(OptionError, match=r"--protocol shortcut; expected --group as well; found none"):
        options(data, networks, tmp_path, group=None)
