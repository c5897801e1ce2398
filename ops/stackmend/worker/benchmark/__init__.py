"""Measuring a model server or a queue of tasks, honestly."""
