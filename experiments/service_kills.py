"""A service, its workers and their links, killed a thousand times: is an observation lost, or counted twice?

    python experiments/service_kills.py --folder campaign --kills 900 --minutes 15
    python experiments/service_kills.py --folder campaign-engine --kills 100 --strategy mi+nei
    PEER/bin/python experiments/service_kills.py --system optuna --folder campaign-optuna --kills 200
    PEER/bin/python experiments/service_kills.py --system vizier --folder campaign-vizier --kills 200
    python experiments/service_kills.py --table campaign campaign-engine campaign-optuna campaign-vizier

Eight clients ask a server for candidates, train for a moment and tell. SIGKILL ends the server and clients at
random moments, others take their places at once, and links break in four ways (`service_kills_links.py`);
what has done nothing since it was started is left alone until it has.
What a server accepted each client notes in a file of its own, synced before it goes on. In the end nothing
is killed any more until every candidate of before is observed, or 180 s have passed; then the notes are held
against what the server keeps. The same command goes on with a campaign that was ended before its last kill.

A peer needs an environment of its own: `optuna==5.0.0 grpcio protobuf`; or
`google-vizier[jax]==0.1.24 jax==0.4.34 jaxlib==0.4.34`, since Vizier's dependency Equinox 0.11.7 does not
load with later versions of JAX.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from machine import processor, versions
from service_kills_links import FAULTS
from service_kills_systems import NOTES, SYSTEMS, Place, System

RESULTS = Path(__file__).parent / "results"
CLIENTS = 8
SHARES = {"service": 6, "worker": 52, "link": 42}
"""Of what is killed, in a hundred."""
ALIVE_BYTES = 2_000
"""So much, some hundred lines, clients must have noted since the server was started before it is killed."""
ORDERLY = 0.1
"""Share of the ends of `gpnas worker` that SIGTERM brings about; these are not counted as kills."""
QUIET_SECONDS, DRAIN_SECONDS = 25.0, 180.0
"""So long clients work undisturbed in the end, at least and at most."""
LABELS = {
    "service": "of the server",
    "worker": "of clients",
    **{f"link: {fault}": f"of links: {fault}" for fault in FAULTS},
    "SIGTERM": "besides, SIGTERM to `gpnas worker`",
    "ended": "clients that ended by themselves, as after a minute without the server",
    "server ended": "servers that ended by themselves",
}
KILLS, PORTS, COUNTS = "kills.log", "ports.json", "counts.json"


class Campaign:
    """A server, its clients and their links."""

    def __init__(self, system: System, folder: Path, strategy: str) -> None:
        self.system, self.folder, self.strategy = system, folder, strategy
        self.clients: dict[int, Any] = {}
        self.leaving: list[subprocess.Popen[bytes]] = []
        self.seen: dict[str, int] = {}
        """What there was of notes when the server, or a client of this number, was started."""
        self.owed = 0

    def __enter__(self) -> Campaign:
        fresh = not (self.folder / PORTS).exists()
        if fresh:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.system.prepare(self.folder, self.strategy)
            (self.folder / PORTS).write_text(json.dumps(free_ports(CLIENTS + 1)))
        self.port, *self.links = json.loads((self.folder / PORTS).read_text())
        self.server = self._serve()
        if fresh:
            self._begin()
        command = [sys.executable, str(Path(__file__).with_name("service_kills_links.py"))]
        self.proxy = subprocess.Popen(
            [*command, *map(str, [self.port, *self.links])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.proxy.stdout is not None
        self.proxy.stdout.readline()
        for number in range(CLIENTS):
            self._work(number)
        return self

    def __exit__(self, *_: object) -> None:
        for each in [*self.clients.values(), *self.leaving, self.server, self.proxy]:
            each.kill()
            each.wait()

    def _begin(self) -> None:
        """Begins the search in a process of its own: a gRPC channel and later forks do not go together."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.system.begin(self.folder, self.port, self.strategy)
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"the search must begin, but did not; see {self.folder / 'server.log'}")

    def _serve(self) -> subprocess.Popen[bytes]:
        self.seen["server"] = sum(self._sizes().values())
        with open(self.folder / "server.log", "ab") as log:
            command = self.system.server(self.folder, self.port)
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _work(self, number: int) -> None:
        self.seen[str(number)] = self._sizes()[number]
        place = Place(f"127.0.0.1:{self.links[number]}", self.folder, number)
        command = self.system.client(place)
        if command is None:
            self.clients[number] = Forked(self.system, place)
            return
        variables = {**os.environ, NOTES: str(self.folder / f"notes-{number}")}
        with open(self.folder / f"said-{number}", "ab") as said:
            self.clients[number] = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=said, stdin=subprocess.DEVNULL, env=variables
            )

    def kill(self, chance: random.Random) -> None:
        """Kills one thing, and starts another in its place.

        What has done nothing since it was started, or since its link broke, is left alone: its turn comes
        once it has.
        """
        what = chance.choices(list(SHARES), list(SHARES.values()))[0]
        fault, number, seconds = "", chance.randrange(CLIENTS), chance.uniform(0.2, 3.0)
        sizes = self._sizes()
        self.owed += what == "service"
        if self.owed and sum(sizes.values()) - self.seen["server"] > ALIVE_BYTES:
            what, self.owed = "service", self.owed - 1
        elif what == "service" or sizes[number] == self.seen[str(number)]:
            self.owed = min(self.owed, 3)
            return
        if what == "service":
            self.server.kill()
            self.server.wait()
            self.server = self._serve()
        elif what == "worker":
            client = self.clients[number]
            if isinstance(client, subprocess.Popen) and chance.random() < ORDERLY:
                client.terminate()
                self.leaving.append(client)
                self._work(number)
                noted(self.folder, "SIGTERM", "")
                return
            client.kill()
            client.wait()
            self._work(number)
        else:
            fault = chance.choice(FAULTS)
            self.seen[str(number)] = sizes[number]
            assert self.proxy.stdin is not None
            self.proxy.stdin.write(f"{number}\t{fault}\t{seconds:.2f}\n")
            self.proxy.stdin.flush()
        noted(self.folder, what, fault)

    def look_after(self) -> None:
        """Has others take the places of what ended by itself."""
        for number, client in list(self.clients.items()):
            if client.poll() is not None:
                noted(self.folder, "ended", str(client.poll()))
                self._work(number)
        if self.server.poll() is not None:
            noted(self.folder, "server ended", "")
            self.server = self._serve()
        for each in [each for each in self.leaving if each.poll() is not None]:
            self.leaving.remove(each)
            noted(self.folder, "left", str(each.returncode))

    def drain(self) -> tuple[int, set[int]]:
        """Lets all work undisturbed until what was handed out before is observed.

        Returns:
            How many candidates there were before, and the clients that noted nothing meanwhile.
        """
        before, begun = len(self.system.held(self.folder).trials), self._sizes()
        idle = set(begun)
        least, ending = time.monotonic() + QUIET_SECONDS, time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < ending:
            time.sleep(3)
            self.look_after()
            held = self.system.held(self.folder)
            idle = {number for number, size in self._sizes().items() if size == begun[number]}
            done = set(held.trials[:before]) <= set(held.values) and not self.leaving and not idle
            if done and time.monotonic() > least:
                break
        return before, idle

    def _sizes(self) -> dict[int, int]:
        """How much the clients have noted and said, by their numbers."""

        def size(number: int) -> int:
            files = [self.folder / f"{name}-{number}" for name in ("notes", "said")]
            return sum(file.stat().st_size for file in files if file.exists())

        return {number: size(number) for number in range(CLIENTS)}


