"""Fine-tune for action recognition, or test a fine-tuned checkpoint: the 2020 command.

    python finetune.py --model resnet50 --split 01 --weights WEIGHTS.pth --savedir RUN
    python finetune.py --evaluate --model resnet50 --split 01 --resume CHECKPOINT.pth --savedir RUN

The footage is --data or the environment variable TCE_UCF101, the lists are --lists, TCE_UCF101_LISTS or the
folder UCF_list. It is `tce finetune` with the published recipe, `--recipe paper-2020-diff`, unless another
one is named.
"""

import sys
from pathlib import Path

try:
    import tce  # noqa: F401
except ImportError:  # a fresh clone in which nothing was installed but what tce needs
    sys.path.insert(0, str(Path(__file__).parent / "src"))

from tce.cli import run

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not any(argument.split("=")[0] == "--recipe" for argument in arguments):
        arguments = ["--recipe", "paper-2020-diff", *arguments]
    sys.exit(run("finetune", arguments, prog="finetune.py"))
