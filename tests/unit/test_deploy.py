"""The units of systemd and the manifests of Kubernetes: well-formed, and what they start exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery.bin.celery import celery
from typer.main import get_command

from nxs_tasks.cli.main import cli
from nxs_tasks.cli.probe import Unsaid, _parse
from nxs_tasks.settings import ENV_PREFIX, load
from nxs_tasks.store.keys import CONTROL_QUEUES

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "examples" / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
ENVIRONMENT = dict(
    line.split("=", 1)
    for line in (DEPLOY / "systemd" / "nxs.env").read_text().splitlines()
    if line and not line.startswith("#")
)
MANIFESTS: dict[str, dict[str, Any]] = {
    document["metadata"]["name"] + "/" + document["kind"]: document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
}
DEPLOYMENTS = {n: d for n, d in MANIFESTS.items() if d["kind"] == "Deployment"}
PROBED = [n for n in DEPLOYMENTS if not n.startswith("nxs-beat")]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def refuse_unknown(argv: list[str]) -> None:
    """Raises unless the command line is one of Celery's or of NXS's: names, options, values."""
    if argv[0] == "nxs":
        assert argv[0] in SCRIPTS
        rest = argv[3:] if argv[1] == "-A" else argv[1:]
        if rest[0] == "probe":
            _parse(rest[1:])
            return
        command: Any = get_command(cli).commands[rest[0]]  # type: ignore[attr-defined]
    else:
        assert argv[:2] == ["celery", "-A"]
        rest = argv[3:]
        command = celery.commands[rest[0]]
    parser = command.make_parser(command.context_class(command))
    _, unknown, _ = parser.parse_args(rest[1:])
    assert not unknown, f"{rest[0]} does not know {unknown}"


def directives(unit: Path) -> dict[str, list[str]]:
    """By `Section.Name`; a name may stand several times."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            continue
        name, given, value = line.partition("=")
        assert given, f"{unit.name}: {line!r} is no directive"
        found.setdefault(f"{section}.{name}", []).append(value)
    return found


def command_of(unit: Path) -> list[str]:
    [line] = directives(unit)["Service.ExecStart"]
    for name, value in ENVIRONMENT.items():
        line = line.replace(f"${{{name}}}", value)
    argv = shlex.split(line.replace("%H", "web1"))
    assert "$" not in line, "an unknown variable"
    return [Path(argv[0]).name, *argv[1:]]


def container(name: str) -> dict[str, Any]:
    [found] = DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"]
    return dict(found)


every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
every_deployment = pytest.mark.parametrize("name", DEPLOYMENTS)


class TestSystemd:
    def test_there_are_a_worker_a_control_worker_and_a_beat(self) -> None:
        assert [u.name for u in UNITS] == [
            "nxs-beat.service",
            "nxs-control.service",
            "nxs-worker.service",
        ]

    @every_unit
    def test_systemd_itself_takes_it(self, unit: Path, tmp_path: Path) -> None:
        analyze = shutil.which("systemd-analyze")
        if analyze is None:
            pytest.skip("no systemd-analyze here")
        text = unit.read_text().replace("/srv/shop/.venv/bin/celery", sys.executable)
        (tmp_path / unit.name).write_text(text)
        done = subprocess.run(
            [analyze, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name)],
            capture_output=True,
            text=True,
            check=False,
        )
        told = [line for line in done.stderr.splitlines() if unit.name in line]
        assert told == []

    @every_unit
    def test_what_it_starts_exists(self, unit: Path) -> None:
        refuse_unknown(command_of(unit))

    @every_unit
    def test_it_ends_the_main_process_alone_and_gives_it_time(self, unit: Path) -> None:
        known = directives(unit)
        assert known["Service.KillMode"] == ["mixed"]
        assert known["Service.KillSignal"] == ["SIGTERM"]
        assert known["Service.Restart"] == ["always"]
        [stop] = known["Service.TimeoutStopSec"]
        assert re.fullmatch(r"\d+(s|min)", stop)
        assert known["Unit.StartLimitIntervalSec"] == ["0"], "it waits for its broker"

    @every_unit
    def test_its_settings_are_some_of_nxs(self, unit: Path) -> None:
        pairs = dict(value.split("=", 1) for value in directives(unit)["Service.Environment"])
        known = {k: v for k, v in (ENVIRONMENT | pairs).items() if k.startswith(ENV_PREFIX)}
        assert load(env=known).sources["state_dir"] == "NXS_STATE_DIR"

    @pytest.mark.parametrize("name", ["nxs-worker", "nxs-control"])
    def test_who_tells_that_it_lives_is_watched(self, name: str) -> None:
        known = directives(DEPLOY / "systemd" / f"{name}.service")
        assert known["Service.Type"] == ["notify"]
        assert int(known["Service.WatchdogSec"][0]) >= 30
        # Until it is up it may wait for its broker for ever.
        assert known["Service.TimeoutStartSec"] == ["infinity"]


