"""Self-supervised training from the checkout: `python pretrain.py ...` does what `tce pretrain ...` does."""

import sys
from pathlib import Path

try:
    import tce  # noqa: F401
except ImportError:  # a fresh clone in which nothing was installed but what tce needs
    sys.path.insert(0, str(Path(__file__).parent / "src"))

from tce.cli import run

if __name__ == "__main__":
    sys.exit(run("pretrain", sys.argv[1:], prog="pretrain.py"))
