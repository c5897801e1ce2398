"""Stacks that come with stackmend, ready to be deployed."""
