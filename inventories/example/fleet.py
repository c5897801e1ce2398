"""An example fleet: copy this directory, put your hosts in, and run

pyinfra my/fleet.py deploy/site.py --dry

A list of this file is a group; what a group's hosts have in common stands in
``group_data/<group>.py``, what all have in common in ``group_data/all.py``.
"""

# Machines that answer from their processors.
small = [
    "ai1.example.com",
    ("ai2.example.com", {"ssh_port": 2222}),
]

# Machines with an accelerator and room for a larger model.
large = [
    "ai3.example.com",
]
