import json
import os
from pathlib import Path

import numpy as np
import pytest

import tce
from tce import cli
from tce.errors import OptionError, TceError
from tce.hub import hub_files
from tce.hub.hub_files import parse_address
from tce.model.checkpoint import checkpoint_hash, describe, load_encoder, save_model
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder
from tce.options.publish import PublishOptions
from tce.publishing.model_card import text, without_paths
from tce.publishing.publish import publish
from tce.video.synthetic import draw_clip, write_video
from tests.helpers.hub_server import HubServer

SECRET = "very-private"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run as tce adapt leaves it, in a folder whose name is private, with paths in its provenance."""
    folder = tmp_path_factory.mktemp(SECRET) / "mine"
    provenance = {
        "made": "tce adapt",
        "clips": "",
        "data": {"path": f"/home/{SECRET}/videos", "lists": f"C:\\{SECRET}\\lists"},
        "weights": {"path": "lite2", "provenance": {"data": {"path": f"../{SECRET}/old"}}},
        "settings": {"image_size": 32, "frames_per_clip": 8},
    }
    save_model(folder, build_encoder("resnet18", head="none", image_size=32, seed=2), provenance)
    outcome = {"start": 0.5, "adapted": 0.75, "chance": 0.1, "held_out": 20, "clips": 30, "frames": 240}
    outcome |= {"skipped": {f"{SECRET}/clip": f"/home/{SECRET}/clip.mp4: broken"}, "kept_start": False}
    (folder / "result.json").write_text(json.dumps(outcome))
    (folder / "options.json").write_text(json.dumps({"options": {"footage": f"/home/{SECRET}"}}))
    (folder / "statistics.safetensors").write_bytes(b"features of private videos")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video(path, draw_clip("Wave", 0, 0, 6, 48, 15, 0), 15)
    return str(path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, a cache of its own, and the writer's token."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    with HubServer().running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def everything(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode("latin1") for path in folder.iterdir() if path.is_file())


def test_a_folder_holds_the_network_and_a_card_and_nothing_private(run, tmp_path, video):
    found = publish(
        PublishOptions(str(run), str(tmp_path / "shared"), about="wings | of *flies*", license="cc-by-4.0")
    )
    shared = tmp_path / "shared"
    assert sorted(path.name for path in shared.iterdir()) == sorted(found.figures["files"])
    assert not (shared / "statistics.safetensors").exists()
    assert SECRET not in everything(shared)
    assert checkpoint_hash(shared) == checkpoint_hash(run) == found.figures["hash"]
    before, after = (load_encoder(str(place)).embed(video).vectors for place in (run, shared))
    assert np.array_equal(before, after)
    card = (shared / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: tce\n") and "\nlicense: cc-by-4.0\n" in card
    for words in (
        "wings \\| of \\*flies\\*",
        "start 50.0%, adapted 75.0% (chance 10.0%)",
        found.figures["hash"],
        "| clips | 30 |",
        "| clips that could not be read | 1 |",
        "| data: path | videos |",
        "tce embed --ckpt shared",
        "It was not evaluated with labels here",
        "It was fitted to one set of videos",
    ):
        assert words in card, words
    assert describe(shared)["provenance"]["weights"]["path"] == "lite2"


def test_results_of_evaluate_and_report_are_shown(run, tmp_path):
    from tce.video.synthetic import make_clips

    clips = make_clips(tmp_path / SECRET, classes=2, per_class=4, frames=6, size=48, groups=4, test_groups=2)
    common = {"device": "cpu", "seed": 0}
    tce.evaluate(
        ckpt=str(run),
        data=str(clips.videos),
        lists=str(clips.lists),
        protocol="knn",
        out=tmp_path / "knn",
        **common,
    )
    tce.report(str(clips.videos), out=tmp_path / "report", ckpt=str(run), names="mine", engine="torch")
    found = publish(
        PublishOptions(
            str(run), str(tmp_path / "out"), results=(str(tmp_path / "knn"), str(tmp_path / "report"))
        )
    )
    assert found.figures["kind"] == "encoder"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "knn of" in card and "tce report: kNN accuracy" in card and "  mine" in card
    assert "not evaluated with labels" not in card
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    knn, report = figures["results"]
    assert knn["evaluate"][0]["protocol"] == "knn" and knn["evaluate"][0]["data"]["name"] == "videos"
    assert report["report"]["networks"]["mine"]["kNN accuracy"]["value"] >= 0
    assert SECRET not in everything(tmp_path / "out")
    with pytest.raises(TceError, match=r"neither result\.json"):
        publish(PublishOptions(str(run), str(tmp_path / "other"), results=(str(tmp_path),)))


def test_a_classifiers_card(tmp_path):
    classes = ("a|b", "<script>")
    model = classifier_from_encoder(build_encoder("resnet18", image_size=32), 2, 0, classes)
    save_model(tmp_path / "run", model, {"made": "tce finetune", "step": 3, "steps": 9})
    publish(PublishOptions(str(tmp_path / "run"), str(tmp_path / "out"), limits="not for *medicine*"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag: video-classification" in card and "tce classify clip.mp4 --ckpt out" in card
    assert "<script>" not in card and "a\\|b" in card
    assert "stopped at step 3 of 9" in card and "not for \\*medicine\\*" in card
    assert "None was stated for the weights" in card


def test_only_an_earlier_publication_is_replaced(run, tmp_path):
    place = tmp_path / "shared"
    publish(PublishOptions(str(run), str(place)))
    with pytest.raises(OptionError, match="--force replaces it"):
        publish(PublishOptions(str(run), str(place)))
    publish(PublishOptions(str(run), str(place), force=True))
    other = tmp_path / "other"
    other.mkdir()
    (other / "README.md").write_text("mine")
    with pytest.raises(OptionError, match="name a new folder"):
        publish(PublishOptions(str(run), str(other), force=True))
    assert (other / "README.md").read_text() == "mine"


def test_the_hub_takes_it_and_every_command_reads_it_again(run, hub, tmp_path, video, capsys):
    assert cli.main(["publish", str(run), "--to", "hf://owner/flies", "--private"]) == 0
    assert set(hub.repos["owner/flies"]) >= {"model.safetensors", "config.json", "README.md", "figures.json"}
    assert hub.private == {"owner/flies"}
    assert SECRET not in "".join(data.decode("latin1") for data in hub.repos["owner/flies"].values())
    assert b"hf://owner/flies" in hub.repos["owner/flies"]["README.md"]
    capsys.readouterr()
    assert cli.main(["info", "hf://owner/flies", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hash"] == checkpoint_hash(run)
    asked = len(hub.requests)
    e = tmp_path / "e.npz"
    assert cli.main(["embed", "--ckpt", "hf://owner/flies", "--input", video, "--output", str(e)]) == 0
    direct = load_encoder(str(run)).embed(video).vectors
    np.testing.assert_allclose(np.load(e)["embeddings"], direct, atol=1e-4)
    assert not [line for line in hub.requests[asked:] if "README" in line], "data alone is fetched"
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(3):
        write_video(folder / f"{number}.mp4", draw_clip("Wave", number, 0, 6, 48, 15, 0), 15)
    adapted = tce.adapt(
        str(folder), start="hf://owner/flies", out=tmp_path / "run", engine="torch", workers=1
    )
    assert adapted.figures["clips"] == 3
    # Only the user's own words contact the Hub: the run that was adapted from it does not.
    asked = len(hub.requests)
    load_encoder(str(tmp_path / "run"))
    assert len(hub.requests) == asked
    # Without a network the local cache serves.
    with hub_files.offline():
        assert checkpoint_hash("hf://owner/flies") == checkpoint_hash(run)
        assert len(hub.requests) == asked


def test_what_the_hub_refuses_is_one_line(run, hub, monkeypatch):
    with pytest.raises(TceError, match="hf://owner/none; expected a checkpoint of tce"):
        load_encoder("hf://owner/none")
    hub.repos["owner/bert"] = {"config.json": b'{"model_type": "bert"}'}
    with pytest.raises(TceError, match="write hf:owner/bert"):
        load_encoder("hf://owner/bert")
    monkeypatch.setenv("HF_TOKEN", "hf_wrongtoken000")
    with pytest.raises(TceError, match="a repository that you may write to") as caught:
        publish(PublishOptions(str(run), "hf://owner/flies"))
    assert "hf_wrongtoken000" not in str(caught.value)
    assert "owner/flies" not in hub.repos


def test_an_index_of_a_stranger_fetches_nothing(run, hub, tmp_path, video):
    tce.publish(str(run), to="hf://owner/flies")
    tce.index(str(Path(video).parent), ckpt="hf://owner/flies", db=tmp_path / "db", engine="torch")
    asked, query = len(hub.requests), tmp_path / "query.mp4"
    write_video(query, draw_clip("Bow", 1, 0, 6, 48, 15, 0), 15)
    found = tce.search(db=str(tmp_path / "db"), video=str(query), top=1)
    assert found.figures and len(hub.requests) == asked, "the cache serves what the index names"
    for entry in (tmp_path / "cache").iterdir():
        os.rename(entry, tmp_path / entry.name)
    with pytest.raises(TceError, match="hf://owner/flies"):
        tce.search(db=str(tmp_path / "db"), video=str(query), top=1)
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    "address", ["hf://", "hf://name", "hf://a/b/c", "hf://../b", "hf://a/b@", "hf://a/b c", "hf://a/..@x"]
)
def test_addresses_of_another_form_are_refused(address):
    with pytest.raises(TceError, match="hf://owner/name"):
        parse_address(address)


def test_addresses():
    assert parse_address("hf://owner/name") == ("owner/name", None)
    assert parse_address("hf://owner/name@v1.0") == ("owner/name", "v1.0")
    with pytest.raises(OptionError, match="--private"):
        PublishOptions("run", "folder", private=True)
    with pytest.raises(OptionError, match="--license"):
        PublishOptions("run", "folder", license="MIT\ntags: x")


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"path": "/a/b/c"}, {"path": "c"}),
        ({"path": "lite2"}, {"path": "lite2"}),
        (
            {"weights": {"path": "hf:facebook/dinov2-small"}},
            {"weights": {"path": "hf:facebook/dinov2-small"}},
        ),
        ({"path": "hf:/home/me/model"}, {"path": "model"}),
        ({"note": "~/videos/x.mp4", "seed": 3}, {"note": "x.mp4", "seed": 3}),
        ({"a": ["D:\\work\\clip.avi", "plain words"]}, {"a": ["clip.avi", "plain words"]}),
    ],
)
def test_paths_lose_all_but_their_last_part(value, left):
    assert without_paths(value) == left


def test_text_of_a_card_stays_text():
    assert text("<b>|`x`\n# y") == "\\<b\\>\\|\\`x\\` \\# y"
