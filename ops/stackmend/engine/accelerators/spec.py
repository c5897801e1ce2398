"""Which accelerators containers are to reach: validated before any host is contacted."""

from pydantic import BaseModel, ConfigDict

from stackmend.engine.spec import Fingerprint, Key, Repository, Vendor

#: The key that NVIDIA signs its repositories of the toolkit with, and where it lies.
NVIDIA_FINGERPRINT = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
NVIDIA_KEY = "https://nvidia.github.io/libnvidia-container/gpgkey"

#: Where the toolkit comes from, by the manager that installs it.
NVIDIA_REPOSITORIES = {
    "apt": "https://nvidia.github.io/libnvidia-container/stable/deb",
    "dnf": "https://nvidia.github.io/libnvidia-container/stable/rpm",
}


class Acceleration(BaseModel):
    """Which accelerators containers are to reach, and where NVIDIA's toolkit comes from.

    :param vendor: ``auto`` takes what is there and can be used; ``nvidia`` and ``amd`` insist;
        ``none`` looks at nothing.
    :param repository: what stands in place of NVIDIA's address, up to ``deb`` or ``rpm``.
    :param key: the key that signs it: an address, or a path on the controller.
    :param key_fingerprint: that key's, 40 hexadecimal digits; NVIDIA's own by default.
    :param replace: ``container:NAME`` for one that may be gone when the engine is restarted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vendor: Vendor = "auto"
    repository: Repository = ""
    key: Key = ""
    key_fingerprint: Fingerprint = ""
    replace: tuple[str, ...] = ()
