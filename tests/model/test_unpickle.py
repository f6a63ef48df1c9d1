import argparse
import builtins
import io
import os
import pickle
import random
import struct
import sys
import tarfile
import types
import warnings
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from tce.errors import TceError
from tce.model import unpickle
from tce.model.tensor_file import load_array_pickle, load_torch_file
from tce.model.unpickle import UnsafePickle

LAYOUTS = {"zip": True, "before-1.6": False}


@pytest.fixture(params=LAYOUTS)
def save(request, tmp_path):
    """Write an object with torch.save in either layout, and give the path."""

    def write(content, **options):
        path = tmp_path / "checkpoint.pth"
        torch.save(content, path, _use_new_zipfile_serialization=LAYOUTS[request.param], **options)
        return path

    return write


@pytest.fixture
def yacs(monkeypatch):
    """A stand-in for yacs, importable while the file is written and gone while it is read."""
    package, config = types.ModuleType("yacs"), types.ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self, entries):
            super().__init__(entries)
            self.__dict__["__immutable__"] = True
            self.__dict__["__deprecated_keys__"] = set()

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    config.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", package)
    monkeypatch.setitem(sys.modules, "yacs.config", config)
    yield CfgNode
    monkeypatch.delitem(sys.modules, "yacs", raising=False)
    monkeypatch.delitem(sys.modules, "yacs.config", raising=False)


