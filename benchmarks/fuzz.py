"""Feed every parser with damaged files, and see that it answers with a result or a typed error.

    python benchmarks/fuzz.py [--inputs 1000000] [--seed 0] [--only lists json]

Valid files are damaged: bytes changed, inserted, cut, repeated, replaced by tokens that such formats treat
specially. A parser may return or raise a TceError; anything else is a finding, which is written to --out.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tce.data.annotations import read_lists
from tce.data.tables import open_table, read_lines
from tce.embedding.embedding_file import load_embeddings
from tce.errors import TceError
from tce.io import parse_json
from tce.model.tensor_file import load_torch_file, read_header, read_tensors
from tce.train.run_record import read_log, read_options

TOKENS = (
    *(
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b'"',
        b'""',
        b",,,",
        b";",
        b"\t",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"nan",
        b"NA",
    ),
    *(
        b"-1",
        b"1e400",
        b"99999999999999999999",
        b"..",
        b"/",
        b"\\",
        b"{",
        b"}",
        b"[[[[",
        b"true",
        b"null",
        b"=1+1",
    ),
    *("é".encode(), "é".encode("latin-1"), "\u202e".encode(), b"\x1b[31m", b"%s", b"$x_{$"),
)


@dataclass(frozen=True)
class Parser:
    """What reads a file, and the valid content that is damaged.

    Attributes:
        name: of the file, which may decide the format.
        content: a valid file.
        read: given the path.
    """

    name: str
    content: bytes
    read: Callable[[Path], object]


def tensors(folder: Path) -> bytes:
    """A small model.safetensors."""
    header = {"tce": json.dumps({"architecture": "resnet18", "embedding_size": 4})}
    save_file({"head.weight": torch.ones(4, 3), "head.bias": torch.zeros(4)}, str(folder / "t"), header)
    return (folder / "t").read_bytes()


def pickled(folder: Path) -> bytes:
    """A small checkpoint of torch.save."""
    torch.save({"state_dict": {"module.conv1.weight": torch.ones(2, 3, 1, 1)}, "epoch": 3}, folder / "p")
    return (folder / "p").read_bytes()


def embeddings(folder: Path) -> bytes:
    """A small file of embeddings."""
    rows = {"video": np.array(["a", "b"]), "frame": np.array([0, 1]), "time": np.array([0.0, 0.5])}
    np.savez(folder / "e.npz", embeddings=np.eye(2, 4, dtype=np.float32), **rows)
    return (folder / "e.npz").read_bytes()


def parsers(folder: Path) -> dict[str, Parser]:
    """Every parser of a file that a user or a stranger can give."""
    columns = {"path": ("path", "video"), "label": ("label",), "split": ("split",)}
    ucf = b"Wave/v_Wave_g01_c01.avi 1\nBow/v_Bow_g02_c01.avi 2\n"
    kinetics = b"label,youtube_id,time_start,time_end,split\nbowing,abc,1,11,train\n"
    options = json.dumps(
        {
            "command": "pretrain",
            "options": {"run": {"seed": 0}},
            "data": {"clips": 3},
            "versions": {"torch": "2"},
        }
    )
    return {
        "table": Parser(
            "clips.csv",
            b"path,label,split\na/b.mp4,wave,train\nc.mp4,bow,test\n",
            lambda path: list(open_table(path, columns).rows()),
        ),
        "lines": Parser("list.txt", ucf, read_lines),
        "lists": Parser("trainlist01.txt", ucf, lambda path: read_lists(path.parent)),
        "kinetics": Parser("train.csv", kinetics, lambda path: read_lists(path.parent)),
        "json": Parser(
            "x.json", options.encode(), lambda path: parse_json(path.read_text("utf8", "replace"), "x")
        ),
        "options": Parser("options.json", options.encode(), lambda path: read_options(path.parent)),
        "log": Parser("log.csv", b"step,epoch,loss\n1,1,0.5\n2,1,0.25\n", read_log),
        "safetensors": Parser("m.safetensors", tensors(folder), read_tensors),
        "header": Parser("m.safetensors", tensors(folder), read_header),
        "pickle": Parser("m.pth", pickled(folder), load_torch_file),
        "embeddings": Parser("e.npz", embeddings(folder), load_embeddings),
    }


def damage(content: bytes, draw: random.Random) -> bytes:
    """The content with one to four changes."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(data) + 1)
        kind = draw.randrange(6)
        if kind == 0 and data:
            data[place % len(data)] = draw.randrange(256)
        elif kind == 1:
            data[place:place] = draw.choice(TOKENS)
        elif kind == 2:
            del data[place : place + draw.randint(1, 8)]
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            piece = data[place : place + draw.randint(1, 32)]
            data[place:place] = piece * draw.randint(1, 3)
        else:
            data[place : place + 4] = draw.choice(TOKENS)
    return bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1_000_000, help="in all, dealt out to the parsers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    options = parser.parse_args()
    draw = random.Random(options.seed)
    findings = 0
    print("| parser | inputs | read | refused | findings | seconds |\n|---|---|---|---|---|---|")
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as temporary:
        folder = Path(temporary)
        chosen = parsers(folder)
        chosen = {name: chosen[name] for name in options.only or chosen}
        for name, one in chosen.items():
            place = folder / name
            place.mkdir()
            try:
                one.read(_written(place / one.name, one.content))
            except TceError as error:
                raise SystemExit(f"{name}: the valid file is refused: {error}") from error
            found = fuzz(one, place, options.inputs // len(chosen), draw, options.out / name)
            findings += found["findings"]
            print(f"| {name} | " + " | ".join(str(value) for value in found.values()) + " |", flush=True)
    if findings:
        raise SystemExit(f"{findings} findings, in {options.out}")


def fuzz(one: Parser, place: Path, inputs: int, draw: random.Random, out: Path) -> dict[str, float]:
    """Counts of what one parser did with damaged files; each new kind of finding is written to `out`."""
    started = time.monotonic()
    read = refused = findings = 0
    seen: set[str] = set()
    for _ in range(inputs):
        data = damage(one.content, draw)
        try:
            one.read(_written(place / one.name, data))
            read += 1
        except TceError:
            refused += 1
        except Exception:
            findings += 1
            text = traceback.format_exc()
            where = "".join(text.splitlines(keepends=True)[-4:-1])
            if where not in seen:
                seen.add(where)
                out.mkdir(parents=True, exist_ok=True)
                (out / f"{len(seen)}-{one.name}").write_bytes(data)
                (out / f"{len(seen)}.txt").write_text(text)
    seconds = round(time.monotonic() - started, 1)
    return {"inputs": inputs, "read": read, "refused": refused, "findings": findings, "seconds": seconds}


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    main()
