"""Devices and precisions."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tce.device
from tce.device import PrecisionProbe, autocast, choose_precision
from tce.embedding.embed import embed
from tce.errors import OptionError
from tce.model.encoder import build_encoder
from tce.train.pretrain import pretrain
from tests.helpers.training_options import pretrain_options

CPU = torch.device("cpu")
PROBE = """
import json, time, torch
from tce.device import probe_precision
state = torch.random.get_rng_state()
begin = time.perf_counter()
probe = probe_precision(torch.device("cpu"))
seconds = time.perf_counter() - begin
assert probe_precision(torch.device("cpu")) is probe, "cached for the process"
assert torch.equal(state, torch.random.get_rng_state()), "draws nothing"
print(json.dumps([probe.float32, probe.bf16, probe.faster, seconds]))
"""


def pretend(monkeypatch: pytest.MonkeyPatch, float32: float, bf16: float) -> None:
    """Let the probe find these seconds."""
    tce.device._log_once.cache_clear()
    monkeypatch.setattr(tce.device, "probe_precision", lambda device: PrecisionProbe(float32, bf16))


def test_the_probe_measures_both_and_leaves_no_trace() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    float32, bf16, faster, _ = json.loads(done.stdout)
    assert 0 < float32 < 5 and 0 < bf16 < 60
    assert faster == ("bf16" if float32 > tce.device.CLEARLY_FASTER * bf16 else "float32")


@pytest.mark.parametrize(
    ("float32", "bf16", "faster"),
    [
        (0.002, 0.001, "bf16"),
        (0.001, 0.031, "float32"),
        (0.0011, 0.001, "float32"),
        (1, float("inf"), "float32"),
    ],
)
def test_auto_takes_the_clearly_faster_one(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    float32: float,
    bf16: float,
    faster: str,
) -> None:
    pretend(monkeypatch, float32, bf16)
    with caplog.at_level(logging.INFO, "tce"):
        assert choose_precision("auto", CPU) == choose_precision("auto", CPU) == faster
    (line,) = caplog.messages
    assert faster in line and f"{1000 * float32:.1f} ms" in line and f"{1000 * bf16:.1f} ms" in line


def test_slow_bf16_is_kept_with_one_warning_that_gives_the_ratio(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, 0.001, 0.031)
    assert choose_precision("bf16", CPU) == choose_precision("bf16", CPU) == "bf16"
    (warning,) = caplog.records
    assert warning.levelname == "WARNING" and "31.0 times slower" in warning.getMessage()


def test_float32_needs_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tce.device, "probe_precision", None)
    assert choose_precision("float32", CPU) == "float32"


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(OptionError, match="--precision; expected auto, float32, bf16; found 'half'"):
        choose_precision("half", CPU)
    with pytest.raises(OptionError, match="--precision"):
        autocast(CPU, "auto")


def test_auto_reaches_the_network(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder("resnet18", 8, image_size=32, seed=0)
    seen = []
    encoder.backbone.conv1.register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    pretend(monkeypatch, 0.002, 0.001)
    embed(clip, encoder, device="cpu", precision="auto")
    assert set(seen) == {torch.bfloat16}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A frame folder of four images."""
    import cv2
    import numpy as np

    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.jpg"), np.full((40, 40, 3), 60 * number, np.uint8))
    return folder


def test_a_run_records_its_precision_and_keeps_it_when_resumed(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    for name in "abcdef":
        shutil.copytree(clip, tmp_path / "clips" / name)
    flags = {"precision": "auto", "max_steps": 1, "epochs": 2}
    out = tmp_path / "run"
    pretend(monkeypatch, 0.002, 0.001)
    pretrain(pretrain_options(tmp_path / "clips", out, **flags))
    record = json.loads((out / "options.json").read_text())
    assert record["options"]["run"]["precision"] == "bf16"
    assert record["precision"] == {"requested": "auto", "resumed": False, "float32_ms": 2.0, "bf16_ms": 1.0}
    pretend(monkeypatch, 0.001, 0.031)  # on another machine
    pretrain(pretrain_options(tmp_path / "clips", out, resume=True, **flags | {"max_steps": 2}))
    record = json.loads((out / "options.json").read_text())
    assert record["options"]["run"]["precision"] == "bf16" and record["precision"]["resumed"]
    with pytest.raises(OptionError, match="--precision contradicts the run"):
        pretrain(pretrain_options(tmp_path / "clips", out, resume=True, **flags | {"precision": "float32"}))
