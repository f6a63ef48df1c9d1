import dataclasses
import json
import logging
import os
import re
import shlex
import string
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tce import cli, command_table
from tce.errors import TceError, printable
from tce.help import flags_of, next_step
from tce.io import Result, plain
from tce.video.synthetic import write_video

ROOT = Path(__file__).parents[1]
HOSTILE = "a\x1b]0;title\x07\x9b31m\u202eb"


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
    if options.fail == "hostile":
        logging.getLogger("tce").warning("skipped %s", HOSTILE)
        raise TceError(HOSTILE, found=HOSTILE)
    return Result(f"word {options.word}", {"word": options.word})


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
    assert capsys.readouterr().out == "word b\n"
    assert cli.main(["echo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"word": "a"}
    assert cli.main(["echo", "--fail", "user"]) == 1
    assert capsys.readouterr().err == "tce: the word; expected kind; found rude\n"
    assert cli.main(["echo", "--fail", "disk"]) == 1
    assert capsys.readouterr().err == "tce: x.bin: No space left on device\n"
    assert cli.main(["echo", "--fail", "stop"]) == 130
    assert cli.main(["echo", "--no-such-flag"]) == 2


def test_an_unknown_command_gets_a_hint(capsys):
    assert cli.main(["pretrian"]) == 2
    assert "did you mean `tce pretrain`" in capsys.readouterr().err


def test_plain_makes_json_of_arrays_and_non_finite_numbers():
    import numpy as np

    value = {1: np.float32(0.5), "a": np.arange(3), "b": (float("nan"), {"c": None}), "d": np.array([np.inf])}
    assert plain(value) == {"1": 0.5, "a": [0, 1, 2], "b": [None, {"c": None}], "d": [None]}


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_is_plain_and_ends_with_examples(name, capsys):
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert not re.search(r"None|MISSING|\[unset\]|\|unset|\[(True|False|\(\))\]|\(default|╭", text)
    assert len(text.splitlines()) <= 80, "two screens at most"
    examples = text[text.index("\nExamples:") :].splitlines()[2:]
    assert sum(line.startswith(f"  tce {name} ") or line == f"  tce {name}" for line in examples) == 3
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_flag_is_explained_and_the_usual_ones_exist(name):
    command = cli.COMMANDS[name]
    flags = list(flags_of(cli.resolve(command.options)))
    assert all(flag.text for flag in flags)
    assert set(command.usual) - {"method"} <= {flag.field for flag in flags}
    assert all(flag.field in command.usual or not command.usual for flag in flags if flag.required)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_the_examples_can_be_parsed(name):
    for example in cli.COMMANDS[name].examples:
        tce, command, *arguments = shlex.split(example)
        assert (tce, command) == ("tce", name)
        cli.parse(name, arguments)


def test_help_all_shows_every_flag(capsys):
    cli.main(["pretrain", "--help"])
    usual = capsys.readouterr().out
    cli.main(["pretrain", "--help-all"])
    everything = capsys.readouterr().out
    assert "tce pretrain --help-all" in usual and "--temperature" not in usual
    assert "--temperature" in everything and "--help-all" not in everything
    assert "usage: tce pretrain DATA --out PATH [options]" in usual  # both are required, whatever the default


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("classify", "tce classify: missing VIDEO, --ckpt; for example: tce classify clip.mp4 --ckpt "),
        (
            "embed --qqqqq 1 --jjjjj 2",
            "tce embed: unknown option --qqqqq; unknown option --jjjjj; tce embed --help",
        ),
        ("embed --inptu a", "tce embed: unknown option --inptu (did you mean --input?); tce embed --help"),
        ("embed --input a --output b --batch-size x", "tce embed: --batch-size; expected INT; found 'x'; "),
        ("pretrain a --device", "tce pretrain: --device; expected TEXT; found nothing; "),
        ("evaluate --protocol foo", "tce evaluate: --protocol; expected frames, "),
        ("check a b", "tce check: unexpected b; "),
    ],
)
def test_usage_errors_are_one_line(line, expected, capsys):
    assert cli.main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(expected) and printed.err.count("\n") == 1


def test_control_characters_never_reach_the_terminal(echo_command, capsys):
    assert cli.main(["echo", "--fail", "hostile"]) == 1
    assert cli.main(["echo", "--word", HOSTILE]) == 0
    assert cli.main([HOSTILE]) == 2
    assert cli.main(["echo", f"--{HOSTILE}"]) == 2
    printed = capsys.readouterr()
    text = (printed.out + printed.err).replace("\n", "")
    assert "title" in text and r"\x1b" in text
    assert text.isprintable() and "\u202e" not in text


def test_printable_keeps_what_is_text():
    for text in ("café", "日本語", "👩‍🔬", "two\nlines\tand a tab", "שלום"):
        assert printable(text) == text
    assert printable("\x00\x7f\x85\udc80\u2028") == r"\x00\x7f\x85\udc80\u2028"


