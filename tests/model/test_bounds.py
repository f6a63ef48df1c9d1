"""Files that declare or unpack to far more than they hold cost neither memory nor time."""

import io
import pickle
import struct
import sys
import time
import zipfile

import numpy as np
import pytest
import torch

from tce.embedding.embedding_file import load_embeddings, read_arrays
from tce.errors import TceError
from tce.model.checkpoint import describe, load_encoder
from tce.model.resnet import resnet
from tce.model.tensor_file import MAGIC, PROTOCOL, load_array_pickle, load_torch_file
from tests.helpers.memory import limited_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited with RLIMIT_AS")

GIGABYTE = 1 << 30


def refused(read, path, reported):
    """`read` refuses the file in one line within the bounds."""
    start = time.monotonic()
    with limited_memory(400), pytest.raises(TceError, match=reported) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert time.monotonic() - start < 30
    return str(caught.value)


class TorchPickler(pickle._Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, Reference) else None


class Reference:
    def __init__(self, key, count):
        self.id = ("storage", torch.FloatStorage, key, "cpu", count)


class LegacyReference(Reference):
    def __init__(self, key, count):
        super().__init__(key, count)
        self.id += (None,)


class Rebuilt:
    def __init__(self, reference, size, stride):
        self.parts = torch._utils._rebuild_tensor_v2, (reference, 0, size, stride, False, {})

    def __reduce__(self):
        return self.parts


def pickled(value):
    buffer = io.BytesIO()
    TorchPickler(buffer, 2).dump(value)
    return buffer.getvalue()


def archive(path, content, members, compression=zipfile.ZIP_STORED):
    """A file in torch's zip layout."""
    with zipfile.ZipFile(path, "w", compression) as target:
        target.writestr("archive/data.pkl", content)
        for name, data in members.items():
            target.writestr(f"archive/data/{name}", data)
        target.writestr("archive/version", "3\n")
    return path


