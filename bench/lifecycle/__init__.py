"""The bench `lifecycle`: what becomes of a fleet whose processes come and go.

One scenario a file.

A rolling restart (`rolling`, real)
    Three workers with two slots each under load: nine tasks in ten take 0.2 to 1 s, the tenth 8 s,
    at 45 % of all slots. Each worker in turn gets SIGTERM, ends when what it runs has ended, and is
    started again under its name; the next one follows when it takes work. Lost and doubled are
    told by the tasks' own account. The added wait of a task is its wait from `delay()` to its
    start, less that of the same task in the same run of arrivals without a restart before; the
    figure is the worst of all tasks. The peers are stock Celery with late acknowledgements and
    prefetch 1, and as it is by default. All sides run at the same time, each with a server of its
    own.
"""

from bench.lifecycle.runner import run

__all__ = ["run"]
