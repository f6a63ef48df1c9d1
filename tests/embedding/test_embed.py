import dataclasses
import os
import threading

import av
import numpy as np
import pytest
import torch
from PIL import Image

import tce
import tce.embedding.embed_command
from tce.cli import main
from tce.embedding.embed import embed, embed_videos
from tce.embedding.embed_command import embed_inputs
from tce.errors import OptionError, TceError
from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tce.options.embed import EmbedOptions
from tce.options.network import NetworkOptions
from tce.video import open_video as isolated
from tce.video.base import VideoError
from tce.video.open_video import open_video
from tce.video.pool import DecodePool
from tce.video.synthetic import draw_clip, write_video
from tests.helpers import untrusted
from tests.helpers.hard_videos import gif

SIZE = 32
TINY = NetworkOptions(model="resnet18", image_size=SIZE, device="cpu")


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("resnet18", embedding_size=16, image_size=SIZE, seed=0).eval()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three videos of 5, 40 and 3 frames, of two sizes."""
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for number, (name, frames, size) in enumerate((("Bow", 5, 64), ("Wave", 40, 64), ("Kick", 3, 48))):
        paths.append(folder / f"{name}.mp4")
        write_video(paths[-1], draw_clip(name, 0, number, frames, size, fps=10, seed=0), fps=10)
    return paths


def one_by_one(path, encoder) -> np.ndarray:
    """Frame after frame by PyAV, one forward pass each."""
    with av.open(str(path)) as container, torch.no_grad():
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.concatenate([encoder(encoder.preprocess(frame[None])).numpy() for frame in frames])


def test_embeddings_are_the_networks_frame_by_frame(clips, encoder):
    expected = one_by_one(clips[1], encoder)
    for batch_size in (1, 7, 64):
        found = embed(clips[1], encoder, batch_size=batch_size, device="cpu")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(embed(clips[1], encoder, every=3, device="cpu"), expected[::3], atol=2e-5)
    with open_video(clips[1]) as video:
        np.testing.assert_allclose(embed(video, encoder, device="cpu"), expected, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)


def test_frames_in_memory_and_in_folders(clips, encoder, tmp_path):
    frames = draw_clip("Bow", 0, 0, 5, 64, 10, seed=0)
    expected = embed(frames, encoder, device="cpu")
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{number:06d}.png")
    np.testing.assert_allclose(embed(str(tmp_path), encoder, device="cpu"), expected, atol=2e-5)
    with pytest.raises(TceError, match=r"uint8 \[N, H, W, 3\]"):
        embed(frames[0], encoder)
    with pytest.raises(TceError, match="float"):
        embed(frames / 255, encoder)


def test_short_videos_share_batches_and_keep_their_order(clips, encoder):
    videos = [open_video(path) for path in (*clips, *clips[::-1])]
    outcomes = list(embed_videos(videos, encoder, batch_size=16, device="cpu"))
    assert [number for number, _ in outcomes] == list(range(6))
    for (_, outcome), path in zip(outcomes, (*clips, *clips[::-1])):
        np.testing.assert_allclose(outcome.embeddings, one_by_one(path, encoder), atol=2e-5)
        np.testing.assert_array_equal(outcome.frame, np.arange(len(outcome.embeddings)))
        np.testing.assert_allclose(outcome.time, np.arange(len(outcome.embeddings)) / 10, atol=1e-6)


def test_large_frames_are_decoded_in_small_chunks(clips, monkeypatch):
    monkeypatch.setattr(isolated, "CHUNK_BYTES", 3 * 64 * 64 * 3)  # three frames
    *chunks, times = isolated.stream_chunks(isolated.StreamJob(str(clips[1])))
    assert [len(chunk.frames) for chunk in chunks] == [3] * 13 + [1] and len(times) == 40


def test_modes_and_thread_counts_are_left_as_they_were(clips, encoder):
    threads = torch.get_num_threads(), threading.active_count()
    encoder.train()
    embed(clips[0], encoder, device="cpu")
    assert encoder.training
    encoder.eval()
    assert (torch.get_num_threads(), threading.active_count()) == threads


def test_the_file_says_where_each_embedding_comes_from(clips, tmp_path, capsys):
    network = build_encoder("resnet18", embedding_size=8, image_size=SIZE, seed=1).eval()
    save_model(tmp_path / "model.safetensors", network)
    output = tmp_path / "new" / "e.npz"
    arguments = ["embed", "--ckpt", str(tmp_path / "model.safetensors"), "--input", *map(str, clips[:2])]
    assert main([*arguments, "--output", str(output), "--every", "2", "--device", "cpu"]) == 0
    assert "23 embeddings of 8 numbers from 2 videos" in capsys.readouterr().out
    with np.load(output, allow_pickle=False) as stored:
        assert set(stored.files) == {"embeddings", "video", "frame", "time"}
        assert stored["embeddings"].dtype == np.float32
        assert stored["video"].tolist() == [str(clips[0])] * 3 + [str(clips[1])] * 20
        assert stored["frame"].tolist() == [0, 2, 4, *range(0, 40, 2)]
        np.testing.assert_allclose(stored["time"], stored["frame"] / 10, atol=1e-6)
        expected = np.concatenate([one_by_one(path, network)[::2] for path in clips[:2]])
        np.testing.assert_allclose(stored["embeddings"], expected, atol=2e-5)


def test_folders_are_searched(clips, tmp_path):
    result = embed_inputs(EmbedOptions((str(clips[0].parent),), str(tmp_path / "e.npz"), TINY))
    assert result.figures["videos"] == 3
    assert result.figures["frames"] == 48
    assert result.figures["weights"] == "resnet18, random weights"


def test_a_bad_video_among_several_is_skipped_counted_and_named(clips, tmp_path, caplog):
    bad = tmp_path / "notes.mp4"
    bad.write_text("not a video")
    options = EmbedOptions((str(clips[0]), str(bad), str(clips[2])), str(tmp_path / "e.npz"), TINY)
    result = embed_inputs(options)
    assert list(result.figures["skipped"]) == [str(bad)]
    assert "skipped 1 video" in result.text
    assert "notes.mp4" in caplog.text
    with np.load(tmp_path / "e.npz") as stored:
        assert sorted(set(stored["video"].tolist())) == sorted(map(str, (clips[0], clips[2])))


def test_hostile_inputs_cost_themselves_only(clips, tmp_path, caplog):
    """A link to nothing, a named pipe, a device, a playlist and a bomb beside good videos."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for clip in clips:
        (folder / clip.name).symlink_to(clip)
    bad = [folder / name for name in ("link.mp4", "pipe.mp4", "zero.mp4", "list.mp4", "bomb.gif")]
    bad[0].symlink_to(folder / "nothing.mp4")
    os.mkfifo(bad[1])
    bad[2].symlink_to("/dev/zero")
    bad[3].write_text(f"ffconcat version 1.0\nfile '{clips[0]}'\n")
    gif(bad[4], 60_000, 60_000)
    reasons = ("does not exist", "a named pipe", "a device", "concat script", "60000 x 60000")
    outputs = []
    for inputs in ((folder,), (*bad, *clips)):
        caplog.clear()
        result = embed_inputs(EmbedOptions(tuple(map(str, inputs)), str(tmp_path / "e.npz"), TINY))
        assert result.figures["videos"] == 3 and result.figures["frames"] == 48
        named = caplog.text + str(result.figures["skipped"])
        for path in bad:
            assert path.name in named
        with np.load(tmp_path / "e.npz") as stored:
            outputs.append(stored["embeddings"][np.argsort(stored["video"], kind="stable")])
    assert all(reason in caplog.text for reason in reasons)
    for path, reason in zip(bad, reasons):
        with pytest.raises(TceError, match=reason):
            embed_inputs(EmbedOptions((str(path),), str(tmp_path / "e.npz"), TINY))