class Forked:
    """A client in a process of its own that needs to import nothing; used as a `Popen`."""

    def __init__(self, system: System, place: Place) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                random.seed(os.getpid())
                system.work(place)
                status = 0
            except Exception as error:
                place.note("error", type(error).__name__, str(error).replace("\n", " ")[:300])
            finally:
                os._exit(status)

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def noted(folder: Path, what: str, more: str) -> None:
    with open(folder / KILLS, "a") as log:
        log.write(f"{time.time():.1f}\t{what}\t{more}\n")


def killed(folder: Path) -> Counter[str]:
    """What was killed so far, by its kind."""
    log = folder / KILLS
    lines = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
    return Counter(f"{what}: {more}" if what == "link" else what for _, what, more in lines)


def kills(counts: Counter[str]) -> int:
    return sum(count for what, count in counts.items() if what.partition(":")[0] in SHARES)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def accepted(folder: Path) -> list[tuple[str, float]]:
    """Every observation of which a client was told that it counts."""
    found = []
    for notes in folder.glob("notes-*"):
        for line in notes.read_text().splitlines():
            word, *rest = line.split("\t")
            if word == "accepted":
                found.append((rest[0], float(rest[1])))
    for said in folder.glob("said-*"):  # `gpnas worker` says so on standard error
        for line in said.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) == 5 and words[2] == "after":
                found.append((words[0], float(words[1])))
    return found


