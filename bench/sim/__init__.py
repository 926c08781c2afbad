"""A fleet in simulated time: the real policy and the real view, on machines that exist only here.

`loop` is time, `work` and `keys` are what arrives, `machine` and `world` are what it arrives at,
`placing` is how NXS places and `peers` is how others do. `fleet` is a world whose machines run NXS:
they claim (`claims`) and steal; `migrations` and `ejections` are what the control plane and the
workers do beside. Everything is seeded: the same seed is the same run.

What is left out, because it costs little beside a task: the round trip of a submission, the claim,
the start of a task. Tasks fail and machines slow down where a scenario says so.
"""
