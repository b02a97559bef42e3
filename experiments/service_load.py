"""Ask/tell pairs per second of the service, and how long each request takes.

    python experiments/service_load.py --seconds 20 --json result.json

Starts `gpnas serve` as a process of its own on a search of 10,000 architectures with 500 observations, and
has clients in threads of this process ask and tell without training in between. Suggestions are worked out
ahead, as they are while workers train; who asks faster than the engine thinks is answered 204, which is
counted by itself.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from gpnas.client import Client, FinishedError, Told
from gpnas.journal import Journal
from gpnas.opening import Wishes, header_of
from gpnas.records import Candidate, Fidelity, Observation, Strategy
from gpnas.space import Family, IntegerAxis, SearchSpace

SPACE = SearchSpace([Family("net", tuple(IntegerAxis(name, tuple(range(1, 11))) for name in "abcd"))])


def value_of(axes: dict[str, int]) -> float:
    """A smooth value with its best inside the space."""
    return -sum((axes[name] - best) ** 2 for name, best in zip("abcd", (3, 5, 7, 9), strict=True)) / 10


def prepared(run: Path, observations: int, trials: int, strategy: Strategy) -> None:
    """Writes a search with so many observations of architectures drawn by chance."""
    header, _ = header_of(SPACE, Wishes(trials=trials, strategy=strategy))
    chance = random.Random(0)
    candidates = [
        Candidate(
            f"c{number:04d}", SPACE[chance.randrange(len(SPACE))], Fidelity(1), number, {"phase": "random"}
        )
        for number in range(observations)
    ]
    with Journal.share(run, header) as journal, journal.writing(keep=True):
        journal.commit_candidates(candidates)
        for each in candidates:
            journal.commit_observation(Observation(each, value_of(dict(each.architecture.axes)), None, 1.0))


def percentile(values: list[float], share: float) -> float:
    """A percentile in milliseconds."""
    return round(1e3 * sorted(values)[min(len(values) - 1, int(share * len(values)))], 1) if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--observations", type=int, default=500)
    parser.add_argument("--warm", type=float, default=20.0, help="seconds to think ahead before it begins")
    parser.add_argument("--strategy", default="mi+nei", help="`random` tells what the service alone takes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = Path(tempfile.mkdtemp())
    prepared(runs / "load", options.observations, 10_000, options.strategy)
    command = [sys.executable, "-m", "gpnas.cli", "serve", "--runs", str(runs), "--port", "0"]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert service.stderr is not None
    service.stderr.readline()
    found = re.search(r"http://\S+:\d+", service.stderr.readline())
    assert found is not None
    token = (runs / ".service" / "token").read_text()
    asks: list[float] = []
    tells: list[float] = []
    nothing, guard = [0], threading.Lock()
    ending = time.monotonic() + options.warm + options.seconds

    def work(number: int) -> None:
        with Client(found[0], token) as client:
            client.ask("load", f"w{number}", count=1)
            time.sleep(options.warm)
            while time.monotonic() < ending:
                begun = time.perf_counter()
                try:
                    lent, _ = client.ask("load", f"w{number}")
                except FinishedError:
                    return
                asked = time.perf_counter()
                if not lent:
                    with guard:
                        nothing[0] += 1
                    time.sleep(0.05)
                    continue
                client.tell(lent[0].lease, Told(value=value_of(dict(lent[0].architecture.axes))))  # type: ignore[arg-type]
                with guard:
                    asks.append(asked - begun)
                    tells.append(time.perf_counter() - asked)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(options.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.terminate()
    service.wait(30)
    result = {
        "strategy": options.strategy,
        "clients": options.clients,
        "observations at first": options.observations,
        "architectures": len(SPACE),
        "pairs": len(tells),
        "pairs per second": round(len(tells) / options.seconds, 1),
        "answered 204": nothing[0],
        "ask ms": {"median": round(1e3 * statistics.median(asks or [0]), 1), "p99": percentile(asks, 0.99)},
        "tell ms": {
            "median": round(1e3 * statistics.median(tells or [0]), 1),
            "p99": percentile(tells, 0.99),
        },
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
