"""Which app and which broker a command works on."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nxs_tasks.errors import SettingError, StateDirError
from nxs_tasks.folders import UP
from nxs_tasks.runtime import Runtime, runtime_of
from nxs_tasks.settings import Settings, load

DEFAULT_APP = "nxs_tasks.app"
RUNNING_FILE = "up.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A fleet that `nxs up` runs on this machine."""

    pid: int
    app: str
    broker_url: str

    @classmethod
    def find(cls) -> Running | None:
        """The one of our state directory, if its process is alive."""
        try:
            note = up_home(load().settings.state_path) / RUNNING_FILE
            found = cls(**json.loads(note.read_text()))
            os.kill(found.pid, 0)
        except (OSError, ValueError, TypeError):
            return None
        return found

    def write(self, home: Path) -> None:
        """Leave a note for the other commands."""
        text = json.dumps({"pid": self.pid, "app": self.app, "broker_url": self.broker_url})
        (home / RUNNING_FILE).write_text(text)


class Target:
    """The app named on the command line, loaded when it is needed."""

    def __init__(self, name: str = "", app: Any = None) -> None:
        self._given = name
        self._app = app

    @property
    def name(self) -> str:
        """The app as children get it with `-A`."""
        if self._app is not None and not self._given:
            return _name_of(self._app)
        if self._given or os.environ.get("NXS_APP"):
            return self._given or os.environ["NXS_APP"]
        running = Running.find()
        return running.app if running else DEFAULT_APP

    def use_fleet(self, url: str, home: Path) -> None:
        """Point the app, whatever it says itself, at a broker and a folder: before it is loaded."""
        os.environ["NXS_STATE_DIR"] = str(home)
        for name in ("NXS_BROKER_URL", "NXS_RESULT_BACKEND"):
            os.environ[name] = url
        for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
            os.environ[name] = url

    def app(self) -> Any:
        """The Celery app. Raises `SettingError` if there is none of that name."""
        if self._app is None:
            # Before a running fleet is found: that changes where it would be looked for.
            name = self.name
            self._find_running_fleet(name)
            self._app = _load(name)
        return self._app

    def runtime(self) -> Runtime:
        """The runtime of the app's fleet. Raises `SettingError` if it has no fleet."""
        return runtime_of(self.app())

    def _find_running_fleet(self, name: str) -> None:
        if "NXS_BROKER_URL" in os.environ or "CELERY_BROKER_URL" in os.environ:
            return
        running = Running.find()
        if running is not None and running.app == name:
            print(f"nxs: the fleet of `nxs up` at {running.broker_url}", file=sys.stderr)
            self.use_fleet(running.broker_url, up_home(load().settings.state_path))
        elif name == DEFAULT_APP:
            raise SettingError(
                "no `nxs up` runs here: name your app (nxs -A MODULE …), "
                "or set NXS_BROKER_URL to the address of a fleet's server"
            )


def up_home(state_path: Path) -> Path:
    """Where `nxs up` keeps its server, its history and its logs: it is a fleet of its own."""
    return state_path / UP


def state_dir(settings: Settings) -> Path:
    """The state directory, made if need be. Raises `StateDirError` if it cannot be written."""
    path = settings.state_path
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StateDirError(
            f"the state directory {path} cannot be written ({error.strerror}): "
            "set NXS_STATE_DIR to one that can"
        ) from None
    return path


def _name_of(app: Any) -> str:
    """`module:attribute` under which another process finds an app that is loaded here."""
    for module_name, module in sorted(sys.modules.items()):
        for attribute, value in vars(module).items() if hasattr(module, "__dict__") else ():
            if value is app and module_name != "__main__":
                return f"{module_name}:{attribute}"
    raise SettingError(f"the app {app.main!r} is in no module: name it with `nxs -A MODULE`")


def _load(name: str) -> Any:
    from celery.app.utils import find_app

    try:
        app = find_app(name)
        # The configuration is read when it is first needed: read it here, where errors are shown.
        app.conf.task_default_queue  # noqa: B018
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingError(
            f"-A {name}: no Celery app there ({error}). "
            "It is a module or module:attribute, importable from this folder."
        ) from None
    return app
