"""Measurements that are run by hand. Times say little on a shared machine: compare ratios and CPU per request."""
