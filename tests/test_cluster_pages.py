"""What pages tell the owners of several machines, typed on one machine that has the addresses of two.

It is typed in namespaces of its own, where ports are free and `ray stop` ends only what was started there.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpnas.journal import status
from tests.builders import folder_of_pairs
from tests.typed import ROOT, blocks

ALONE = ("unshare", "--net", "--pid", "--fork", "--mount-proc")
SPACE = """\
scale: 2
families:
  drn: {features: [4, 8], blocks: [1, 2], stages: [1]}
search: {trials: 2, concurrent: 1, portfolio: 1}
recipe: {steps: 4, batch_size: 2, hr_patch: 48}
"""
ADDRESSES = ("ip link set lo up", "ip addr add 10.0.0.1/32 dev lo", "ip addr add 10.0.0.2/32 dev lo")
OTHER = (
    "--node-ip-address=10.0.0.2 --num-cpus=2 --dashboard-agent-grpc-port=52367 "
    "--dashboard-agent-listen-port=52366"
)
"""What a second node needs where it shares a machine with the first."""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a space, pairs and a home."""
    tools = all(map(shutil.which, ("unshare", "ip", "openssl")))
    if not tools or subprocess.run([*ALONE, *ADDRESSES[0].split()], capture_output=True).returncode != 0:
        pytest.skip("namespaces need root, unshare and iproute2, and a token needs openssl")
    (tmp_path / "drn.yaml").write_text(SPACE)
    folder_of_pairs(tmp_path / "pairs")
    for name in ("home", "bin", "shared", "runs"):
        (tmp_path / name).mkdir()
    return tmp_path


def typed(desk: Path, *commands: str, **variables: str) -> None:
    """Types commands of a shell, each of which must end well."""
    script = "\n".join(("set -ex", *ADDRESSES, *commands))
    path = os.pathsep.join((str(desk / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        [*ALONE, "bash", "-c", script],
        cwd=desk,
        env=os.environ | {"HOME": str(desk / "home"), "PATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.slow
def test_a_cluster_started_by_hand_runs_a_search_and_a_job(desk: Path) -> None:
    page = ROOT / "docs/clusters.md"
    # long enough to be looked at meanwhile
    (desk / "long.yaml").write_text(SPACE.replace("steps: 4", "steps: 60"))
    texts = [each.text.replace("\\\n", " ").replace("/shared", str(desk / "shared")) for each in blocks(page)]
    (token,) = (each for each in texts if "> ~/.ray/auth_token" in each)
    (start,) = (each for each in texts if each.startswith("ray start --head"))
    (job,) = (each for each in texts if each.startswith("ray job submit"))
    (look,) = (each for each in texts if "gpnas-status" in each)
    *started, stop = start.splitlines()
    submit, logs, ended = job.replace("/runs/drn", "/runs/job").splitlines()
    own = f"gpnas{desk}/home/runs/job"
    look = look.replace("ADDRESS", "10.0.0.1:6379").replace("gpnas/home/me/runs/drn", own)
    (desk / "look.py").write_text(look)
    typed(
        desk,
        token,
        *(re.sub(r"^(ray start --address=\S+)", rf"\1 {OTHER}", each) for each in started),
        submit.replace("drn.yaml", str(desk / "long.yaml")),
        "for number in $(seq 60); do python look.py > looked 2> missed && break; sleep 2; done",
        logs,
        ended,
        stop,
    )
    for name in ("drn", "job"):
        assert status(desk / "shared/runs" / name)["state"] == "finished"
    assert "candidates" in (desk / "looked").read_text(), (desk / "missed").read_text()[-2000:]


@pytest.mark.slow
def test_a_cluster_says_everything_through_tls(desk: Path) -> None:
    """And whoever has no certificate is refused."""
    texts = [each.text for each in blocks(ROOT / "docs/clusters.md", "sh")]
    (token,) = (each for each in texts if "> ~/.ray/auth_token" in each)
    (keys,) = (each for each in texts if "openssl req -x509" in each)
    (variables,) = (each for each in texts if "export RAY_USE_TLS" in each)
    (start,) = (each for each in texts if each.startswith("ray start --head"))
    head, _, search, stop = start.replace("/shared", str(desk / "shared")).splitlines()
    stranger = search.partition("#")[0].replace("runs/drn", "runs/stranger")
    typed(
        desk,
        token.replace("/shared", str(desk / "shared")),
        keys,
        f"({variables}",
        head.replace("--num-cpus=0", "--num-cpus=2").partition("#")[0],
        search.partition("#")[0] + ")",
        f"! timeout 60 {stranger} 2> refused",
        f"({variables}",
        stop.partition("#")[0] + ")",
    )
    assert status(desk / "shared/runs/drn")["state"] == "finished"
    assert "it speaks TLS and RAY_USE_TLS is not set; set RAY_USE_TLS" in (desk / "refused").read_text()


@pytest.mark.slow
def test_a_job_of_slurm_starts_ray_over_its_nodes(desk: Path) -> None:
    (job,) = (each for each in blocks(ROOT / "docs/slurm.md", "sbatch") if "symmetric-run" in each.text)
    assert job.file == "nodes.sbatch"
    (desk / job.file).write_text(job.text)
    without_options = 'while [[ $1 = --* ]]; do shift; done; exec "$@"'
    for name, text in {"srun": without_options, "scontrol": "echo 10.0.0.1"}.items():
        program = desk / "bin" / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "one", "SLURM_NNODES": "1", "SLURM_CPUS_PER_TASK": "2"}
    typed(desk, "bash -e nodes.sbatch runs/mine", **slurm)
    assert status(desk / "runs/mine")["state"] == "finished"
