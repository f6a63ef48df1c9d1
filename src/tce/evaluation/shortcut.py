"""The shortcut: does an embedding distinguish groups (people, cameras, sources) better than classes?

Every labelled clip is a query among all the others, so that clips of its own group and of other groups can
vote. Hits of the query's own recording are removed: pieces of one recording would name both at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from tce.data.splits import group_names
from tce.errors import TceError
from tce.evaluation.metrics import Interval, bootstrap_interval
from tce.evaluation.probes import unit_rows
from tce.evaluation.protocols import SplitResult

if TYPE_CHECKING:
    from tce.data.splits import SplitClips
    from tce.evaluation.protocols import Evaluator

log = logging.getLogger("tce.evaluation")

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

BLOCK_QUERIES = 1024
CHANCE_DRAWS = 1000  # for each recording


def shortcut(evaluator: Evaluator, clips: SplitClips) -> SplitResult:
    """Weighted kNN of the class, with and without votes of the query's group, and kNN of the group.

    `group_minus_class` is the difference of both on the same clips and on one scale, on which chance is 0
    and every clip right is 1; the class counts without votes of the same group.
    """
    options = evaluator.options
    assert options.group is not None
    both = evaluator.train_test(clips)
    rows = np.concatenate([both.train, both.test])
    order = np.argsort(rows)
    rows = rows[order]
    vectors = unit_rows(np.concatenate([both.train_features, both.test_features])[order])
    names, group = np.unique(
        group_names(clips.store.catalog.select(rows), options.group), return_inverse=True
    )
    _, recording = np.unique(clips.recordings[rows].astype(str), return_inverse=True)
    label = clips.labels[rows]
    if len(names) < 2:
        raise TceError(f"--group {options.group}", expected="two groups or more", found=f"one, {names[0]!r}")
    # Where each group is one recording, removing its hits would leave no clip of the group.
    pieces = len(np.unique(np.stack([group, recording]), axis=1).T) > len(names)
    own = recording if pieces else np.arange(len(rows))
    votes = {
        "class_knn": (label, own, None),
        "class_knn_other_groups": (label, own, group),
        "group_knn": (group, own, None),
    }
    k, device = min(options.k, len(rows) - 1), evaluator.network.network.device
    values: dict[str, npt.NDArray[np.float64]] = {}
    chance: dict[str, float] = {}
    for name, (target, removed, without) in votes.items():
        hits = knn_hits(vectors, target, removed, without, k, options.temperature, device)
        values[name], chance[name] = hits, chance_level(target, removed, without, hits, k, options.seed)
    normed = {name: (values[name] - chance[name]) / max(1 - chance[name], 1e-9) for name in votes}
    values["group_minus_class"] = normed["group_knn"] - normed["class_knn_other_groups"]
    _require_values(values, options.group)
    chance["group_minus_class"] = 0.0
    ends = {name: _interval(hits, recording, options.seed) for name, hits in values.items()}
    change = values["class_knn_other_groups"] - values["class_knn"]
    ends["other_minus_all"] = _interval(change, recording, options.seed)
    metrics = {name: float(np.nanmean(hits)) for name, hits in values.items()}
    settings = {
        **both.settings,
        "train": 0,
        "group": options.group,
        "groups": len(names),
        "removed": "hits of the same recording" if pieces else "the clip itself",
        "k": k,
        "temperature": options.temperature,
    }
    del settings["labels"]
    return SplitResult(
        rows,
        metrics,
        values,
        settings,
        chance,
        reading=reading({**metrics, "other_minus_all": float(np.nanmean(change))}, chance, ends),
        caveats=_caveats(values),
    )


def knn_hits(
    vectors: npt.NDArray[np.float32],
    target: Ints,
    removed: Ints,
    without: Ints | None,
    k: int,
    temperature: float,
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.float64]:
    """Whether the weighted vote of each clip's nearest other clips names its own target, [n].

    Args:
        vectors: unit vectors [n, D]; each is a query among all others.
        target: [n] what is voted for.
        removed: [n] clips that share the query's number do not vote.
        without: [n] neither do these, if given.
        k: neighbours that vote, fewer where fewer may.
        temperature: of the votes, exp(similarity / temperature).
        device: where the products run.

    Returns:
        1 or 0; NaN where no clip of the query's own target may vote, so that it cannot be right.
    """
    count, kinds = len(vectors), int(target.max()) + 1
    hits = np.full(count, np.nan)
    rows = torch.as_tensor(vectors).to(device)
    for start in range(0, count, BLOCK_QUERIES):
        part = slice(start, min(start + BLOCK_QUERIES, count))
        allowed = removed[part, None] != removed[None]  # [q, n]
        if without is not None:
            allowed &= without[part, None] != without[None]
        similarity = rows[part] @ rows.T
        similarity[~torch.from_numpy(allowed).to(similarity.device)] = -torch.inf
        found, index = (side.cpu().numpy() for side in similarity.topk(min(k, count), dim=1))
        best = np.where(np.isfinite(found[:, :1]), found[:, :1], 0)
        weight = np.exp((found - best) / temperature)  # 0 for those that may not vote
        cell = np.arange(len(found))[:, None] * kinds + target[index]
        scores = np.bincount(cell.ravel(), weight.ravel().astype(np.float64), len(found) * kinds)
        named = scores.reshape(len(found), kinds).argmax(axis=1)
        possible = (allowed & (target[part, None] == target[None])).any(axis=1)
        hits[part] = np.where(possible, named == target[part], np.nan)
    return hits


def chance_level(target: Ints, removed: Ints, without: Ints | None, hits: Floats, k: int, seed: int) -> float:
    """Share that is right if the neighbours come in random order and vote equally; ties count in part.

    Unlike 1 / kinds it takes into account which clips may vote, and how often each target occurs. Clips of
    one target that the same clips may vote for share a simulation of `CHANCE_DRAWS` draws.

    Args:
        target: [n] what is voted for.
        removed: [n] see `knn_hits`.
        without: [n] see `knn_hits`.
        hits: [n] NaN for clips that do not count.
        k: neighbours that vote.
        seed: of the draws.
    """
    keys = [target, removed] + ([] if without is None else [without])
    _, first, number = np.unique(np.stack(keys), axis=1, return_index=True, return_inverse=True)
    kinds, number = int(target.max()) + 1, number.reshape(-1)
    counts: dict[bytes, float] = {}
    level = np.full(len(first), np.nan)
    for place, clip in enumerate(first):
        if not np.isfinite(hits[clip]):
            continue
        allowed = removed != removed[clip]
        if without is not None:
            allowed &= without != without[clip]
        have = np.bincount(target[allowed], minlength=kinds)
        key = have.tobytes() + bytes(str(target[clip]), "ascii")
        if key not in counts:
            rng = np.random.default_rng([seed, place])
            drawn = rng.multivariate_hypergeometric(have, min(k, int(have.sum())), size=CHANCE_DRAWS)
            best = drawn == drawn.max(axis=1, keepdims=True)
            counts[key] = float((best[:, target[clip]] / best.sum(axis=1)).mean())
        level[place] = counts[key]
    known = np.isfinite(hits)
    return float(level[number[known]].mean()) if known.any() else float("nan")


def reading(
    metrics: Mapping[str, float], chance: Mapping[str, float], ends: Mapping[str, Interval | None]
) -> str:
    """What the metrics mean, by these rules on 95% intervals over recordings.

    1. Groups are distinguished if the interval of `group_knn` lies above its chance.
    2. If they are, the interval of `group_minus_class` shows which is distinguished better: above 0 groups,
       below 0 classes, else neither.
    3. The interval of the class accuracy without votes of the same group less that with them shows what these
       votes do: above 0 they mislead, below 0 the class leans on them, else neither.

    Args:
        metrics: with `other_minus_all`, the difference of rule 3.
        chance: level of each.
        ends: interval of each; None with fewer than two recordings.
    """
    group, gap, change = (ends[name] for name in ("group_knn", "group_minus_class", "other_minus_all"))
    if group is None or gap is None or change is None:
        return "no reading: intervals need two recordings or more"
    share = f"{metrics['group_knn']:.0%}, chance {chance['group_knn']:.0%}"
    if group[0] <= chance["group_knn"]:
        first = f"no shortcut shows: groups are not distinguished better than by chance ({share})"
    elif gap[0] > 0:
        first = f"shortcut: groups are distinguished ({share}), and better than classes"
    elif gap[1] < 0:
        first = f"groups are distinguished ({share}), but classes better"
    else:
        first = f"groups are distinguished ({share}) about as well as classes"
    points = f"{100 * abs(metrics['other_minus_all']):.1f} points"
    if change[0] > 0:
        second = f"neighbours of the same group mislead: without them the class is right {points} more often"
    elif change[1] < 0:
        second = f"the class leans on neighbours of the same group: without them it loses {points}"
    else:
        second = "votes of the same group make no difference for the class that the interval shows"
    return f"{first}; {second}"


def _interval(values: Floats, recording: Ints, seed: int) -> Interval | None:
    known = np.isfinite(values)
    return bootstrap_interval(values[known], recording[known], seed=seed) if known.any() else None


def _require_values(values: Mapping[str, Floats], group: str) -> None:
    if not np.isfinite(values["group_knn"]).any():
        found = "one recording in each of several groups" if group != "recording" else "one clip in each"
        raise TceError(
            f"--group {group}", expected="a group with two recordings or more", found=found,
            fix="name larger groups",
        )  # fmt: skip
    if not np.isfinite(values["group_minus_class"]).any():
        raise TceError(
            f"--group {group}",
            expected="a class that occurs in two groups or more",
            found="each class in one group only, so that groups and classes cannot be distinguished",
            fix="name other groups",
        )


def _caveats(values: Mapping[str, Floats]) -> list[str]:
    words = {
        "class_knn": "have no other clip of their class that may vote",
        "class_knn_other_groups": "are of a class that no other group has",
        "group_knn": "are of a group without another recording",
    }
    left = {name: int(np.isnan(values[name]).sum()) for name in words}
    return [f"{count} clips {words[name]}; left out of that figure" for name, count in left.items() if count]
