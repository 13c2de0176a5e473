"""The options of the roles' commands, and the commands that use the server API."""
