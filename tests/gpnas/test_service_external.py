"""Searches that ask and tell over HTTP: leases, fencing, idempotency, and what survives."""

import itertools
import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from gpnas.engine import engine_for
from gpnas.files import SERVICE
from gpnas.journal import Answer, Answers, Journal
from gpnas.journal.answers import KEPT, KEPT_SECONDS, SWEPT, Ages
from gpnas.opening import Wishes, header_of
from gpnas.records import Architecture
from gpnas.run.pricing import searched_space
from gpnas.service import ahead
from gpnas.service.ahead import FORGOTTEN_SECONDS, Ahead, Demand
from gpnas.service.documents import AskBody
from gpnas.service.external import External
from gpnas.service.limits import Limits
from gpnas.service.problems import Problem
from gpnas.service.tokens import FILE, Tokens
from gpnas.space import Family, IntegerAxis, SearchSpace
from gpnas_trainers.cost import training_memory
from tests.gpnas.searched import searched
from tests.gpnas.served import bearer, served
from tests.gpnas.test_service import problem

SPACE = {
    "scale": 2,
    "families": {"net": {"width": {"low": 4, "high": 20, "step": 4}, "depth": {"low": 1, "high": 4}}},
}
FAST = Limits(rate=1e6, burst=1e6)


def truth(architecture: dict[str, Any]) -> float:
    axes = architecture["axes"]
    return 28 + math.log(axes["width"]) / 4 - 0.1 * (axes["depth"] - 3) ** 2


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[TestClient]:
    with served(runs, limits=FAST) as client:
        yield client


NUMBERS = itertools.count()


@pytest.fixture
def search(client: TestClient) -> str:
    """The name of a new search of six trials."""
    name = f"search-{next(NUMBERS)}"
    response = client.post("/v1/searches", json={"id": name, "space": SPACE, "trials": 6, "steps": 100})
    assert response.status_code == 201, response.text
    assert response.json() == {"id": name, "architectures": 20}
    return name


def ask(client: TestClient, search: str, **body: Any) -> dict[str, Any]:
    """A candidate; waits while the engine thinks."""
    for _ in range(600):
        response = client.post(f"/v1/searches/{search}/ask", json={"worker": "desk", **body})
        if response.status_code != 204:
            assert response.status_code == 200, response.text
            return dict(response.json()["candidates"][0])
        assert int(response.headers["retry-after"]) >= 1
        time.sleep(0.05)
    raise AssertionError("nothing came")


def tell(client: TestClient, candidate: dict[str, Any], **body: Any) -> Any:
    body = body or {"value": truth(candidate["architecture"])}
    return client.post(f"/v1/leases/{candidate['lease']}/tell", json=body)


def test_a_whole_search_is_that_of_the_engine(client: TestClient, search: str, runs: Path) -> None:
    values = []
    for _ in range(6):
        candidate = ask(client, search)
        values.append(truth(candidate["architecture"]))
        assert tell(client, candidate).json() == {"candidate": candidate["candidate"], "counted": True}
    detail = problem(client.post(f"/v1/searches/{search}/ask", json={"worker": "desk"}), 410)
    assert "all of its trials are observed" in detail
    told = client.get(f"/v1/searches/{search}").json()
    assert told["counts"] == {"observed": 6}
    assert told["best"]["value"] == max(values)
    assert told["kind"] == "external"
    # the journal is the only state: an engine of its own, given what each decision knew, decides the same
    with Journal.read(runs / search) as journal:
        candidates, observations = journal.candidates(), journal.observations()
        for place, candidate_ in enumerate(candidates):
            engine = engine_for(searched_space(journal), journal.header)
            engine.replay(candidates[:place], observations[: candidate_.decision["observations"]])
            assert engine.suggest(1)[0].architecture == candidate_.architecture
    explained = client.get(f"/v1/searches/{search}/explain").json()
    assert all(row["agrees"] for row in explained["candidates"])
    assert explained["run"] == search  # and not where it lies


