"""What `service_kills.py` kills: of each system a server, clients of it, and what it holds in the end.

Only the standard library is imported here, so that each system runs in an environment of its own.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

AXES = ("a", "b", "c")
LARGEST = 22
STUDY = "campaign"
TRAINING_SECONDS = 0.3
"""Mean length of a training, in two halves with a word in between."""
LEASE_SECONDS = 6.0
PATIENCE_SECONDS = 60.0
NOTES = "GPNAS_NOTES"
"""Variable with the file of notes, for a training function that `gpnas worker` calls."""


@dataclass(frozen=True)
class Place:
    """Where a client works."""

    address: str
    """Host and port of its link to the server."""
    folder: Path
    number: int

    def note(self, *words: object) -> None:
        """Adds a line to the client's notes, which a kill -9 or a power failure does not take away."""
        noted(self.folder / f"notes-{self.number}", *words)


@dataclass
class Held:
    """What a server holds."""

    trials: list[str]
    """Every candidate, in the order in which they were made."""
    values: dict[str, float] = field(default_factory=dict)
    """The observed ones and what they came to; a failure has none."""
    more: dict[str, int] = field(default_factory=dict)
    """Counts that only this system has."""


class System(Protocol):
    """A server of ask and tell."""

    packages: tuple[str, ...]

    def prepare(self, folder: Path, strategy: str) -> None: ...
    def server(self, folder: Path, port: int) -> list[str]: ...
    def begin(self, folder: Path, port: int, strategy: str) -> None: ...
    def client(self, place: Place) -> list[str] | None: ...
    def work(self, place: Place) -> None: ...
    def held(self, folder: Path) -> Held: ...


def noted(file: Path, *words: object) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, ("\t".join(map(str, words)) + "\n").encode())
    os.fsync(descriptor)
    os.close(descriptor)


def value_of(axes: Mapping[str, Any], attempt: int) -> float:
    """What a training comes to; the attempt is told by its thousandths."""
    return sum(int(axes[name]) for name in AXES) + attempt / 1000


def halves() -> float:
    return random.expovariate(2 / TRAINING_SECONDS)


def patiently(do: Callable[[], Any], known: Callable[[Exception], bool] = lambda _: False) -> Any:
    """What comes of a call that is tried again where it fails, as a careful user's client does it.

    Args:
        do: the call.
        known: whether an error says that an earlier try was done; then None is returned.
    """
    ending, pause = time.monotonic() + PATIENCE_SECONDS, 0.1
    while True:
        try:
            return do()
        except Exception as error:
            if known(error):
                return None
            if time.monotonic() > ending:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