@pytest.mark.parametrize("command", ["tce --help", "tce pretrain --help", "finetune.py --help", "tce info ."])
def test_a_reader_that_goes_away_costs_no_trace(command, tmp_path):
    program, *arguments = command.split()
    start = ["-m", "tce"] if program == "tce" else [str(ROOT / program)]
    with subprocess.Popen(
        [sys.executable, *start, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        trace = process.stderr.read().decode()
    assert "Traceback" not in trace and "BrokenPipe" not in trace


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path):
    (tmp_path / "übung.mp4").write_bytes(b"no video")
    done = subprocess.run(
        [sys.executable, "-m", "tce", "info", "übung.mp4"],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
    )
    assert done.returncode == 1 and b"Traceback" not in done.stderr and b"bung.mp4" in done.stderr
    assert done.stderr.isascii()


def test_an_optional_flag_is_read_as_its_type_or_unset():
    def given(*flags):
        return cli.parse("pretrain", ["--method", "tce", *flags])[0].tce.negatives

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
    with pytest.raises(TceError, match=r"--seed; expected .*from 0 to 9223372036854775807"):
        kind(**{name: value for name, value in given.items() if name in names}, seed=seed)


def test_values_for_recipes_and_python_are_no_flags(capsys):
    with pytest.raises(SystemExit):
        cli.parse("pretrain", ["--help-all"])
    shown = capsys.readouterr().out
    assert "--threshold-by" in shown and "--threshold-high" not in shown and "default: True" not in shown
    assert cli.run("pretrain", ["DATA", "--out", "RUN", "--threshold-high", "0.5"]) == 2
    reported = capsys.readouterr().err
    assert "unknown option --threshold-high" in reported and "did you mean --threshold-high" not in reported


WRONG = """
pretrain clips --out new/run --model unknown
pretrain absent --out new/run
finetune --data clips --savedir new/run --weights absent --model resnet18
finetune --data clips --savedir new/run --model unknown
evaluate --data clips --ckpt absent --protocol knn --out new/result
evaluate --data absent --ckpt random --model resnet18 --protocol knn --out new/result
adapt absent --out new/run
adapt clips --out new/run --start absent
pack absent --out new/collection
embed --ckpt absent --input clips --output new/e.npz
embed --ckpt random --model resnet18 --input absent --output new/e.npz
tsne --ckpt absent --input clips --output new/map.png
explore absent --output new/page.html
index clips --ckpt absent --db new/index
convert absent --output new/folder
export --ckpt absent --output new/file.onnx
classify absent --ckpt absent --output new/table.csv
compare absent absent --output new/chart.png
info absent --sheet new/sheet.png
"""


@pytest.mark.parametrize("line", WRONG.split("\n")[1:-1])
def test_a_command_that_fails_leaves_nothing_behind(line, tmp_path, monkeypatch, capsys):
    """No folder, no lock, no packed videos."""
    monkeypatch.chdir(tmp_path)
    for label in "ab":
        (tmp_path / "clips" / label).mkdir(parents=True)
        for clip in range(4):
            image = np.full((24, 32, 3), 20 * clip, np.uint8)
            write_video(tmp_path / "clips" / label / f"{clip}.mp4", image[None].repeat(2, 0), fps=10)
    name, *arguments = line.split()
    assert cli.run(name, arguments) == 1, capsys.readouterr().err
    assert "Traceback" not in capsys.readouterr().err and os.listdir(tmp_path) == ["clips"]


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_default_is_shown_as_it_is_typed(name):
    for flag in flags_of(cli.resolve(cli.COMMANDS[name].options)):
        if flag.required or flag.value is None or isinstance(flag.value, bool) or flag.value == ():
            assert flag.default == "", flag
        else:
            values = flag.value if isinstance(flag.value, tuple) else (flag.value,)
            words = flag.default.split() if len(values) > 1 else [flag.default]
            for word, value in zip(words, values, strict=True):
                assert type(value)(word) == value, flag


def test_every_command_prints_a_next_step():
    """Of the table, or at the end of its own result."""
    own = {"demo", "pretrain", "finetune"}
    assert {key.split()[0] for key in command_table.NEXT} | own == set(cli.COMMANDS)


@pytest.mark.parametrize("key", sorted(command_table.NEXT))
def test_next_steps_name_options_that_exist(key):
    name, _, kind = key.partition(" ")
    flags = {flag.field for flag in flags_of(cli.resolve(cli.COMMANDS[name].options))}
    needed = {field for _, field, _, _ in string.Formatter().parse(command_table.NEXT[key]) if field}
    assert needed <= flags and (kind == "") == (name != "info")


def test_the_next_step_is_one_line_after_the_result_and_not_in_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(command_table.NEXT, "echo", "tce info {word}")
    monkeypatch.setitem(
        cli.COMMANDS, "echo", cli.Command(f"{__name__}:echo", f"{__name__}:EchoOptions", "Say a word")
    )
    sys.modules.setdefault(__name__, sys.modules[__name__])
    assert cli.main(["echo", "--word", "my word"]) == 0
    assert capsys.readouterr().out == "word my word\nnext: tce info 'my word'\n"
    assert cli.main(["echo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"word": "a"}


def test_a_next_step_without_its_value_is_left_out():
    options = cli.parse("tsne", ["--input", "a", "--output", "m.png"])[0]
    assert next_step("tsne", options, {}) == ""
    options = cli.parse("tsne", ["--ckpt", "lite2", "--input", "a", "--output", "m.png"])[0]
    assert next_step("tsne", options, {}).startswith("next: tce evaluate --ckpt lite2 ")
    options = cli.parse("info", ["a b"])[0]
    for kind, command in (
        ("classifier", "tce classify FOLDER --ckpt 'a b'"),
        ("encoder", "tce embed --ckpt 'a b'"),
    ):
        for described in ("run", "checkpoint"):
            assert command in next_step("info", options, {"type": described, "kind": kind})
    assert next_step("info", options, {"type": "run", "kind": None}) == "", "nothing is there to embed with"
    assert next_step("info", options, {"type": "collection"}) == "next: tce adapt 'a b' --out runs/mine"
    assert next_step("info", options, {"paths": []}) == ""
