"""The service under load: ask/tell pairs, event streams, its page in a browser, and its memory.

    python experiments/service_load.py pairs [--seconds 20] [--strategy random] [--warm 60]
    python experiments/service_load.py streams [--streams 300]
    python experiments/service_load.py page [--trials 1000]
    python experiments/service_load.py memory [--requests 100000]
    python experiments/service_load.py table RESULT.json …

Each starts `gpnas serve` as a process of its own on searches of 10,000 architectures with 500 observations,
and prints one JSON document (`--json FILE` keeps it). Processor seconds are those of the service's process
and of its helpers, as the system counts them, so that they mean something on a machine that others use too.

`pairs`: clients in processes of their own ask and tell without training in between. Before that clients ask
for `--burst` seconds, by which the service learns how many suggestions to have ready, and nobody asks for
`--warm` seconds, as while workers train, in which it works them out; it goes on while the measurement lasts.
Who asks faster than the engine thinks is answered 204, which is counted by itself.
`streams`: so many event streams are open on one search while it is told values; how long after a tell each
stream has its event.
`page`: headless Chromium opens the page of a search of so many trials, says when it first painted, and how
long after a tell its table shows the value, painted.
`memory`: resident memory of the service after each tenth of so many requests: asks, tells, looks and errors.
`table`: writes results/service_load.md from what `--json` kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import resource
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import processor

from gpnas.client import Client, Lent, Told
from gpnas.journal import Journal
from gpnas.opening import Wishes, header_of
from gpnas.records import Candidate, Fidelity, Observation, Strategy
from gpnas.space import Family, IntegerAxis, SearchSpace

SPACE = SearchSpace([Family("net", tuple(IntegerAxis(name, tuple(range(1, 11))) for name in "abcd"))])
TICKS = os.sysconf("SC_CLK_TCK")
RESULTS = Path(__file__).parent / "results" / "service_load.md"


def value_of(axes: Any) -> float:
    """A smooth value with its best inside the space, and noise."""
    merit = -sum((axes[name] - best) ** 2 for name, best in zip("abcd", (3, 5, 7, 9), strict=True)) / 10
    return merit + random.gauss(0, 0.3)


def prepared(run: Path, observations: int, trials: int, strategy: Strategy) -> None:
    """Writes a search with so many observations of architectures drawn by chance."""
    header, _ = header_of(SPACE, Wishes(trials=trials, strategy=strategy))
    chance = random.Random(0)
    random.seed(0)
    candidates = [
        Candidate(
            f"c{number:04d}", SPACE[chance.randrange(len(SPACE))], Fidelity(1), number, {"phase": "random"}
        )
        for number in range(observations)
    ]
    with Journal.share(run, header) as journal, journal.writing(keep=True):
        journal.commit_candidates(candidates)
        for each in candidates:
            journal.commit_observation(Observation(each, value_of(each.architecture.axes), None, 1.0))


class Service:
    """A service in a process of its own."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "gpnas.cli", "serve", "--runs", str(self._runs), "--port", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        self._process.stderr.readline()
        found = re.search(r"http://\S+:\d+", self._process.stderr.readline())
        assert found is not None
        self.url, self.token = found[0], (self._runs / ".service" / "token").read_text()

    def restart(self) -> None:
        """Ends it and starts another one on the same folder."""
        self.end()
        self._start()

    def worker_token(self, name: str) -> str:
        """A token of a worker's own, since the service bounds how often each one asks."""
        command = [sys.executable, "-m", "gpnas.cli", "token", "make", "--runs", str(self._runs)]
        command += ["--role", "work", "--name", name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def client(self) -> Client:
        """A client of it."""
        return Client(self.url, self.token)

    def processor(self) -> tuple[float, float]:
        """Seconds of the processor that the service itself has had, and that its helpers have had."""
        own = self._process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return _processor(own), sum(map(_processor, map(int, children)))

    def resident(self) -> float:
        """Resident memory of the service's own process, in MiB."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) / 1024

    def end(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(30)


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def serving(observations: int, strategy: Strategy, trials: int = 10_000) -> Iterator[Service]:
    """A service on one search, `load`."""
    with tempfile.TemporaryDirectory() as folder:
        prepared(Path(folder) / "load", observations, trials, strategy)
        service = Service(Path(folder))
        try:
            yield service
        finally:
            service.end()


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and largest of times, in milliseconds."""
    ordered = sorted(seconds) or [0.0]
    chosen = {
        "median": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "most": ordered[-1],
    }
    return {name: round(1e3 * each, 1) for name, each in chosen.items()}


def pairs(options: argparse.Namespace) -> dict[str, Any]:
    """Ask/tell pairs of several clients."""
    with serving(options.observations, options.strategy) as service:
        context = multiprocessing.get_context("fork")
        results, begin = context.Queue(), context.Event()
        workers = [
            context.Process(target=_asks_and_tells, args=(service, number, options, begin, results))
            for number in range(options.clients)
        ]
        for worker in workers:
            worker.start()
        _burst(service, options.clients, options.burst)
        time.sleep(options.warm)
        before = service.processor()
        begin.set()
        told = [results.get(timeout=options.seconds + 120) for _ in workers]
        after = service.processor()
        for worker in workers:
            worker.join()
    asks, tells = ([each for one in told for each in one[name]] for name in ("asks", "tells"))
    waits, known = sum(one["nothing"] for one in told), [each for one in told for each in one["behind"]]
    count = max(1, len(tells))
    return {
        "strategy": options.strategy,
        "clients": options.clients,
        "observations at first": options.observations,
        "architectures": len(SPACE),
        "seconds": options.seconds,
        "pairs": len(tells),
        "pairs per second": round(len(tells) / options.seconds, 1),
        "answered 204": waits,
        "ask ms": percentiles(asks),
        "tell ms": percentiles(tells),
        "processor ms per pair": {
            "service": round(1e3 * (after[0] - before[0]) / count, 2),
            "helpers": round(1e3 * (after[1] - before[1]) / count, 2),
            "clients": round(1e3 * sum(one["processor"] for one in told) / count, 2),
        },
        "observations that a suggestion did not know": percentiles([each / 1e3 for each in known]),
    }


def _burst(service: Service, clients: int, seconds: float) -> None:
    """Clients ask and give back, by which the service learns how many suggestions to have ready."""

    def work(number: int) -> None:
        token = service.worker_token(f"b{number}")
        ending = time.monotonic() + seconds
        with Link(service, token) as link:
            while time.monotonic() < ending:
                status, told = link.post("/v1/searches/load/ask", {"worker": f"b{number}"})
                if status == 200:
                    (lent,) = told["candidates"]
                    link.post(f"/v1/leases/{lent['lease']}/give-back", {})
                else:
                    time.sleep(0.05)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))


