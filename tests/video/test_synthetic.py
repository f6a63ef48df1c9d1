import dataclasses

import av
import numpy as np
import pytest

from tce.errors import OptionError
from tce.video.synthetic import MOTIONS, draw_clip, make_clips


def read(path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def nearest_label_across_groups(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Share of clips whose nearest clip of another group is of their class."""
    distance = ((features[:, None] - features[None]) ** 2).sum(axis=-1)
    distance[groups[:, None] == groups[None]] = np.inf
    return float((labels[distance.argmin(axis=1)] == labels).mean())


def test_files_names_and_lists_are_ucf101s(tmp_path):
    made = make_clips(tmp_path, classes=3, per_class=4, frames=6, size=48, groups=2, test_groups=1, seed=3)
    assert made.classes == ("Bow", "Box", "HandsOnHips")
    assert (made.lists / "classInd.txt").read_text() == "1 Bow\n2 Box\n3 HandsOnHips\n"
    train = (made.lists / "trainlist01.txt").read_text().splitlines()
    test = (made.lists / "testlist01.txt").read_text().splitlines()
    assert train[0] == "Bow/v_Bow_g01_c01.mp4 1"
    assert test[0] == "Bow/v_Bow_g02_c01.mp4"
    listed = {line.split()[0] for line in train + test}
    assert listed == {str(file.relative_to(made.videos)) for file in made.videos.rglob("*.mp4")}
    assert len(listed) == 12
    frames = read(made.videos / "Box/v_Box_g02_c02.mp4")
    assert frames.shape == (6, 48, 48, 3)
    drawn = draw_clip("Box", 1, 1, 6, 48, 15, seed=3)
    assert np.abs(frames.astype(int) - drawn).mean() < 8  # H.264's loss


def test_clips_are_decided_by_seed_group_and_number():
    first = draw_clip("Kick", 0, 0, 4, 48, 15, seed=0)
    np.testing.assert_array_equal(first, draw_clip("Kick", 0, 0, 4, 48, 15, seed=0))
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert np.abs(first.astype(int) - draw_clip("Kick", *other[:2], 4, 48, 15, seed=other[2])).mean() > 2


def test_clutter_changes_more_within_a_clip():
    plain, cluttered = (draw_clip("Kick", 0, 0, 12, 48, 15, seed=0, clutter=value) for value in (False, True))
    np.testing.assert_array_equal(cluttered, draw_clip("Kick", 0, 0, 12, 48, 15, seed=0, clutter=True))
    change = [np.abs(np.diff(clip.astype(float), axis=0)).mean() for clip in (plain, cluttered)]
    assert change[1] > 1.5 * change[0]


def test_colour_names_no_class_but_shape_does():
    labels, groups, colours, shapes = [], [], [], []
    for label, name in enumerate(list(MOTIONS)[:6]):
        for number in range(12):
            clip = draw_clip(name, number % 4, number // 4, 16, 48, 15, seed=1).astype(float)
            labels.append(label)
            groups.append(number % 4)
            # Top rows show wall alone: the colours of room and lamps.
            colours.append(clip[:, :3].mean(axis=(1, 2)).ravel())
            # Where it is darker than the wall, left and right alike, whatever the light.
            grey = clip.mean(axis=3)
            dark = grey < 0.62 * grey[:, :3].mean(axis=(1, 2), keepdims=True)
            shapes.append((dark | dark[:, :, ::-1]).mean(axis=0)[::3, ::3].ravel())
    known = [np.array(values) for values in (labels, groups)]
    chance = 1 / 6
    assert nearest_label_across_groups(np.array(colours), *known) < chance + 0.14
    assert nearest_label_across_groups(np.array(shapes), *known) > 0.5


def test_motions_are_periodic_and_differ():
    for motion in MOTIONS.values():
        start, end = (np.hstack(dataclasses.astuple(motion(phase))) for phase in (0.0, 1.0))
        np.testing.assert_allclose(start, end, atol=1e-9)
    poses = [[motion(phase) for phase in np.linspace(0, 1, 9)] for motion in MOTIONS.values()]
    assert all(a != b for i, a in enumerate(poses) for b in poses[:i])


@pytest.mark.parametrize(
    "options",
    [
        {"classes": 1},
        {"classes": 9},
        {"per_class": 1},
        {"frames": 0},
        {"size": 31},
        {"size": 49},
        {"test_groups": 9},
    ],
)
def test_numbers_out_of_range_name_themselves(tmp_path, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        make_clips(tmp_path, **options)
    assert not any(tmp_path.iterdir())
