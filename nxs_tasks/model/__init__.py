"""What is known (`Snapshot`, `Instance`) and what is wanted (`Decision`): frozen, no I/O."""
