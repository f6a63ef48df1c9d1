import io
import pickle
import sys

import numpy as np
import pytest

from tce.embedding.embedding_file import Embeddings, load_embeddings, save_embeddings
from tce.errors import TceError

DATA = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def test_what_is_saved_is_loaded(tmp_path):
    names = np.array(["a.mp4"] * 4 + ["ümlaut.mp4"] * 2)
    save_embeddings(tmp_path / "e.npz", Embeddings(DATA, names, np.arange(6), np.arange(6) / 2))
    loaded = load_embeddings(tmp_path / "e.npz")
    np.testing.assert_array_equal(loaded.vectors, DATA)
    assert loaded.video.tolist() == names.tolist()
    assert loaded.frame.tolist() == list(range(6))
    assert loaded.time.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_plain_arrays_in_every_usual_file(tmp_path, protocol):
    np.save(tmp_path / "e.npy", DATA)
    np.savez(tmp_path / "e.npz", anything=DATA)
    (tmp_path / "e").write_bytes(pickle.dumps(DATA, protocol=protocol))
    for name in ("e.npy", "e.npz", "e"):
        loaded = load_embeddings(tmp_path / name)
        np.testing.assert_array_equal(loaded.vectors, DATA)
        assert loaded.video is None


def saved(*arrays, **named) -> bytes:
    file = io.BytesIO()
    np.savez(file, *arrays, **named)
    return file.getvalue()


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"just text", "damaged"),
        (saved(DATA)[:-40], "damaged"),
        (saved(a=DATA, b=DATA), "arrays named a, b"),
        (saved(embeddings=DATA, video=np.array(["a"])), "video"),
        (saved(np.array([{}, {}])), "Python objects"),
        (saved(DATA[0]), r"shape \[4\]"),
        (saved(DATA * np.nan), "NaN"),
        (b"\x93NUMPY\x01\x00v\x00", "damaged"),
        (pickle.dumps(Evil()), "print"),
        (pickle.dumps({"a": 1}), "array"),
    ],
)
def test_bad_files_are_reported_in_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "e.npz"
    path.write_bytes(content)
    with pytest.raises(TceError, match=message) as caught:
        load_embeddings(path)
    assert "\n" not in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(TceError, match="no such file"):
        load_embeddings(tmp_path / "none.npy")
    with pytest.raises(TceError, match="folder"):
        load_embeddings(tmp_path)


def sample() -> Embeddings:
    vectors = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    names = np.array(["a.mp4"] * 3 + ["<b> & é.mp4"] * 4)
    return Embeddings(vectors, names, np.array([0, 1, 2, 0, 1, 2, 3]), np.arange(7) / 25)


@pytest.mark.parametrize("name", ["e.npz", "e.parquet"])
def test_both_files_hold_everything(name, tmp_path):
    sample().save(tmp_path / name)
    again = load_embeddings(tmp_path / name)
    for field in ("vectors", "video", "frame", "time"):
        np.testing.assert_array_equal(getattr(again, field), getattr(sample(), field))
    Embeddings(sample().vectors).save(tmp_path / name)  # of unknown origin
    again = load_embeddings(tmp_path / name)
    assert again.video is None and again.vectors.dtype == np.float32


def test_a_parquet_table_of_something_else_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for columns in ({"path": ["a"]}, {"vector": [1.0]}, {"vector": [[1.0], [1.0, 2.0]]}, {"vector": [["a"]]}):
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        with pytest.raises(TceError, match=r"t\.parquet"):
            load_embeddings(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(TceError, match=r"t\.parquet"):
        load_embeddings(tmp_path / "t.parquet")


def test_a_dataframe_holds_origins_and_numbers(monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = sample().to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["video", "frame", "time", 0, 1, 2, 3, 4] and len(frame) == 7
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TceError, match=r"a DataFrame; expected pandas; .*pip install pandas"):
        sample().to_dataframe()


def test_a_notebook_shows_a_table():
    assert repr(sample()) == "Embeddings(7 frames of 5 numbers, 2 videos)"
    shown = sample()._repr_html_()
    assert "&lt;b&gt; &amp; é.mp4" in shown and "<b>" not in shown and shown.count("<tr>") == 6
    assert len(sample()) == 7
