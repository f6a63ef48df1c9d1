import io
import pickle

import numpy as np
import pytest

from tce.embedding.embedding_file import Embeddings, load_embeddings, save_embeddings
from tce.errors import TceError

DATA = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def test_what_is_saved_is_loaded(tmp_path):
    names = np.array(["a.mp4"] * 4 + ["ümlaut.mp4"] * 2)
    save_embeddings(tmp_path / "e.npz", Embeddings(DATA, names, np.arange(6), np.arange(6) / 2))
    loaded = load_embeddings(tmp_path / "e.npz")
    np.testing.assert_array_equal(loaded.embeddings, DATA)
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
        np.testing.assert_array_equal(loaded.embeddings, DATA)
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
def test_bad_files_are_told_in_one_line(tmp_path, capsys, content, message):
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
