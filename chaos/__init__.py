"""Real workers on a real server are killed, frozen and cut off while tasks run; then it is counted.

What ran is written by the tasks themselves into a ledger that knows nothing of the broker. The
verdict sets it beside what was submitted, what was done to whom, and what is left in the broker.
Plain Celery goes through the same acts, beside it.
"""