class Link:
    """A connection that stays, over which requests go one after another; a context manager.

    It does what HTTP needs here and nothing else, so that clients leave the processors to the service.
    """

    def __init__(self, service: Service, token: str) -> None:
        host, _, port = service.url.partition("//")[2].partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        self._head = f"Host: {host}\r\nAuthorization: Bearer {token}\r\n"

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """The status and the document that a request of a key of its own is answered."""
        text = json.dumps(body).encode()
        return self._answered(
            f"POST {path} HTTP/1.1\r\n{self._head}Idempotency-Key: {secrets.token_hex(16)}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode()
            + text
        )

    def get(self, path: str) -> tuple[int, Any]:
        """The same of something that is looked at."""
        return self._answered(f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode())

    def _answered(self, request: bytes) -> tuple[int, Any]:
        self._socket.sendall(request)
        status, length, chunked = int(self._file.readline().split()[1]), 0, False
        while (line := self._file.readline().lower()) != b"\r\n":
            if line.startswith(b"content-length:"):
                length = int(line[15:])
            chunked |= line.startswith(b"transfer-encoding:")
        while chunked:  # lines of a journal, which nobody here wants
            chunked = self._file.read(int(self._file.readline(), 16) + 2) != b"\r\n"
        return status, json.loads(self._file.read(length)) if length else None


