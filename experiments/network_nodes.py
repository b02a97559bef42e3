"""A search over real nodes, each in a network namespace, that die, are cut off, or lack the storage.

    sudo python experiments/network_nodes.py [-o results/network_nodes.md]

A head without CPUs and two workers, joined by a bridge that lies in a namespace of its own: no packet leaves
what the script makes, and it removes all of it. Needs root, Linux and iproute2; where namespaces may not be
made it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

from machine import processor, versions

from gpnas.journal import Journal, status

SPACE = """\
scale: 2
families:
  drn: {features: [4, 6, 8], blocks: [1, 2], stages: 1}
search: {trials: 6, concurrent: 2, validation_images: 1, early_stopping: false}
recipe: {steps: 500, batch_size: 4, hr_patch: 48, evaluate_every: 50, warmup_steps: 5}
"""
TRIALS = 6
SWITCH, HEAD, WORKERS = "gpnas-switch", "gpnas-head", ("gpnas-one", "gpnas-two")
ADDRESSES = {HEAD: "10.77.0.10", WORKERS[0]: "10.77.0.11", WORKERS[1]: "10.77.0.12"}
PORT = 6379
ALL_KILLED = "all nodes killed, one back after a minute"
AWAY_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """What came of one search."""

    what: str
    seconds: float
    observed: int
    attempts: int
    resumed: float | None
    """Seconds from the blow until the candidate that was hit had begun again elsewhere."""
    lost_steps: int | None
    """Steps that were trained again."""
    said: str


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=check, timeout=60)
    return done.stdout


def why_not() -> str | None:
    """Why namespaces may not be made here; None where they may."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    probe = subprocess.run(["ip", "netns", "add", SWITCH], capture_output=True, text=True)
    if probe.returncode:
        return probe.stderr.strip()
    run("ip", "netns", "del", SWITCH)
    return None


def pids(namespace: str) -> list[int]:
    return [int(pid) for pid in run("ip", "netns", "pids", namespace, check=False).split()]


def kill(namespace: str) -> None:
    """All that runs in a namespace, without mercy."""
    while found := pids(namespace):
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)


@contextmanager
def network() -> Iterator[None]:
    """The namespaces, a veth pair from each node to the bridge; all gone afterwards."""
    try:
        for name in (SWITCH, *ADDRESSES):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", SWITCH, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", SWITCH, "link", "set", "bridge", "up")
        for number, (name, address) in enumerate(ADDRESSES.items()):
            port = f"port{number}"
            pair = ("ip", "-n", SWITCH, "link", "add", port, "type", "veth", "peer", "name", "eth0")
            run(*pair, "netns", name)
            run("ip", "-n", SWITCH, "link", "set", port, "master", "bridge")
            run("ip", "-n", SWITCH, "link", "set", port, "up")
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
        yield
    finally:
        for name in (*ADDRESSES, SWITCH):
            kill(name)
            run("ip", "netns", "del", name, check=False)


def start(namespace: str, folder: Path, environment: dict[str, str], hidden: Path | None = None) -> None:
    """A Ray node in a namespace; `hidden` is a folder that it sees empty."""
    ray = str(Path(sys.executable).with_name("ray"))
    line = [ray, "start", "--block", f"--node-ip-address={ADDRESSES[namespace]}", "--disable-usage-stats"]
    line.append("--object-store-memory=100000000")
    if namespace == HEAD:
        line += ["--head", f"--port={PORT}", "--num-cpus=0", f"--temp-dir={folder / 'ray'}"]
    else:
        line += [f"--address={ADDRESSES[HEAD]}:{PORT}", "--num-cpus=2"]
    script = f"mount -t tmpfs none {hidden} && exec " if hidden else "exec "
    log = folder / f"{namespace}.log"
    with open(log, "w") as file:
        node = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "sh", "-c", script + '"$@"', "node", *line],
            stdout=file, stderr=file, env=environment, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while "Ray runtime started" not in log.read_text():
        if node.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{namespace} must start, but its log ends with: {log.read_text()[-500:]}")
        time.sleep(0.5)


