"""Journals that somebody has changed, with checksums that fit: every command names the fault in one line."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpnas.cli import main
from gpnas.engine import Engine
from gpnas.errors import GpnasError, JournalError
from gpnas.journal import Header, Journal, Search, status
from gpnas.records import Architecture, Observation, Progress, Source, Stop
from gpnas.run.pricing import priced
from gpnas.run.setup import PSNR, Data, Setup
from gpnas.space import Family, IntegerAxis, SearchSpace

AXES = (IntegerAxis("features", (8, 16)), IntegerAxis("blocks", (1, 2)), IntegerAxis("stages", (1,)))
ODD: list[Any] = [
    None, True, -1, 0, 10**40, 1.5, -1e308, "", "x", "[bold]\x1b[31m\nmarkup", "é" * 4000, [], [None], [[1]],
    {}, {"a": 1}, {"name": 3},
]  # fmt: skip
"""What somebody may put in the place of anything."""
DELIVERED = {
    "ranking": [{"id": "c0000", "psnr": 30.0, "ssim": 0.8}],
    "unusable": {},
    "shares": {"c0000": 1.0},
    "psnr": {"bicubic": 28.0, "best": 30.0, "average": 30.0},
    "diagnostics": {"observations": 2, "summary": "too few", "warning": None},
}
COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "status": lambda run: ["status", str(run), "--json"],
    "status, for people": lambda run: ["status", str(run)],
    "explain": lambda run: ["explain", str(run), "c0002", "--json"],
    "explain all": lambda run: ["explain", str(run)],
    "portfolio": lambda run: ["portfolio", str(run)],
    "export": lambda run: ["export", str(run), "--top", "1", "-o", str(run / "out")],
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with something in every table."""
    run = tmp_path_factory.mktemp("filled") / "run"
    space = priced(SearchSpace([Family("drn", AXES)]), 2)
    source = Source("earlier", (Architecture("drn", {"features": 8, "blocks": 1, "stages": 1}),), (29.5,))
    header = Header(
        trials=5,
        objective=PSNR,
        search=Search(
            {"fingerprint": space.fingerprint, **space.to_document()}, "mi+nei", 40, 2, sources=(source,)
        ),
        setup=Setup(2, {"steps": 40}, Data("a", "b", "photographs", None), 1).to_json(),
        versions={"gpnas": "0.1.0"},
        machine={"cpus": 2},
    )
    engine = Engine(space, strategy="mi+nei", trials=5, steps=40, sources=[source])
    with Journal.create_or_open(run, header) as journal:
        for number in range(4):
            (proposed,) = engine.suggest(1)
            journal.commit_candidates([proposed])
            journal.start_attempt(proposed.id, 1)
            journal.record_progress(proposed.id, Progress(1, 20, 30.0, {"loss": 0.1}, 1.0))
            if number == 3:
                continue
            told = [
                Observation(proposed, 30.0 + number, None, 2.0, {"ssim": 0.8}),
                Observation(proposed, None, "out of memory"),
                Observation(proposed, 30.5, None, 2.0, {}, Stop(20, 30.0, 0.1, 0.01, 2)),
            ][number]
            journal.commit_observation(told)
            engine.observe(told)
        journal.set_result("delivery", DELIVERED)
        journal.set_result("ensemble", {"candidates": ["c0000"], "products": [[[0.001]]]})
    with Journal.create_or_open(run, replace(header, trials=6)) as journal:
        pass
    (run / "journal.backup.sqlite").unlink()
    return run


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document: its root, and each key and list place below."""
    yield path
    entries = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in entries:
        yield from places(value, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


def said(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(command)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    if code:
        assert len(err.strip().splitlines()) == 1, err
        assert len(err) < 2000
    else:
        assert "\x1b" not in out
    return code, err


def tampered(filled: Path, run: Path, statement: str, *values: Any) -> Path:
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(filled, run)
    with closing(sqlite3.connect(run / "journal.sqlite")) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(statement, values)
        connection.commit()
    return run


def refusal(run: Path) -> str | None:
    try:
        status(run)
    except JournalError as error:
        return str(error)
    return None


DOCUMENTS = ("header", "sessions", "candidates", "progress", "observations", "results")


@pytest.mark.parametrize("table", DOCUMENTS)
def test_whatever_stands_in_a_document_is_taken_or_named(
    filled: Path, tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(filled / "journal.sqlite")) as connection:
        rows = connection.execute(f"SELECT rowid, document FROM {table}").fetchall()
    tried = refused = 0
    for row, text in rows:
        document = json.loads(text)
        for number, path in enumerate(places(document)):
            for place, odd in enumerate(ODD):
                if (number + place) % 11:  # a part of them, so that it takes seconds
                    continue
                new = json.dumps(changed(document, path, odd))
                update = f"UPDATE {table} SET document = ?, crc32 = ? WHERE rowid = ?"
                run = tampered(filled, tmp_path / "run", update, new, zlib.crc32(new.encode()), row)
                tried += 1
                said_first = refusal(run)
                if said_first is not None:
                    refused += 1
                    assert str(run / "journal.sqlite") in said_first
                    assert len(said_first.splitlines()) == 1
                    assert len(said_first) < 1100
                    continue
                name = list(COMMANDS)[tried % len(COMMANDS)]
                code, err = said(COMMANDS[name](run), capsys)
                assert code in (0, 1, 2), (name, path, odd, err)
    assert tried > 5
    assert refused


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "UPDATE candidates SET time = '[bold]x[/bold]' WHERE number = 1",
            "`time` must be a time in ISO 8601",
        ),
        ("UPDATE candidates SET time = '2026-13-41T00:00:00.000+00:00'", "`time` must be a time in ISO 8601"),
        (
            "UPDATE attempts SET ended = '' WHERE number = 1",
            "`ended` must be a time in ISO 8601, UTC, or none",
        ),
        ("UPDATE attempts SET outcome = 'a' || char(27) || 'b'", "`outcome` must be a word or none"),
        ("UPDATE attempts SET number = -1 WHERE candidate = 'c0000'", "`number` must be at least 1"),
        ("UPDATE progress SET step = -1 WHERE candidate = 'c0000'", "`step` must be at least 0"),
        ("UPDATE candidates SET session = 9", "`session` must be one of the 2, but got 9"),
        ("UPDATE candidates SET id = 'c0009' WHERE number = 4", "must belong to a row of candidates"),
        ("DELETE FROM candidates WHERE number = 4", "must belong to a row of candidates"),
        ("DELETE FROM header", "must have one header, but has 0"),
        ("CREATE TRIGGER t AFTER INSERT ON sessions BEGIN DELETE FROM observations; END", "the trigger 't'"),
        ("CREATE VIEW v AS SELECT * FROM header", "the view 'v'"),
        ("CREATE TABLE more (x)", "the table 'more'"),
        ("CREATE INDEX i ON events (kind)", "the index 'i'"),
        ("ALTER TABLE events ADD COLUMN x TEXT AS (kind) VIRTUAL", "the table 'events'"),
        ("ALTER TABLE events RENAME TO others", "the table 'others'"),
    ],
)
def test_whatever_stands_outside_documents_is_checked(
    filled: Path, tmp_path: Path, statement: str, says: str
) -> None:
    run = tampered(filled, tmp_path / "run", statement)
    said_first = refusal(run)
    assert said_first is not None
    assert says in said_first
    assert said_first.startswith(str(run / "journal.sqlite"))
    with pytest.raises(JournalError):
        Journal.create_or_open(run, Header(1, PSNR))


@pytest.mark.parametrize("name", ["journal.sqlite", "journal.backup.sqlite", "lock", "journal.sqlite-wal"])
@pytest.mark.parametrize("kind", ["link", "pipe", "device", "folder"])
def test_files_of_a_run_are_regular_ones(filled: Path, tmp_path: Path, name: str, kind: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(filled, run)
    (run / name).unlink(missing_ok=True)
    outside = tmp_path / "outside"
    outside.write_text("somebody's")
    match kind:
        case "link":
            (run / name).symlink_to(outside)
        case "pipe":
            os.mkfifo(run / name)
        case "device":
            (run / name).symlink_to("/dev/zero")
        case "folder":
            (run / name).mkdir()
    for attempt in (lambda: status(run), lambda: Journal.create_or_open(run, Header(1, PSNR))):
        with pytest.raises(GpnasError) as error:
            attempt()
        assert len(str(error.value).splitlines()) == 1
        assert str(run / name) in str(error.value)
    assert outside.read_text() == "somebody's"
