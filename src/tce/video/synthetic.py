"""Generated clips for the demo and the tests: a figure made of limbs moves through a room.

Classes differ by pose and motion only. Everyone wears the same kit; a group is a person's build and a room,
shared by all classes; in every clip the figure wanders about and coloured lamps turn, wherever they happen to
stand. So neither colour nor texture, background or place names the class, and none of them names the clip:
what stays the same through a clip, and is worth learning, is what the figure does.

With `clutter`, more that has nothing to do with the class changes within a clip: stronger lamps, a camera
that zooms, wider wandering, and balls that fly about and cover the figure.
"""

from __future__ import annotations

import itertools
import math
import os
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tce.errors import OptionError
from tce.progress import Progress

Image = NDArray[np.uint8]  # [H, W, 3] RGB

# Limb lengths in units of the torso.
TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG, HEAD = 1.0, 0.55, 0.55, 0.65, 0.65, 0.24
LAMP_SECONDS = 1.2  # in which a lamp's colours come round again
NOISE = 3.0  # standard deviation of the camera's noise, in grey levels
BALLS, BALL_RADIUS = 4, 0.09  # with clutter; the radius is a share of the picture's size


class SyntheticClips(NamedTuple):
    """Where generated clips lie.

    Attributes:
        videos: folder with a folder a class, `<Class>/v_<Class>_gNN_cNN.mp4`.
        lists: folder with `classInd.txt`, `trainlist01.txt` and `testlist01.txt` as UCF101 has them.
        classes: class names in the order of `classInd.txt`.
    """

    videos: Path
    lists: Path
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees; 0 hangs straight down (the torso: stands straight up).

    Positive angles turn a limb away from the body's middle, the lower limb adds to its upper one.
    Each pair is (left, right).
    """

    torso: float = 0.0
    arm: tuple[float, float] = (12.0, 12.0)
    elbow: tuple[float, float] = (8.0, 8.0)
    leg: tuple[float, float] = (9.0, 9.0)
    knee: tuple[float, float] = (0.0, 0.0)
    hop: float = 0.0  # height above the ground, in torsos


def _between(low: float, high: float, phase: float) -> float:
    """Swing from `low` to `high` and back as `phase` goes from 0 to 1."""
    return low + (high - low) * (0.5 - 0.5 * math.cos(2 * math.pi * phase))


def _wave(phase: float) -> Pose:
    return Pose(arm=(12, 118), elbow=(8, _between(-10, 85, phase)))


def _jumping_jack(phase: float) -> Pose:
    arm, leg = _between(20, 160, phase), _between(4, 36, phase)
    return Pose(arm=(arm, arm), elbow=(5, 5), leg=(leg, leg), hop=_between(0, 0.12, 2 * phase))


def _squat(phase: float) -> Pose:
    bend = _between(15, 82, phase)
    return Pose(arm=(88, 88), elbow=(0, 0), leg=(bend, bend), knee=(-bend * 1.75, -bend * 1.75))


def _bow(phase: float) -> Pose:
    lean = _between(15, 100, phase)
    return Pose(torso=lean, arm=(-lean * 0.9, lean * 0.9), elbow=(0, 0), leg=(5, 5))


def _kick(phase: float) -> Pose:
    leg = _between(10, 95, phase)
    return Pose(torso=-_between(0, 18, phase), arm=(45, 45), elbow=(50, 50), leg=(6, leg))


def _hands_on_hips(phase: float) -> Pose:
    sway = _between(-22, 22, phase)
    return Pose(torso=sway, arm=(52, 52), elbow=(-105, -105), leg=(18, 18))


def _lunge(phase: float) -> Pose:
    bend = _between(35, 75, phase)
    return Pose(arm=(165, 165), elbow=(8, 8), leg=(bend * 0.8, bend), knee=(0, -bend))


def _box(phase: float) -> Pose:
    left, right = _between(0, 100, phase), _between(100, 0, phase)
    return Pose(arm=(70, 70), elbow=(left, right), leg=(22, 22), knee=(-18, -18))


MOTIONS = {
    "Bow": _bow,
    "Box": _box,
    "HandsOnHips": _hands_on_hips,
    "JumpingJack": _jumping_jack,
    "Kick": _kick,
    "Lunge": _lunge,
    "Squat": _squat,
    "Wave": _wave,
}


def make_clips(
    folder: str | os.PathLike[str],
    classes: int = 6,
    per_class: int = 24,
    frames: int = 24,
    size: int = 96,
    fps: int = 15,
    seed: int = 0,
    groups: int = 6,
    test_groups: int = 2,
    test_seed: int | None = None,
    clutter: bool = False,
) -> SyntheticClips:
    """Write clips of a moving figure as H.264 files, with UCF101's names and lists.

    The same arguments give the same pictures. Existing files of the same names are replaced.

    Args:
        folder: gets the folders `videos` and `lists`.
        classes: number of classes, 2 to 8.
        per_class: clips a class; they are dealt out to the groups in turn.
        frames: frames a clip.
        size: height and width in pixels, even.
        fps: frames a second.
        seed: decides rooms, people and movements.
        groups: persons in rooms (`gNN`), each of which performs every class.
        test_groups: how many of them, the last ones, make up the test list.
        test_seed: the same as `seed` for the test groups; None: `seed`.
        clutter: lamps, camera and flying balls change every clip (see the module).

    Raises:
        OptionError: a number out of its range.
    """
    _check("classes", classes, 2, len(MOTIONS))
    _check("per_class", per_class, groups, 99 * groups)
    _check("frames", frames, 1, 100_000)
    _check("size", size, 32, 4096)
    _check("test_groups", test_groups, 0, groups - 1)
    if size % 2:
        raise OptionError("size", "an even number of pixels", str(size))
    names = tuple(list(MOTIONS)[:classes])
    target = SyntheticClips(Path(folder) / "videos", Path(folder) / "lists", names)
    train, test = [], []
    with Progress(classes * per_class, "generating clips", "clip") as progress:
        for label, name in enumerate(names, 1):
            (target.videos / name).mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                group, clip = number % groups, number // groups
                file = f"{name}/v_{name}_g{group + 1:02d}_c{clip + 1:02d}.mp4"
                tested = group >= groups - test_groups
                drawn_by = test_seed if tested and test_seed is not None else seed
                pictures = draw_clip(name, group, clip, frames, size, fps, drawn_by, clutter)
                write_video(target.videos / file, pictures, fps)
                if tested:
                    test.append(file)
                else:
                    train.append(f"{file} {label}")
                progress.update()
    target.lists.mkdir(parents=True, exist_ok=True)
    numbered = [f"{label} {name}" for label, name in enumerate(names, 1)]
    for file, lines in (("classInd", numbered), ("trainlist01", train), ("testlist01", test)):
        (target.lists / f"{file}.txt").write_text("".join(f"{line}\n" for line in lines))
    return target


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise OptionError(name, f"{low} to {high}", str(value))


def write_video(path: str | os.PathLike[str], frames: NDArray[np.uint8], fps: int) -> None:
    """Write frames uint8 [n, H, W, 3] (even H and W, RGB) as an H.264 MP4 file of good quality."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "16", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def draw_clip(
    name: str, group: int, clip: int, frames: int, size: int, fps: int, seed: int, clutter: bool = False
) -> NDArray[np.uint8]:
    """The pictures of one clip.

    Args:
        name: class, a key of `MOTIONS`.
        group: person and room.
        clip: which of the clips of this class and group.
        frames: number of frames.
        size: height and width in pixels.
        fps: frames a second.
        seed: of the whole set.
        clutter: as in `make_clips`.

    Returns:
        uint8 [frames, size, size, 3], RGB.
    """
    take = np.random.default_rng([seed, group, clip, zlib.crc32(name.encode())])
    seconds = take.uniform(1.0, 1.8)  # of one period of the motion
    phase, mirrored = take.uniform(), take.uniform() < 0.5
    stage = _Stage(seed, group, take, size, mirrored, clutter)
    pictures = np.empty((frames, size, size, 3), np.uint8)
    for row in range(frames):
        time = row / fps
        pictures[row] = stage.picture(MOTIONS[name]((phase + time / seconds) % 1), time)
    return pictures


