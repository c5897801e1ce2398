"""A machine that was rented or installed a moment ago: put its address in, and run

    pyinfra inventories/new.py deploy/bootstrap.py -y
    pyinfra inventories/new.py deploy/site.py -y

Root's password, where that is all there is, goes into the variable STACKMEND_ROOT_PASSWORD, or is
asked for. Nothing else is needed: who logs in from then on is the user named below.
"""

hosts = [
    (
        "new1",
        {
            "ssh_hostname": "192.0.2.10",
            # "ssh_key": "~/.ssh/provider",  # where the provider put a key in
            # "ssh_user": "debian",  # and, where it is not root's, whose
            "stack": {
                "access": {
                    "user": "ops",
                    "public_keys": ["~/.ssh/id_ed25519.pub"],
                    # As the provider's console shows it (ssh-keygen -lf /etc/ssh/ssh_host_*.pub).
                    # Without it the first key that the machine shows is trusted.
                    # "fingerprint": "SHA256:…",
                    # Nobody comes in by a password once the user is proven to come in by key.
                    "password_login": False,
                    "security_updates": True,
                },
                "engine": {
                    # From Docker's own repository; "distro" takes the distribution's.
                    "channel": "docker",
                    "log": {"max_size": "10m", "max_file": 3},
                    "live_restore": True,
                },
                "project": "ai",
                "source": "deploy/stacks/ai",
                "directory": "/opt/ai",
                "checks": [{"kind": "http", "url": "http://127.0.0.1:8000/healthz"}],
                # The model server's image alone is several gigabytes.
                "minimum_free": "10GiB",
                "health_timeout": 300,
            },
        },
    )
]
