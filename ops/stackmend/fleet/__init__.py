"""A run over several hosts: one lock per host, a time for each, and turns for their changes."""
