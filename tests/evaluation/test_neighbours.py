import numpy as np
import pytest
import torch

from tce.errors import TceError
from tce.evaluation import neighbours
from tce.evaluation.neighbours import nearest


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_QUERIES", 7)
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", 100)


@pytest.mark.parametrize("k", [1, 5, 130])
@pytest.mark.parametrize("order", ["random", "rising", "falling"])
def test_equals_sorting_everything(small_blocks, k, order):
    rng = np.random.default_rng(0)
    queries, rows = rng.normal(size=(23, 16)).astype("f4"), rng.normal(size=(1033, 16)).astype("f4")
    if order != "random":  # every block beats the last, or none does
        rows = rows[np.argsort(rows @ queries[0] * (1 if order == "rising" else -1))]
    similarity, index = nearest(queries, rows, k)
    for q in range(len(queries)):
        exact = [float(np.dot(queries[q].astype("f8"), row)) for row in rows]
        best = sorted(range(len(rows)), key=lambda i: -exact[i])[:k]
        assert index[q].tolist() == best
        np.testing.assert_allclose(similarity[q], [exact[i] for i in best], rtol=1e-5, atol=1e-5)


def test_equal_and_negative_similarities(small_blocks):
    rows = np.repeat(np.array([[-1.0, 0], [-2, 0], [-0.5, 0]], "f4"), 150, axis=0)
    similarity, index = nearest(np.array([[1, 0]], "f4"), rows, 160)
    np.testing.assert_array_equal(similarity[0], [-0.5] * 150 + [-1.0] * 10)
    assert len(set(index[0].tolist())) == 160


def test_reads_a_memory_map_and_halves(tmp_path):
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", mode="w+", dtype="f2", shape=(300, 4))
    rows[:] = np.random.default_rng(0).normal(size=rows.shape)
    _, index = nearest(torch.as_tensor(np.array(rows[5:6], "f4")) * 100, rows, 3)
    assert index.shape == (1, 3)
    _, whole = nearest(np.array(rows[5:6], "f4"), np.array(rows, "f4"), 3)
    np.testing.assert_array_equal(index, whole)


@pytest.mark.parametrize("k", [0, 4])
def test_refuses_an_impossible_k(k):
    with pytest.raises(TceError, match="k between 1 and the 3 rows"):
        nearest(np.ones((2, 2), "f4"), np.ones((3, 2), "f4"), k)


def test_refuses_other_dimensions():
    with pytest.raises(TceError, match="one dimension"):
        nearest(np.ones((2, 2), "f4"), np.ones((3, 4), "f4"), 1)
