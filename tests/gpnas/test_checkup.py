"""`gpnas doctor`: what is missing or damaged is named, and nothing else is called so."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gpnas.cli import main
from gpnas.journal import Journal
from gpnas.results.checkup import Check, examined, installation, surroundings
from gpnas.run.setup import OwnSetup
from gpnas.service.tokens import Tokens
from tests.builders import bundle
from tests.gpnas.searched import searched


def bad(checks: list[Check]) -> list[str]:
    return [check.subject for check in checks if check.verdict == "bad"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A search whose finished trainings left a network each."""
    run = searched(tmp_path / "run", trials=5)
    with Journal.read(run) as journal:
        names = [each.candidate.id for each in journal.observations() if each.finished]
    for name in names:
        folder = run / "candidates" / name
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"weight": torch.ones(3)}, folder / "network.safetensors")
    return run


def test_an_installation_by_the_projects_files_is_good() -> None:
    assert bad(list(installation())) == []


def test_a_package_outside_its_range_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "scipy-0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: scipy\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    (check,) = [each for each in installation() if each.verdict == "bad"]
    assert check.subject == "scipy"
    assert check.finding == "0.1, but gpnas needs >=1.14; install with constraints.txt"


def test_a_token_that_others_can_read_is_noted_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("4711" * 16)
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    checks = list(surroundings())
    (check,) = [each for each in checks if each.subject == "Ray's token"]
    assert check.verdict == "note"
    assert check.finding.endswith("others can read it (mode 644); `chmod 600` it")
    assert not any("4711" in each.finding for each in checks)


def test_secrets_of_a_service_are_looked_at(tmp_path: Path) -> None:
    with Tokens(tmp_path) as tokens:
        own = tokens.own()
    secret = own.read_text()
    gone = tmp_path / ".service/trash/gone"
    gone.mkdir(parents=True)
    (gone / "journal.sqlite").write_bytes(bytes(3 * 2**20))
    checks = [each for each in examined(tmp_path) if each.part == str(tmp_path) or "service" in each.subject]
    assert {each.verdict for each in checks} == {"good"}
    assert "3 MiB" in next(each.finding for each in checks if each.subject == "deleted searches")
    own.chmod(0o640)
    checks = examined(tmp_path)
    (noted,) = [each for each in checks if each.verdict == "note" and each.part == "access"]
    assert noted.subject == "the service's token"
    assert "mode 640" in noted.finding
    assert not any(secret in each.finding for each in checks)


def test_a_run_says_how_much_room_it_takes(run: Path) -> None:
    (run / "candidates" / "c0001" / "checkpoint.pt").write_bytes(bytes(5 * 2**20))
    (size,) = [each.finding for each in examined(run) if each.subject == "size"]
    assert size.partition(":")[2].split(", ")[0] == " candidates 5 MiB"


def test_pythons_version_is_told() -> None:
    (python,) = [each.finding for each in surroundings() if each.subject == "python"]
    assert python == ".".join(map(str, sys.version_info[:3]))


def test_a_whole_run_is_good_and_a_torn_network_is_named(run: Path) -> None:
    assert bad(examined(run)) == []
    torn = run / "candidates" / "c0001" / "network.safetensors"
    torn.write_bytes(torn.read_bytes()[:-5])
    assert bad(examined(run)) == ["c0001"]


def test_trainings_of_ones_own_keep_what_they_like(tmp_path: Path) -> None:
    run = searched(tmp_path / "run", trials=5, setup=OwnSetup("a person's own loop", {}).to_json())
    assert bad(examined(run)) == []


def test_a_changed_bundle_is_one_bad_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(tmp_path)
    path = tmp_path / "bundle"
    assert main(["doctor", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["good"] is True
    card = path / "README.md"
    card.write_text(card.read_text() + "more")
    assert main(["doctor", str(path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    (line,) = [each["finding"] for each in document["checks"] if each["verdict"] == "bad"]
    assert "README.md" in line


def test_nothing_at_all_is_told(tmp_path: Path) -> None:
    (check,) = [each for each in examined(tmp_path / "gone") if each.verdict == "bad"]
    assert check.finding.endswith("there is nothing; check the name")
