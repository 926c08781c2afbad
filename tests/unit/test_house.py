"""The house rules that no linter knows: pins, names, contracts, the changelog, the test command."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[0-9][A-Za-z0-9.!+_]*)")

#: In parts, so that this file does not hold what it forbids.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("deb", "debian", "org"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("crates", "io"),
        ("anaconda", "org"),
    )
]
#: The folder of a person or of one machine: `/` and then one of these.
PRIVATE_FOLDERS = re.compile(r"(?<![\w.~*$}-])/(?:home|Users|root|work)/")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pin_lines() -> list[str]:
    lines = read("constraints.txt").splitlines()
    return [line for line in lines if not line.startswith("#")]


def pins() -> dict[str, str]:
    found = (PIN.fullmatch(line) for line in pin_lines())
    return {canonicalize_name(m["name"]): m["version"] for m in found if m}


def requirements() -> list[str]:
    extras = PROJECT["optional-dependencies"].values()
    every = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    return sorted({text for text in every if Requirement(text).name != PROJECT["name"]})


def repository_files() -> list[str]:
    """What git holds or would take in, so that a new file counts before it is added."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return sorted(name for name in set(listed.split("\0")) if name and (ROOT / name).is_file())


def texts() -> Iterator[tuple[str, int, str]]:
    """Every line of every text in the repository, with its place."""
    for name in repository_files():
        data = (ROOT / name).read_bytes()
        if b"\0" not in data:
            for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
                yield name, number, line


# --- pins --------------------------------------------------------------------------------------


def test_every_constraint_is_one_pin() -> None:
    assert [line for line in pin_lines() if not PIN.fullmatch(line)] == []
    assert len(pins()) == len(pin_lines()), "a name appears twice"


def test_the_constraints_are_sorted_and_say_how_to_renew_them() -> None:
    lines = read("constraints.txt").splitlines()
    assert [line.startswith("#") for line in lines[:3]] == [True, True, False]
    assert "make constraints" in "".join(lines[:2])
    names = [line.partition("==")[0].lower() for line in pin_lines()]
    assert names == sorted(names)


@pytest.mark.parametrize("text", requirements())
def test_a_requirement_is_pinned_within_its_range(text: str) -> None:
    requirement = Requirement(text)
    version = pins().get(canonicalize_name(requirement.name))
    assert version is not None, "run `make constraints`"
    assert requirement.specifier.contains(version), version


def test_what_installs_and_what_is_installed_are_not_pinned() -> None:
    assert not {canonicalize_name(PROJECT["name"]), "pip", "setuptools", "wheel"} & set(pins())


# --- names -------------------------------------------------------------------------------------


def test_no_file_names_a_package_registry() -> None:
    found = [
        f"{name}:{number}: {host}"
        for name, number, line in texts()
        for host in REGISTRY_HOSTS
        if host in line.lower()
    ]
    assert found == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = [
        f"{name}:{n}: {line.strip()}" for name, n, line in texts() if PRIVATE_FOLDERS.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("{}home{}ann{}nxs", True),
        ('"{}work{}main"', True),
        ("file://{}root{}x", True),
        ("nxs_tasks{}work{}x", False),
        ("~{}work{}x", False),
        ("$HOME{}work{}x", False),
        ("{}var{}lib{}nxs", False),
    ],
)
def test_the_rule_for_folders(text: str, private: bool) -> None:
    assert bool(PRIVATE_FOLDERS.search(text.replace("{}", "/"))) is private


# --- contracts ---------------------------------------------------------------------------------


def test_the_import_contracts_hold() -> None:
    call = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", call, "--no-logo", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


# --- what a reader is told ---------------------------------------------------------------------


def test_the_changelog_has_an_entry_for_this_version() -> None:
    entries = re.findall(r"^## \[?([0-9][^]\s]*)\]? - (\S+)$", read("CHANGELOG.md"), re.M)
    assert PROJECT["version"] in {version for version, _ in entries}
    for version, date in entries:
        assert date == "unreleased" or re.fullmatch(r"\d{4}-\d\d-\d\d", date), version


def test_ci_runs_the_test_command_of_the_readme_and_nothing_else() -> None:
    lines = [line.strip() for line in read(".ci/run").splitlines()]
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1] == "set -euo pipefail"
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]
    shown = re.compile(r"^\s*(?:\$ )?make test\s*(?:#.*)?$|`make test`", re.M)
    assert shown.search(read("README.md")), "README.md does not give `make test`"


def test_make_help_tells_every_target() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    [phony] = re.findall(r"^\.PHONY: (help .*)$", read("Makefile"), re.M)
    result = subprocess.run([make, "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    told = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert told == phony.split()


def test_what_the_image_copies_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", read("Dockerfile"), re.M)
    copied = {source for line in copies for source in line.split()}
    assert copied == sent
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []
