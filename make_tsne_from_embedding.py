"""The 2020 command: a t-SNE picture of the embeddings of one video, an [N, D] array."""

import sys
from pathlib import Path

try:
    import tce  # noqa: F401
except ImportError:  # a fresh clone in which nothing was installed but what tce needs
    sys.path.insert(0, str(Path(__file__).parent / "src"))

from tce.cli import run


def undashed(arguments: list[str]) -> list[str]:
    """The arguments with `--output --path/to/output.png`, as the 2020 README types it, made readable."""
    cleaned: list[str] = []
    for argument in arguments:
        if cleaned[-1:] == ["--output"] and argument.startswith("--") and Path(argument).suffix:
            print(f"--output {argument}: taken as {argument[2:]}", file=sys.stderr)
            argument = argument[2:]
        cleaned.append(argument)
    return cleaned


if __name__ == "__main__":
    sys.exit(run("tsne", undashed(sys.argv[1:]), prog="make_tsne_from_embedding.py"))
