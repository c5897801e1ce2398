"""Accelerators as a host of the lab shows them: on a bus of its own, with drivers that are none.

The probe looks where it looks on any host; what it finds there was mounted. The devices are
``/dev/null`` under other names, which a container may open where it was given them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab.hosts import LabHost
from tests.lab.packages import Deb, Packages, Repository

PACKAGE = "nvidia-container-toolkit"
DRIVER = "535.183.01"
ADDRESS = "0000:01:00.0"
#: Where a proof that is lost at a daemon-reload finds that it is.
LOST = "/run/gpu/lost"

_CTK = r"""#!/bin/sh
# Writes what the real one writes of one GPU: device files, the driver's library, nvidia-smi.
[ "$1 $2" = 'cdi generate' ] || { echo "unknown: $*" >&2; exit 1; }
output=${3#--output=}
driver=$(sed -n 's/^NVRM version:.*  \([0-9.]*\)  .*/\1/p' /proc/driver/nvidia/version)
[ -n "$driver" ] || { echo 'failed to initialize NVML: Driver Not Loaded' >&2; exit 1; }
cat >"$output" <<END
---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.$driver
    hostPath: /usr/local/lib/libcuda.so.$driver
    options: [ro, nosuid, nodev, bind]
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/local/bin/nvidia-smi
    options: [ro, nosuid, nodev, bind]
  - containerPath: /run/gpu
    hostPath: /run/gpu
    options: [ro, nosuid, nodev, bind]
END
"""

# Like the real one it changes what the container is made of, and leaves the rest to runc.
_RUNTIME = r"""#!/usr/bin/python3
import json, os, sys

words = sys.argv[1:]
if "create" in words and "--bundle" in words:
    path = os.path.join(words[words.index("--bundle") + 1], "config.json")
    with open(path) as file:
        config = json.load(file)
    if "NVIDIA_VISIBLE_DEVICES=all" in config["process"]["env"]:
        for name in ("/dev/nvidia0", "/dev/nvidiactl"):
            config["linux"].setdefault("devices", []).append(
                {"path": name, "type": "c", "major": 1, "minor": 3, "fileMode": 438}
            )
        mount = {"type": "bind", "options": ["rbind", "ro"]}
        for source, target in (
            ("/usr/local/bin/nvidia-smi", "/usr/bin/nvidia-smi"),
            ("/run/gpu", "/run/gpu"),
        ):
            config["mounts"].append({"source": source, "destination": target, **mount})
        with open(path, "w") as file:
            json.dump(config, file)
os.execvp("runc", ["runc", *words])
"""

#: What a nvidia-smi that fails says, and exits with.
FAILING = "/run/gpu/failing"

_SMI = f"""#!/bin/sh
if [ -e {FAILING} ]; then
  cat {FAILING}
  exit 18
fi
if [ -e {LOST} ] || ! : </dev/nvidia0; then
  echo 'Failed to initialize NVML: Unknown Error'
  exit 255
fi
case $* in *--query-gpu=*)
  echo '{DRIVER}, 143771, 3072, NVIDIA of the lab'
  exit 0
  ;;
esac
echo 'GPU 0: NVIDIA of the lab (UUID: GPU-0)'
"""


def toolkit(version: str = "1.17.8-1") -> Deb:
    """A stand-in for NVIDIA's container toolkit."""
    return Deb(
        PACKAGE,
        version,
        {"/usr/bin/nvidia-ctk": _CTK, "/usr/bin/nvidia-container-runtime": _RUNTIME},
    )


def publish(packages: Packages, version: str = "1.17.8-1") -> Repository:
    """The toolkit in a repository that is laid out as NVIDIA's: flat, one for each architecture."""
    return packages.publish("amd64", "stable", [toolkit(version)])


@dataclass
class Bus:
    """The PCI bus of a host, with what was put on it."""

    host: LabHost

    def put(
        self, address: str, vendor: str, kind: str, driver: str = "", model: str = "0x2330"
    ) -> None:
        """Put a device on the bus, or change what is there."""
        place = f"/run/gpu/devices/{address}"
        self.host.sh(
            f"mkdir -p {place}; echo {vendor} >{place}/vendor; echo {kind} >{place}/class; "
            f"echo {model} >{place}/device; rm -f {place}/driver"
        )
        if driver:
            self.host.sh(
                f"mkdir -p /run/gpu/drivers/{driver}; ln -s ../../drivers/{driver} {place}/driver"
            )

    def nvidia(self, driver: str = DRIVER) -> None:
        """A GPU of NVIDIA's with a driver of this version, and what comes with that."""
        self.put(ADDRESS, "0x10de", "0x030200", "nvidia")
        # Its sound, which is none of our business.
        self.put("0000:01:00.1", "0x10de", "0x040300", "snd_hda_intel")
        self.driver(driver)
        self.host.put("/usr/local/bin/nvidia-smi", _SMI, mode="0755")
        self.host.sh(
            "for name in nvidia0 nvidiactl; do "
            "[ -c /dev/$name ] || mknod -m 0666 /dev/$name c 1 3; done"
        )

    def driver(self, version: str) -> None:
        """Have NVIDIA's driver be of another version; from 560 on it is the open one."""
        if version < "560":
            told = f"NVIDIA UNIX x86_64 Kernel Module  {version}  Sun May 12 19:39:15 UTC 2024"
        else:
            told = (
                f"NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  "
                "(dvs-builder@U22-I3-B08-02-2)  Wed Jul  9 03:01:16 UTC 2025"
            )
        self.host.put("/run/gpu/proc/nvidia/version", f"NVRM version: {told}\n")
        self.host.sh(f"touch /usr/local/lib/libcuda.so.{version}")

    def toolkit(self) -> None:
        """NVIDIA's toolkit, registered as a runtime of the engine, without any package."""
        for name, text in {"nvidia-ctk": _CTK, "nvidia-container-runtime": _RUNTIME}.items():
            self.host.put(f"/usr/local/bin/{name}", text, mode="0755")
        path = "/etc/docker/daemon.json"
        runtimes = {"nvidia": {"path": "nvidia-container-runtime", "args": []}}
        config = {**json.loads(self.host.read(path)), "runtimes": runtimes}
        self.host.put(path, json.dumps(config))
        self.host.sh("systemctl reload docker")

    def amd(self, groups: tuple[int, int] = (44, 105)) -> None:
        """A GPU of AMD's with its driver; its device files belong to groups of these numbers."""
        self.put("0000:03:00.0", "0x1002", "0x038000", "amdgpu", "0x740f")
        video, render = groups
        self.host.sh(
            "mkdir -p /dev/dri; cd /dev; "
            f"for name in kfd dri/renderD128; do mknod $name c 1 3; chgrp {render} $name; done; "
            f"mknod dri/card0 c 1 3; chgrp {video} dri/card0; chmod 0660 kfd dri/*"
        )


@contextlib.contextmanager
def bus(host: LabHost) -> Iterator[Bus]:
    """A bus of the host's own, empty; gone at the end, with all device files."""
    try:
        host.sh(
            "mkdir -p /run/gpu/devices /run/gpu/proc; "
            "mount --bind /run/gpu/devices /sys/bus/pci/devices && "
            "mount --bind /run/gpu/proc /proc/driver"
        )
        yield Bus(host)
    finally:
        host.sh(
            "umount -l /sys/bus/pci/devices /proc/driver; "
            "rm -rf /run/gpu /dev/nvidia0 /dev/nvidiactl /dev/kfd /dev/dri",
            check=False,
        )
