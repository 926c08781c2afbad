"""A census of the standard library: real work for a fleet, small enough to watch from end to end.

Every `.py` file of the running interpreter's standard library is processed twice: `examine`
(bound by the CPU: parse, count, cyclomatic complexity, three compressors, SHA-256) and `copy`
(bound by the disk: read, write a compressed copy, fsync, read it back). One chord holds all of
it; its callback writes `report.json` and `report.html`. Files that no parser accepts are results
with an `error`, not failures.

`make up` starts a fleet and runs it. By hand, with a Redis or Valkey server at `NXS_BROKER_URL`:

```
celery -A examples.census.app worker -n one@%h -c 2
celery -A examples.census.app worker -n two@%h -c 2
python -m examples.census.run
```

Each execution also appends a line to a ledger that Celery knows nothing about, so "every file
exactly once" is shown, not believed. Workers on several machines need the same Python version
and a report folder that they share.
"""