def test_training_files_come_back_whole(save, yacs):
    tied = torch.randn(4, 5)
    content = {
        "epoch": 3,
        "state_dict": OrderedDict(weight=tied, part=tied[1:3, ::2], half=tied.half(), count=torch.tensor(7)),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "best_prec1": np.float64(61.5),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "config": yacs({"MODEL": yacs({"TRUNK": "resnet18"}), "LIST": [1, 2]}),
        "opt": argparse.Namespace(lr=0.1, name="x"),
        "kinds": (
            torch.float32,
            torch.Size([2, 3]),
            torch.device("cuda", 1),
            {1, 2},
            b"\x00\xff",
            bytearray(b"ab"),
        ),
        "counts": Counter("aab"),
        "grouped": defaultdict(list, a=[1]),
        "array": np.arange(6, dtype=">i4").reshape(2, 3),
        "scalars": [np.float32(1.5), np.int64(-3), np.bool_(True)],
    }
    path = save(content)
    for name in ("yacs", "yacs.config"):
        sys.modules.pop(name)
    found = load_torch_file(path)
    assert "yacs" not in sys.modules and "yacs.config" not in sys.modules
    for name, value in content["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value)
        assert found["state_dict"][name].dtype == value.dtype
    assert torch.equal(found["parameter"], content["parameter"])
    assert found["best_prec1"] == 61.5
    assert found["optimizer"]["param_groups"] == [{"lr": 0.1}]
    assert found["config"] == {"MODEL": {"TRUNK": "resnet18"}, "LIST": [1, 2]}
    assert type(found["config"]) is unpickle.Inert
    assert found["opt"] == {"lr": 0.1, "name": "x"}
    assert found["kinds"] == (
        torch.float32,
        (2, 3),
        torch.device("cpu"),
        {1, 2},
        b"\x00\xff",
        bytearray(b"ab"),
    )
    assert found["counts"] == {"a": 2, "b": 1}
    assert found["grouped"] == {"a": [1]}
    np.testing.assert_array_equal(found["array"], content["array"])
    assert found["scalars"] == [1.5, -3, True]
    assert found["epoch"] == 3


class Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 wrote its byte strings."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_text(self, text):
        data = text.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = save_text


class Python2Pickle:
    Pickler = Python2Pickler

    @staticmethod
    def dump(value, file, protocol=2):
        Python2Pickler(file, protocol).dump(value)


def test_files_of_python_2_and_torch_0_4(tmp_path):
    state = OrderedDict({"module.conv1.weight": torch.randn(2, 3)})
    path = tmp_path / "old.pth"
    torch.save(
        {"model": state, "name": "caf\xe9"},
        path,
        pickle_module=Python2Pickle,
        _use_new_zipfile_serialization=False,
    )
    assert b"U" in path.read_bytes() or b"T" in path.read_bytes()
    found = load_torch_file(path)
    assert list(found["model"]) == ["module.conv1.weight"]
    assert torch.equal(found["model"]["module.conv1.weight"], state["module.conv1.weight"])
    assert found["name"] == "caf\xe9"


# ---- files that would run code


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def wrappers(evil):
    return {
        "alone": evil,
        "in a state dict": {"model": OrderedDict(weight=torch.zeros(1), other=evil)},
        "as a key's tuple": {("a", evil): 1},
        "in the arguments of an allowed name": Call(OrderedDict, [("a", evil)]),
        "in the state of an allowed name": Call(OrderedDict, state={"hidden": evil}),
        "in a list of lists": [[[evil]]],
        "in a tensor's hooks": Call(
            torch._utils._rebuild_parameter, torch.zeros(1), True, OrderedDict({0: evil})
        ),
    }


@pytest.mark.parametrize("place", list(wrappers(None)))
@pytest.mark.parametrize(
    "name, make",
    [
        (f"{os.system.__module__}.system", lambda mark: Call(os.system, f"touch {mark}")),
        (r"(__builtin__|builtins)\.eval", lambda mark: Call(builtins.eval, f"open({str(mark)!r}, 'w')")),
        (r"(__builtin__|builtins)\.exec", lambda mark: Call(builtins.exec, f"open({str(mark)!r}, 'w')")),
        ("io.open", lambda mark: Call(io.open, str(mark), "w")),
        ("torch.hub.load", lambda mark: Call(torch.hub.load, str(mark), "model")),
        ("torch.serialization.load", lambda mark: Call(torch.load, str(mark))),
        ("torch.serialization.save", lambda mark: Call(torch.save, 1, str(mark))),
        ("torch.storage._load_from_bytes", lambda mark: Call(torch.storage._load_from_bytes, b"x")),
        ("numpy.save", lambda mark: Call(np.save, str(mark), np.zeros(1))),
        (r"(__builtin__|builtins)\.getattr", lambda mark: Call(getattr, dict, "clear")),
    ],
)
def test_nothing_named_by_a_file_runs(save, tmp_path, place, name, make):
    mark = tmp_path / "it-ran"
    path = save(wrappers(make(mark))[place])
    with pytest.raises(UnsafePickle, match=f"it asks to run {name}, which was refused") as caught:
        load_torch_file(path)
    assert str(path) in str(caught.value)
    assert not mark.exists()


def test_nothing_named_by_a_file_is_imported(save, tmp_path, monkeypatch):
    (tmp_path / "innocent_name.py").write_text(
        f"open({str(tmp_path / 'it-ran')!r}, 'w')\nclass Thing: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    class Thing:
        pass

    stand_in = types.ModuleType("innocent_name")
    stand_in.Thing = Thing
    Thing.__module__, Thing.__qualname__ = "innocent_name", "Thing"
    monkeypatch.setitem(sys.modules, "innocent_name", stand_in)
    path = save({"model": {"a": torch.zeros(1)}, "config": Thing()})
    del sys.modules["innocent_name"]
    with pytest.raises(UnsafePickle, match=r"innocent_name\.Thing"):
        load_torch_file(path)
    assert "innocent_name" not in sys.modules
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.__class__"),
        ("builtins", "dict.__subclasses__"),
        ("torch", "hub"),
        ("torch", "load"),
        ("numpy.core.multiarray", "__loader__"),
        ("yacs.config", "__builtins__"),
        ("yacs.config", "CfgNode.__init__"),
    ],
)
@pytest.mark.parametrize("opcode", ["global", "stack global", "inst"])
def test_names_are_matched_whole(tmp_path, module, name, opcode):
    if opcode == "global":
        data = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"."
    elif opcode == "inst":
        data = b"(i" + f"{module}\n{name}\n".encode() + b"."
    else:
        text = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
        data = b"\x80\x04" + text + b"\x93."
    path = tmp_path / "names.pkl"
    path.write_bytes(data)
    with pytest.raises(UnsafePickle, match="refused"):
        load_array_pickle(path)


@pytest.mark.parametrize(
    "target",
    ["torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict", "yacs.config\nCfgNode", "numpy\ndtype"],
)
def test_a_pickle_cannot_alter_what_it_may_call(tmp_path, target):
    before = (
        torch._utils._rebuild_tensor_v2.__defaults__,
        dict(vars(unpickle.Inert)),
        dict(vars(unpickle._DType)),
    )
    path = tmp_path / "altering.pkl"
    for name in ("__defaults__", "__setstate__", "__class__", "dtype", "_function"):
        # The name, then BUILD with the state (None, {name: 1}), which sets attributes.
        path.write_bytes(
            b"\x80\x02c"
            + target.encode()
            + b"\nN}"
            + b"X"
            + struct.pack("<I", len(name))
            + name.encode()
            + b"K\x01s\x86b."
        )
        with pytest.raises(TceError):
            load_array_pickle(path)
    after = (
        torch._utils._rebuild_tensor_v2.__defaults__,
        dict(vars(unpickle.Inert)),
        dict(vars(unpickle._DType)),
    )
    assert after == before


