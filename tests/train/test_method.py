"""The method's step against a slow walk through the same numbers with NumPy, and its network passes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tce.data.open_data import open_store
from tce.distributed import DistributedContext
from tce.model.encoder import FrameEncoder, build_encoder
from tce.options.pretrain import (
    AugmentOptions,
    ContrastOptions,
    MoCoOptions,
    ModelOptions,
    PretrainOptimOptions,
    PretrainOptions,
    PretrainRunOptions,
    TCEOptions,
)
from tce.train.method import ViewEncoder, ema_update
from tce.train.optim import TrainProgress
from tce.train.pretrain_task import Pretraining

PLAIN = AugmentOptions(crop_scale=(1, 1), flip=0, grey=0, brightness=0, color_contrast=0, saturation=0, hue=0)
PROGRESS = TrainProgress(step=3, steps_per_epoch=2, epochs=5, log_steps=1)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
TEMPERATURE = 0.07


def make_task(clips: Path, batch: int = 6, **contrast: Any) -> Pretraining:
    groups = {"tce": TCEOptions, "moco": MoCoOptions}
    flags = {"positives": "same", **contrast}
    method = flags.get("method", "simclr")
    own = {"threshold_low": 1.0} if method == "tce" else {}  # everything passes
    if method in groups:
        names = {field.name for field in dataclasses.fields(groups[method])}
        own |= {name: flags.pop(name) for name in list(flags) if name in names}
    options = PretrainOptions(
        model=ModelOptions(model="tinynet:linear_in_pixels", image_size=40, embedding_size=5),
        contrast=ContrastOptions(**flags),
        augment=PLAIN,
        **({method: groups[method](**own)} if method in groups else {}),
        optim=PretrainOptimOptions(epochs=5, batch_size=batch),
        run=PretrainRunOptions(seed=3, monitor_epochs=0, precision="float32"),
    )
    options = PretrainOptions(**{**vars(options), "data": type(options.data)(frame_size=40)})
    model = options.model
    encoder = build_encoder(model.model, 5, rotation=options.tce.rotation > 0, image_size=40, seed=0)
    return Pretraining(options, open_store(clips), encoder, DistributedContext(torch.device("cpu")))


def take_step(task: Pretraining, number: int = 2) -> tuple[Any, dict[str, Any]]:
    batch = next(task.batches(number))
    return batch, task.step(batch, PROGRESS)


def slow_embeddings(
    task: Pretraining, clips: np.ndarray, frames: np.ndarray, encoder: FrameEncoder | None = None
) -> np.ndarray:
    """Read, average, weigh and normalise by hand."""
    encoder = encoder or task.encoder
    layer, head = encoder.backbone.model[2], encoder.head
    out = []
    for clip, frame in zip(clips, frames, strict=True):
        folder = Path(task.store.catalog[int(clip)].path)
        image = cv2.imread(str(sorted(folder.iterdir())[frame]))[..., ::-1] / 255.0
        pixels = (image - MEAN) / STD
        cells = [
            pixels[20 * r : 20 * r + 20, 20 * c : 20 * c + 20].mean(axis=(0, 1))
            for r in (0, 1)
            for c in (0, 1)
        ]
        x = np.stack(cells, axis=1).reshape(12)  # channel by channel
        for step in (layer, head):
            x = step.weight.detach().double().numpy() @ x + step.bias.detach().double().numpy()
        out.append(x / np.linalg.norm(x))
    return np.array(out)


def slow_nce(v: np.ndarray, p: np.ndarray, bank: np.ndarray, own: np.ndarray, k: int, z: float) -> float:
    """The paper's formula, anchor by anchor, on the k most similar other rows."""
    losses = []
    for anchor, positive, mine in zip(v, p, own, strict=True):
        rows = sorted(
            (row for row in range(len(bank)) if row != mine), key=lambda row: -float(anchor @ bank[row])
        )
        chance = k / len(bank)
        prob = math.exp(anchor @ positive / TEMPERATURE) / z
        loss = -math.log(prob / (prob + chance))
        for row in rows[:k]:
            prob = math.exp(anchor @ bank[row] / TEMPERATURE) / z
            loss -= math.log(chance / (prob + chance))
        losses.append(loss)
    return float(np.mean(losses))


