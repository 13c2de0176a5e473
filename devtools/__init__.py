"""Servers and clusters of role processes that tests and benchmarks share; no part of the distribution."""