class Gpnas:
    """`gpnas serve`; of the clients half are `gpnas worker`, half loops with `gpnas.client`."""

    packages = ("gpnas", "fastapi", "uvicorn", "httpx")

    def prepare(self, folder: Path, strategy: str) -> None: ...

    def server(self, folder: Path, port: int) -> list[str]:
        return [sys.executable, "-m", "gpnas.cli", "serve", f"--runs={folder / 'runs'}", f"--port={port}"]

    def begin(self, folder: Path, port: int, strategy: str) -> None:
        from gpnas.client import Client

        token = folder / "runs" / ".service" / "token"
        while not token.exists():
            time.sleep(0.1)
        numbers = {"low": 1, "high": LARGEST}
        space = {"scale": 2, "families": {"net": dict.fromkeys(AXES, numbers)}}
        more = {"trials": 10_000, "strategy": strategy, "early_stopping": False, "steps": 2}
        with Client(f"http://127.0.0.1:{port}", token.read_text()) as client:
            client.begin(STUDY, space, **more)

    def client(self, place: Place) -> list[str] | None:
        if place.number % 2:
            return None
        return [
            *(sys.executable, "-m", "gpnas.cli", "worker", f"http://{place.address}", f"--search={STUDY}"),
            *("--train", f"{__file__}:train", f"--name=w{place.number}", f"--folder={place.folder / 'work'}"),
            f"--token-file={place.folder / 'runs' / '.service' / 'token'}",
            *(f"--lease-seconds={LEASE_SECONDS:g}", f"--patience={PATIENCE_SECONDS:g}"),
        ]

    def work(self, place: Place) -> None:
        import httpx

        from gpnas.client import Client, LeaseLostError, Point, Told

        keys: Counter[str] = Counter()

        class Counting(httpx.HTTPTransport):
            """Notes how often a request was sent again under its key."""

            def handle_request(self, request: httpx.Request) -> httpx.Response:
                key = request.headers.get("idempotency-key")
                if key:
                    keys[key] += 1
                    if keys[key] > 1:
                        noted(place.folder / "again", request.url.path)
                return super().handle_request(request)

        token = (place.folder / "runs" / ".service" / "token").read_text()
        url, name = f"http://{place.address}", f"w{place.number}"
        with Client(url, token, patience=PATIENCE_SECONDS, transport=Counting()) as client:
            while True:
                lent, pause = client.ask(STUDY, name, lease_seconds=LEASE_SECONDS)
                for each in lent:
                    place.note("began", each.candidate, each.attempt, place.number)
                    value = value_of(each.architecture.axes, each.attempt)
                    try:
                        time.sleep(halves())
                        client.heartbeat(each.lease, [Point(1, value)])
                        time.sleep(halves())
                        counted = client.tell(each.lease, Told(value=value))
                    except LeaseLostError as error:
                        if error.counted is None:
                            continue
                        counted = error.counted
                    if counted:
                        place.note("accepted", each.candidate, value)
                if not lent:
                    time.sleep(max(0.1, min(pause, 2.0)))

    def held(self, folder: Path) -> Held:
        from gpnas.journal import Journal

        with Journal.read(folder / "runs" / STUDY) as journal:
            candidates, observations = journal.candidates(), journal.observations()
            attempts, late = journal.attempts(), [kind for _, kind, _ in journal.events()].count("late")
        began = [
            tuple(line.split("\t")[1:3])
            for notes in folder.glob("notes-*")
            for line in notes.read_text().splitlines()
            if line.startswith("began\t")
        ]
        known = {(each.candidate, str(each.number)) for each in attempts}
        outcomes = Counter(each.outcome for each in attempts)
        resumed = [
            line.split("\t")
            for notes in folder.glob("notes-*")
            for line in notes.read_text().splitlines()
            if line.startswith("resumed\t")
        ]
        back = {(e.candidate, str(e.number + 1)) for e in attempts if e.outcome == "given back"}
        more = {
            "attempts begun by two clients": len(began) - len(set(began)),
            "attempts of which the journal knows nothing": len(set(began) - known),
            "attempts at one candidate whose leases overlap": _overlapping(attempts),
            "architectures given to two candidates": len(candidates)
            - len({each.architecture for each in candidates}),
            "attempts lost and given again": outcomes["lost"],
            "attempts given back by a worker at SIGTERM": outcomes["given back"],
            "of these, gone on with elsewhere from their checkpoint": sum(
                (name, number) in back and checkpoint != "None" for _, name, number, checkpoint in resumed
            ),
            "of these, gone on with elsewhere without one": sum(
                (name, number) in back and checkpoint == "None" for _, name, number, checkpoint in resumed
            ),
            "observations that came after their lease, labelled": late,
        }
        values = {each.candidate.id: float(each.value) for each in observations if each.value is not None}
        return Held([each.id for each in candidates], values, more)


def _overlapping(attempts: Any) -> int:
    """How often an attempt began before the one before it had ended."""
    newest: dict[str, Any] = {}
    count = 0
    for each in sorted(attempts, key=lambda each: (each.candidate, each.number)):
        before = newest.get(each.candidate)
        if before is not None and (before.ended is None or before.ended > each.started):
            count += 1
        newest[each.candidate] = each
    return count


def train(trial: Any) -> float:
    """The training of `gpnas worker`."""
    notes = Path(os.environ[NOTES])
    noted(notes, "began", trial.candidate, trial.attempt, trial.folder)
    if trial.attempt > 1:
        noted(notes, "resumed", trial.candidate, trial.attempt, trial.checkpoint)
    (trial.folder / "checkpoint").write_text(str(trial.attempt))
    value = value_of(trial.axes, trial.attempt)
    time.sleep(halves())
    trial.report(1, value)
    time.sleep(halves())
    return value


