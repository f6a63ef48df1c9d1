"""Self-supervised training from the checkout: `python pretrain.py ...` does what `tce pretrain ...` does."""

import sys

from tce.cli import run

if __name__ == "__main__":
    sys.exit(run("pretrain", sys.argv[1:], prog="pretrain.py"))
