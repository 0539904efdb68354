"""The jool backend: an instance of Jool's kernel module translates, this daemon synchronises it.

`messages` are the generic netlink messages, `module` asks and is answered, `stream` carries the
module's sessions and ours, `table` is what the instance's configuration means to the engine, and
`backend` holds a node over all that.
"""