class Optuna:
    """Optuna's gRPC proxy over a SQLite file; a trial is asked and told as its documentation shows."""

    packages = ("optuna", "grpcio", "sqlalchemy")

    def prepare(self, folder: Path, strategy: str) -> None:
        import optuna

        optuna.create_study(storage=self._storage(folder), study_name=STUDY, direction="maximize")

    def server(self, folder: Path, port: int) -> list[str]:
        return [sys.executable, __file__, "optuna", str(folder), str(port)]

    def serve(self, folder: Path, port: int) -> None:
        import optuna

        optuna.storages.run_grpc_proxy_server(self._storage(folder), host="127.0.0.1", port=port)

    def begin(self, folder: Path, port: int, strategy: str) -> None: ...

    def client(self, place: Place) -> list[str] | None:
        return None

    def work(self, place: Place) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        host, port = place.address.split(":")

        def opened() -> Any:
            storage = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
            sampler = optuna.samplers.RandomSampler()
            return optuna.load_study(storage=storage, study_name=STUDY, sampler=sampler)

        study = patiently(opened)
        numbers = {name: optuna.distributions.IntDistribution(1, LARGEST) for name in AXES}
        while True:
            trial = patiently(lambda: study.ask(numbers))
            place.note("began", trial.number, 1, place.number)
            value = value_of(trial.params, 1)
            time.sleep(halves())
            patiently(lambda trial=trial, value=value: trial.report(value, 1))
            time.sleep(halves())
            patiently(
                lambda trial=trial, value=value: study.tell(trial, value),
                known=lambda error: "already" in str(error) or "COMPLETE trial" in str(error),
            )
            place.note("accepted", trial.number, value)

    def held(self, folder: Path) -> Held:
        import optuna

        trials = optuna.load_study(storage=self._storage(folder), study_name=STUDY).get_trials()
        values = {str(each.number): float(each.value) for each in trials if each.state.name == "COMPLETE"}
        return Held([str(each.number) for each in trials], values)

    def _storage(self, folder: Path) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        url = f"sqlite:///{folder / 'study.db'}"
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 30}})


class Vizier:
    """Vizier's server over a SQLite file; a client that comes back under its name is given what it had."""

    packages = ("google-vizier", "grpcio", "sqlalchemy", "jax")

    def prepare(self, folder: Path, strategy: str) -> None: ...

    def server(self, folder: Path, port: int) -> list[str]:
        return [sys.executable, __file__, "vizier", str(folder), str(port)]

    def serve(self, folder: Path, port: int) -> None:
        from vizier.service import servers

        url = f"sqlite:///{folder / 'vizier.db'}"
        server = servers.DefaultVizierServer(host="127.0.0.1", port=port, database_url=url)
        while server:
            time.sleep(3600)

    def begin(self, folder: Path, port: int, strategy: str) -> None:
        patiently(lambda: self._study(f"127.0.0.1:{port}"))

    def client(self, place: Place) -> list[str] | None:
        return None

    def work(self, place: Place) -> None:
        from vizier.service import clients, pyvizier

        clients.environment_variables.new_suggestion_polling_secs = 0.1
        study, name = patiently(lambda: self._study(place.address)), f"w{place.number}"

        def measured(value: float) -> Any:
            return pyvizier.Measurement(metrics={"value": value})

        while True:
            for trial in patiently(lambda: study.suggest(count=1, client_id=name)):
                place.note("began", trial.id, 1, place.number)
                value = value_of(trial.parameters, 1)
                time.sleep(halves())
                patiently(
                    lambda trial=trial, value=value: trial.add_measurement(measured(value)),
                    known=lambda error: "has already completed" in str(error) or "COMPLETED" in str(error),
                )
                time.sleep(halves())
                patiently(
                    lambda trial=trial, value=value: trial.complete(measured(value)),
                    known=lambda error: "has already completed" in str(error) or "COMPLETED" in str(error),
                )
                place.note("accepted", trial.id, value)

    def held(self, folder: Path) -> Held:
        import sqlalchemy
        from vizier._src.service import resources, sql_datastore
        from vizier.service import pyvizier

        engine = sqlalchemy.create_engine(f"sqlite:///{folder / 'vizier.db'}")
        protos = sql_datastore.SQLDataStore(engine).list_trials(resources.StudyResource("owner", STUDY).name)
        trials = pyvizier.TrialConverter.from_protos(protos)
        values = {
            str(each.id): float(each.final_measurement.metrics["value"].value)
            for each in trials
            if each.final_measurement is not None and each.is_completed
        }
        return Held([str(each.id) for each in trials], values)

    def _study(self, address: str) -> Any:
        from vizier.service import clients, pyvizier

        clients.environment_variables.server_endpoint = address
        config = pyvizier.StudyConfig(algorithm="RANDOM_SEARCH")
        for name in AXES:
            config.search_space.root.add_int_param(name, 1, LARGEST)
        config.metric_information.append(
            pyvizier.MetricInformation("value", goal=pyvizier.ObjectiveMetricGoal.MAXIMIZE)
        )
        return clients.Study.from_study_config(config, owner="owner", study_id=STUDY)


SYSTEMS: dict[str, Any] = {"gpnas": Gpnas, "optuna": Optuna, "vizier": Vizier}


def main() -> None:
    """Serves a peer: the system, its folder and port stand on the command line."""
    name, folder, port = sys.argv[1:]
    SYSTEMS[name]().serve(Path(folder), int(port))


if __name__ == "__main__":
    main()