def test_programs_and_archives_are_refused(tmp_path):
    class Net(torch.nn.Module):
        def forward(self, x):
            return x + 1

    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(Net(), torch.zeros(1)), path)
    with pytest.raises(TceError, match=r"TorchScript program; save the model's state_dict\(\)"):
        load_torch_file(path)
    with tarfile.open(tmp_path / "old.tar", "w") as archive:
        archive.add(path, "storages")
    with pytest.raises(TceError, match="a tar archive"):
        load_torch_file(tmp_path / "old.tar")


# ---- damaged files


def test_truncated_files_are_reported(save):
    path = save({"model": OrderedDict(weight=torch.randn(8, 8), bias=torch.randn(8)), "epoch": 1})
    whole = path.read_bytes()
    for size in [*range(0, min(len(whole), 300), 7), *np.linspace(300, len(whole) - 1, 40).astype(int)]:
        path.write_bytes(whole[:size])
        with pytest.raises(TceError) as caught:
            load_torch_file(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_damaged_bytes_raise_nothing_else(save):
    path = save({"model": OrderedDict(weight=torch.randn(3)), "best": np.float64(1), "array": np.arange(3)})
    whole = bytearray(path.read_bytes())
    rng = random.Random(0)
    for _ in range(250):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            load_torch_file(path)
        except TceError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "data, found",
    [
        (b"", "an empty file"),
        (b"hello, this is a text file\n", "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "damaged"),
    ],
)
def test_other_files_are_reported(tmp_path, data, found):
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    with pytest.raises(TceError, match=f"file.pth; expected a file written by torch.save; found .*{found}"):
        load_torch_file(path)


def test_missing_files_and_folders_are_reported(tmp_path):
    with pytest.raises(TceError, match="no such file"):
        load_torch_file(tmp_path / "none.pth")
    with pytest.raises(TceError, match="a folder"):
        load_torch_file(tmp_path)


# ---- arrays


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
        np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.arange(4, dtype=">f8")[::2],
        np.array([[True, False]]),
        np.zeros((0, 5), np.float16),
    ],
    ids=["float32", "fortran", "big-endian", "bool", "empty"],
)
def test_arrays_come_back_whole(tmp_path, array, protocol):
    path = tmp_path / "array.pkl"
    path.write_bytes(pickle.dumps(array, protocol=protocol))
    found = load_array_pickle(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert found.shape == array.shape


def test_arrays_of_python_2(tmp_path):
    array = np.random.default_rng(0).normal(size=(5, 2))
    data = array.astype("<f8").tobytes()
    path = tmp_path / "array.pkl"
    # What Python 2 and NumPy 1 wrote: old module names, and bytes as strings.
    path.write_bytes(
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x05K\x02\x86"  # version and shape
        b"cnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + (b"T" + struct.pack("<i", len(data)) + data)
        + b"tb."
    )
    np.testing.assert_array_equal(load_array_pickle(path), array)


def test_lists_of_rows_are_arrays(tmp_path):
    path = tmp_path / "rows.pkl"
    path.write_bytes(pickle.dumps([np.arange(3.0), np.ones(3)]))
    np.testing.assert_array_equal(load_array_pickle(path), [[0, 1, 2], [1, 1, 1]])


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1},
        "text",
        [np.arange(3), np.arange(2)],
        ["a", "b"],
        np.array(["a"]),
        np.array([{}], dtype=object),
        np.zeros(2, dtype=[("x", "f4")]),
        np.array(["2020-01-01"], dtype="M8[D]"),
    ],
    ids=["dict", "text", "ragged", "texts", "text array", "objects", "records", "dates"],
)
def test_other_pickles_are_no_arrays(tmp_path, content):
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(TceError, match=r"other\.pkl; expected a pickled array"):
        load_array_pickle(path)


def test_arrays_hide_no_calls(tmp_path):
    mark = tmp_path / "it-ran"
    path = tmp_path / "array.pkl"
    path.write_bytes(pickle.dumps([np.zeros(2), Call(os.system, f"touch {mark}")]))
    with pytest.raises(UnsafePickle, match=r"system, which was refused"):
        load_array_pickle(path)
    assert not mark.exists()
