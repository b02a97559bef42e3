"""What trials are lent: counted by hand, and seen by trials on a real Ray that was told of a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpnas.cli import main
from gpnas.config import RecipeSettings
from gpnas.dispatch.resources import PROCESS_BYTES, SLACK, Asked, part_of_gpu, room
from gpnas.errors import TrialError
from gpnas.records import Architecture
from gpnas.run.pricing import memory_of
from gpnas_trainers.train import Recipe

GIB = 2**30


@pytest.mark.parametrize(
    ("training", "gpu", "part"),
    [
        (0.1 * GIB, 80 * GIB, 1 / 8),  # 0.83 GiB of 10
        (6 * GIB, 80 * GIB, 1 / 8),  # 9.7 of 10
        (6.5 * GIB, 80 * GIB, 1 / 4),  # 10.4 of 20
        (0.1 * GIB, 4 * GIB, 1 / 4),  # 0.83 of 0.5, of 1
        (26 * GIB, 80 * GIB, 1 / 2),  # 39.7 of 40
        (27 * GIB, 80 * GIB, 1),
        (500 * GIB, 80 * GIB, 1),  # in micro-batches
    ],
)
def test_a_part_of_a_gpu_is_the_least_that_holds_a_training(training: float, gpu: float, part: float) -> None:
    assert part_of_gpu(training, gpu) == part
    assert part == 1 or SLACK * training + PROCESS_BYTES <= part * gpu


def test_as_many_trials_have_room_as_are_counted_by_hand() -> None:
    nodes = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 3.0, "GPU": 1.0}, {"CPU": 8.0}, {"memory": 1.0}]
    assert room(nodes, 1, 0) == 16 + 3 + 8
    assert room(nodes, 4, 0) == 4 + 0 + 2
    assert room(nodes, 1, 1.0) == 2 + 1
    assert room(nodes, 1, 0.5) == 4 + 2
    assert room(nodes, 1, 1 / 3) == 6 + 3
    assert room(nodes, 1, 0.7) == 2 + 1  # never on two GPUs at once
    assert room(nodes, 1, 0.1) == 16 + 3  # CPUs end first
    assert room(nodes, 2, 0.5) == 4 + 1


@pytest.mark.parametrize(
    ("cpus", "gpus", "said"),
    [
        (32, 0.0, "takes 32 CPUs of one node, but the largest node has 8 CPUs; lower --cpus-per-trial, or"),
        (4, 0.5, "takes 4 CPUs and 0.5 of a GPU of one node, but the largest node has 2 CPUs and 1 GPUs"),
    ],
)
def test_what_no_node_has_is_refused(cpus: int, gpus: float, said: str) -> None:
    nodes = [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}]
    if not gpus:
        nodes = nodes[:1]
    with pytest.raises(TrialError, match=said):
        room(nodes, cpus, gpus)


@pytest.mark.parametrize("part", ["2", "-0.5", "nan"])
def test_bad_parts_are_refused_before_anything_starts(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["search", "--space", "drn.yaml", "--run", str(run), "--gpus-per-trial", part]) == 1
    said = f"--gpus-per-trial must be 0 or a part of a GPU, at most 1, but got {part}; several GPUs share"
    assert said in capsys.readouterr().err
    assert not run.exists()


def test_devices_and_parts_exclude_each_other() -> None:
    with pytest.raises(TrialError, match="cannot be given with it; leave them out"):
        Asked(gpus=0.5).check(2)
    Asked().check(2)


def test_a_micro_batch_takes_the_memory_of_its_own_patches() -> None:
    assert set(Asked(2, 0.5).given()) & set(RecipeSettings.model_fields) == set()
    network = Architecture("rcan", {"features": 16, "groups": 2, "blocks": 2})
    of = {patches: memory_of(network, 2, Recipe(batch_size=patches, hr_patch=48)) for patches in (4, 16)} | {
        0: memory_of(network, 2, Recipe(batch_size=16, micro_batch=4, hr_patch=48))
    }
    assert of[0] == of[4] < of[16]


SCRIPT = """
import json, os, sys, time
from pathlib import Path
import ray
from ray import tune
from gpnas import Engine, SearchSpace
from gpnas.data import Prepared
from gpnas.dispatch import resources, session
from gpnas.dispatch.report import TrialReport, to_result
from gpnas.dispatch.resources import Asked
from gpnas.dispatch.request import Means
from gpnas.dispatch.work import Work
from gpnas.run.setup import PSNR, Data, Setup
from gpnas.run.storage import open_storage
from gpnas_trainers.train import Recipe
from gpnas.journal import Header, Journal, Search
from gpnas.records import Progress

