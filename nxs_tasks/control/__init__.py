"""The loops and the effects: what looks at the whole fleet and acts on it."""
