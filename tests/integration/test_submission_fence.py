"""A task whose message was taken from its process submits nothing more."""

from __future__ import annotations

import pytest
from celery import states

from tests.integration.deliveries import Shop, hold, run

pytest_plugins = ["tests.integration.deliveries_fixtures"]


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("way", ["submit", "submit_many"])
def test_what_it_submits_is_refused(here: Shop, way: str, held: bool) -> None:
    @here.app.task(name="shop.send", shared=False)
    def send() -> None:
        if way == "submit":
            here.fleet.submit(here.add, (1, 2))
        else:
            here.fleet.submit_many(here.add, [(1, 2), (3, 4)])

    if held:
        hold(here.store)
    _, info, _, _ = run(send, id="t1")
    sent = {"submit": 1, "submit_many": 2}[way]
    assert len(here.waiting()) == (sent if held else 0)
    assert info is None if held else info.state == states.IGNORED
