"""What a page tells the owners of containers, typed with podman for Docker by somebody who is not root.

What a registry would give is put together here, of Debian's packages and the wheels of what is installed:
Python's image, Prometheus's, and for Grafana a shell that does what Grafana does when it starts. All of it
runs in namespaces of its own, where ports are free.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.typed import ROOT, blocks

ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
USER = 1234
"""Who types: neither root nor the image's own default."""
PROGRAMS = ("podman", "runc", "debootstrap", "unshare", "setpriv", "ip", "iptables", "openssl", "curl")
PACKAGES = ("python3", "python3-pip", "python-is-python3", "prometheus")
IMAGES = {
    "docker.io/library/python:3.11-slim-bookworm": "ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels",
    "docker.io/prom/prometheus:v3.5.0": (
        'ENTRYPOINT ["prometheus","--config.file=/etc/prometheus/prometheus.yml",'
        '"--storage.tsdb.path=/prometheus"]\nUSER 65534'
    ),
    "docker.io/grafana/grafana:12.1.0": (
        "USER 472\n"
        'CMD ["sh","-c","cp $GF_SECURITY_ADMIN_PASSWORD__FILE /var/lib/grafana/kept && exec sleep infinity"]'
    ),
}
"""The images that are put together, and what each is beside their common base."""
CONTAINERS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
[network]
network_config_dir = "{folder}/networks"
"""
"""Podman's own limits are higher than those of a machine that is itself a guest."""
STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""
SHORT = {"--space drn.yaml": "--space drn.yaml --trials 2"}
"""What is typed instead, since a search of the page takes minutes."""
SERVER = """
mkdir -p /run/containers
mount -t tmpfs tmpfs /run/containers
ip link set lo up
podman system service --time=0 unix://{folder}/socket &
server=$!
while [ ! -S {folder}/socket ]; do sleep 0.2; done
chmod 666 {folder}/socket
code=0
setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override \\
    bash -exuo pipefail {folder}/typed.sh || code=$?
podman rm --all --force --time 1
podman rm --all --force --time 1
kill $server
exit $code
"""
"""Runs podman as Docker's engine runs, for a user who may read what is installed here."""
HEALTHY = """
for each in $(seq 60); do
    docker exec gpnas_head_1 python /usr/local/share/gpnas/healthcheck.py && break
    sleep 2
done
"""
LOOK = """
docker compose -f docker/compose.yaml exec -T head gpnas status /runs/drn --json > status.json
docker compose -f docker/compose.yaml exec -T service \\
    gpnas token make --runs /runs/service --role work --name "workers elsewhere" > token
docker exec gpnas_grafana_1 cat /var/lib/grafana/kept > kept
for url in 8750/readyz 8750/v1/searches 8265/api/jobs/; do
    curl --silent --output answer --write-out '%{http_code} ' "http://127.0.0.1:$url" >> codes
done
for each in $(seq 30); do
    docker exec gpnas_prometheus_1 python3 -c "from urllib.request import urlopen
print(urlopen('http://127.0.0.1:9090/api/v1/query?query=sum(up)').read().decode())" > nodes.json
    grep '"3"' nodes.json && break
    sleep 2
done
! docker build -f docker/Dockerfile --build-arg UID=0 . > refused 2>&1
docker compose -f docker/compose.yaml down --volumes
"""


