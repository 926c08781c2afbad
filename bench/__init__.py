"""Benchmarks: NXS beside a peer in the same run.

```
make bench NAME=submit                   a table
python -m bench submit --json            one line of JSON for each figure
python -m bench submit --strict          exit code 1 if a goal is missed
```

A *figure* has a value, mostly a peer measured in the same run, and sometimes a goal. Seconds say
something about one machine on one day; a ratio also holds elsewhere, so the goals are ratios where
a peer exists. One figure is one line of JSON:

```
{"bench", "metric", "value", "unit", "peer", "peer_value", "ratio", "least", "most", "goal", "pass"}
```

`pass` is null where there is no goal. `value` and `peer_value` are medians over the rounds and
`ratio` is the median of the rounds' own ratios, so it is not exactly the one over the other.
`least` and `most` are what single seeds say, where a bench has seeds.

# How a ratio is made

1. Both sides run in one process, on one server of the bench's own (a free port, no persistence,
   ended at the end), with the same settings, and differ in NXS alone. `NXS_…` and `CELERY_…`
   variables of the shell are left out.
2. They take turns of some 60 ms; who is first changes with every pair of turns. What disturbs the
   machine for longer than a turn disturbs both, and leaves their ratio.
3. Garbage is collected before a round, and not within. Filling, emptying and counting the queues,
   heartbeats, and connecting the signal that belongs to one side are outside of the timing.
4. A round ends when our side has taken as long as its view of the fleet may be old, so each holds
   its look at the fleet. The fleet's clock stands still in the peer's turns: otherwise the look
   would fall due during them, and ours would pay twice what it costs.
5. The first round is thrown away. The ratio is the median of the others, shown with its
   quartiles (q1, q3). Where they lie on both sides of the goal, run it again on an idle machine.

# The bench `submit`

"at N" is with N known instances: joined, ACTIVE, with heartbeats and changing loads, and all of
them know the same 50 tasks. Nobody consumes, so what was submitted can be counted where it lies.
The bench fails when a task is missing, or lies where the case says that it should not.

plain beside plain
    `delay()` of two applications without NXS: how far from 1 noise alone takes a ratio.
delay() at N
    There are slots for all, so every task is placed on an instance. What looking at the fleet costs
    is in it. `own queues` says how many were placed, counted by the server's own lengths.
delay() at N busy
    Only one instance in ten has a free slot: nearly all tasks go to the shared queue. No goal.
router at N
    One decision as Celery asks for it: no publish, and not the one that looks.
place at N
    The policy within it. `first of a name` is the first decision for a task name after a look.
look at N
    What is read once per `view_max_age` (1 s) and serves all decisions until the next: the
    `snapshot`, and the `Placer` that is built from it. Every load has changed since the last look:
    in a fleet, with a heartbeat each 5 s, one in five has. `share of time` is all of it with the
    first decisions of 50 names, for a process that submits without a pause.

Results are ignored in both applications. A result backend would add the same to both, and only
bring the ratio nearer to 1. A process that submits less than once per `view_max_age` looks at the
fleet at each `delay()`: it pays a whole look, not a share.
"""
