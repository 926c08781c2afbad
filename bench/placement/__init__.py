"""The bench `placement`: how well work is placed, beside a bound and beside how others place.

One scenario a file, each with five seeds; the ratio is the median of the seeds' own ratios, shown
with the least and the most of them. All sides of a seed get the same jobs.

S1, many submitters and old metrics (`herd`, simulated)
    The mean wait beside a single queue from which every free slot takes: with equal machines
    nothing waits less. Fleets of 2, 8 and 16 instances with 4 slots at 50, 80 and 90 % load, even
    and uneven tasks (SCV 1 and 10), heartbeats every 1 to 30 s, 1 and 3 submitters. `NXS` is the
    worst of all 48; the others are shown at 80 % with one submitter. `unchecked` is the policy
    alone: as if a direct write were accepted whether or not the slot is still free. With the check
    a task either starts at once or waits in the shared queue, and then no choice can cost time
    where machines are equal: that is what `NXS` shows.
S2, equal work on equal workers (`workers`, real)
    2,000 tasks that sleep 20 to 200 ms, on 4 `celery worker` with one slot each and a server of
    their own. The peers are stock Celery: one shared queue with prefetch 1, late acknowledgements
    and `-O fair`, which is the bound within its overhead; and the same with Celery's own prefetch.
    The three sides run at the same time, so what disturbs the machine disturbs all.
S3, unequal machines (`speeds`, simulated)
    Speeds from ½ to 2. The 99th percentile of the time from arrival to end, beside one queue.
S4, a backlog in front of one (`backlog`, simulated)
    10,000 tasks of 1 s wait for one of four instances with four slots. Four stay; or a fifth joins
    after two minutes and one of the first leaves after four, and what waits for it is shared. The
    bound is that no slot is ever free. `moved` are the tasks of all migrations and thefts, beside
    the fewest that have to leave the first one for that bound. What must never be is told by the
    worst of all runs, those without thieves included: a migration that brings a task back to where
    it had been moved away from, a later task before an earlier one, two migrations of one instance
    within a minute.
S5, warm caches (`caches`, simulated)
    Eight instances with two slots hold two models each, of 87; a cold cache adds 10 s to tasks of
    28.7 s (SCV 0.53) at 80 % load. The most wanted model has 31 % of the work, the others fall by
    Zipf. `repeats`: with probability 0.6 a task wants what one of the last four wanted, as where
    one sender wants several of a kind. In plain `Zipf`, where each is drawn for itself, the 16
    models that fit into all caches together are 80 % of the work, so nobody can hit many more;
    hits have no goal there. The settings are the defaults but for `affinity_keys=2`; `wait 2` has
    `affinity_wait=2`. `load` is the busiest instance beside the mean. The first tenth of the tasks
    only fills the caches. `no keys` is NXS where no task declares what it wants.
S6, an instance that fails (`holes`, simulated)
    One of eight with four slots fails all that it takes within 10 ms, from the second minute on, at
    60 % load and with 20,000 tasks of 1 s. `lost` is the share of all tasks that fails there;
    `before it stops` is how many until it is ejected for the first time. With a bad task one in ten
    fails everywhere, and nobody must be ejected for that. `slow` is one that becomes ten times
    slower and fails nothing: nobody ejects it. Peers see live counts.

Simulated are the machines: view, policies and settings are those of NXS. S4 to S6 have its thieves
and its rebalancing too. What a round trip costs is left out.
"""

from bench.placement.runner import run

__all__ = ["run"]
