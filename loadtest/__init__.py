"""Clients without a browser, for tests, bots and load."""