def test_a_decoder_that_hangs_or_crashes_costs_its_video_only(clips, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(tce.embedding.embed, "stream_chunks", untrusted.stream_or_act)
    monkeypatch.setattr(
        tce.embedding.embed_command, "decoding_pool", lambda videos: DecodePool(1, 2.0, 3 << 29)
    )
    bad = [tmp_path / f"{deed}.mp4" for deed in ("hang", "segfault", "memory")]
    for path in bad:
        path.symlink_to(clips[0])
    options = EmbedOptions(tuple(map(str, (*bad, *clips))), str(tmp_path / "e.npz"), TINY)
    result = embed_inputs(options)
    assert list(result.figures["skipped"]) == list(map(str, bad)) and result.figures["frames"] == 48
    for reason in ("progress within 2 s", "SIGSEGV", "out of memory"):
        assert reason in caplog.text


def test_nothing_good_is_an_error_and_leaves_the_old_file(clips, tmp_path):
    bad = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path in bad:
        path.write_bytes(b"")
    output = tmp_path / "e.npz"
    output.write_bytes(b"old")
    with pytest.raises(VideoError, match=r"a\.mp4"):
        embed_inputs(EmbedOptions((str(bad[0]),), str(output), TINY))
    with pytest.raises(TceError, match="none of 2 videos"):
        embed_inputs(EmbedOptions(tuple(map(str, bad)), str(output), TINY))
    with pytest.raises(VideoError, match="nothing there"):
        embed_inputs(EmbedOptions((str(clips[0]), str(tmp_path / "c.mp4")), str(output), TINY))
    assert output.read_bytes() == b"old"


def test_a_truncated_video_is_no_half_result(encoder, tmp_path):
    whole = tmp_path / "whole.mkv"
    write_video(whole, draw_clip("Box", 0, 0, 60, 96, fps=10, seed=0), fps=10)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert len(embed(whole, encoder, device="cpu")) == 60
    with pytest.raises(VideoError, match=r"cut\.mkv"):
        embed(cut, encoder, device="cpu")


def test_an_interruption_keeps_the_finished_videos(clips, tmp_path, monkeypatch):
    whole = tce.embedding.embed_command.embed_videos

    def interrupted(*arguments, **keywords):
        outcomes = whole(*arguments, **keywords)
        yield next(outcomes)
        raise KeyboardInterrupt

    monkeypatch.setattr(tce.embedding.embed_command, "embed_videos", interrupted)
    options = EmbedOptions(tuple(map(str, clips)), str(tmp_path / "e.npz"), TINY)
    with pytest.raises(KeyboardInterrupt, match="holds 1 of 3 videos"):
        embed_inputs(options)
    with np.load(tmp_path / "e.npz") as stored:
        assert len(stored["embeddings"]) == 5


def test_networks_come_from_checkpoints_or_seeds(tmp_path, encoder, caplog):
    save_model(tmp_path / "model.safetensors", encoder)
    loaded, weights = tce.embedding.embed_command.open_encoder(NetworkOptions(ckpt=str(tmp_path)))
    assert weights.startswith("resnet18, ")
    np.testing.assert_array_equal(loaded.head.weight.numpy(force=True), encoder.head.weight.numpy(force=True))
    with pytest.raises(OptionError, match="--output-size"):
        tce.embedding.embed_command.open_encoder(NetworkOptions(ckpt=str(tmp_path), output_size=7))
    first, again, other = (
        tce.embedding.embed_command.open_encoder(NetworkOptions(model="resnet18", output_size=8, seed=seed))[
            0
        ]
        for seed in (0, 0, 1)
    )
    assert "random weights" in caplog.text
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert first.embedding_size == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "a.mp4", "--output", "e.npy"], "--output"),
        (["--input", "--output", "e.npz"], "--input"),
        (["--input", "a.mp4", "--output", "e.npz", "--every", "0"], "--every"),
        (["--input", "a.mp4", "--output", "e.npz", "--batch-size", "0"], "--batch-size"),
        (["--input", "a.mp4", "--output", "/proc/none/e.npz"], "--output"),
        (["--input", "missing.mp4", "--output", "e.npz"], "missing.mp4"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"")
    assert main(["embed", *arguments]) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    assert message in printed[0]


