"""The processes of `plenary gateway`, `roomworker`, `medianode` and `run`, and what these share."""