def test_workers_at_once_get_candidates_of_their_own(client: TestClient, search: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        candidates = list(pool.map(lambda _: ask(client, search), range(6)))
    assert sorted(each["candidate"] for each in candidates) == [f"c000{number}" for number in range(6)]
    assert len({json.dumps(each["architecture"]) for each in candidates}) == 6
    waiting = client.post(f"/v1/searches/{search}/ask", json={"worker": "desk"})
    assert waiting.status_code == 204  # one of them may yet be lost


def test_a_key_is_answered_once(client: TestClient, search: str) -> None:
    ask(client, search)
    candidate = ask(client, search)
    key = {"Idempotency-Key": "a"}
    for _ in range(600):
        first = client.post(f"/v1/searches/{search}/ask", json={"worker": "w"}, headers=key)
        if first.status_code == 200:
            break
        time.sleep(0.05)
    again = client.post(f"/v1/searches/{search}/ask", json={"worker": "w"}, headers=key)
    assert first.json() == again.json()
    other = client.post(f"/v1/searches/{search}/ask", json={"worker": "another"}, headers=key)
    assert "came with another" in problem(other, 422)
    path, told = f"/v1/leases/{candidate['lease']}/tell", {"value": 28.0}
    answers = [client.post(path, json=told, headers={"Idempotency-Key": "b"}).json() for _ in range(3)]
    assert answers == [{"candidate": candidate["candidate"], "counted": True}] * 3
    assert client.get(f"/v1/searches/{search}").json()["counts"] == {"running": 2, "observed": 1}
    granted, path = client.get(f"/v1/searches/{search}").json()["trials"], f"/v1/searches/{search}/extend"
    for more, status in ((2, 200), (1, 422), (2, 200)):
        answer = client.post(path, json={"trials": granted + more}, headers={"Idempotency-Key": "c"})
        assert answer.status_code == status, answer.text
    assert client.get(f"/v1/searches/{search}").json()["trials"] == granted + 2


def test_a_key_begins_one_search(client: TestClient, runs: Path) -> None:
    key = {"Idempotency-Key": "begin"}
    body = {"id": "one", "space": SPACE, "trials": 3}
    first, again = (client.post("/v1/searches", json=body, headers=key) for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    with sqlite3.connect(runs / SERVICE / FILE) as requests:  # as if the service had died before it answered
        assert requests.execute("UPDATE requests SET answer = NULL").rowcount == 1
    assert client.post("/v1/searches", json=body, headers=key).json() == first.json()
    other = client.post("/v1/searches", json={**body, "id": "two"}, headers=key)
    assert "came with another" in problem(other, 422)
    assert not (runs / "two").exists()
    (runs / "note").mkdir()  # whatever has the name, it is taken
    for name in ("one", "note"):
        taken = client.post("/v1/searches", json={**body, "id": name})
        assert "must be new in its folder" in problem(taken, 409)


def test_a_lost_lease_is_offered_again_from_its_checkpoint_and_fenced(
    client: TestClient, search: str
) -> None:
    old = ask(client, search, worker="old", lease_seconds=1)
    beat = {"points": [{"step": 10, "value": 27.0}], "checkpoint": "s3://here/10"}
    answer = client.post(f"/v1/leases/{old['lease']}/heartbeat", json=beat).json()
    assert (answer["verdict"], answer["next"]) == ("continue", pytest.approx(1 / 3))
    time.sleep(1.1)
    new = ask(client, search, worker="new")
    assert (new["candidate"], new["attempt"], new["checkpoint"]) == (old["candidate"], 2, "s3://here/10")
    assert new["fencing"] > old["fencing"]
    late = client.post(f"/v1/leases/{old['lease']}/heartbeat", json=beat)
    assert "new has it as attempt 2" in problem(late, 409)
    # the old holder's observation comes first: it counts once, and is labelled
    first = tell(client, old, value=28.5)
    problem(first, 409)
    assert first.json()["counted"] is True
    second = tell(client, new, value=29.5)
    problem(second, 409)
    assert second.json()["counted"] is False
    (row,) = client.get(f"/v1/searches/{search}/status").json()["candidates"][:1]
    assert (row["state"], row["value"], row["attempts"]) == ("observed", 28.5, 2)
    lines = [json.loads(line) for line in client.get(f"/v1/searches/{search}/journal").text.splitlines()]
    assert [each["document"]["counted"] for each in lines if each["document"].get("kind") == "late"] == [
        True,
        False,
    ]


def test_what_is_given_back_is_offered_to_the_next(client: TestClient, search: str) -> None:
    candidate = ask(client, search)
    path = f"/v1/leases/{candidate['lease']}/give-back"
    assert client.post(path, json={"checkpoint": "file:///x"}).json()["outcome"] == "given back"
    again = ask(client, search)
    assert (again["candidate"], again["checkpoint"]) == (candidate["candidate"], "file:///x")
    assert "`preempted`" in problem(tell(client, again, value=1.0, checkpoint="file:///y"), 422)
    preempted = tell(client, again, failure={"kind": "preempted"}, checkpoint="file:///y")
    assert preempted.json()["outcome"] == "preempted"
    third = ask(client, search)
    assert (third["attempt"], third["checkpoint"]) == (3, "file:///y")
    lines = [json.loads(line) for line in client.get(f"/v1/searches/{search}/journal").text.splitlines()]
    ended = [each["document"] for each in lines if each["kind"] == "ended"]
    assert [(each["candidate"], each["number"], each["outcome"]) for each in ended] == [
        (candidate["candidate"], 1, "given back"),
        (candidate["candidate"], 2, "preempted"),
    ]
    problem(client.post(path, json={}), 409)


def test_failures_are_observed_with_their_kind(client: TestClient, search: str) -> None:
    candidate = ask(client, search)
    assert tell(client, candidate, failure={"kind": "out of memory", "reason": "24 GiB"}).json()["counted"]
    explained = client.get(f"/v1/searches/{search}/explain").json()["candidates"]
    assert explained[0]["failure"] == "out of memory: 24 GiB"
    other = ask(client, search)
    assert "both or neither" in problem(tell(client, other, seconds=1.0), 422)
    assert "both or neither" in problem(tell(client, other, value=1.0, failure={"kind": "failed"}), 422)


def test_a_hopeless_training_is_told_to_stop(client: TestClient) -> None:
    name = f"search-{next(NUMBERS)}"
    begun = {"id": name, "space": SPACE, "trials": 12, "steps": 100, "early_stopping": True}
    assert client.post("/v1/searches", json=begun).status_code == 201
    for _ in range(8):
        good = ask(client, name)
        points = [{"step": step, "value": 28 + step / 100} for step in (25, 50, 75)]
        client.post(f"/v1/leases/{good['lease']}/heartbeat", json={"points": points})
        tell(client, good, value=29.0 + 0.001 * int(good["candidate"][1:]))
    bad = ask(client, name)
    path = f"/v1/leases/{bad['lease']}/heartbeat"
    answers = [
        client.post(path, json={"points": [{"step": step, "value": 10.0}]}).json() for step in (25, 50, 75)
    ]
    assert answers[-1]["verdict"] == "stop"
    assert answers[-1]["chance"] < 0.05
    assert client.get(f"/v1/searches/{name}").json()["counts"]["stopped"] == 1
    assert client.post(path, json={}).json()["verdict"] == "stop"


def test_people_want_veto_and_bring_trainings(client: TestClient, search: str) -> None:
    wanted = {"family": "net", "axes": {"width": 4, "depth": 1}}
    vetoed = {"family": "net", "axes": {"width": 20, "depth": 3}}
    known = {"family": "net", "axes": {"width": 12, "depth": 3}}
    base = f"/v1/searches/{search}"
    name = client.post(f"{base}/wanted", json={"architecture": wanted}).json()["candidate"]
    assert ask(client, search)["architecture"] == wanted
    assert client.post(f"{base}/vetoed", json={"architecture": vetoed}).status_code == 201
    told = client.post(f"{base}/observations", json={"architecture": known, "value": 28.9})
    assert told.status_code == 201
    for _ in range(5):
        candidate = ask(client, search)
        assert candidate["architecture"] != vetoed
        tell(client, candidate)
    assert client.get(base).json()["best"]["id"] == told.json()["candidate"]
    assert name == "c0000"
    stranger = {"family": "net", "axes": {"width": 5, "depth": 1}}
    problem(client.post(f"{base}/wanted", json={"architecture": stranger}), 422)


def test_capacity_leaves_what_is_too_large_to_others(client: TestClient) -> None:
    name = f"search-{next(NUMBERS)}"
    space = {
        "scale": 2,
        "families": {"drn": {"features": [8, 16], "blocks": {"low": 1, "high": 3}, "stages": [1]}},
    }
    assert client.post("/v1/searches", json={"id": name, "space": space, "trials": 6}).status_code == 201
    seen = []
    for _ in range(600):
        answer = client.post(
            f"/v1/searches/{name}/ask", json={"worker": "small", "capacity": {"parameters": 20_000}}
        )
        if answer.status_code == 200:
            (candidate,) = answer.json()["candidates"]
            assert candidate["costs"]["parameters"] <= 20_000
            seen.append(candidate["candidate"])
        elif len(client.get(f"/v1/searches/{name}/status").json()["candidates"]) == 6:
            break
        time.sleep(0.02)
    rest = [ask(client, name, worker="large") for _ in range(6 - len(seen))]
    assert rest
    assert all(each["costs"]["parameters"] > 20_000 for each in rest)


def test_capacity_by_the_memory_that_a_training_step_holds(client: TestClient) -> None:
    """As the trainers count it for the space's own recipe."""
    name = f"search-{next(NUMBERS)}"
    recipe = {"batch_size": 3, "hr_patch": 48, "steps": 10, "ms_ssim_weight": 0.0}
    family = {"features": [8, 16], "blocks": {"low": 1, "high": 3}, "stages": [1]}
    space = {"scale": 2, "families": {"drn": family}, "recipe": recipe}
    assert client.post("/v1/searches", json={"id": name, "space": space, "trials": 6}).status_code == 201
    counted = {
        (features, blocks): training_memory(
            "drn", 2, batch_size=3, hr_patch=48, ms_ssim=False, features=features, blocks=blocks, stages=1
        )
        for features in (8, 16)
        for blocks in (1, 2, 3)
    }
    candidates = [ask(client, name) for _ in range(6)]
    for each in candidates:
        axes = each["architecture"]["axes"]
        assert each["costs"]["memory"] == pytest.approx(counted[axes["features"], axes["blocks"]], rel=1e-12)
    for each in candidates:
        assert client.post(f"/v1/leases/{each['lease']}/give-back", json={}).status_code == 200
    most = sorted(counted.values())[1]
    small = {"worker": "small", "count": 6, "capacity": {"memory": most}}
    given = client.post(f"/v1/searches/{name}/ask", json=small).json()["candidates"]
    assert sorted(each["costs"]["memory"] for each in given) == pytest.approx(sorted(counted.values())[:2])


def test_capacity_holds_after_a_service_began_again(tmp_path: Path) -> None:
    """Also where nothing is left to be suggested, and what was given back is all that there is."""
    family = {"features": [8, 16], "blocks": {"low": 1, "high": 2}, "stages": [1]}
    space = {"scale": 2, "families": {"drn": family}}
    with served(tmp_path, limits=FAST) as client:
        client.post("/v1/searches", json={"id": "s", "space": space, "trials": 4})
        candidates = [ask(client, "s") for _ in range(4)]
        for each in candidates:
            assert client.post(f"/v1/leases/{each['lease']}/give-back", json={}).status_code == 200
    cheapest = min(candidates, key=lambda each: float(each["costs"]["gmacs"]))
    with served(tmp_path, limits=FAST) as client:
        capacity = {"gmacs": cheapest["costs"]["gmacs"]}
        assert ask(client, "s", count=4, capacity=capacity)["candidate"] == cheapest["candidate"]
        more = {"worker": "w", "capacity": capacity}
        assert client.post("/v1/searches/s/ask", json=more).status_code == 204


def test_capacity_by_the_seconds_that_a_training_is_expected_to_take(client: TestClient) -> None:
    """As those took that were told: here ten times its width, whatever the depth."""
    name = f"search-{next(NUMBERS)}"
    space = {"families": {"net": {"width": [1, 2, 4, 8, 16, 32], "depth": [1, 2, 3, 4, 5]}}}
    assert client.post("/v1/searches", json={"id": name, "space": space, "trials": 20}).status_code == 201
    for _ in range(12):
        candidate = ask(client, name)
        width = candidate["architecture"]["axes"]["width"]
        tell(client, candidate, value=28.0 + width / 32, seconds=10.0 * width)
    cheap = {"architecture": {"family": "net", "axes": {"width": 2, "depth": 5}}}
    wanted = client.post(f"/v1/searches/{name}/wanted", json=cheap).json()["candidate"]
    waited, given = 0, list[dict[str, Any]]()
    while len(given) < 2 and waited < 600:
        answer = client.post(f"/v1/searches/{name}/ask", json={"worker": "w", "capacity": {"seconds": 90.0}})
        if answer.status_code == 200:
            given += answer.json()["candidates"]
        elif len(client.get(f"/v1/searches/{name}/status").json()["candidates"]) == 20:
            break
        time.sleep(0.05)
        waited += 1
    assert wanted in {each["candidate"] for each in given}
    for each in given:
        assert each["costs"]["seconds"] <= 90.0
        assert each["architecture"]["axes"]["width"] <= 8  # a width of 16 takes 160 s
    left = 8 - len(given)
    assert left
    for each in [ask(client, name, worker="large") for _ in range(left)]:
        width = each["architecture"]["axes"]["width"]
        assert each["costs"]["seconds"] == pytest.approx(10.0 * width, rel=0.25)


def test_a_search_is_stopped_goes_on_and_is_extended(client: TestClient, search: str) -> None:
    base = f"/v1/searches/{search}"
    candidate = ask(client, search)
    assert client.post(f"{base}/stop").json() == {"stopped": True}
    assert "was stopped" in problem(client.post(f"{base}/ask", json={"worker": "w"}), 410)
    beat = client.post(f"/v1/leases/{candidate['lease']}/heartbeat", json={}).json()
    assert (beat["verdict"], beat["reason"]) == ("stop", "the search was stopped; give the lease back")
    assert client.post(f"{base}/go-on").json() == {"stopped": False}
    tell(client, candidate)
    for _ in range(5):
        tell(client, ask(client, search))
    problem(client.post(f"{base}/ask", json={"worker": "w"}), 410)
    assert client.post(f"{base}/extend", json={"trials": 7}).json() == {"trials": 7}
    assert ask(client, search)["candidate"] == "c0006"
    assert "more, not less" in problem(client.post(f"{base}/extend", json={"trials": 3}), 422)


def test_a_deleted_search_lies_in_the_trash(client: TestClient, search: str, runs: Path) -> None:
    ask(client, search)
    assert client.delete(f"/v1/searches/{search}").status_code == 204
    problem(client.get(f"/v1/searches/{search}"), 404)
    (kept,) = (runs / ".service" / "trash").glob(f"{search}-*")
    with Journal.read(kept) as journal:
        assert len(journal.candidates()) == 1


def test_a_service_that_ended_knows_everything_again(tmp_path: Path) -> None:
    with served(tmp_path, limits=FAST) as client:
        client.post("/v1/searches", json={"id": "s", "space": SPACE, "trials": 3})
        candidate = ask(client, "s")
        tell(client, ask(client, "s"))
        key = {"Idempotency-Key": "k"}
        token = client.headers["authorization"]
        before = client.post(
            f"/v1/leases/{candidate['lease']}/tell", json={"value": 28.0}, headers=key
        ).json()
    with served(tmp_path, limits=FAST) as client:
        client.headers["authorization"] = token
        after = client.post(f"/v1/leases/{candidate['lease']}/tell", json={"value": 28.0}, headers=key).json()
        assert after == before
        assert client.get("/v1/searches/s").json()["counts"] == {"observed": 2}
        assert ask(client, "s")["candidate"] == "c0002"


def test_what_if_writes_nothing(client: TestClient, search: str, runs: Path) -> None:
    for _ in range(3):
        candidate = ask(client, search)
        if candidate["candidate"] != "c0002":
            tell(client, candidate)
    before = (client.get(f"/v1/searches/{search}/journal").text, client.get(f"/v1/searches/{search}").json())
    body = {"told": [{"candidate": "c0002", "value": 40.0}], "count": 2}
    told = client.post(f"/v1/searches/{search}/what-if", json=body).json()
    assert told["observations"] == 3
    assert [each["id"] for each in told["candidates"]] == ["c0003", "c0004"]
    with Journal.read(runs / search) as journal:
        assert Architecture.from_json(told["candidates"][0]["architecture"]) in searched_space(journal)
    assert before == (
        client.get(f"/v1/searches/{search}/journal").text,
        client.get(f"/v1/searches/{search}").json(),
    )
    observed = {"told": [{"candidate": "c0000", "value": 1.0}]}
    assert "must be pending" in problem(client.post(f"/v1/searches/{search}/what-if", json=observed), 422)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("scale: 2\nfamilies:\n  net: {width: {low: 4, high: 1}}\n", "space:3"),
        ("scale: 2\nfamilies: [\n", "space:"),
        ("scale: 2\nfamilies: {net: {table: ../../../etc/passwd}}\n", "may name no file"),
        ("scale: 2\nfamilies: {mine: {network: 'os:system', width: [1, 2]}}\n", "may name no file"),
        ("scale: 2\ntrainer: 'subprocess:call'\nfamilies: {net: {width: [1, 2]}}\n", "may name no file"),
        ("scale: 2\nfamilies: {net: {a: {low: 1, high: 1000}, b: {low: 1, high: 1000}, c: [1, 2]}}\n", ""),
    ],
)
def test_a_space_that_is_sent_is_checked_and_names_no_file(
    client: TestClient, space: str, words: str
) -> None:
    detail = problem(client.post("/v1/searches", json={"id": "bad", "space": space}), 422)
    assert words in detail
    assert "/tmp" not in detail
    problem(client.get("/v1/searches/bad"), 404)