class _Stage:
    """A person in a room, who wanders about under turning lamps; `take` decides how."""

    def __init__(
        self,
        seed: int,
        group: int,
        take: np.random.Generator,
        size: int,
        mirrored: bool,
        clutter: bool = False,
    ):
        # What belongs to the group must not see the class, or its room would give the class away.
        room = np.random.default_rng([seed, group])
        self._person = _Person(height=room.uniform(0.9, 1.1), width=room.uniform(0.17, 0.23))
        self._background = _room(room, size)
        self._take, self._mirrored = take, mirrored
        self._scale = size * take.uniform(0.19, 0.24) * self._person.height
        self._drift, self._angle = take.uniform(0.06, 0.14) * size, take.uniform(0, 2 * math.pi)
        self._centre = size * np.array([take.uniform(0.4, 0.6), take.uniform(0.5, 0.58)])
        self._lamp = take.uniform(0, 2 * math.pi) + np.array([0, 2, 4]) * take.uniform(0.3, 1)
        self._balls: list[_Ball] = []
        self._strength, self._zoom, self._zoom_phase = 0.3, 0.0, 0.0
        if clutter:  # drawn after the rest, so that pose, place and rhythm are the same with and without it
            self._strength, self._zoom, self._zoom_phase = 0.55, 0.25, take.uniform(0, 2 * math.pi)
            self._drift *= 1.5
            self._balls = [
                _Ball(take.uniform(0, 2 * math.pi, 3), take.uniform(0.5, 1.2, 2)) for _ in range(BALLS)
            ]

    def picture(self, pose: Pose, time: float) -> Image:
        """What is seen at a time in seconds; called in order, since the camera's noise is drawn."""
        turn = self._angle + 2 * math.pi * time / 3.1
        where = self._centre + self._drift * np.array([math.cos(turn), 0.3 * math.sin(1.7 * turn)])
        picture = self._background.copy()
        zoomed = self._scale * (1 + self._zoom * math.sin(self._zoom_phase + 2 * math.pi * time / 1.9))
        _draw_figure(picture, self._person, pose, where, zoomed, self._mirrored)
        for ball in self._balls:
            ball.draw(picture, time)
        light = 0.9 + self._strength * np.sin(self._lamp + 2 * math.pi * time / LAMP_SECONDS)
        noisy = picture * light + self._take.normal(scale=NOISE, size=picture.shape)
        return np.asarray(np.clip(noisy, 0, 255), np.uint8)


