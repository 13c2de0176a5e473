"""The `plenary` command: runs every role as a process of its own, or all of them in one."""
