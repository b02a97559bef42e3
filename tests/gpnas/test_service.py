"""The service, looked at: who may ask, what is said of searches, and what no request can do."""

import asyncio
import ctypes
import io
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from gpnas.cli import main
from gpnas.journal import Cursor, Journal, status
from gpnas.service.app import application
from gpnas.service.events import Overview
from gpnas.service.folder import Runs, ServiceError, alone
from gpnas.service.limits import Limits
from gpnas.service.problems import MEDIA_TYPE
from gpnas.service.rates import Rates
from gpnas.service.reading import Reading
from gpnas.service.tokens import ROLES, TokenError, Tokens
from tests import builders
from tests.gpnas.searched import SPACE, listed, searched
from tests.gpnas.served import bearer, served


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search, one of many trials, a damaged one, and things that are no run."""
    folder = tmp_path_factory.mktemp("runs")
    searched(folder / "small", 9)
    listed(folder / "long", 60)
    searched(folder / "torn", 1)
    for name in ("journal.sqlite", "journal.backup.sqlite"):
        (folder / "torn" / name).write_bytes(b"not a database")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to(folder / "small")
    (folder / "file").write_text("")
    return folder


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[TestClient]:
    with served(runs, limits=Limits(rate=1e6, burst=1e6)) as client:
        yield client


def problem(response: Any, status: int) -> str:
    """The detail of an RFC 9457 problem of this status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    document = response.json()
    assert document["status"] == status
    assert document["title"]
    return str(document["detail"])


def test_searches_are_listed_and_damage_is_shown(client: TestClient) -> None:
    document = client.get("/v1/searches").json()
    assert [each["id"] for each in document["searches"]] == ["long", "small", "torn"]
    long, small, torn = document["searches"]
    assert (long["state"], small["state"], torn["state"]) == ("interrupted", "interrupted", "unreadable")
    assert "the file is damaged" in torn["note"]
    assert long["counts"] == {"observed": 60}
    assert small["counts"] == {"observed": 7, "stopped": 1, "failed": 1}
    assert len(long["course"]) == 60
    assert long["course"] == sorted(long["course"])
    assert document["next"] is None


def test_pages_of_the_list_follow_each_other(client: TestClient) -> None:
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = client.get("/v1/searches", params={"limit": 1, "after": after}).json()
        seen += [each["id"] for each in page["searches"]]
        after = page["next"]
    assert seen == ["long", "small", "torn"]


def test_the_status_is_that_of_the_command(client: TestClient, runs: Path) -> None:
    told = client.get("/v1/searches/small/status").json()
    assert told == json.loads(json.dumps({**status(runs / "small"), "run": "small"}))
    assert "the file is damaged" in problem(client.get("/v1/searches/torn/status"), 422)


def test_the_best_is_the_largest_finished_value(client: TestClient, runs: Path) -> None:
    with Journal.read(runs / "small") as journal:
        best = max(
            (each for each in journal.observations() if each.finished), key=lambda each: each.value or 0
        )
    told = client.get("/v1/searches/small").json()["best"]
    assert told == {
        "id": best.candidate.id,
        "architecture": best.candidate.architecture.to_json(),
        "value": best.value,
    }


def test_what_is_written_meanwhile_is_seen(client: TestClient, runs: Path) -> None:
    searched(runs / "grown", 2)
    before = client.get("/v1/searches/grown").json()
    shutil.rmtree(runs / "grown")
    searched(runs / "grown", 3)
    after = client.get("/v1/searches/grown").json()
    shutil.rmtree(runs / "grown")
    assert (sum(before["counts"].values()), sum(after["counts"].values())) == (2, 3)
    problem(client.get("/v1/searches/grown"), 404)


def test_the_journal_is_told_row_by_row_from_anywhere(client: TestClient, runs: Path) -> None:
    lines = [json.loads(line) for line in client.get("/v1/searches/small/journal").text.splitlines()]
    connection = sqlite3.connect(f"file:{runs / 'small' / 'journal.sqlite'}?mode=ro", uri=True)
    for kind, table in (
        ("candidate", "candidates"),
        ("attempt", "attempts"),
        ("observation", "observations"),
        ("progress", "progress WHERE evaluated"),
    ):
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert sum(line["kind"] == kind for line in lines) == count > 0
    connection.close()
    for place in (0, 5, len(lines) - 2):
        rest = client.get("/v1/searches/small/journal", params={"after": lines[place]["id"]}).text
        assert [json.loads(line) for line in rest.splitlines()] == lines[place + 1 :]
    assert "six numbers" in problem(client.get("/v1/searches/small/journal", params={"after": "1.2"}), 422)