def test_an_archive_that_unpacks_to_gigabytes(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        target.writestr(
            "archive/data.pkl", pickled({"a": Rebuilt(Reference("0", GIGABYTE // 4), (1,), (1,))})
        )
        with target.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(GIGABYTE >> 24):
                member.write(bytes(1 << 24))
    reported = refused(describe, path, "unpacks to 1,073,74")
    assert "do not trust" in reported


def deflated(path, name, start, piece, count, end=b""):
    """An archive whose one member is long and shrinks to little."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
        target.open(name, "w", force_zip64=True) as member,
    ):
        member.write(start)
        for _ in range(count):
            member.write(piece)
        member.write(end)
    return path


def test_a_pickle_that_unpacks_to_gigabytes(tmp_path):
    start = b"\x80\x02X" + struct.pack("<I", 640 << 20)
    path = deflated(tmp_path / "bomb.pt", "archive/data.pkl", start, b"a" * (1 << 24), 40, b".")
    refused(load_torch_file, path, "unpacks to 671,088,")


@pytest.mark.parametrize("count", [10**9, 10**18])
def test_storages_of_declared_size(tmp_path, count):
    weight = {"weight": Rebuilt(Reference("0", count), (count,), (1,))}
    path = archive(tmp_path / "a.pt", pickled(weight), {"0": bytes(16)})
    refused(describe, path, "a storage of 4 numbers in place of 1000")

    weight = {"weight": Rebuilt(LegacyReference("0", count), (count,), (1,))}
    start = b"".join(pickle.dumps(v, 2) for v in (MAGIC, PROTOCOL, {"little_endian": True}))
    legacy = tmp_path / "b.pt"
    legacy.write_bytes(start + pickled(weight) + pickle.dumps(["0"], 2) + struct.pack("<q", count))
    refused(describe, legacy, "a declared storage of 4,000,000")


def test_many_storages_of_the_whole_files_size(tmp_path):
    """Each is no larger than the file, all of them together are."""
    weights = {str(i): Rebuilt(LegacyReference(str(i), 1 << 20), (1,), (1,)) for i in range(200)}
    start = b"".join(pickle.dumps(v, 2) for v in (MAGIC, PROTOCOL, {"little_endian": True}))
    path = tmp_path / "many.pt"
    path.write_bytes(start + pickled(weights) + bytes(1 << 22))
    refused(load_torch_file, path, "a declared storage")


@pytest.mark.parametrize(
    "size, stride, found",
    [((10**9,), (1,), "out of bounds"), ((10**9, 64), (0, 1), r"tensors of [\d,]+ bytes in a file")],
    ids=["beyond the storage", "zero stride"],
)
def test_tensors_of_declared_size(tmp_path, size, stride, found):
    storage = Reference("0", 64)
    state = {name: Rebuilt(storage, size, stride) for name in resnet("resnet18").state_dict()}
    path = archive(tmp_path / "a.pt", pickled({"state_dict": state}), {"0": bytes(256)})
    for read in (load_encoder, describe):
        refused(read, path, found)


def test_one_storage_under_very_many_names(tmp_path):
    storage = Reference("0", 1 << 18)
    state = {f"layer{i}.weight": Rebuilt(storage, (1 << 18,), (1,)) for i in range(2000)}
    path = archive(tmp_path / "a.pt", pickled(state), {"0": bytes(1 << 20)})
    refused(describe, path, r"tensors of 2,097,152,000 bytes in a file")


def billion_laughs(depth, leaf, kind):
    """A pickle of lists, tuples or mappings that hold the same ones below twice each."""
    value = leaf
    for _ in range(depth):
        value = kind(value)
    return value


NESTED = {
    "lists": lambda value: [value, value],
    "tuples": lambda value: (value, value),
    "mappings": lambda value: {"a": value, "b": value},
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("key", ["state_dict", "epoch", "tce"])
def test_billion_laughs_in_a_checkpoint(tmp_path, kind, key):
    path = tmp_path / "laughs.pt"
    torch.save({key: billion_laughs(60, "ha", NESTED[kind]), "other": 1}, path)
    refused(describe, path, r"laughs\.pt(; expected a |: its description; expected at most)")


@pytest.mark.parametrize("kind", NESTED)
def test_billion_laughs_in_an_array(tmp_path, kind):
    path = tmp_path / "laughs.pkl"
    path.write_bytes(pickle.dumps(billion_laughs(60, "ha", NESTED[kind])))
    refused(load_embeddings, path, "expected a pickled array of numbers")


def test_nested_tuples_as_keys(tmp_path):
    """Hashing a tuple visits every part of it, however often it is the same one."""
    path = tmp_path / "key.pkl"
    laughs = pickle.dumps(billion_laughs(60, "ha", NESTED["tuples"]), 2)[:-1]
    for ending in (b"}" + laughs[2:] + b"K\x01s", laughs[2:] + b"K\x01u", laughs[2:] + b"\x91"):
        mark = b"" if ending.endswith(b"s") else b"}(" if ending.endswith(b"u") else b"("
        path.write_bytes(b"\x80\x04" + mark + ending + b".")
        refused(load_array_pickle, path, "a key that is neither short text nor a number")


@pytest.mark.parametrize(
    "call",
    [b"c_codecs\nencode\nq\x01", b"c__builtin__\nbytearray\nq\x01", b"c__builtin__\nlist\nq\x01"],
    ids=["encode", "bytearray", "list"],
)
def test_copies_without_end(tmp_path, call):
    """A megabyte of text, and a call of nine bytes that copies it, very often."""
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
    path = tmp_path / "copies.pkl"
    path.write_bytes(b"\x80\x02" + text + call + b"](" + b"h\x01h\x00\x85R" * 2000 + b"e.")
    refused(load_array_pickle, path, "grows far beyond the file's size")


def test_one_row_very_often(tmp_path):
    row = list(range(10_000))
    path = tmp_path / "rows.pkl"
    path.write_bytes(pickle.dumps([row] * 50_000))
    refused(load_embeddings, path, "expected a pickled array of numbers")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of two billion places
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",  # bytes
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc.",  # a bytearray
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",  # a frame
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"abc.",  # text
    ],
    ids=["memo", "bytes", "bytearray", "frame", "text"],
)
def test_instructions_that_declare_a_size(tmp_path, data):
    path = tmp_path / "declared.pkl"
    path.write_bytes(data)
    refused(load_array_pickle, path, r"declared\.pkl; expected a pickled array")


def test_an_npz_that_unpacks_to_gigabytes(tmp_path):
    header = declaring((GIGABYTE // 512, 128), data=b"")
    path = deflated(tmp_path / "bomb.npz", "embeddings.npy", header, bytes(1 << 24), GIGABYTE >> 24)
    for read in (load_embeddings, read_arrays):
        refused(read, path, "unpacks to 1,073,74")


def declaring(shape, descr="<f4", data=bytes(64)):
    """An .npy file whose header declares a shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


@pytest.mark.parametrize("shape", [(10**9, 128), (4, 10**12), (2**40, 2**40), (-1, 4), (0, 10**15)])
def test_arrays_of_declared_shape(tmp_path, shape):
    alone = tmp_path / "e.npy"
    alone.write_bytes(declaring(shape))
    refused(load_embeddings, alone, r"e\.npy; expected ")
    inside = tmp_path / "e.npz"
    with zipfile.ZipFile(inside, "w") as target:
        target.writestr("embeddings.npy", declaring(shape))
    readers = (load_embeddings,) if 0 in shape else (load_embeddings, read_arrays)  # nothing is an array
    for read in readers:
        refused(read, inside, r"e\.npz; expected ")


def test_a_long_header(tmp_path):
    path = tmp_path / "e.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 4_000_000_000) + b"{" * 100)
    refused(load_embeddings, path, "damaged")
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 5_000_000) + b"(" * 5_000_000)
    refused(load_embeddings, path, "damaged")


def test_real_files_stay_within_the_bounds(tmp_path):
    """Names of videos shrink a hundredfold; weights saved under two names are read once."""
    rows = 20_000
    names = np.repeat(
        np.array([f"a/very/long/name/of/a/folder/clip{i:05d}.mp4" for i in range(20)]), rows // 20
    )
    np.savez_compressed(
        tmp_path / "e.npz", embeddings=np.random.default_rng(0).normal(size=(rows, 16)), video=names
    )
    with limited_memory(400):
        assert load_embeddings(tmp_path / "e.npz").video.tolist() == names.tolist()
    tied = torch.randn(1000, 100)
    torch.save({"a": tied, "b": tied, "c": tied.half(), "d": tied[::2, ::3]}, tmp_path / "tied.pt")
    found = load_torch_file(tmp_path / "tied.pt")
    assert torch.equal(found["a"], tied) and torch.equal(found["d"], tied[::2, ::3])
    assert found["a"].data_ptr() == found["b"].data_ptr()
