"""What looks. A probe that fails says None, never zero."""
