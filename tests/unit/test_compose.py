"""`docker-compose.yml`: well-formed by the Compose specification, and what NXS promises of it.

The specification's JSON schema is the one that the package check-jsonschema ships.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from nxs_tasks.settings import load

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVER = "redis"
OURS = sorted(set(SERVICES) - {SERVER})
NODES = sorted(name for name in SERVICES if "node" in SERVICES[name]["command"])

every_service = pytest.mark.parametrize("name", sorted(SERVICES))
every_one_of_ours = pytest.mark.parametrize("name", OURS)


def validate(document: dict[str, Any]) -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(document, json.loads(schema.read_text(encoding="utf-8")))


def seconds(duration: str) -> float:
    """A duration of the specification, such as `1m30s`."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"(\d+)(ms|s|m|h)", duration)
    assert "".join(n + unit for n, unit in parts) == duration, f"no duration: {duration!r}"
    return sum(int(n) * units[unit] for n, unit in parts)


def named_volumes(service: dict[str, Any]) -> dict[str, str]:
    """Where each named volume of a service is mounted."""
    pairs = (mount.split(":") for mount in service.get("volumes", ()))
    return {source: target for source, target, *_ in pairs if source in COMPOSE["volumes"]}


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def image_user() -> str:
    users = re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)
    return str(users[-1])


# --- well-formed -------------------------------------------------------------------------------


def test_it_follows_the_compose_specification() -> None:
    validate(COMPOSE)


def misspelt(document: dict[str, Any]) -> None:
    document["services"][SERVER]["healtcheck"] = document["services"][SERVER].pop("healthcheck")


def wrong_type(document: dict[str, Any]) -> None:
    document["services"][SERVER]["ports"] = "127.0.0.1:6379:6379"


def no_such_condition(document: dict[str, Any]) -> None:
    document["services"][OURS[0]]["depends_on"][SERVER]["condition"] = "healthy"


@pytest.mark.parametrize("spoil", [misspelt, wrong_type, no_such_condition])
def test_the_schema_would_see_a_mistake(spoil: Callable[[dict[str, Any]], None]) -> None:
    document = copy.deepcopy(COMPOSE)
    spoil(document)
    with pytest.raises(jsonschema.ValidationError):
        validate(document)


def test_docker_compose_itself_accepts_it() -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("docker is not installed")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("this docker has no compose plugin")
    command = [docker, "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@every_service
def test_what_a_service_refers_to_is_declared(name: str) -> None:
    service = SERVICES[name]
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    assert len(named_volumes(service)) == len(service.get("volumes", ())), "a bind mount"


def test_nothing_is_taken_from_the_shell_of_whoever_starts_it() -> None:
    assert not re.findall(r"(?<!\$)\$(?!\$)", TEXT), "a variable that compose would replace"


# --- the server --------------------------------------------------------------------------------


def test_the_server_keeps_what_it_accepted() -> None:
    server = SERVICES[SERVER]
    assert option(server["command"], "--appendonly") == "yes"
    assert option(server["command"], "--appendfsync") in {"everysec", "always"}
    assert option(server["command"], "--maxmemory-policy") == "noeviction"
    assert "/data" in named_volumes(server).values()
    assert not any(mount.startswith("/data") for mount in server.get("tmpfs", ()))


def test_the_server_is_reached_from_the_fleet_only() -> None:
    server = SERVICES[SERVER]
    assert "ports" not in server
    assert all(COMPOSE["networks"][network]["internal"] is True for network in server["networks"])


# --- the fleet ---------------------------------------------------------------------------------


def test_there_are_three_nodes_with_names_of_their_own() -> None:
    assert len(NODES) == 3
    assert len({SERVICES[name]["hostname"] for name in OURS}) == len(OURS)


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_one_command(name: str) -> None:
    node = SERVICES[name]
    *command, grace = node["command"]
    assert command == ["nxs", "-A", "examples.census.app", "node", "--slots", "2", "--grace"]
    assert 60 <= float(grace) < seconds(node["stop_grace_period"]), "a running task needs time"
    assert node["init"] is True, "signals and orphans need an init"


@every_one_of_ours
def test_the_settings_are_ones_that_nxs_knows(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert environment == SERVICES[NODES[0]]["environment"], "one fleet, one configuration"
    settings = load(env=environment).settings
    for address in (environment["NXS_BROKER_URL"], environment["NXS_RESULT_BACKEND"]):
        assert urlsplit(address).hostname == SERVER
    history = Path("/" + urlsplit(settings.history_url).path.lstrip("/"))
    assert str(history.parent) in named_volumes(SERVICES[name]).values(), "history is shared"


@every_one_of_ours
def test_it_starts_when_the_server_is_ready(name: str) -> None:
    assert SERVICES[name]["depends_on"][SERVER] == {"condition": "service_healthy"}


# --- every service -----------------------------------------------------------------------------


@every_service
def test_its_health_is_checked(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert 0 < seconds(check["timeout"]) < max(seconds(check["interval"]), 30)
    assert check["retries"] >= 3, "one late answer is no illness"
    assert seconds(check["start_period"]) > 0


@pytest.mark.parametrize("name", [*NODES, "beat"])
def test_a_worker_is_asked_by_its_own_name(name: str) -> None:
    [_, command] = SERVICES[name]["healthcheck"]["test"]
    own = "celerybeat" if name == "beat" else "celery"
    assert f"-d {own}@$$HOSTNAME " in command


@every_service
def test_it_comes_back_after_a_crash(name: str) -> None:
    assert SERVICES[name]["restart"] in {"unless-stopped", "always"}


@every_service
def test_it_does_not_run_as_root(name: str) -> None:
    service = SERVICES[name]
    user = str(service.get("user", image_user() if "build" in service else "root"))
    assert user.partition(":")[0] not in {"", "0", "root"}


@every_service
def test_it_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]


@every_one_of_ours
def test_its_folders_belong_to_the_user_of_the_image(name: str) -> None:
    uid, _, gid = image_user().partition(":")
    state = SERVICES[name]["environment"]["NXS_STATE_DIR"]
    [mount] = [m for m in SERVICES[name]["tmpfs"] if m.startswith(f"{state}:")]
    assert {f"uid={uid}", f"gid={gid}", "mode=0700"} <= set(mount.partition(":")[2].split(","))


@every_service
def test_it_is_published_on_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        host = port["host_ip"] if isinstance(port, dict) else port.rsplit(":", 2)[0]
        assert ipaddress.ip_address(host.strip("[]")).is_loopback, port


def test_flower_is_the_only_door() -> None:
    assert [name for name in SERVICES if SERVICES[name].get("ports")] == ["flower"]


@every_service
def test_it_holds_no_secret(name: str) -> None:
    service = SERVICES[name]
    secret = re.compile(r"passw|secret|token|credential|requirepass|basic.auth|api_?key", re.I)
    words = [*service.get("environment", {}), *service["command"]]
    assert not [word for word in words if secret.search(word)]
    values = [*service.get("environment", {}).values(), *service["command"]]
    assert not [value for value in values if re.search(r"://[^/\s]*@", value)], "in an address"
