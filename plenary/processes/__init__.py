"""The processes that `plenary gateway`, `roomworker`, `medianode` and `run` start, and what they have in common."""
