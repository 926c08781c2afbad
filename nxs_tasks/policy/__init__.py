"""Pure functions `(snapshot, settings, now) -> decisions`: no I/O, no clock, no randomness."""