class SyntheticPhase(NamedTuple):
    """A stretch of a generated recording in which the figure does one thing.

    Attributes:
        start: seconds.
        end: seconds.
        label: class, a key of `MOTIONS`.
        period: seconds of one repetition.
    """

    start: float
    end: float
    label: str
    period: float


def make_recordings(
    folder: str | os.PathLike[str],
    recordings: int = 4,
    seconds: float = 60.0,
    classes: int = 5,
    size: int = 96,
    fps: int = 15,
    seed: int = 0,
    shortest: float = 2.0,
    longest: float = 7.0,
) -> dict[str, list[SyntheticPhase]]:
    """Write recordings of a figure that changes what it does, and when it did what, in `labels.csv`.

    Each recording shows a person and room of its own. A phase lasts from `shortest` to `longest` seconds;
    the next one is of another class.

    Args:
        folder: gets `recording_NN.mp4` and `labels.csv` (video, start, end, label).
        recordings: how many.
        seconds: length of each.
        classes: number of classes, 2 to 8.
        size: height and width in pixels, even.
        fps: frames a second.
        seed: decides rooms, people, movements and phases.
        shortest: seconds of a phase.
        longest: seconds of a phase.

    Returns:
        by file name, the phases in order.

    Raises:
        OptionError: a number out of its range.
    """
    _check("classes", classes, 2, len(MOTIONS))
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[SyntheticPhase]] = {}
    for number in range(recordings):
        rng = np.random.default_rng([seed, number, 1])
        phases = _draw_phases(rng, list(MOTIONS)[:classes], seconds, shortest, longest)
        stage = _Stage(seed, number, rng, size, bool(rng.uniform() < 0.5))
        pictures = np.empty((round(seconds * fps), size, size, 3), np.uint8)
        for row in range(len(pictures)):
            time = row / fps
            phase = next(one for one in reversed(phases) if one.start <= time)
            pictures[row] = stage.picture(MOTIONS[phase.label]((time - phase.start) / phase.period % 1), time)
        name = f"recording_{number + 1:02d}.mp4"
        write_video(target / name, pictures, fps)
        found[name] = phases
    rows = [
        f"{name},{phase.start:.3f},{phase.end:.3f},{phase.label}"
        for name, phases in found.items()
        for phase in phases
    ]
    (target / "labels.csv").write_text("\n".join(["video,start,end,label", *rows]) + "\n")
    return found


def _draw_phases(
    rng: np.random.Generator, names: list[str], seconds: float, shortest: float, longest: float
) -> list[SyntheticPhase]:
    phases: list[SyntheticPhase] = []
    start, label = 0.0, ""
    while start < seconds:
        label = str(rng.choice([name for name in names if name != label]))
        end = min(seconds, start + rng.uniform(shortest, longest))
        if seconds - end < shortest:
            end = seconds
        phases.append(SyntheticPhase(start, end, label, float(rng.uniform(1.0, 1.8))))
        start = end
    return phases


