"""Whether a host reaches what its stack needs from outside, and which layer is broken where not."""

from stackmend.connectivity.texts import classify

__all__ = ["classify"]
