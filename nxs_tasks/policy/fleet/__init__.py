"""Where work goes, and what state an instance is in."""
