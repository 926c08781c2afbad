"""What a person types and sees: the `nxs` and `doctor` commands."""
