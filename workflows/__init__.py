"""The stories of the control plane at a glance, one a file; each prints its steps when it is run.

They are kept in `nxs_tasks.control.workflows`, and not here: a package of this name is what many
projects have themselves, and installed beside theirs one would hide the other.
"""