def _asks_and_tells(
    service: Service, number: int, options: argparse.Namespace, begin: Any, results: Any
) -> None:
    asks, tells, behind, nothing = [], [], [], 0
    token = service.worker_token(f"w{number}")
    begin.wait()
    with Link(service, token) as link:
        ending = time.monotonic() + options.seconds
        had = _own_processor()
        observed = options.observations
        while time.monotonic() < ending:
            begun = time.perf_counter()
            status, told = link.post("/v1/searches/load/ask", {"worker": f"w{number}"})
            asked = time.perf_counter()
            if status == 410:
                break
            if status == 204:
                nothing += 1
                time.sleep(0.05)
                continue
            assert status == 200, told
            (lent,) = told["candidates"]
            value = value_of(lent["architecture"]["axes"])
            told_at = time.perf_counter()
            status, told = link.post(f"/v1/leases/{lent['lease']}/tell", {"value": value})
            assert status == 200, told
            tells.append(time.perf_counter() - told_at)
            asks.append(asked - begun)
            observed = max(observed, options.observations + options.clients * len(tells))
            behind.append(max(0, observed - lent["decision"].get("observations", observed)))
    results.put(
        {
            "asks": asks,
            "tells": tells,
            "nothing": nothing,
            "behind": behind,
            "processor": _own_processor() - had,
        }
    )


def streams(options: argparse.Namespace) -> dict[str, Any]:
    """Event streams of one search, while values are told."""
    with serving(options.observations, "random") as service:
        return asyncio.run(_streamed(service, options))


async def _streamed(service: Service, options: argparse.Namespace) -> dict[str, Any]:
    told, delays = dict[str, float](), list[float]()
    address, _, port = service.url.partition("//")[2].partition(":")

    async def listen(opened: asyncio.Semaphore) -> None:
        reader, writer = await asyncio.open_connection(address, int(port))
        head = f"GET /v1/searches/load/events?after={end} HTTP/1.1\r\nHost: {address}\r\n"
        writer.write(f"{head}Authorization: Bearer {service.token}\r\n\r\n".encode())
        line = await reader.readline()
        assert b" 200 " in line, line
        opened.release()
        event = b""
        while line:
            line = await reader.readline()
            if line.startswith(b"event: "):
                event = line[7:].strip()
            elif line.startswith(b"data: ") and event == b"observation":
                delays.append(time.time() - told[json.loads(line[6:])["candidate"]])

    def ask_and_tell(client: Client) -> None:
        lent = _asked(client)
        told[lent.candidate] = time.time()
        client.tell(lent.lease, Told(value=value_of(lent.architecture.axes)))

    with service.client() as client:
        end = [row["id"] for row in client.journal("load")][-1]
        opened = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(listen(opened)) for _ in range(options.streams)]
        for _ in tasks:
            async with asyncio.timeout(60):
                await opened.acquire()
        await asyncio.to_thread(ask_and_tell, client)
        before, ending = service.processor()[0], time.monotonic() + options.seconds
        while time.monotonic() < ending:
            await asyncio.to_thread(ask_and_tell, client)
            await asyncio.sleep(1.0)
        await asyncio.sleep(2.0)
        had = service.processor()[0] - before
    for task in tasks:
        task.cancel()
    return {
        "streams": options.streams,
        "tells": len(told),
        "events": len(delays),
        "expected": len(told) * options.streams,
        "ms from tell to event": percentiles(delays),
        "processor ms per event": round(1e3 * had / max(1, len(delays)), 3),
        "resident MiB": round(service.resident()),
    }


PAINTS = "return performance.getEntriesByName('first-contentful-paint').map((it) => it.startTime)"
WATCH = """
window.painted = [];
new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => window.painted.push(Date.now()), 0)))
  .observe(document.querySelector(arguments[0]),
           {childList: true, subtree: true, characterData: true, attributes: true});
"""
"""Notes when a frame with a changed table, or sparkline, was painted: the task after an animation frame comes
after its paint."""