def test_wrong_requests_are_told_what_is_wrong(client: TestClient, search: str) -> None:
    path = f"/v1/searches/{search}/ask"
    for body, words in (
        ({}, "worker"),
        ({"worker": "w", "count": "2"}, "count"),
        ({"worker": "w", "count": 0}, "count"),
        ({"worker": "w", "more": 1}, "more"),
        ({"worker": "a\nb"}, "worker"),
        ({"worker": "w", "lease_seconds": 0.1}, "lease_seconds"),
    ):
        assert words in problem(client.post(path, json=body), 422)
    problem(client.post("/v1/leases/nothing/tell", json={"value": 1.0}), 404)
    problem(client.post(f"/v1/leases/{search}:0000/tell", json={"value": 1.0}), 404)
    problem(client.post("/v1/leases/..:0000/tell", json={"value": 1.0}), 404)
    problem(client.post("/v1/searches", json={"id": "../x", "space": SPACE}), 422)
    assert "must be new" in problem(client.post("/v1/searches", json={"id": search, "space": SPACE}), 409)
    candidate = ask(client, search)
    metrics = {"value": 1.0, "metrics": {"seconds": 1.0}}
    assert "none of" in problem(client.post(f"/v1/leases/{candidate['lease']}/tell", json=metrics), 422)


