"""Which accelerators a host has, and how far containers can have them: models only."""

from typing import Literal

from stackmend.frozen import Frozen

Vendor = Literal["nvidia", "amd"]

#: Vendors by the number that PCI gives them.
VENDORS: dict[str, Vendor] = {"0x10de": "nvidia", "0x1002": "amd"}

#: The kernel drivers that containers can use a vendor's devices through.
DRIVERS: dict[Vendor, str] = {"nvidia": "nvidia", "amd": "amdgpu"}


class Device(Frozen):
    """One accelerator on the PCI bus.

    :param address: where it is, as ``0000:01:00.0``.
    :param model: the number that its vendor gave it, as ``0x2330``.
    :param kind: its PCI class, as ``0x030200``.
    :param driver: the kernel driver that has it; empty for none.
    """

    address: str
    vendor: Vendor
    model: str
    kind: str
    driver: str = ""

    @property
    def has_driver(self) -> bool:
        """Whether the driver that containers need has it."""
        return self.driver == DRIVERS[self.vendor]


class Node(Frozen):
    """A device file.

    :param group: the number of the group that owns it.
    :param mode: its permissions, as ``660``.
    """

    path: str
    group: int
    mode: str


class CdiFile(Frozen):
    """A file that tells engines how containers are given NVIDIA's devices.

    :param versions: the versions of the driver whose files it names.
    :param devices: the device files of GPUs that it names.
    """

    path: str
    versions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


class Accelerators(Frozen):
    """What a host has of accelerators.

    Beyond ``devices``, what is NVIDIA's is known only where a device of theirs is on the bus.

    :param nodes: the device files that containers are given.
    :param driver: the version of NVIDIA's kernel driver; empty where it is not loaded.
    :param smi: where ``nvidia-smi`` is.
    :param ctk: where the toolkit's ``nvidia-ctk`` is.
    :param runtime: where the toolkit's runtime is.
    :param toolkit: the version of the toolkit's package; empty where it is not installed.
    :param cdi: the files of NVIDIA's devices, the one that wins last.
    :param proof: what the last proof rested on, as ``plan.format_evidence`` has it.
    """

    devices: tuple[Device, ...] = ()
    nodes: tuple[Node, ...] = ()
    driver: str = ""
    smi: str = ""
    ctk: str = ""
    runtime: str = ""
    toolkit: str = ""
    cdi: tuple[CdiFile, ...] = ()
    proof: str = ""

    def list_devices(self, vendor: Vendor) -> tuple[Device, ...]:
        """The devices of one vendor."""
        return tuple(device for device in self.devices if device.vendor == vendor)

    def list_with_driver(self, vendor: Vendor) -> tuple[Device, ...]:
        """Those of them that containers can be given."""
        return tuple(device for device in self.list_devices(vendor) if device.has_driver)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The device files of NVIDIA's GPUs."""
        names = (node.path for node in self.nodes)
        return tuple(name for name in names if name.removeprefix("/dev/nvidia").isdecimal())

    @property
    def rocm(self) -> tuple[Node, ...]:
        """The device files that AMD's software is given: ``/dev/kfd`` and the render nodes."""
        return tuple(node for node in self.nodes if node.path.startswith(("/dev/kfd", "/dev/dri/")))

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups that may use those, by number; not root's, which no container should have."""
        return tuple(sorted({node.group for node in self.rocm} - {0}))