def test_onnxruntime_embeds_as_torch_does():
    frames = np.random.default_rng(0).integers(0, 256, (9, 40, 50, 3), np.uint8)
    encoder = build_encoder("resnet18", 8, image_size=32, seed=0)
    expected = embed(frames, encoder, batch_size=4, device="cpu")
    found = embed(frames, encoder, batch_size=4, device="cpu", engine="onnxruntime")
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_layer_features_leaves_the_head_out():
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    encoder = build_encoder("resnet18", 8, image_size=32, seed=0).eval()
    found = embed(frames, encoder, device="cpu", layer="features")
    with torch.no_grad():
        features = encoder.features(encoder.preprocess(frames))
    np.testing.assert_allclose(found, torch.nn.functional.normalize(features, dim=1).numpy(), atol=1e-5)
    with pytest.raises(OptionError, match="--layer; expected features or embedding; found 'logits'"):
        embed(frames, encoder, device="cpu", layer="logits")


def test_a_network_of_random_weights_embeds_with_its_features():
    encoder, _ = tce.embedding.embed_command.open_encoder(NetworkOptions(model="resnet18"))
    assert (encoder.config.head, encoder.embedding_size) == ("none", 512)
    encoder, _ = tce.embedding.embed_command.open_encoder(NetworkOptions(model="resnet18", output_size=16))
    assert encoder.embedding_size == 16


