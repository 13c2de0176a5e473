"""What the command line is made of: the roles' options, and the commands that ask the server API."""