def test_roles_bound_what_is_done(runs: Path, client: TestClient, search: str) -> None:
    candidate = ask(client, search)
    with Tokens(runs) as tokens:
        read, work = bearer(tokens, "read"), bearer(tokens, "work")
    base = f"/v1/searches/{search}"
    problem(client.post(f"{base}/ask", json={"worker": "w"}, headers=read), 403)
    problem(client.post(f"/v1/leases/{candidate['lease']}/tell", json={"value": 1.0}, headers=read), 403)
    for method, path in (("POST", f"{base}/stop"), ("DELETE", base), ("POST", "/v1/searches")):
        assert "role `own`" in problem(client.request(method, path, headers=work, json={}), 403)
    assert (
        client.post(f"/v1/leases/{candidate['lease']}/tell", json={"value": 1.0}, headers=work).status_code
        == 200
    )


def test_a_run_that_another_process_drives_is_looked_at_only(client: TestClient, runs: Path) -> None:
    searched(runs / "driven", 2)
    with Journal.read(runs / "driven") as journal:
        header = journal.header
    problem(client.post("/v1/searches/driven/ask", json={"worker": "w"}), 409)
    with Journal.create_or_open(runs / "driven", header):
        assert client.get("/v1/searches/driven").json()["state"] == "running"
        problem(client.post("/v1/searches/driven/ask", json={"worker": "w"}), 409)
        assert "must be stopped" in problem(client.delete("/v1/searches/driven"), 409)