def test_an_encoder_embeds_by_itself(clips, encoder):
    one = encoder.embed(clips[0], every=2)
    np.testing.assert_allclose(one.vectors, one_by_one(clips[0], encoder)[::2], atol=2e-5)
    assert set(one.video) == {str(clips[0])} and one.frame.tolist() == list(range(0, 2 * len(one), 2))
    several = encoder.embed([clips[0], clips[1]])
    assert list(dict.fromkeys(several.video)) == [str(clips[0]), str(clips[1])]
    frames = tce.open_video(clips[0]).frames([0, 1])
    np.testing.assert_allclose(encoder.embed(frames).vectors, several.vectors[:2], atol=2e-5)
    with pytest.raises(tce.VideoError):
        encoder.embed([clips[0], "missing.mp4"])


def test_random_names_the_untrained_network_as_in_evaluate(caplog):
    named, weights = tce.embedding.embed_command.open_encoder(
        NetworkOptions(ckpt="random", model="resnet18", seed=3)
    )
    assert not caplog.records and weights == "resnet18, random weights"
    unset, _ = tce.embedding.embed_command.open_encoder(NetworkOptions(model="resnet18", seed=3))
    assert "no --ckpt" in caplog.text
    for one, other in zip(named.state_dict().values(), unset.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_center_subtracts_each_groups_mean(tmp_path):
    for name, level in (("p1_a", 40), ("p1_b", 60), ("p2_a", 160), ("p2_b", 220)):
        (tmp_path / name).mkdir()
        for frame in range(3):
            pixels = np.random.default_rng(frame).integers(0, 30, (32, 32, 3), np.uint8) + level
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{frame}.png")
    names = [str(tmp_path / name) for name in ("p1_a", "p1_b", "p2_a", "p2_b")]
    encoder = build_encoder("resnet18", head="none", image_size=32, seed=0).eval()
    network = NetworkOptions(device="cpu", precision="float32", engine="torch")
    plain = np.concatenate(
        [one.embeddings for _, one in embed_videos(names, encoder, device="cpu", unit=False)]
    ).astype(np.float64)
    for by, groups in (
        (r"(p\d)_", [0] * 6 + [1] * 6),
        ("recording", np.repeat(range(4), 3)),
        ("folder", [0] * 12),
    ):
        found = tce.embedding.embed_command.gather(names, encoder, dataclasses.replace(network, center=by), 1)
        expected = plain.copy()
        for group in set(groups):
            own = np.array(groups) == group
            expected[own] -= plain[own].mean(axis=0)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found.stored.vectors, expected, atol=1e-4)
