from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tce.commands.finetune import finetune
from tce.errors import OptionError, TceError
from tce.model.checkpoint import load_encoder, save_model
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder
from tce.train.pretrain import pretrain
from tests.helpers.run_files import saved
from tests.helpers.training_options import jpegs_256, options, released_classifier


def test_contradictory_resumes_name_the_remedy(footage: Path, clips: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetune(options(footage, run, epochs=1))
    encoder = save_model(tmp_path / "encoder.safetensors", build_encoder("resnet18", 8, image_size=32))
    with pytest.raises(OptionError, match=r"found a pre-training file.*start from it with --weights"):
        finetune(options(footage, tmp_path / "new", resume=str(encoder)))
    with pytest.raises(OptionError, match=r"network without training state.*--weights"):
        finetune(options(footage, tmp_path / "new", resume=str(run / "model.safetensors")))
    with pytest.raises(OptionError, match=r"use --savedir .*run, or start a new run"):
        finetune(options(footage, tmp_path / "new", resume=str(run)))
    with pytest.raises(OptionError, match=r"a new folder; found a run; --resume resumes it"):
        finetune(options(footage, run))
    with pytest.raises(OptionError, match=r"--lr contradicts the run"):
        finetune(options(footage, run, lr=0.5, resume=""))
    with pytest.raises(TceError, match=r"no such file"):
        finetune(options(footage, tmp_path / "new", resume=str(tmp_path / "nothing.pth")))
    from tests.helpers.training_options import pretrain_options as pretraining

    with pytest.raises(OptionError, match=r"expected a run of `tce pretrain`; found a run of `tce finetune`"):
        pretrain(pretraining(clips, run, resume=True))
    pretrain(pretraining(clips, tmp_path / "pre", max_steps=1, epochs=1))
    with pytest.raises(OptionError, match=r"found a run of `tce pretrain`; start from .* --weights .*pre"):
        finetune(options(footage, tmp_path / "pre", resume=""))
    with pytest.raises(OptionError, match=r"found a run of `tce pretrain`; start from .* --weights .*pre"):
        finetune(options(footage, tmp_path / "new", resume=str(tmp_path / "pre")))
    with pytest.raises(TceError, match="found a classifier, as fine-tuning writes it"):
        load_encoder(run, "tinynet:tiny")


def test_other_lists_are_other_data(footage: Path, tmp_path: Path) -> None:
    root = jpegs_256(footage, tmp_path)
    lists = root / "UCF_list"
    finetune(options(root / "jpegs_256", tmp_path / "run", lists=str(lists), max_steps=1))
    test, train = lists / "testlist01.txt", lists / "trainlist01.txt"
    tested, trained = test.read_text().split("\n"), train.read_text().split("\n")
    train.write_text("\n".join([f"{tested[0]} 1", *trained[1:]]))  # as many, but others
    test.write_text("\n".join([trained[0].split(" ")[0], *tested[1:]]))
    with pytest.raises(OptionError, match=r"other data \(its .*split.* differ"):
        finetune(options(root / "jpegs_256", tmp_path / "run", lists=str(lists), resume=""))


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_run_begun_from_a_file_goes_on_from_its_own_checkpoint(footage: Path, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    given = classifier_from_encoder(build_encoder("resnet18", image_size=32, seed=0), 3)
    torch.save({"epoch": 1, "state_dict": released_classifier(given), "optimizer": {"state": {}}}, file)
    flags = {"model": "resnet18", "image_size": 32, "epochs": 3, "resume": str(file)}
    begun = options(footage, tmp_path / "run", **flags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tce.commands.finetune.fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(begun)
    first = saved(tmp_path / "run")
    assert first["step"] > 0, "the file's epochs are done"
    finetune(begun)  # the command as it was
    assert saved(tmp_path / "run")["step"] == 3 * first["step"]