def page(options: argparse.Namespace) -> dict[str, Any]:
    """The pages in a browser: first paint, and from a tell to a changed pixel."""
    with serving(options.trials, "random") as service, service.client() as client, _browser() as browser:
        browser.get(f"{service.url}/")
        browser.find_element("id", "token").send_keys(service.token)
        browser.find_element("css selector", "main button").click()
        changed: dict[str, list[float]] = {}
        first: dict[str, list[float]] = {}
        for path, place in (("/searches/load", "#trials-table tbody"), ("/", "#searches tbody")):
            for _ in range(3):
                browser.get(f"{service.url}{path}")
                _until(lambda: browser.execute_script(PAINTS))
                first.setdefault(path, []).append(browser.execute_script(PAINTS)[0] / 1e3)
                client.give_back(_asked(client).lease)  # so that it is not kept from before
            _until(lambda: browser.find_element("id", "link").text == "live")
            time.sleep(5.0)  # its figures are drawn
            browser.execute_script(WATCH, place)
            for _ in range(options.changes):
                lent = _asked(client)
                time.sleep(3.0)
                browser.execute_script("window.painted = []")
                begun = time.time()
                client.tell(lent.lease, Told(value=value_of(lent.architecture.axes)))
                _until(lambda: browser.execute_script("return window.painted.length"))
                painted = browser.execute_script("return window.painted[0]") / 1e3
                changed.setdefault(path, []).append(painted - begun)
    return {
        "trials": options.trials,
        "ms to first paint": {path: percentiles(each) for path, each in first.items()},
        "ms from tell to painted change": {path: percentiles(each) for path, each in changed.items()},
    }


def _asked(client: Client) -> Lent:
    while True:
        lent, _ = client.ask("load", "w")
        if lent:
            return lent[0]
        time.sleep(0.1)


