import dataclasses
import json
import logging
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tce import cli
from tce.errors import TceError
from tce.result import Result, plain


@dataclass(frozen=True)
class EchoOptions:
    """Options of the test's own command."""

    word: str = "a"
    """What to say."""
    fail: str = ""
    """Which error to raise."""


def echo(options: EchoOptions) -> Result:
    if options.fail == "user":
        raise TceError("the word", expected="kind", found="rude")
    if options.fail == "stop":
        raise KeyboardInterrupt
    if options.fail == "disk":
        raise OSError(28, "No space left on device", "x.bin")
    return Result(f"said {options.word}", {"word": options.word})


@pytest.fixture
def echo_command(monkeypatch):
    here = f"{__name__}"
    sys.modules.setdefault(here, sys.modules[__name__])
    monkeypatch.setitem(
        cli.COMMANDS, "echo", cli.Command(f"{here}:echo", f"{here}:EchoOptions", "say a word")
    )
    yield
    logging.getLogger("tce").setLevel(logging.NOTSET)


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from tce.cli import main; main(['--help']);"
        "heavy = {'torch', 'numpy', 'lance', 'av', 'tyro', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_helps_without_torch(name):
    code = (
        "import sys; from tce.cli import main\n"
        f"try:\n    main([{name!r}, '--help'])\nexcept SystemExit as stop:\n"
        "    assert stop.code in (0, None)\n"
        "heavy = {'torch', 'lance', 'matplotlib', 'sklearn'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: tce" in done.stdout


def test_every_command_exists():
    for command in cli.COMMANDS.values():
        assert callable(cli.resolve(command.function))


def test_text_json_and_exit_codes(echo_command, capsys):
    assert cli.main(["echo", "--word", "b"]) == 0
    assert capsys.readouterr().out == "said b\n"
    assert cli.main(["echo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"word": "a"}
    assert cli.main(["echo", "--fail", "user"]) == 1
    assert capsys.readouterr().err == "tce: the word; expected kind; found rude\n"
    assert cli.main(["echo", "--fail", "disk"]) == 1
    assert capsys.readouterr().err == "tce: x.bin: No space left on device\n"
    assert cli.main(["echo", "--fail", "stop"]) == 130
    with pytest.raises(SystemExit) as stop:
        cli.main(["echo", "--no-such-flag"])
    assert stop.value.code == 2


def test_an_unknown_command_gets_a_hint(capsys):
    assert cli.main(["pretrian"]) == 2
    assert "did you mean `tce pretrain`" in capsys.readouterr().err


def test_plain_makes_json_of_arrays_and_non_finite_numbers():
    import numpy as np

    value = {1: np.float32(0.5), "a": np.arange(3), "b": (float("nan"), {"c": None}), "d": np.array([np.inf])}
    assert plain(value) == {"1": 0.5, "a": [0, 1, 2], "b": [None, {"c": None}], "d": [None]}


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_shows_what_an_optional_flag_takes(name, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert "None" not in capsys.readouterr().out


def test_an_optional_flag_is_read_as_its_type_or_unset():
    def given(*flags):
        return cli.parse("pretrain", ["--loss", "nce", *flags])[0].contrast.negatives

    assert given() is None and given("--negatives", "unset") is None
    assert given("--negatives", "5") == 5
    with pytest.raises(SystemExit):
        given("--negatives", "many")


SEEDED = [
    "tce.options.finetune:FinetuneRunOptions",
    "tce.options.pretrain:PretrainRunOptions",
    "tce.options.network:NetworkOptions",
    "tce.options.demo:DemoOptions",
    "tce.options.compare:CompareOptions",
    "tce.options.evaluate:EvaluateOptions",
]


@pytest.mark.parametrize("place", SEEDED)
@pytest.mark.parametrize("seed", [-1, 2**63, 2**64], ids=str)
def test_seeds_have_63_bits_in_every_command(place: str, seed: int) -> None:
    given = {"runs": ("a",), "ckpt": "a", "data": "b", "protocol": "knn"}
    kind = cli.resolve(place)
    names = {field.name for field in dataclasses.fields(kind)}
    with pytest.raises(TceError, match="--seed; expected a whole number from 0 to 9223372036854775807"):
        kind(**{name: value for name, value in given.items() if name in names}, seed=seed)
