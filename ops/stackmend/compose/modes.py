"""What is done about drift, by the path of the field that differs. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from stackmend.problems import abbreviate, suggest

#: ``mend`` brings it back, ``warn`` only says it, ``ignore`` does neither.
Mode = Literal["mend", "warn", "ignore"]

#: The fields of a service that its containers are compared by.
FIELDS = tuple(
    "blkio_weight cap_add cap_drop command cpu_rt_runtime cpu_shares cpus cpuset cpuset_mems "
    "devices dns dns_search entrypoint environment extra_hosts gpus healthcheck hostname image "
    "init ipc labels logging mem_limit mem_reservation memswap_limit network_mode networks "
    "oom_score_adj pid pids_limit ports privileged read_only restart runtime scale security_opt "
    "shm_size stdin_open stop_grace_period stop_signal sysctls tmpfs tty ulimits user "
    "userns_mode volumes working_dir".split()
)

#: The strictest first: what of two patterns as long as each other counts.
_MODES: tuple[Mode, ...] = ("mend", "warn", "ignore")
_LONGEST = 500


def check_pattern(pattern: str) -> str:
    """A pattern of paths, as it was given.

    :raises ValueError: it can be of no field that is compared; the message says what can.
    """
    if len(pattern) > _LONGEST or not pattern.isprintable() or "" in pattern.split("."):
        raise ValueError(
            f"must be the path of a field, such as services.api.image; got {abbreviate(pattern)}"
        )
    kind, _, rest = pattern.partition(".")
    if kind not in ("services", "files") or not rest:
        raise ValueError(
            f"{abbreviate(pattern)} must begin with services.NAME or files.PATH; * stands for any "
            "name"
        )
    if kind == "services" and (field := _split_service(pattern)[1]):
        name = field.partition(".")[0]
        # A service's name may hold dots.
        if "*" not in name and not any(part in FIELDS for part in field.split(".")):
            raise ValueError(
                f"{abbreviate(pattern)}: no field that containers are compared by"
                f"{suggest(name, FIELDS)}"
            )
    return pattern


def list_services(modes: Mapping[str, Mode]) -> Iterator[tuple[str, str]]:
    """The patterns that name a service: the setting, and the service.

    :param modes: as the settings have them.
    """
    for pattern in modes:
        name = _split_service(pattern)[0]
        if pattern.startswith("services.") and "*" not in name:
            yield f"drift.{pattern}", name


def _split_service(pattern: str) -> tuple[str, str]:
    """The service that a pattern names, and what of it; where its name has dots, up to a field."""
    parts = pattern.split(".")[1:]
    ends = (at for at, part in enumerate(parts) if at and part in FIELDS)
    # Without a field that is known, what follows the first dot is meant to be one.
    end = next(ends, min(1, len(parts)))
    return ".".join(parts[:end]), ".".join(parts[end:])


def find_mode(modes: Mapping[str, Mode], path: str) -> Mode:
    """What is done about a field that differs; the pattern with the most letters counts.

    :param modes: by pattern: the path of a field, or of what it lies in; ``*`` stands for one name.
    :param path: the field's, such as ``services.api.environment.MODE``.

    >>> find_mode({"services.*.environment": "ignore"}, "services.api.environment.MODE")
    'ignore'
    """
    found = [
        (len(pattern.replace("*", "")), -_MODES.index(mode), mode)
        for pattern, mode in modes.items()
        if _is_match(pattern, path)
    ]
    return max(found)[2] if found else "mend"


def _is_match(pattern: str, path: str) -> bool:
    parts = [re.escape(part).replace(r"\*", "[^.]*") for part in pattern.split(".")]
    # What lies in a field is the field's.
    return re.fullmatch(r"\.".join(parts) + r"(?:\..*)?", path, re.DOTALL) is not None
