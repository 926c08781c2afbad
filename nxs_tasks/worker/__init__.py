"""What runs inside a task worker: it takes its name, says how it is, and leaves well."""
