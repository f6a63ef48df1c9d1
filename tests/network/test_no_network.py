"""Nothing contacts another machine unless a remote address was given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROBE = (
    "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"  # an address for documentation
)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> dict[str, str]:
    """An environment in which no library, of whatever language, can reach another machine."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler: libraries that are not Python open sockets unseen by it")
    folder = tmp_path_factory.mktemp("guard")
    library, log = folder / "no_network.so", folder / "connections"
    source = ROOT / "tests" / "helpers" / "no_network.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "RAY_"))}
    return {**kept, "LD_PRELOAD": str(library), "TCE_TEST_CONNECTIONS": str(log), "OMP_NUM_THREADS": "1"}


def test_the_guard_sees_and_stops_a_connection(guarded):
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=guarded, capture_output=True, text=True, check=False
    )
    log = Path(guarded["TCE_TEST_CONNECTIONS"])
    assert done.returncode == 1 and "unreachable" in done.stderr
    assert log.read_text() == "connect 192.0.2.1\n"
    log.unlink()


@pytest.mark.timeout(900)
def test_no_command_contacts_another_machine(guarded, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.every_command", str(tmp_path)],
        env={**guarded, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["codes"].values()) == {0}, (found, done.stderr[-3000:])
    assert found["missing"] == [], "add a line for these to tests/helpers/every_command.py"
    log = Path(guarded["TCE_TEST_CONNECTIONS"])
    assert not log.exists(), log.read_text()


def test_reports_of_use_are_off_unless_the_user_decided_otherwise():
    names = ("HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "DO_NOT_TRACK")
    code = f"import os, tce; print([os.environ[name] for name in {names}])"
    bare = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['1', '0', '1']"
    chosen = bare | {"RAY_USAGE_STATS_ENABLED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=chosen, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['1', '1', '1']"
