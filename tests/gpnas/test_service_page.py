"""The live page in a real browser, and the events that change it, from a service that dies on the way."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_core_python.selenium import Axe

from gpnas.client import Point, Told
from gpnas.service.pages import HEIGHT, WIDTH, sparkline
from gpnas.service.tokens import Tokens
from tests.gpnas.searched import searched
from tests.gpnas.served import Service

SPACE = {
    "scale": 2,
    "families": {"net": {"width": {"low": 4, "high": 20, "step": 4}, "depth": {"low": 1, "high": 4}}},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("runs"))
    service.start()
    yield service
    service.end()


def asked(service: Service, search: str) -> Any:
    with service.client() as client:
        for _ in range(600):
            found, _ = client.ask(search, "desk")
            if found:
                return found[0]
            time.sleep(0.05)
    raise AssertionError("nothing came")


def until(condition: Any, seconds: float = 60.0) -> None:
    """Waits until something is so."""
    for _ in range(round(seconds / 0.05)):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to be")


def text(browser: Any, name: str) -> str:
    return str(
        browser.execute_script("return document.getElementById(arguments[0])?.textContent || ''", name)
    )


def log_in(browser: Any, service: Service) -> None:
    from selenium.webdriver.common.by import By

    browser.get(f"{service.url}/")
    if "Searches" in browser.title:
        return
    browser.find_element(By.ID, "token").send_keys(service.token)
    browser.find_element(By.CSS_SELECTOR, "main button").click()
    until(lambda: "Searches" in browser.title)


def test_events_miss_nothing_wherever_a_link_was_lost(service: Service) -> None:
    with service.client() as client:
        client.begin("told", SPACE, trials=3, strategy="random")
        for number in range(3):
            lent = asked(service, "told")
            client.heartbeat(lent.lease, [Point(1, 0.5)])
            client.tell(lent.lease, Told(value=float(number)))
        rows = [(row["id"], row["kind"], row["document"]) for row in client.journal("told")]
    bearer = {"Authorization": f"Bearer {service.token}"}

    def events(count: int, last: str | None) -> list[tuple[str, str, Any]]:
        headers = bearer if last is None else {**bearer, "Last-Event-ID": last}
        found, fields = [], {}
        with httpx.stream("GET", f"{service.url}/v1/searches/told/events", headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                fields[name] = value
                if not line and "data" in fields:
                    found.append((fields["id"], fields["event"], json.loads(fields["data"])))
                    fields = {}
                if len(found) == count:
                    break
        return found

    assert events(len(rows), None) == rows
    for place in range(len(rows) - 1):
        assert events(len(rows) - place - 1, rows[place][0]) == rows[place + 1 :]
    wrong = httpx.get(f"{service.url}/v1/searches/told/events", headers={**bearer, "Last-Event-ID": "x"})
    assert wrong.status_code == 422


def test_a_search_is_watched_stopped_extended_and_found_again(browser: Any, service: Service) -> None:
    from selenium.webdriver.common.by import By

    log_in(browser, service)
    with service.client() as client:
        client.begin("live", SPACE, trials=6, strategy="random")
        browser.get(f"{service.url}/searches/live")
        until(lambda: text(browser, "link") == "live")
        lent = asked(service, "live")
        until(lambda: "running" in text(browser, f"trial-{lent.candidate}"))
        client.heartbeat(lent.lease, [Point(1, 27.5)])
        until(lambda: "27.5000" in text(browser, f"trial-{lent.candidate}"))
        client.tell(lent.lease, Told(value=28.25))
        until(lambda: "28.2500" in text(browser, f"trial-{lent.candidate}"))
        until(lambda: text(browser, "ended") == "1" and "28.25" in text(browser, "best"))
        until(lambda: browser.find_elements(By.CSS_SELECTOR, "#figure-course canvas"))

        browser.find_element(By.CSS_SELECTOR, "button[data-post=stop]").click()
        until(lambda: "Stop: done" in text(browser, "said"))
        stopped = httpx.post(
            f"{service.url}/v1/searches/live/ask",
            json={"worker": "w"},
            headers={"Authorization": f"Bearer {service.token}"},
        )
        assert stopped.status_code == 410
        browser.find_element(By.CSS_SELECTOR, "button[data-post=go-on]").click()
        until(lambda: "Go on: done" in text(browser, "said"))

        trials = browser.find_element(By.ID, "trials")
        trials.clear()
        trials.send_keys("8")
        browser.find_element(By.CSS_SELECTOR, "form[data-post=extend] button").click()
        until(lambda: text(browser, "granted") == "8")

        wish = browser.find_element(By.ID, "architecture")
        wish.send_keys("net:width=4,depth=1")
        browser.find_element(By.CSS_SELECTOR, "#wish button[value=wanted]").click()
        until(lambda: "net:width=4,depth=1" in browser.find_element(By.ID, "trials-table").text)

    service.end(9)
    until(lambda: text(browser, "link") == "lost, trying again")
    service.start()
    until(lambda: text(browser, "link") == "live")
    second = asked(service, "live")
    with service.client() as client:
        client.tell(second.lease, Told(value=29.5))
    until(lambda: "29.5000" in text(browser, f"trial-{second.candidate}"))
    until(lambda: "29.5" in text(browser, "best"))
    problems = [
        each["message"] for each in browser.get_log("browser") if "Content Security" in each["message"]
    ]
    assert problems == []
    assert Axe().run(browser)["violations"] == []


def test_the_list_of_searches_changes_as_they_do(browser: Any, service: Service) -> None:
    from selenium.webdriver.common.by import By

    log_in(browser, service)
    until(lambda: text(browser, "link") == "live")

    def row(name: str) -> list[str]:
        # at once, since the page may put another row in its place
        cells = f"document.querySelectorAll('tr[data-search={name}] > *')"
        return list(browser.execute_script(f"return [...{cells}].map(each => each.innerText)"))

    def line() -> Any:
        return browser.execute_script(
            "return document.querySelector('tr[data-search=listed] polyline')?.getAttribute('points')"
        )

    with service.client() as client:
        client.begin("listed", SPACE, trials=3, strategy="random")
        until(lambda: row("listed")[:3] == ["listed", "interrupted", "0 of 3"])
        values = (1.0, 3.0)
        for value in values:
            client.tell(asked(service, "listed").lease, Told(value=value))
        until(lambda: row("listed")[2:4] == ["2 of 3", "3.000"])
        assert line() == sparkline(values)
        client.tell(asked(service, "listed").lease, Told(value=2.0))
        until(lambda: row("listed")[1:3] == ["finished", "3 of 3"])
        assert line() == sparkline((*values, 3.0))
        assert [each.text for each in browser.find_elements(By.CSS_SELECTOR, "#searches tbody th")] == sorted(
            each["id"] for each in client.searches()
        )
    headers = {"Authorization": f"Bearer {service.token}"}
    assert httpx.delete(f"{service.url}/v1/searches/listed", headers=headers).status_code == 204
    until(lambda: row("listed") == [])


def test_a_search_is_begun_with_its_space_checked(browser: Any, service: Service) -> None:
    from selenium.webdriver.common.by import By

    log_in(browser, service)
    space = browser.find_element(By.ID, "space")
    space.clear()
    space.send_keys("scale: 2\nfamilies:\n  net: {width: {low: 4, high: 1}}\n")
    until(lambda: "space:3" in text(browser, "checked"))
    assert space.get_attribute("aria-invalid") == "true"
    space.clear()
    space.send_keys("scale: 2\nfamilies:\n  net: {width: [4, 8], depth: [1, 2, 3]}\n")
    until(lambda: text(browser, "checked") == "6 architectures")
    assert Axe().run(browser)["violations"] == []
    browser.find_element(By.ID, "id").send_keys("begun")
    browser.find_element(By.CSS_SELECTOR, "#begin button").click()
    until(lambda: browser.current_url.endswith("/searches/begun"))
    assert text(browser, "granted") == "16"


def test_tokens_open_pages_and_a_link_only_shows(service: Service) -> None:
    searched(service.runs / "evil", 3, failing="<script>alert(1)</script>")
    with Tokens(service.runs) as tokens:
        read, own = tokens.make("read")[1], tokens.make("own")[1]
    with httpx.Client(base_url=service.url, headers={"Accept": "text/html"}) as person:
        assert person.get("/").headers["location"] == "/login"
        assert person.post("/login", data={"token": "wrong"}).status_code == 401
        assert person.get("/", params={"token": own}).status_code == 303  # sent to log in, not let in
        assert not person.cookies
        answer = person.get("/", params={"token": read})
        assert answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        page = person.get("/")
        assert "evil" in page.text
        assert 'id="begin"' not in page.text
        search = person.get("/searches/evil").text
        assert "data-post" not in search
        assert "<script>alert" not in search
        assert person.post("/v1/searches/evil/stop", headers={"Origin": service.url}).status_code == 403
        assert person.get("/searches/nothing").status_code == 404
        assert person.get("/assets/..%2fapp.py").status_code == 404
        person.post("/logout", headers={"Origin": service.url})
        assert person.get("/").headers["location"] == "/login"


def test_a_sparkline_spans_its_box() -> None:
    points = [tuple(map(float, each.split(","))) for each in sparkline((1.0, 2.0, 2.0, 5.0)).split()]
    assert [round(x) for x, _ in points] == [0, 40, 80, WIDTH]
    assert points[0][1] == HEIGHT - 2
    assert points[-1][1] == 2
    assert points[1][1] - points[0][1] == pytest.approx(-(HEIGHT - 4) / 4, abs=0.1)
    assert sparkline((1.0,)) == ""


def test_what_a_page_asks_for_is_its_own(service: Service) -> None:
    for name in ("live.js", "live.css", "vega.js"):
        answer = httpx.get(f"{service.url}/assets/{name}")
        assert answer.status_code == 200
        if name != "vega.js":
            # a name space of SVG is a name, and asked for by nobody
            assert not re.search(r"https?://", answer.text.replace("http://www.w3.org/2000/svg", ""))
    assert httpx.get(f"{service.url}/assets/app.py").status_code == 404


def test_pages_of_searches_lie_beside_their_runs(service: Service, tmp_path: Path) -> None:
    for name in ("..%2f", "%00", "a" * 200):
        answer = httpx.get(
            f"{service.url}/searches/{name}", headers={"Authorization": f"Bearer {service.token}"}
        )
        assert answer.status_code == 404
