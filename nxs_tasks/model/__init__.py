"""What is known (`Snapshot`, `Instance`, `Load`) and what is wanted (`Decision`): frozen, no I/O."""