def victim() -> tuple[str, set[str]] | None:
    """A worker that trains by now, and its candidates, as its processes are called."""
    for name in WORKERS:
        titles = [_title(pid) for pid in pids(name)]
        found = {match[1] for title in titles if (match := re.match(r"ray::(c\d+)-", title))}
        if found:
            return name, found
    return None


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def experiment(what: str) -> Outcome:
    """One search on a network of its own; `what` happens to it."""
    with tempfile.TemporaryDirectory(prefix="gpnas-") as name, network():
        folder = Path(name)
        storage = folder / "storage"
        storage.mkdir()
        (folder / "space.yaml").write_text(SPACE)
        token = folder / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
        environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "GPNAS_CACHE": str(storage / "cache"),
        }
        start(HEAD, folder, environment)
        start(WORKERS[0], folder, environment)
        start(WORKERS[1], folder, environment, storage if what == "storage missing on one worker" else None)
        journal = storage / "run"
        command = ["ip", "netns", "exec", HEAD, sys.executable, "-m", "gpnas.cli", "search", "--json"]
        command += ["--space", str(folder / "space.yaml"), "--run", str(journal)]
        command += ["--address", f"{ADDRESSES[HEAD]}:{PORT}"]
        begun = time.monotonic()
        driver = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        blow = hit = None
        while what in ("node killed", "link cut", ALL_KILLED) and blow is None and driver.poll() is None:
            time.sleep(0.2)
            if not Journal.exists(journal):
                continue
            observed = sum(row["state"] == "observed" for row in status(journal)["candidates"])
            target = victim()
            if observed and target:
                with Journal.read(journal) as read:
                    trained = all(read.progress(each) for each in target[1])
                if trained:
                    hit, blow = target[1], datetime.now(UTC)
                    strike(what, target[0])
                    if what == ALL_KILLED:
                        time.sleep(AWAY_SECONDS)
                        start(WORKERS[0], folder, environment)
        out, err = driver.communicate(timeout=600)
        seconds = time.monotonic() - begun
        if not Journal.exists(journal):
            return Outcome(what, seconds, 0, 0, None, None, err)
        return told(what, seconds, journal, hit or set(), blow, out, err)


def strike(what: str, worker: str) -> None:
    if what == ALL_KILLED:
        for each in WORKERS:
            kill(each)
    elif what == "node killed":
        kill(worker)
    else:
        port = f"port{list(ADDRESSES).index(worker)}"
        run("ip", "-n", SWITCH, "link", "set", port, "down")


def told(
    what: str, seconds: float, run: Path, hit: set[str], blow: datetime | None, out: str, err: str
) -> Outcome:
    """Reads the journal of a search that has ended."""
    with Journal.read(run) as journal:
        observations = [each for each in journal.observations() if each.value is not None]
        attempts = len(journal.attempts())
        resumed, again = [], 0
        for candidate in hit:
            later = [
                each
                for each in journal.attempts(candidate)
                if blow and datetime.fromisoformat(each.started) > blow
            ]
            resumed += [(datetime.fromisoformat(each.started) - blow).total_seconds() for each in later[:1]]
            rows = journal.progress(candidate)
            again += sum(max(0, before.step - after.step) for before, after in pairwise(rows))
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in err.splitlines()]
    said = next((line for line in lines if line.startswith(("error", "node"))), "")
    if not said:
        said = f"{json.loads(out)['best']['psnr']:.2f} dB" if out else lines[-1]
    delay = max(resumed) if resumed else None
    lost = again if blow else None
    return Outcome(what, seconds, len(observations), attempts, delay, lost, said)


def row(outcome: Outcome) -> str:
    resumed = "" if outcome.resumed is None else f"{outcome.resumed:.0f}"
    lost = "" if outcome.lost_steps is None else str(outcome.lost_steps)
    said = re.sub(r"/\S*/(?=storage|run)", "…/", outcome.said)
    return (
        f"| {outcome.what} | {outcome.observed} of {TRIALS} | {outcome.attempts} | {resumed} | {lost} | "
        f"{outcome.seconds:.0f} | {said} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="write the table here, too")
    parser.add_argument("--only", help="one row of it")
    options = parser.parse_args()
    output = options.output
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that all is removed
    if (reason := why_not()) is not None:
        print(f"skipped: network namespaces must be permitted, but {reason}")
        return
    lines = [
        "# Real nodes that fail",
        "",
        f"{processor()}, {os.cpu_count()} cores for all nodes together; "
        f"{versions(('gpnas', 'ray', 'torch'))}; {date.today()}. A head without CPUs and two workers of 2 "
        f"CPUs, each in its own network namespace; {TRIALS} candidates, two at a time. The blow falls "
        "once one is observed and the worker has reported a training; it is not mended but where it says so.",
        "",
        "| what happens | observed | attempts | resumed after, s | steps repeated | whole search, s "
        "| the search says |",
        "|---|---|---|---|---|---|---|",
    ]
    for what in ("nothing", "node killed", "link cut", ALL_KILLED, "storage missing on one worker"):
        if options.only not in (None, what):
            continue
        lines.append(row(experiment(what)))
        print(lines[-1], flush=True)
    if output:
        output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