def test_many_who_ask_and_tell_lose_nothing(client: TestClient) -> None:
    name, trials = f"search-{next(NUMBERS)}", 20
    begun = {"id": name, "space": SPACE, "trials": trials, "strategy": "random"}
    assert client.post("/v1/searches", json=begun).status_code == 201
    told: dict[str, float] = {}
    guard = threading.Lock()

    def work(number: int) -> None:
        while True:
            answer = client.post(f"/v1/searches/{name}/ask", json={"worker": f"w{number}"})
            if answer.status_code == 410:
                return
            if answer.status_code == 204:
                time.sleep(0.02)
                continue
            (candidate,) = answer.json()["candidates"]
            value = truth(candidate["architecture"])
            assert tell(client, candidate, value=value).json()["counted"]
            with guard:
                told[candidate["candidate"]] = value

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    rows = client.get(f"/v1/searches/{name}/status").json()["candidates"]
    assert {row["id"]: row["value"] for row in rows} == told
    assert len(told) == trials


def test_requests_that_wait_share_a_commit_and_fail_alone(tmp_path: Path) -> None:
    with served(tmp_path, limits=FAST) as client:
        client.post("/v1/searches", json={"id": "s", "space": SPACE, "trials": 6})
    external = External(tmp_path / "s")
    with external:
        wanted = [Architecture("net", {"width": width, "depth": 1}) for width in (4, 8, 12, 16)]

        def fails() -> Answer:
            external.wanted(wanted[0])
            raise Problem(409, "no")

        with external.moment():  # so that all of them wait
            futures = [
                external.once("a", 1, lambda: external.wanted(wanted[1])),
                external.once("b", 2, fails),
                external.once("c", 3, lambda: external.wanted(wanted[2])),
                external.once("c", 3, lambda: external.wanted(wanted[2])),
            ]
            futures[3].cancel()
        told = [future.exception() or future.result() for future in futures[:3]]
        assert isinstance(told[1], Problem)
        assert [each.body for each in told if isinstance(each, Answer)] == [
            {"candidate": "c0000"},
            {"candidate": "c0001"},
        ]
        again = external.once("b", 2, lambda: external.wanted(wanted[3])).result(10)  # none was kept
        assert again.body == {"candidate": "c0002"}
        assert external.once("a", 1, fails).result(10) == told[0]
        asking = AskBody(worker="w", lease_seconds=60.0)
        (lent,) = external.once(None, None, lambda: external.ask(asking)).result(10).body["candidates"]
        assert lent["candidate"] == "c0000"
        with Journal.read(tmp_path / "s") as journal:
            assert [each.architecture for each in journal.candidates()] == wanted[1:]
    with pytest.raises(Problem, match="is being closed"):
        external.once(None, None, fails)


