from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tce.signals import StopSignals, Terminated, raise_terminations
from tests.helpers import numbered


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_request_and_the_handler_goes_again(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals(lambda: "nothing was saved") as signals:
        assert signals.stop_requested is None
        os.kill(os.getpid(), number)
        assert signals.stop_requested == number.name
        with pytest.raises(KeyboardInterrupt, match="stopped at once: nothing was saved"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminations_are_raised_with_their_name(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Terminated, match=f"stopped by {number.name}"), raise_terminations():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals(str) as signals, raise_terminations():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.stop_requested is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_every_command_ends_with_a_message(number: signal.Signals) -> None:
    script = textwrap.dedent("""
        import sys, time
        from tce.cli import OutputOptions, report
        def work():
            print("working", flush=True)
            time.sleep(60)
        sys.exit(report(work, OutputOptions()))
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "working\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and errors == f"stopped by {number.name}\n"


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("evaluate --ckpt random --protocol knn --out out", "no result was written to out"),
        ("finetune --savedir out --epochs 1 --batch-size 4", "the trained network is saved in out"),
    ],
)
def test_sigterm_in_a_real_process_says_what_is_kept(command: str, kept: str, tmp_path: Path) -> None:
    """The signal comes while test clips are read, when another process asks for it."""
    numbered.write_folders(tmp_path / "clips", clips=12, frames=4)
    script = textwrap.dedent("""
        import sys, time
        from tce.cli import main
        from tce.evaluation.protocols import Evaluator
        def wait(*_):
            print("reading", flush=True)
            time.sleep(60)
        Evaluator.__call__ = wait
        sys.exit(main(sys.argv[1:]))
    """)
    flags = "--data clips --model tinynet:tiny --image-size 24 --device cpu --precision float32"
    path = [str(Path(numbered.__file__).parent), *sys.path]
    with subprocess.Popen(
        [sys.executable, "-c", script, *command.split(), *flags.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1].startswith(f"stopped by SIGTERM: {kept}")
    network, result = tmp_path / "out" / "model.safetensors", tmp_path / "out" / "result.json"
    assert network.exists() == (command[0] == "f") and not result.exists()
    assert not list((tmp_path / "out").glob(".*"))