@dataclass(frozen=True)
class _Ball:
    """A ball that flies about and changes its colour.

    Attributes:
        phases: of its place (x, y) and of its colour, in radians.
        speeds: turns a second, (x, y).
    """

    phases: NDArray[np.float64]
    speeds: NDArray[np.float64]

    def draw(self, picture: Image, time: float) -> None:
        """Draw it where it is after `time` seconds."""
        size, angle = picture.shape[0], 2 * math.pi * time * self.speeds
        place = size * (0.5 + 0.45 * np.sin(self.phases[:2] + angle))
        colour = 128 + 110 * np.sin(self.phases[2] + np.array([0, 2, 4]) + angle[0])
        radius = round(size * BALL_RADIUS * 8)
        cv2.circle(picture, _pixel(place), radius, tuple(map(int, colour)), -1, cv2.LINE_AA, 3)


@dataclass(frozen=True)
class _Person:
    """Build of a figure; everyone wears the same kit."""

    height: float
    width: float
    skin: tuple[int, ...] = (196, 140, 108)
    shirt: tuple[int, ...] = (158, 36, 44)
    trousers: tuple[int, ...] = (34, 42, 84)


def _room(rng: np.random.Generator, size: int) -> Image:
    """A bright wall and its floor, softly stained."""
    picture = np.empty((size, size, 3), np.float32)
    horizon = int(size * rng.uniform(0.68, 0.76))
    wall = np.clip(rng.uniform(165, 225) + rng.uniform(-30, 30, size=3), 0, 255)
    picture[:horizon], picture[horizon:] = wall, wall * rng.uniform(0.75, 0.9)
    stains = rng.normal(scale=6, size=(6, 6)).astype(np.float32)
    picture += cv2.resize(stains, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def _draw_figure(
    picture: Image,
    person: _Person,
    pose: Pose,
    centre: NDArray[np.float64],
    scale: float,
    mirrored: bool,
) -> None:
    """Draw limbs as thick lines with round ends; `centre` is the hip's place (x, y) when standing."""
    joints = _joints(pose) * scale  # hip first
    if mirrored:
        joints = joints * (-1, 1)
    hip, neck, head, *limbs = centre + joints
    thickness = max(1, round(person.width * scale))
    for side in (0, 1):
        knee, foot = limbs[4 + 2 * side : 6 + 2 * side]
        _limb(picture, (hip, knee, foot), person.trousers, thickness)
    _limb(picture, (hip, neck), person.shirt, round(thickness * 1.7))
    for side in (0, 1):
        elbow, hand = limbs[2 * side : 2 * side + 2]
        _limb(picture, (neck, elbow), person.shirt, thickness)
        _limb(picture, (elbow, hand), person.skin, thickness)
    cv2.circle(picture, _pixel(head), round(HEAD * scale * 8), person.skin, -1, cv2.LINE_AA, 3)


def _joints(pose: Pose) -> NDArray[np.float64]:
    """Places [11, 2] of hip, neck, head, then elbow and hand, left and right, then knee and foot.

    In torsos, x to the right and y downwards; the lower foot stands on the ground.
    """

    def step(start: NDArray[np.float64], degrees: float, length: float) -> NDArray[np.float64]:
        radians = math.radians(degrees)
        return start + length * np.array([math.sin(radians), math.cos(radians)])

    hip = np.zeros(2)
    neck = step(hip, 180 - pose.torso, TORSO)
    head = step(neck, 180 - pose.torso, HEAD * 1.3)
    limbs = []
    for side, sign in ((0, -1), (1, 1)):
        elbow = step(neck, sign * pose.arm[side], UPPER_ARM)
        limbs += [elbow, step(elbow, sign * (pose.arm[side] + pose.elbow[side]), LOWER_ARM)]
    for side, sign in ((0, -1), (1, 1)):
        knee = step(hip, sign * pose.leg[side], UPPER_LEG)
        limbs += [knee, step(knee, sign * (pose.leg[side] + pose.knee[side]), LOWER_LEG)]
    joints = np.stack([hip, neck, head, *limbs])
    ground = UPPER_LEG + LOWER_LEG
    joints[:, 1] += ground - max(joints[-1, 1], joints[-3, 1]) - pose.hop
    return joints


def _limb(
    picture: Image, points: tuple[NDArray[np.float64], ...], colour: tuple[int, ...], width: int
) -> None:
    for start, end in itertools.pairwise(points):
        cv2.line(picture, _pixel(start), _pixel(end), colour, max(1, width), cv2.LINE_AA, 3)


def _pixel(point: NDArray[np.float64]) -> tuple[int, int]:
    """A place in eighths of a pixel, as cv2's `shift=3` takes it."""
    return round(float(point[0]) * 8), round(float(point[1]) * 8)