def test_a_step_follows_the_papers_formula(clips: Path) -> None:
    task = make_task(clips, method="tce", negatives=4)
    task.fill_bank()
    bank = task.method.bank.rows.double().numpy().copy()
    assert np.allclose(np.linalg.norm(bank, axis=1), 1)
    z = float(task.method.nce.Z)
    others = bank @ bank.T
    mean = np.exp(others[~np.eye(12, dtype=bool)] / TEMPERATURE).mean()
    assert z == pytest.approx(12 * mean, rel=1e-4), "Z is N times the mean over pairs of rows"

    batch, parts = take_step(task)
    v = slow_embeddings(task, batch.clips, batch.index[:, 0])
    assert parts["loss"].item() == pytest.approx(slow_nce(v, v, bank, batch.clips, 4, z), rel=1e-4)
    assert parts["hard"] == 1.0
    assert float(parts["drift"]) == pytest.approx((v * bank[batch.clips]).sum(axis=1).mean(), abs=1e-4)

    assert np.allclose(task.method.bank.rows.numpy(), bank), "rows change after the step, not within it"
    task.after_step()
    expected = bank.copy()
    expected[batch.clips] = v
    assert np.allclose(task.method.bank.rows.numpy(), expected, atol=1e-5)


def test_the_own_old_row_is_a_positive_too(clips: Path) -> None:
    task = make_task(clips, method="tce", negatives=4, own_row_positive="also")
    task.method.nce.Z.fill_(50.0)
    bank = task.method.bank.rows.double().numpy().copy()
    batch, parts = take_step(task)
    v = slow_embeddings(task, batch.clips, batch.index[:, 0])
    fresh = slow_nce(v, v, bank, batch.clips, 4, 50.0)
    old = slow_nce(v, bank[batch.clips], bank, batch.clips, 4, 50.0)
    assert parts["loss"].item() == pytest.approx((fresh + old) / 2, rel=1e-4)


def test_in_batch_negatives_and_recordings(clips: Path) -> None:
    """NT-Xent by hand; with `exclude_same_source`, the other clip of a recording is nobody's negative."""
    for exclude in (False, True):
        task = make_task(clips, exclude_same_source=exclude, positives="neighbour")
        batch, parts = take_step(task)
        v, p = (slow_embeddings(task, batch.clips, batch.index[:, view]) for view in (0, 1))
        views, owner = np.concatenate([v, p]), np.concatenate([batch.clips, batch.clips])
        recording = task.store.catalog.sources[owner]
        losses = []
        for i in range(12):
            own = recording == recording[i] if exclude else owner == owner[i]
            positive = math.exp(views[i] @ views[(i + 6) % 12] / TEMPERATURE)
            rest = sum(math.exp(views[i] @ views[j] / TEMPERATURE) for j in range(12) if not own[j])
            losses.append(-math.log(positive / (positive + rest)))
        assert parts["loss"].item() == pytest.approx(np.mean(losses), rel=1e-4), exclude


@pytest.mark.parametrize("exclude", [False, True])
def test_queries_against_a_queue_of_keys(clips: Path, exclude: bool) -> None:
    """InfoNCE by hand: the momentum encoder's keys, without those of the anchor's own clip or recording."""
    task = make_task(clips, method="moco", queue=9, momentum_encoder=0.75, exclude_same_source=exclude)
    method = task.method
    with torch.no_grad():
        for parameter in method.momentum_encoder.parameters():
            parameter.add_(0.3)
    keys = method.queue.keys.double().numpy().copy()
    owners = [-1] * 9
    for number in range(3):
        batch, metrics = take_step(task, number)
        v = slow_embeddings(task, batch.clips, batch.index[:, 0])
        p = slow_embeddings(task, batch.clips, batch.index[:, 0], method.momentum_encoder)
        assert not np.allclose(v, p, atol=1e-2)
        recording = task.store.catalog.source_numbers
        losses = []
        for anchor, positive, own in zip(v, p, batch.clips, strict=True):
            left_out = {j for j in range(9) if owners[j] == own}
            if exclude:
                left_out = {j for j in range(9) if owners[j] >= 0 and recording[owners[j]] == recording[own]}
            right = math.exp(anchor @ positive / TEMPERATURE)
            rest = sum(math.exp(anchor @ keys[j] / TEMPERATURE) for j in range(9) if j not in left_out)
            losses.append(-math.log(right / (right + rest)))
        assert metrics["loss"].item() == pytest.approx(np.mean(losses), rel=1e-4)
        assert float(metrics["alignment"]) == pytest.approx(((v - p) ** 2).sum(axis=1).mean(), rel=1e-3)
        before = [parameter.clone() for parameter in method.momentum_encoder.parameters()]
        task.after_step()
        for place, (key, own) in enumerate(zip(p, batch.clips, strict=True), 6 * number):
            keys[place % 9], owners[place % 9] = key, own
        assert np.allclose(method.queue.keys.numpy(), keys, atol=1e-5)
        now = method.momentum_encoder.parameters()
        for old, new, average in zip(before, task.encoder.parameters(), now, strict=True):
            assert torch.allclose(average, 0.75 * old + 0.25 * new, atol=1e-6)
    assert {-1} != set(owners), "the queue held clips' keys"
    assert all(parameter.grad is None for parameter in method.momentum_encoder.parameters())


