"""Reaching a machine that nobody has logged in to."""