def test_rows_come_in_parts_without_a_gap(runs: Path) -> None:
    with Journal.read(runs / "long") as journal:
        whole = journal.after(Cursor(), 10_000)
        parts, cursor = [], Cursor()
        while part := journal.after(cursor, 7):
            parts += part
            cursor = Cursor.parse(str(part[-1].cursor))
    assert parts == whole


def test_only_candidates_are_explained(client: TestClient) -> None:
    assert "must be one of this search" in problem(client.get("/v1/searches/small/explain/c0999"), 404)
    assert "the file is damaged" in problem(client.get("/v1/searches/torn/explain/c0000"), 422)


def test_figures_hold_the_trials(client: TestClient) -> None:
    names = [each["name"] for each in client.get("/v1/searches/small/figures").json()["figures"]]
    assert {"course", "posterior", "curves"} <= set(names)
    course = client.get("/v1/searches/small/figures/course").json()
    (chart,) = course["views"][0]["charts"]
    assert chart["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    data = client.get("/v1/searches/small/figures/course", params={"form": "data"}).json()
    rows = [row for table in data["views"][0]["data"][0].values() for row in table if "id" in row]
    told = client.get("/v1/searches/small/status").json()["candidates"]
    values = {row["id"]: row["value"] for row in told if row["state"] == "observed"}
    assert {row["id"]: row["value"] for row in rows if row["id"] in values} == pytest.approx(values, rel=1e-7)
    problem(client.get("/v1/searches/small/figures/nothing"), 404)


def test_a_posterior_is_that_of_the_engine(client: TestClient, runs: Path) -> None:
    from gpnas.engine import engine_for

    told = client.get("/v1/searches/small/posterior").json()
    with Journal.read(runs / "small") as journal:
        engine = engine_for(SPACE, journal.header)
        engine.replay(journal.candidates(), journal.observations())
    assert told["observations"] == 9
    assert len(told["architectures"]) == len(SPACE)
    best = told["architectures"][0]
    assert best["mean"] == pytest.approx(float(engine.belief().mean.max()), rel=1e-6)
    assert best["low"] < best["mean"] < best["high"]


def test_a_report_has_nobodys_origin(client: TestClient) -> None:
    response = client.get("/v1/searches/small/report")
    assert "sandbox" in response.headers["content-security-policy"]
    assert "allow-same-origin" not in response.headers["content-security-policy"]
    assert "c0005" in response.text


def test_a_bundle_is_checked_and_sent_whole(client: TestClient, runs: Path) -> None:
    assert "has no bundle" in problem(client.get("/v1/searches/small/bundle"), 404)
    builders.bundle(runs / "small")
    response = client.get("/v1/searches/small/bundle")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        for name in archive.namelist():
            assert archive.read(name) == (runs / "small" / "bundle" / name).read_bytes()
        assert "manifest.json" in archive.namelist()
    weights = next((runs / "small" / "bundle").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    problem(client.get("/v1/searches/small/bundle"), 422)
    shutil.rmtree(runs / "small" / "bundle")
    assert not list((runs / ".service").glob("bundle-*"))


def test_a_role_suffices_for_itself_and_those_below(tmp_path: Path) -> None:
    with Tokens(tmp_path) as tokens:
        made = {role: tokens.make(role)[0] for role in ROLES}
    assert [[made[role].may(other) for other in ROLES] for role in ROLES] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_tokens_are_hashed_revoked_and_never_told_again(tmp_path: Path) -> None:
    with Tokens(tmp_path) as tokens:
        token, text = tokens.make("work", "a desk")
        assert tokens.whose(text) == token
        secret = text.rpartition("_")[2] if text.count("_") == 2 else text.split("_", 2)[2]
        everything = b"".join(path.read_bytes() for path in (tmp_path / ".service").iterdir())
        assert secret.encode() not in everything
        for wrong in (
            text[:-1] + ("A" if text[-1] != "A" else "B"),
            text + "A",
            "",
            f"gpnas_{'0' * 12}_{secret}",
        ):
            assert tokens.whose(wrong) is None
        tokens.revoke(token.id)
        assert tokens.whose(text) is None
        with pytest.raises(TokenError, match="one that `gpnas token list` shows"):
            tokens.revoke("none")
    assert (tmp_path / ".service" / "service.sqlite").stat().st_mode & 0o777 == 0o600


def test_the_own_token_is_kept_readable_by_its_owner_alone(tmp_path: Path) -> None:
    with Tokens(tmp_path) as tokens:
        path = tokens.own()
        assert path.stat().st_mode & 0o777 == 0o600
        text = path.read_text()
        assert tokens.own().read_text() == text
        mine = tokens.whose(text)
        assert mine is not None
        assert mine.role == "own"
        tokens.revoke(mine.id)
        assert tokens.own().read_text() != text


def test_the_command_makes_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--runs", str(tmp_path)]
    assert main(["token", "make", *runs, "--role", "read", "--name", "a board", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    with Tokens(tmp_path) as tokens:
        assert tokens.whose(made["token"]) is not None
        assert main(["token", "revoke", *runs, made["id"]]) == 0
        assert tokens.whose(made["token"]) is None
    capsys.readouterr()
    assert main(["token", "list", *runs, "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["tokens"]
    assert listed["name"] == "a board"
    assert listed["revoked"] is not None
    assert "token" not in listed


def test_without_a_token_nothing_of_a_search_is_told(runs: Path) -> None:
    with served(runs, None) as client:
        for path in ("/v1/searches", "/v1/searches/small/report", "/metrics", "/", "/nothing"):
            response = client.get(path)
            problem(response, 401)
            assert "small" not in response.text
            assert response.headers["www-authenticate"].startswith("Bearer")
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ok"}
        wrong = {"Authorization": f"Bearer gpnas_{'0' * 12}_{'A' * 43}"}
        problem(client.get("/v1/searches", headers=wrong), 401)


def test_guesses_are_slowed(runs: Path) -> None:
    with served(runs, None, Limits(strangers=1.0)) as client:
        answers = [client.get("/v1/searches").status_code for _ in range(8)]
        assert answers[:5] == [401] * 5
        assert 429 in answers
        assert client.get("/healthz").status_code == 200
    with served(runs, None, Limits(strangers=1.0)) as client:
        answers = [client.post("/login", data={"token": "x"}).status_code for _ in range(8)]
        assert answers[0] != 429
        assert 429 in answers
        assert client.get("/login").status_code == 200


def test_rates_are_those_of_a_token_bucket() -> None:
    now = [0.0]
    rates = Rates(2.0, 3.0, lambda: now[0])
    assert [rates.allow("a") for _ in range(4)] == [True, True, True, False]
    assert rates.allow("b")
    now[0] = 0.5
    assert [rates.allow("a") for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [rates.allow("a") for _ in range(4)] == [True, True, True, False]


def test_no_name_leads_out_of_the_folder(client: TestClient) -> None:
    for name in (
        "..",
        ".service",
        "%2e%2e",
        "..%2fsmall",
        "link",
        "file",
        "empty",
        "small%00",
        "%2fetc",
        "a" * 300,
    ):
        response = client.get(f"/v1/searches/{name}/status")
        assert response.status_code in (404, 405), name


def test_another_host_or_origin_is_turned_away(client: TestClient) -> None:
    assert "Host" in problem(client.get("/v1/searches", headers={"Host": "evil.example"}), 421)
    assert client.get("/v1/searches", headers={"Host": "127.0.0.1:9"}).status_code == 200
    assert client.get("/v1/searches", headers={"Host": "[::1]:9"}).status_code == 200
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        problem(client.post("/v1/searches/small/stop", headers={"Origin": origin}), 403)


def test_a_cookie_alone_writes_nothing(runs: Path) -> None:
    with served(runs, None) as client, Tokens(runs) as tokens:
        client.cookies.set("gpnas", tokens.make("own")[1])
        assert client.get("/v1/searches").status_code == 200
        problem(client.post("/v1/searches"), 401)
        assert client.post("/v1/searches", headers={"Origin": "http://localhost"}).status_code != 401


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"a": 1, "a": 2}', 400, "'a' is repeated"),
        (b'{"a": NaN}', 400, "must be finite, but got NaN"),
        (b'{"a": ', 400, "must be JSON in UTF-8"),
        (b"\xff\xfe", 400, "must be JSON in UTF-8"),
        (b"[" * 100 + b"]" * 100, 400, "at most 32 levels"),
        (b"[" * 100_000 + b"]" * 100_000, 400, ""),
        (b" " * (2**20 + 1), 413, "1,048,576 bytes"),
    ],
)
def test_bodies_are_checked_before_anything_reads_them(
    client: TestClient, body: bytes, status: int, words: str
) -> None:
    response = client.post("/v1/searches", content=body, headers={"Content-Type": "application/json"})
    assert words in problem(response, status)


def test_a_body_of_another_type_is_refused(client: TestClient) -> None:
    response = client.post("/v1/searches", content=b"a=1", headers={"Content-Type": "text/plain"})
    assert "application/json" in problem(response, 415)


def test_every_answer_has_the_headers_of_a_careful_page(client: TestClient) -> None:
    for path in ("/healthz", "/v1/searches", "/nothing", "/v1/searches/small/journal"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])


def test_requests_are_counted_by_route(client: TestClient) -> None:
    client.get("/v1/searches/small")
    client.get("/v1/searches/nothing-of-that-name")
    text = client.get("/metrics").text
    assert 'gpnas_requests_total{method="GET",route="/v1/searches/{search}",status="200"}' in text
    assert 'gpnas_searches{state="unreadable"} 1.0' in text
    assert "nothing-of-that-name" not in text


def test_every_answer_of_a_route_is_documented(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods.values():
            if path.startswith("/v1/"):
                assert {"401", "403", "404", "422", "429", "503"} <= set(method["responses"]), path
    assert document["components"]["schemas"]["ProblemDocument"]["properties"]["detail"]


def test_two_services_on_a_folder_are_refused(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(ServiceError, match="one service at a time"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_the_command_serves_and_ends_on_a_signal(runs: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gpnas.cli", "serve", "--runs", str(runs), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline(), process.stderr.readline()]
        url = re.search(r"http://127\.0\.0\.1:\d+", lines[1])
        assert url is not None, lines
        token = (runs / ".service" / "token").read_text()
        for _ in range(100):
            try:
                response = httpx.get(f"{url[0]}/v1/searches", headers={"Authorization": f"Bearer {token}"})
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        assert response.status_code == 200
        assert "server" not in response.headers
        second = subprocess.run(
            [sys.executable, "-m", "gpnas.cli", "serve", "--runs", str(runs), "--port", "0"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert "one service at a time" in second.stderr
        httpx.post(f"{url[0]}/v1/searches", headers={"Authorization": f"Bearer {token}"})
    finally:
        process.terminate()
        assert process.wait(30) == 143
    audit = [json.loads(line) for line in (runs / ".service" / "audit.jsonl").read_text().splitlines()]
    assert audit[-1]["method"] == "POST"
    assert audit[-1]["role"] == "own"
    assert token not in (runs / ".service" / "audit.jsonl").read_text()
    assert process.stderr is not None
    assert token not in process.stderr.read()
    process.stderr.close()
    with socket.socket() as probe:  # its port is free again
        probe.bind(("127.0.0.1", int(url[0].rpartition(":")[2])))


def test_a_method_that_there_is_not_is_told(runs: Path) -> None:
    with served(runs, None) as client, Tokens(runs) as tokens:
        problem(client.put("/v1/searches", headers=bearer(tokens, "own")), 405)


def test_what_one_caller_may_take_is_bounded(runs: Path) -> None:
    limits = Limits(rate=0.001, burst=4, body=100, architectures=10, jobs=0)
    with served(runs, limits=limits) as client:
        search = {"id": "large", "space": {"scale": 2, "families": {"net": {"width": [*range(50)]}}}}
        assert "100 bytes" in problem(client.post("/v1/searches", json=search), 413)
        parts = client.post("/v1/searches", content=iter([b" " * 60] * 2))  # whose length nobody tells before
        assert "100 bytes" in problem(parts, 413)
        waiting = client.get("/v1/searches/small/explain")
        assert "wait already" in problem(waiting, 503)
        assert int(waiting.headers["retry-after"]) >= 1
        problem(client.get("/v1/searches", params={"limit": 1_001}), 422)
        often = client.get("/v1/searches")
        assert "times a second" in problem(often, 429)
        assert int(often.headers["retry-after"]) >= 1
    with served(runs, limits=Limits(architectures=10)) as client:
        assert "may have 10 architectures" in problem(client.post("/v1/searches", json=search), 422)
        many = {**search, "trials": 10_001}
        assert "trials" in problem(client.post("/v1/searches", json=many), 422)
    with served(runs, limits=Limits(job_seconds=0.01)) as client:
        slow = client.get("/v1/searches/small/explain")
        assert "must be done within 0.01 s" in problem(slow, 503)


async def slow() -> AsyncIterator[bytes]:
    """A body that never ends."""
    while True:
        await asyncio.sleep(0.05)
        yield b" "


async def called(
    app: Any, token: str, path: str, parts: AsyncIterator[bytes] | None = None
) -> AsyncGenerator[Any]:
    """What the service sends, by the messages of ASGI; a body comes in parts."""
    sent: asyncio.Queue[Any] = asyncio.Queue()

    async def receive() -> Any:
        if parts is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": await anext(parts or slow()), "more_body": True}

    scope = {
        "type": "http",
        "method": "GET" if parts is None else "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())],
    }
    task = asyncio.create_task(app(scope, receive, sent.put))
    try:
        while True:
            yield await sent.get()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_slow_bodies_and_many_streams_are_turned_away(runs: Path) -> None:
    async def first(*arguments: Any) -> int:
        async with aclosing(called(*arguments)) as messages:
            return int((await anext(messages))["status"])

    async def tried() -> None:
        with Tokens(runs) as tokens:
            token = tokens.make("own")[1]
            app: Any = application(runs, tokens, limits=Limits(body_seconds=0.2, streams=2))
            async with app._app._app.router.lifespan_context(app._app._app):
                assert await first(app, token, "/v1/searches", slow()) == 408
                paths = ("/v1/events", "/v1/searches/small/events")
                async with AsyncExitStack() as stack:
                    for path in paths:
                        messages = await stack.enter_async_context(aclosing(called(app, token, path)))
                        assert (await anext(messages))["status"] == 200
                        text = b""
                        while b"data: " not in text:
                            text += (await anext(messages))["body"]
                        assert b"event: " in text
                    for path in paths:
                        assert await first(app, token, path) == 503
                assert await first(app, token, paths[0]) == 200  # once others have ended

    asyncio.run(tried())


def test_streams_that_come_at_once_do_not_exceed_their_limit(tmp_path: Path) -> None:
    async def status(app: Any, token: str, all_known: asyncio.Barrier) -> int:
        async with aclosing(called(app, token, "/v1/events")) as messages:
            found = int((await anext(messages))["status"])
            await all_known.wait()
        return found

    async def tried() -> None:
        with Tokens(tmp_path) as tokens:
            token = tokens.make("read")[1]
            app: Any = application(tmp_path, tokens, limits=Limits(streams=3))
            async with app._app._app.router.lifespan_context(app._app._app):
                for _ in range(3):  # the places of those who have gone are free again
                    every = (status(app, token, all_known) for all_known in [asyncio.Barrier(20)] * 20)
                    assert sorted(await asyncio.gather(*every)) == 3 * [200] + 17 * [503]

    asyncio.run(tried())


def test_what_counts_only_after_its_file_was_looked_at_is_told(tmp_path: Path) -> None:
    class Coarse(Runs):
        def written(self, name: str) -> tuple[tuple[int, int], ...]:
            return ()  # as within one tick of the file system's clock

    searched(tmp_path / "run", 2)
    runs = Coarse(tmp_path)
    overview = Overview(Reading(runs), runs, threading.Event())
    assert '"trials": 2' in overview._changes()["run"]
    with Journal.share(tmp_path / "run") as journal:
        journal.begin_session(replace(journal.header, trials=9))
    assert '"trials": 9' in overview._changes()["run"]
    runs.close()


def test_what_a_killed_service_was_about_to_send_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".service" / "bundle-0123456789abcdef.zip"
    left.parent.mkdir()
    left.write_bytes(b"half a bundle")
    with served(tmp_path):
        assert not left.exists()


def test_refusals_say_what_to_do(client: TestClient) -> None:
    assert "takes GET, but got PUT" in problem(client.put("/healthz"), 405)
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert "repeated" in problem(
        client.post("/v1/searches/small/ask", json={"worker": "w"}, headers=twice), 400
    )


def test_memory_that_was_freed_goes_back_while_the_service_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of the C library below one that stays, which by itself it would keep."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("a C library other than glibc keeps memory in its own way")
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    monkeypatch.setattr("gpnas.service.app.TIDY_SECONDS", 0.05)
    *blocks, kept = (library.malloc(1000) for _ in range(100_000))
    for block in blocks:
        ctypes.memset(block, 1, 1000)
        library.free(block)
    before = resident()
    with served(tmp_path):
        deadline = time.monotonic() + 30
        while resident() > before - 50 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert resident() <= before - 50
    library.free(kept)
