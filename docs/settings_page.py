"""Makes `docs/settings.md` from `nxs_tasks.settings`: `python -m docs.settings_page`."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from nxs_tasks.celery_settings import NEEDS, OWN_TRANSPORT
from nxs_tasks.settings import ENV_PREFIX, Settings, Weights

PAGE = Path(__file__).with_name("settings.md")


def page() -> str:
    """The whole page."""
    lines = [
        "# Settings",
        "",
        "Made from `nxs_tasks/settings.py` by `make picture`; a test compares them.",
        "",
        "Later wins: the default, the environment, the call: "
        "`NXS_THRESHOLD=0.4`, `Fleet(app, threshold=0.4)`. "
        "`nxs settings` prints what is in force and who set it.",
        "",
        "Two more of the environment are for commands: `NXS_APP` is the app where `-A` is not"
        " given, and `NXS_BROKER_URL` the server of `nxs` and `doctor` without an app.",
        "",
        "| setting | environment | default | unit | why |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {f.name} | {ENV_PREFIX}{f.name.upper()} | {_shown(f.default)} "
            f"| {f.metadata['unit']} | {f.metadata['why']} |"
            for f in fields(Settings)
        ),
        "",
        "## Celery settings that NXS sets",
        "",
        "| setting | value | why | another value is refused |",
        "| --- | --- | --- | --- |",
        *(f"| {n.key} | {n.value} | {n.why} | {n.refuse or 'no, kept'} |" for n in NEEDS),
        "",
        "In each worker also these of `broker_transport_options`: "
        + ", ".join(OWN_TRANSPORT)
        + " (refused if set by the app), unacked_mutex_key, visibility_timeout,"
        + " and queue_order_strategy everywhere. Routes and entries of the schedule are added to"
        + " those of the app.",
    ]
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, Weights):
        return ", ".join(f"{k} {v}" for k, v in asdict(value).items())
    return str(value) if value != "" else "empty"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