def _until(condition: Callable[[], Any]) -> None:
    for _ in range(6_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to be")


@contextmanager
def _browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    with tempfile.TemporaryDirectory() as profile:
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
            options.add_argument(argument)
        browser = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
        )
        try:
            yield browser
        finally:
            browser.quit()


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory over many requests."""
    with serving(options.observations, "random") as service:
        resident = [round(service.resident(), 1)]
        before, begun = service.processor()[0], time.monotonic()
        number = options.requests // 10 // options.clients
        tokens = [service.worker_token(f"w{client}") for client in range(options.clients)]
        for _ in range(10):
            with ThreadPoolExecutor(options.clients) as pool:
                list(pool.map(lambda token: _mixed(service, token, number), tokens))
            resident.append(round(service.resident(), 1))
        had, taken = service.processor()[0] - before, time.monotonic() - begun
        service.restart()
        with ThreadPoolExecutor(options.clients) as pool:
            list(pool.map(lambda token: _mixed(service, token, number), tokens))
        anew = round(service.resident(), 1)
    return {
        "requests": options.requests,
        "resident MiB at first and after each tenth": resident,
        "and of a service started anew on what was told, after a tenth": anew,
        "processor ms per request": round(1e3 * had / options.requests, 2),
        "requests per second": round(options.requests / taken),
    }


def _mixed(service: Service, token: str, number: int) -> None:
    """So many requests, in rounds of 100: one pair, leases that are renewed and given back, looks, errors.

    The first look of all is at the whole journal.
    """
    with Link(service, token) as link:

        def asked() -> list[dict[str, Any]]:
            status, told = link.post("/v1/searches/load/ask", {"worker": "w"})
            return list(told["candidates"]) if status == 200 else []

        sent = 0
        while sent < number:
            sent += 1
            for each in asked():
                value = value_of(each["architecture"]["axes"])
                link.post(f"/v1/leases/{each['lease']}/tell", {"value": value})
            for _ in range(24):
                for each in asked():
                    link.post(f"/v1/leases/{each['lease']}/heartbeat", {"points": []})
                    link.post(f"/v1/leases/{each['lease']}/give-back", {})
                link.post("/v1/leases/load:0000/tell", {"value": 1.0})
                sent += 4
            seen = "/v1/searches/load/journal" if sent < 100 else "/v1/searches/load"
            for path in ("/healthz", seen, "/v1/searches/none"):
                link.get(path)
                sent += 1


def _own_processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def table(files: Sequence[Path]) -> str:
    """The results that were kept, for people."""
    results = [json.loads(file.read_text()) for file in files]
    lines = [
        "# The service under load",
        "",
        f"`experiments/service_load.py`; gpnas {version('gpnas')}, {os.cpu_count()} cores of "
        f"{results[0]['processor']}, on which the clients run, too; {results[0]['date']}. The load is how "
        "many processes wanted the cores when a measurement began and ended: beside others' work (more than "
        "1) times are too long, and processor seconds tell what bounds them.",
        "",
    ]
    pairs = [each for each in results if each["what"] == "pairs"]
    if pairs:
        lines += [
            f"{pairs[0]['clients']} clients that ask and tell without a pause, "
            f"{pairs[0]['observations at first']} observations at first, "
            f"{pairs[0]['architectures']:,} architectures:",
            "",
            "| strategy | load | seconds | pairs per second | asks answered `204` | ask, median / p99 | "
            "tell, median / p99 | processor ms per pair: service, helpers, clients |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        for each in pairs:
            times = [f"{each[name]['median']:g} / {each[name]['p99']:g} ms" for name in ("ask ms", "tell ms")]
            had = ", ".join(f"{value:g}" for value in each["processor ms per pair"].values())
            lines.append(
                f"| `{each['strategy']}` | {each['load']} | {each['seconds']:g} | "
                f"{each['pairs per second']:g} | {each['answered 204']} | {times[0]} | {times[1]} | {had} |"
            )
        lines += [
            "",
            "Candidates are worked out while nobody asks, up to 2,048 of a search; who asks for more of them "
            "without a pause waits for the engine, which is what a `204` says.",
            "",
        ]
    lines += ["| what | load | seen |", "|---|---|---|"]
    lines += [f"| {head} | {each['load']} | {text} |" for each in results for head, text in _told(each)]
    return "\n".join(lines) + "\n"


def _told(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a result other than of pairs says, in words."""
    if result["what"] == "streams":
        delay = result["ms from tell to event"]
        yield (
            f"{result['streams']} event streams, {result['tells']} values told",
            f"{result['events']} of {result['expected']} events came, {delay['median']:g} ms after their "
            f"tells (median; p99 {delay['p99']:g}), {result['processor ms per event']:g} ms of a processor "
            f"each; {result['resident MiB']} MiB resident",
        )
    if result["what"] == "page":
        for path, first in result["ms to first paint"].items():
            change = result["ms from tell to painted change"][path]
            yield (
                f"`{path}` in Chromium, a search of {result['trials']:,} trials",
                f"first paint after {first['median']:g} ms (most {first['most']:g}); a change painted "
                f"{change['median']:g} ms after its tell (most {change['most']:g})",
            )
    if result["what"] == "memory":
        resident = result["resident MiB at first and after each tenth"]
        yield (
            f"memory over {result['requests']:,} requests, {result['requests per second']} a second",
            f"{', '.join(f'{each:.0f}' for each in resident)} MiB resident at first and after each tenth, "
            f"{result['and of a service started anew on what was told, after a tenth']:.0f} MiB of a service "
            "that is started anew on what was told, after a tenth; "
            f"{result['processor ms per request']:g} ms of a processor each",
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measured: dict[str, Callable[[argparse.Namespace], dict[str, Any]]]
    measured = {"pairs": pairs, "streams": streams, "page": page, "memory": memory}
    parser.add_argument("what", choices=[*measured, "table"])
    parser.add_argument("files", type=Path, nargs="*", help="what `--json` kept, for `table`")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--observations", type=int, default=500)
    parser.add_argument("--burst", type=float, default=10.0, help="seconds of asking before that")
    parser.add_argument("--warm", type=float, default=60.0, help="seconds to think ahead before it begins")
    parser.add_argument("--strategy", default="mi+kg", help="`random` tells what the service alone takes")
    parser.add_argument("--streams", type=int, default=300, help="event streams")
    parser.add_argument("--trials", type=int, default=1_000, help="of the search whose page is opened")
    parser.add_argument("--changes", type=int, default=10, help="values that are told while a page is open")
    parser.add_argument("--requests", type=int, default=100_000, help="while memory is watched")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.what == "table":
        RESULTS.write_text(table(options.files))
        return
    before = os.getloadavg()[0]
    result = {"what": options.what, **measured[options.what](options)}
    result |= {"load": f"{before:.0f} to {os.getloadavg()[0]:.0f}"}
    result |= {"processor": processor(), "date": date.today().isoformat()}
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