folder = Path(sys.argv[1])
# plain, so that workers need import nothing of gpnas
done = to_result(TrialReport("done", 1, Progress(1, 1, 20.0, {"loss": 0.0, "ssim": 0.5}, 0.4)))

class Told(tune.Trainable):
    def reset_config(self, config):
        self.config = config
        return True

    def step(self):
        begun = time.time()
        time.sleep(0.4)
        lent = ray.get_runtime_context().get_assigned_resources()
        row = {"size": self.config["axes"]["size"], "lent": lent, "begun": begun, "ended": time.time(),
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}
        (folder / f"{self.config['run']}-{self.config['id']}.json").write_text(json.dumps(row))
        return dict(done)

class Sizes(Work):
    fingerprint, trainable = "", Told

    def memory(self, candidate):
        return candidate.architecture.axes["size"] * 2**30

class Silent:
    def say(self, line): print(line)
    def started(self, *_): ...
    def event(self, event): ...

def run(name, *, memory=None, asked=Asked()):
    space = SearchSpace.from_table([{"size": size} for size in range(1, 9)])
    engine = Engine(space, seed=0, strategy="random", trials=8, steps=1)
    resources.gpu_memory = lambda: memory
    search = Search({}, "random", 1, 2)
    setup = Setup(2, Recipe().to_json(), Data("", "", "none", None), 1)
    header = Header(8, PSNR, search, setup.to_json(), concurrent=3)
    with Journal.create_or_open(folder / name, header) as journal:
        work = Sizes(folder / name, setup, Prepared(folder, None, None), open_storage(str(folder / name)),
            Means(asked), header)
        try:
            session.Session(work, lambda: engine, journal, Silent()).run()
        except session.TrialError as error:
            print(error)
        print(len(journal.observations()))

run("memory", memory=16 * 2**30)
run("asked", asked=Asked(cpus=2, gpus=0.5))
"""


@pytest.mark.ray
def test_trials_share_a_gpu_as_their_memory_allows_and_one_may_ask(tmp_path: Path) -> None:
    """Sizes of 1 to 8 GiB on a GPU of 16: three side by side would each get a third."""
    environment = os.environ | {"RAY_OVERRIDE_RESOURCES": '{"GPU": 1}'}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.splitlines() == [
        "8",
        "2 trials run side by side, not 3: there is no room for more",
        "8",
    ], done.stderr[-2000:]
    rows: dict[str, list[dict[str, Any]]] = {
        name: [json.loads(path.read_text()) for path in tmp_path.glob(f"{name}-*.json")]
        for name in ("memory", "asked")
    }
    assert len(rows["memory"]) == len(rows["asked"]) == 8
    for row in rows["memory"]:
        need = SLACK * row["size"] + PROCESS_BYTES / GIB
        expected = 1 / 3 if need <= 4 else 0.5 if need <= 8 else 1.0
        assert row["lent"]["GPU"] == pytest.approx(expected, abs=1e-3)
        assert row["lent"]["CPU"] == 1
    for row in rows["asked"]:
        assert row["lent"] == {"CPU": 2, "GPU": 0.5}
    for each in rows.values():
        assert {row["visible"] for row in each} == {"0"}
        for row in each:
            beside = [other for other in each if other["begun"] <= row["begun"] < other["ended"]]
            assert sum(other["lent"]["GPU"] for other in beside) <= 1.001
    assert len({row["pid"] for row in rows["asked"]}) <= 3  # workers are reused