class TestKubernetes:
    def test_there_are_workers_and_a_control_plane(self) -> None:
        assert sorted(MANIFESTS) == [
            "nxs-beat/Deployment",
            "nxs-control/Deployment",
            "nxs-worker/Deployment",
            "nxs-worker/PodDisruptionBudget",
        ]

    @every_deployment
    def test_its_labels_select_its_pods(self, name: str) -> None:
        spec = DEPLOYMENTS[name]["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        assert DEPLOYMENTS[name]["apiVersion"] == "apps/v1"
        assert spec["replicas"] >= 2

    @every_deployment
    def test_what_it_starts_exists(self, name: str) -> None:
        refuse_unknown(container(name)["command"])

    @pytest.mark.parametrize("name", PROBED)
    @pytest.mark.parametrize(
        ("probe", "question"),
        [("startupProbe", "live"), ("livenessProbe", "live"), ("readinessProbe", "ready")],
    )
    def test_it_is_probed(self, name: str, probe: str, question: str) -> None:
        known = container(name)[probe]
        argv = known["exec"]["command"]
        refuse_unknown(argv)
        assert _parse(argv[2:])[0] == (question,)
        # A busy machine may take its time to start a process.
        assert known["timeoutSeconds"] >= 5

    @every_deployment
    def test_its_state_directory_is_there(self, name: str) -> None:
        known = container(name)
        env = {e["name"]: e.get("value") for e in known["env"]}
        mounts = {m["mountPath"]: m["name"] for m in known["volumeMounts"]}
        volumes = {v["name"] for v in DEPLOYMENTS[name]["spec"]["template"]["spec"]["volumes"]}
        assert mounts[env["NXS_STATE_DIR"]] in volumes

    def test_a_pod_drains_the_worker_that_runs_in_it(self) -> None:
        known = container("nxs-worker/Deployment")
        shell, flag, line = known["lifecycle"]["preStop"]["exec"]["command"]
        assert (shell, flag) == ("sh", "-c")
        argv = shlex.split(line.removeprefix("exec "))
        refuse_unknown(argv)
        node = known["command"][known["command"].index("-n") + 1]
        assert argv[4] == node.replace("$(POD_NAME)", "$POD_NAME")
        assert "POD_NAME" in {e["name"] for e in known["env"]}
        spec = DEPLOYMENTS["nxs-worker/Deployment"]["spec"]
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= 600
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}

    def test_the_control_worker_consumes_its_queue_alone(self) -> None:
        command = container("nxs-control/Deployment")["command"]
        assert command[command.index("-Q") + 1] == CONTROL_QUEUES

    @every_deployment
    def test_no_secret_is_in_it(self, name: str) -> None:
        assert "redis://" not in yaml.safe_dump(DEPLOYMENTS[name])
        assert container(name)["envFrom"] == [{"secretRef": {"name": "nxs"}}]


def test_a_command_that_there_is_not_would_be_found() -> None:
    with pytest.raises(KeyError):
        refuse_unknown(["nxs", "-A", "shop", "drian", "w1"])
    with pytest.raises(Exception, match="--pidfle"):
        refuse_unknown(["celery", "-A", "shop", "beat", "--pidfle="])
    with pytest.raises(Unsaid, match="more than one node"):
        refuse_unknown(["nxs", "probe", "lively", "w1"])