def judged(system: System, folder: Path, before: int, idle: set[int]) -> dict[str, int]:
    """Counts what went wrong, and what the campaign was."""
    held, told, done = system.held(folder), accepted(folder), killed(folder)
    words = Counter(
        line.partition("\t")[0] for notes in folder.glob("notes-*") for line in notes.read_text().splitlines()
    )
    again = len((folder / "again").read_text().splitlines()) if (folder / "again").exists() else 0
    per_candidate = Counter(name for name, _ in set(told))
    return {
        "kills": kills(done),
        **{label: done[what] for what, label in LABELS.items()},
        "candidates": len(held.trials),
        "observations": len(held.values),
        "trainings begun": words["began"],
        "observations accepted, as clients noted": len(set(told)),
        "**accepted and lost**": sum(held.values.get(name) != value for name, value in set(told)),
        "**counted twice**": sum(count > 1 for count in per_candidate.values()),
        "**candidates stuck**": len(set(held.trials[:before]) - set(held.values)),
        "**clients that stood still in the end**": len(idle),
        **({"requests sent again under their key": again} if again else {}),
        **held.more,
    }


def table(folders: list[Path]) -> str:
    """The results of campaigns, beside each other."""
    columns = [json.loads((folder / COUNTS).read_text()) for folder in folders]
    rows: dict[str, None] = {}
    for each in columns:
        rows |= dict.fromkeys(each["counts"])
    heads = " | ".join(f"{each['system']}, `{each['strategy']}`" for each in columns)
    lines = [
        "# A service, its workers and links, killed",
        "",
        f"`experiments/service_kills.py`, {date.today()}, {os.cpu_count()} cores of {processor()}, on a "
        "machine that did other work meanwhile: "
        + "; ".join(f"{each['system']} with {each['packages']}" for each in columns)
        + ".",
        "",
        f"| what | {heads} |",
        "|---|" + "---:|" * len(columns),
        *(
            f"| {row} | " + " | ".join(f"{each['counts'].get(row, '–')}" for each in columns) + " |"
            for row in rows
        ),
        "",
        "A candidate is stuck where it was handed out before the killing ended and is not observed after "
        f"{DRAIN_SECONDS:g} s in which all work undisturbed. It is lost where the server does not hold the "
        "value that it accepted, counted twice where two attempts at it were told that they count. Clients "
        "of all try again for a minute where a request fails; gpnas' own do so under the `Idempotency-Key`. "
        "A client of Vizier comes back under its name, and is given what it had; one stands still for ever "
        "where the server died over its suggestion, since its operation is never done, and is all "
        "that it is given.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--system", choices=list(SYSTEMS), default="gpnas")
    parser.add_argument("--strategy", default="random")
    parser.add_argument("--folder", type=Path, default=Path("service-kills"))
    parser.add_argument("--kills", type=int, default=900)
    parser.add_argument("--interval", type=float, default=1.0, help="mean seconds between two kills")
    parser.add_argument("--minutes", type=float, default=20.0, help="after which the rest is left for later")
    parser.add_argument("--table", type=Path, nargs="+", help="folders, whose results are written")
    options = parser.parse_args()
    if options.table:
        text = table(options.table)
        (RESULTS / "service_kills.md").write_text(text)
        print(text)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    folder, system = options.folder.absolute(), SYSTEMS[options.system]()
    ending = time.monotonic() + 60 * options.minutes
    with Campaign(system, folder, options.strategy) as campaign:
        done = kills(killed(folder))
        chance = random.Random(done)
        while done < options.kills and time.monotonic() < ending:
            time.sleep(chance.expovariate(1 / options.interval))
            campaign.look_after()
            campaign.kill(chance)
            done = kills(killed(folder))
        if done < options.kills:
            print(f"{done} of {options.kills} kills; the same command goes on")
            return
        before, idle = campaign.drain()
    counts = judged(system, folder, before, idle)
    result = {
        "system": options.system,
        "strategy": options.strategy,
        "packages": versions(system.packages),
        "counts": counts,
    }
    (folder / COUNTS).write_text(json.dumps(result, indent=2))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
