"""What lies in docker/, where no engine runs: schemas, linters, and what the code itself says."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml

from gpnas.cli.parser import command_line
from gpnas.dispatch.metrics import METRICS

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
VOLUME, JOB = yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text())
BOARD = json.loads((DOCKER / "grafana" / "boards" / "gpnas.json").read_text())
PROMETHEUS = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())
DOCKERFILE = (DOCKER / "Dockerfile").read_text()


def tool(*command: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name(command[0]), *command[1:]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_dockerfile_passes_hadolint() -> None:
    assert tool("hadolint", "--failure-threshold", "info", str(DOCKER / "Dockerfile")) == ""


def test_the_compose_files_keep_the_compose_specification() -> None:
    files = [str(DOCKER / name) for name in ("compose.yaml", "compose.cuda.yaml")]
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)


def test_the_image_has_what_the_tests_had() -> None:
    """Versions come from constraints.txt alone, and Python is the one that it was tested with."""
    installs = re.findall(r"pip install [^&]*?(?=\n[A-Z]|&&|\Z)", DOCKERFILE, re.S)
    assert installs
    assert all("--constraint constraints.txt" in each for each in installs)
    assert not re.search(r"==\d", DOCKERFILE)
    (tested,) = re.findall(r"Python (3\.\d+)", (ROOT / "constraints.txt").read_text())
    assert f"ARG PYTHON={tested}\n" in DOCKERFILE


def test_the_build_context_holds_what_is_copied_and_no_more() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] in "!*"]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M):
        copied |= set(line.split()[:-1])
    assert copied == allowed
    assert all((ROOT / each).exists() for each in copied)


def test_nothing_runs_as_root_or_holds_a_secret() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    assert re.search(r"^USER \$\{UID\}", last, re.M)
    assert "ARG UID=1000" in last
    everything = "".join(path.read_text() for path in DOCKER.rglob("*") if path.suffix in (".yaml", ".json"))
    assert not re.search(r"(?i)(password|token)\w*:\s*['\"]?[0-9a-z]{8,}['\"]?\s*$", everything, re.M)
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    for service in COMPOSE["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_ports_are_published_on_loopback_alone() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_head_has_the_address_that_workers_reach() -> None:
    """It is in two networks, of which Ray would take the other; and objects find room in shared memory."""
    head, worker = (COMPOSE["services"][name] for name in ("head", "worker"))
    (together,) = set(head["networks"]) & set(worker["networks"])
    (alias,) = head["networks"][together]["aliases"]
    assert f'--node-ip-address="$$(getent hosts {alias} | cut -d " " -f 1)"' in head["command"]
    for node in (head, worker):
        (store,) = re.findall(r"--object-store-memory=(\d+)", node["command"])
        assert node["shm_size"] == "1gb"
        assert int(store) < 1e9


def test_prometheus_asks_the_nodes_at_the_port_where_they_export() -> None:
    (scraped,) = PROMETHEUS["scrape_configs"][0]["dns_sd_configs"]
    assert set(scraped["names"]) <= set(COMPOSE["services"])
    for name in scraped["names"]:
        assert f"--metrics-export-port={scraped['port']}" in COMPOSE["services"][name]["command"]
    for group in groups():
        assert group["rayStartParams"]["metrics-export-port"] == str(scraped["port"])
        annotations = group["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(scraped["port"])


def groups() -> list[dict[str, Any]]:
    cluster = JOB["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_the_pods_and_the_volume_keep_kubernetes_schemas() -> None:
    kubernetes_validate.validate(VOLUME, "1.33", strict=True)
    for group in groups():
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        pod["metadata"] = {**pod["metadata"], "name": "ray"}
        kubernetes_validate.validate(pod, "1.33", strict=True)


def test_the_ray_job_asks_for_a_token_and_watches_its_pods() -> None:
    cluster = JOB["spec"]["rayClusterSpec"]
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    for group in groups():
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] != 0
        claims = [each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"]]
        assert claims == [VOLUME["metadata"]["name"]]
    run = re.search(r"--run (\S+)", JOB["spec"]["entrypoint"])
    assert run is not None
    assert run[1].startswith(container["volumeMounts"][0]["mountPath"] + "/")


def test_the_service_is_asked_where_it_listens() -> None:
    """On Kubernetes and by compose: its command is one, its port the published one, its health is watched."""
    service = COMPOSE["services"]["service"]
    documents = list(yaml.safe_load_all((DOCKER / "service.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, "1.33", strict=True)
    _, port, deployment = documents
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    commands = [service["command"].split(), container["command"]]
    for command in commands:
        options = command_line().parse_args(command[1:])
        assert (options.module, options.port) == ("serve", 8750)
    assert service["ports"] == ["127.0.0.1:8750:8750"]
    assert port["spec"]["ports"][0]["port"] == container["ports"][0]["containerPort"] == 8750
    assert port["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    probes = [container[f"{name}Probe"]["exec"]["command"] for name in ("startup", "readiness", "liveness")]
    for probe in [service["healthcheck"]["test"][1:], *probes]:
        compile(probe[2], "probe", "exec")
        assert re.search(r"http://127\.0\.0\.1:8750/(readyz|healthz)", probe[2])


def asked(expression: Any) -> list[Any]:
    """The vector selectors of a PromQL expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        return [expression]
    children = [getattr(expression, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    children += list(getattr(expression, "args", []) or [])
    return [found for child in children if child is not None for found in asked(child)]


def test_the_board_asks_for_what_the_code_exports_and_for_all_of_it() -> None:
    seen = set()
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            selectors = asked(promql_parser.parse(target["expr"].replace("$run", ".*")))
            assert selectors
            for selector in selectors:
                name = selector.name.removeprefix("ray_")
                seen.add(name)
                tags = {"Run", "NodeAddress", "WorkerId"} | {METRICS[name].tag}
                assert {matcher.name for matcher in selector.matchers.matchers} <= tags
                assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= tags
    assert seen == set(METRICS)
    file = DOCKER / "grafana/provisioning/datasources/prometheus.yaml"
    sources = {each["uid"] for each in yaml.safe_load(file.read_text())["datasources"]}
    assert {panel["datasource"]["uid"] for panel in BOARD["panels"]} == sources


def test_the_board_lies_where_grafana_is_told_to_look() -> None:
    (provider,) = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/gpnas.yaml").read_text())[
        "providers"
    ]
    mounts = dict(each.split(":")[:2] for each in COMPOSE["services"]["grafana"]["volumes"])
    assert mounts["./grafana/boards"] == provider["options"]["path"]


def test_a_node_that_does_not_answer_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AGENT", "127.0.0.1:9")  # the port of `discard`, where nobody listens
    done = subprocess.run(
        [sys.executable, str(DOCKER / "healthcheck.py")], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "the node must answer" in done.stderr


def test_ray_is_recent_enough_for_what_is_known_of_it() -> None:
    """CVE-2023-48022, CVE-2025-62593, CVE-2026-27482 and CVE-2026-32981 concern releases before 2.60."""
    assert tuple(int(part) for part in version("ray").split(".")[:2]) >= (2, 60)
