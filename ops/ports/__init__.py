"""Ports: who holds one for certain, and how it is freed without hurting the wrong thing."""