def test_a_failed_slot_counts_for_nothing(clips: Path) -> None:
    task = make_task(clips, method="tce", negatives=4, rotation=1.0)
    task.encoder.rotation_head.eval()  # batch statistics would see the failed slot's stand-in
    task.method.nce.Z.fill_(50.0)
    bank = task.method.bank.rows.double().numpy().copy()
    batch = next(task.batches(2))
    batch.ok[[1, 4]] = False
    names = [str(task.store.catalog.ids[row]) for row in batch.clips[~batch.ok]]
    batch.errors += ["broken, alas"] * len(names)
    parts = task.step(batch, PROGRESS)
    good = batch.ok
    v = slow_embeddings(task, batch.clips[good], batch.index[good, 0])
    assert parts["contrast"].item() == pytest.approx(
        slow_nce(v, v, bank, batch.clips[good], 4, 50.0), rel=1e-4
    )
    task.after_step()
    changed = np.abs(task.method.bank.rows.numpy() - bank).max(axis=1) > 1e-6
    assert set(np.flatnonzero(changed)) == set(batch.clips[good])
    assert task.failed == dict.fromkeys(names, "broken, alas")


def test_k_is_an_eighth_of_the_clips_and_never_all(clips: Path) -> None:
    assert make_task(clips, method="tce").method.K == 1
    assert make_task(clips, method="tce", negatives=8192).method.K == 11


@pytest.fixture
def normalising() -> FrameEncoder:
    """An encoder whose result depends on who shares its pass."""
    encoder = build_encoder("tinynet:tiny", 6, rotation=True, image_size=16, seed=1)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder.train()


def test_views_pass_jointly_or_one_by_one(normalising: FrameEncoder) -> None:
    images, rotated = torch.randn(4, 2, 3, 16, 16), torch.randn(4, 3, 16, 16)
    joint, scores = ViewEncoder(normalising, joint=True)(images, rotated)
    features = normalising.backbone(torch.cat([images[:, 0], images[:, 1], rotated]))
    assert torch.allclose(joint[:, 1], normalising.project(features[4:8]), atol=1e-5)
    assert torch.allclose(scores, normalising.rotation_logits(features[8:]), atol=1e-5)
    apart, scores = ViewEncoder(normalising, joint=False)(images, rotated)
    assert torch.allclose(apart[:, 1], normalising(images[:, 1]), atol=1e-5)
    assert torch.allclose(scores, normalising.rotation(rotated), atol=1e-5)
    assert not torch.allclose(apart, joint, atol=1e-3)


def test_chance_is_the_loss_of_a_network_to_which_all_clips_look_alike(clips: Path) -> None:
    """An encoder of constant output."""
    for flags in ({"method": "tce", "negatives": 4}, {}, {"method": "moco", "queue": 9}):
        task = make_task(clips, **flags)
        with torch.no_grad():
            for encoder in (task.encoder, getattr(task.method, "momentum_encoder", task.encoder)):
                encoder.head.weight.zero_()
                encoder.head.bias.fill_(1.0)
        if "queue" in flags:
            task.method.queue.keys.fill_(5**-0.5)
        task.fill_bank()
        _, metrics = take_step(task)
        assert metrics["contrast"].item() == pytest.approx(task.method.chance, rel=1e-4), flags
        assert task.chance["contrast"] == task.method.chance


def test_an_averaged_copy_follows_in_its_weights_only() -> None:
    current, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(current.weight, 3.0)
    current.running_mean.fill_(7.0)
    ema_update(average, current, 0.9)
    assert average.weight.tolist() == pytest.approx([1.2, 1.2])
    assert average.running_mean.tolist() == [0.0, 0.0]
