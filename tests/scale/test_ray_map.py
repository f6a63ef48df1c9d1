"""Work on Ray gives what one process gives, also when a worker dies."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pytest

import tce
from tce.errors import TceError
from tce.retrieval.frame_table import list_indexes
from tce.scale.ray_map import ray_map
from tce.video.synthetic import make_clips

pytest.importorskip("ray", reason="Ray is not installed")

SETTINGS = {
    "ckpt": "random",
    "model": "resnet18",
    "image_size": 32,
    "device": "cpu",
    "engine": "torch",
    "precision": "float32",
}


@pytest.fixture(scope="module")
def cluster():
    """Two processes of this machine, for all tests of this module."""
    import ray

    helpers = str(Path(__file__).parents[1] / "helpers")
    source = str(Path(tce.__file__).parents[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{source}:{helpers}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.syspath_prepend(helpers)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    made = make_clips(folder, classes=2, per_class=4, frames=6, size=48, groups=2, test_groups=1)
    (made.videos / "bad.mp4").write_bytes(b"no video")
    return made.videos


@pytest.mark.timeout(180)
def test_a_killed_worker_costs_only_its_own_chunk(cluster, tmp_path):
    from ray_tasks import DyingTask

    found = list(ray_map(DyingTask(str(tmp_path), 13), list(range(24)), "local", workers=2, most=2))
    assert [value for value in found if not isinstance(value, Exception)] == [
        n * n for n in range(24) if n != 3
    ]
    assert str(found[3]) == "3 is bad"  # an item's error is its result, and is not repeated
    worked = {int(mark.name): mark.read_text().splitlines() for mark in tmp_path.iterdir()}
    again = {item for item, times in worked.items() if len(times) > 1}
    assert 13 in again and again <= {12, 13}
    assert len({pid for times in worked.values() for pid in times}) >= 3  # two workers, and one more


@pytest.mark.timeout(180)
def test_embeddings_and_bad_videos_are_those_of_one_process(cluster, videos, tmp_path, caplog):
    from tce.api import command_function

    embed = command_function("embed")
    results = [
        embed(input=(str(videos),), output=str(tmp_path / f"{ray}.npz"), ray=ray, **SETTINGS)
        for ray in (None, "local")
    ]
    here, there = (np.load(tmp_path / f"{ray}.npz") for ray in (None, "local"))
    np.testing.assert_allclose(there["embeddings"], here["embeddings"], atol=1e-5)
    for name in ("video", "frame", "time"):
        np.testing.assert_array_equal(there[name], here[name])
    assert results[0].figures["skipped"].keys() == results[1].figures["skipped"].keys() != set()


@pytest.mark.timeout(180)
def test_an_index_made_on_ray_has_the_same_rows(cluster, videos, tmp_path):
    tables = []
    for ray in (None, "local"):
        db = tmp_path / f"{ray}"
        tce.index(str(videos), db=str(db), every=3, ray=ray, **SETTINGS)
        rows = lance.dataset(f"{db}/{list_indexes(str(db))[0].name}.lance").to_table().to_pylist()
        tables.append(sorted(rows, key=lambda row: (row["video"], row["frame"])))
    assert len(tables[0]) == len(tables[1]) > 0
    for here, there in zip(*tables):
        assert here["thumbnail"] == there["thumbnail"]
        np.testing.assert_allclose(here["vector"], there["vector"], atol=1e-5)


def test_an_unreachable_cluster_is_one_line(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(
        ray, "init", lambda **settings: (_ for _ in ()).throw(ConnectionError("no cluster\nat all"))
    )
    with pytest.raises(
        TceError, match=r"--ray 10\.0\.0\.1:6379; expected a Ray cluster that can be reached; found no cl"
    ):
        next(ray_map(None, [1], "10.0.0.1:6379"))