def test_a_search_that_cannot_be_thought_of_is_thought_of_again(
    client: TestClient, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "PAUSE_SECONDS", 0.01)
    install, failed = Ahead._install, threading.Event()

    def fails_once(self: Ahead, *arguments: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError
        install(self, *arguments)

    monkeypatch.setattr(Ahead, "_install", fails_once)
    search = request.getfixturevalue("search")  # which is thought of as soon as it is there
    assert ask(client, search)["candidate"] == "c0000"
    assert failed.is_set()


def test_what_is_kept_ready_grows_with_what_is_asked_for() -> None:
    now = [0.0]
    demand = Demand(lambda: now[0])
    assert (demand.rate(), demand.ready()) == (0, 0)
    for _ in range(40):
        demand.note(2)
        now[0] += 0.25
    assert demand.rate() == pytest.approx(8, rel=0.05)
    assert demand.ready() == pytest.approx(120, rel=0.02)
    now[0] += FORGOTTEN_SECONDS
    assert demand.rate() == 0
    assert demand.ready() == pytest.approx(60, rel=0.02)


def test_a_kept_answer_outlives_a_wall_clock_that_jumps(tmp_path: Path) -> None:
    space = SearchSpace([Family("net", (IntegerAxis("width", (4, 8)),))])
    with Journal.share(tmp_path / "run", header_of(space, Wishes(trials=1))[0]) as journal:
        answers = Answers(journal)
        answers.keep("first", Answer("a", 200, {"number": 1}))
        with (
            journal.writing() as connection
        ):  # as a clock left it that was a day behind, or is a day ahead now
            connection.execute("UPDATE answers SET time = '2001-01-01T00:00:00.000+00:00'")
        for number in range(3 * SWEPT):
            answers.keep(f"later {number}", Answer("b", 200, {}))
        assert answers.find("first") == Answer("a", 200, {"number": 1})


def test_answers_are_thrown_away_after_a_day_that_nobody_sets_and_where_there_are_too_many() -> None:
    seconds = 1e6
    ages = Ages(1_000, lambda: seconds)  # those of before may be new, so they stay for a day
    assert ages.past(1_064) == 1_064 - KEPT
    seconds += KEPT_SECONDS / 2
    assert ages.past(1_128) == 1_128 - KEPT
    seconds += KEPT_SECONDS / 2 + 1
    assert ages.past(1_192) == 1_064  # came before the mark that is a day old
    seconds += KEPT_SECONDS + 1
    assert ages.past(1_256) == 1_192
    assert ages.past(1_256 + 2 * KEPT) == 1_256 + KEPT
    seconds += 2 * KEPT_SECONDS
    assert ages.past(1_257 + 2 * KEPT) == 1_256 + 2 * KEPT  # the newest stays
