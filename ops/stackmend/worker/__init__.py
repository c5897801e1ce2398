"""The worker: how fast it is, whether it uses the hardware, and the move of a legacy one."""