def ended(*command: object, **options: object) -> str:
    """What a command prints; it ends well."""
    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
    return str(done.stdout)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a copy of the repository, Docker's programs, and a store of images."""
    if os.getuid() != 0 or not all(map(shutil.which, PROGRAMS)):
        pytest.skip(f"containers need root and {', '.join(PROGRAMS)}")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the wheels that are installed here are not for the Python of Debian 12, 3.11")
    made = Path(tempfile.mkdtemp(prefix="containers"))  # where the user may go
    made.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for name, text in {"storage.conf": STORAGE, "containers.conf": CONTAINERS}.items():
            (made / name).write_text(text.format(folder=made))
        patch.setenv("CONTAINERS_STORAGE_CONF", str(made / "storage.conf"))
        patch.setenv("CONTAINERS_CONF", str(made / "containers.conf"))
        patch.setenv("BUILDAH_FORMAT", "docker")  # the other one knows no health checks
        patch.setenv("BUILDAH_RUNTIME", "runc")
        try:
            images(made / "base")
            (made / "repository").mkdir()
            copy = 'git ls-files -z | xargs -0 cp --parents --target-directory "$0"'
            ended("bash", "-c", copy, made / "repository", cwd=ROOT)
            build = ("podman", "build", "--file", "docker/Dockerfile", "--tag", "gpnas:cpu")
            arguments = ("--build-arg", "VARIANT=cpu", "--build-arg", f"UID={USER}")
            ended(*build, *arguments, ".", cwd=made / "repository")
            yield made
        finally:
            subprocess.run(
                ["podman", "system", "prune", "--all", "--force", "--volumes"], capture_output=True
            )
            shutil.rmtree(made, ignore_errors=True)
            # where podman keeps what a user without a session of his own does
            shutil.rmtree(Path(tempfile.gettempdir()) / f"containers-user-{USER}", ignore_errors=True)


def images(base: Path) -> None:
    """Puts together what registries would give."""
    ended("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", base)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", base / "wheels")
    # the last is for a Python before 3.11.4
    ended(*pip, "--constraint", ROOT / "constraints.txt", ROOT, "hatchling", "backports.tarfile")
    (managed,) = base.glob("usr/lib/python3.*/EXTERNALLY-MANAGED")
    managed.unlink()
    for name in ("var/lib/grafana", "prometheus", "etc/prometheus"):
        (base / name).mkdir(exist_ok=True)
        (base / name).chmod(0o777)
    with subprocess.Popen(["tar", "-C", base, "-c", "."], stdout=subprocess.PIPE) as tar:
        ended("podman", "import", "-", "localhost/base", stdin=tar.stdout)
    shutil.rmtree(base)
    base.mkdir()
    for name, text in IMAGES.items():
        (base / "Containerfile").write_text(f"FROM localhost/base\n{text}\n")
        ended("podman", "build", "--tag", name, base)


@pytest.mark.slow
def test_a_cluster_of_containers_runs_a_search(folder: Path) -> None:
    """The page's commands, and those that `compose.yaml` names; nobody without a token is answered."""
    (text,) = (each.text for each in blocks(ROOT / "docs/clusters.md", "sh") if "docker compose" in each.text)
    for found, instead in SHORT.items():
        assert found in text
        text = text.replace(found, instead)
    start, _, search = text.partition("docker compose -f docker/compose.yaml exec")
    (folder / "typed.sh").write_text(
        f"{start}{HEALTHY}docker compose -f docker/compose.yaml exec{search}{LOOK}"
    )
    bin_, home, repository = (folder / name for name in ("bin", "home", "repository"))
    compose = Path(sys.executable).with_name("podman-compose")
    for program, line in {
        "podman": f'exec {shutil.which("podman")} --url unix://{folder}/socket "$@"',
        "docker": f'[ "$1" = compose ] && shift && exec {compose} --podman-build-args=--format=docker "$@"\n'
        'exec podman "$@"',
    }.items():
        bin_.mkdir(exist_ok=True)
        (bin_ / program).write_text(f"#!/bin/bash\n{line}\n")
        (bin_ / program).chmod(0o755)
    home.mkdir()
    for path in (home, repository, *repository.rglob("*")):
        os.chown(path, USER, USER)
    (folder / "server.sh").write_text(
        SERVER.format(folder=folder, user=USER).replace("setpriv", f'HOME={home} PATH="{bin_}:$PATH" setpriv')
    )
    said = ended(*ALONE, "bash", folder / "server.sh", cwd=repository)
    assert json.loads((repository / "status.json").read_text())["state"] == "finished", said[-3000:]
    secret = (repository / "docker/secrets/grafana_password").read_text()
    assert (repository / "kept").read_text() == secret
    assert len(secret.strip()) == 32
    assert (repository / "codes").read_text().split()[:2] == ["200", "401"]
    assert (repository / "codes").read_text().split()[2] in ("401", "403")
    assert '"3"' in (repository / "nodes.json").read_text()
    assert re.search(r"\S{30}", (repository / "token").read_text())
    assert "UID must be that of a user without rights, but is 0" in (repository / "refused").read_text()
