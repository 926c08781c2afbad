"""The bench `lifecycle`: how soon the dead and the deaf are found, and who is taken for one."""
