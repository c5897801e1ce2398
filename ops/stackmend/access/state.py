"""How a user logs in to a host: models only, filled by the probe, read by the plan."""

from collections.abc import Mapping

from stackmend.frozen import Frozen


class Account(Frozen):
    """A user of the host.

    :param groups: the names of every group that it belongs to.
    """

    name: str
    uid: int
    home: str
    shell: str
    groups: tuple[str, ...] = ()


class Sshd(Frozen):
    """The host's sshd, as it would be with the configuration on the disk.

    :param problem: what it says where it would not start with it; empty where it would.
    :param settings: keyword in lower case → values, as they are for the user coming from here.
    """

    problem: str = ""
    settings: Mapping[str, tuple[str, ...]] = {}

    def get_value(self, keyword: str) -> str:
        """The first value of a keyword; empty where sshd does not print it."""
        return next(iter(self.settings.get(keyword, ())), "")

    @property
    def passwords(self) -> bool | None:
        """Whether a password lets anyone in; None where it is unknown."""
        values = [
            self.get_value(f"{method}authentication") for method in ("password", "kbdinteractive")
        ]
        return "yes" in values if all(values) else None


class HostAccess(Frozen):
    """How one user logs in to one host.

    :param root: whether the probe could read everything.
    :param address: where this controller comes from, as the host sees it.
    :param spec: the same as ``sshd -T -C`` takes it.
    :param tools: the programs that were found.
    :param installer: the package manager; empty where none is known.
    :param account: the user; None where there is none of that name.
    :param group_exists: whether there is a group of the user's name.
    :param rules: what ``sudo -l`` says that the user may do.
    :param sshd: None where the host has none.
    :param keys_file: the file that sshd reads the user's keys from; ``%h`` in it is a home that
        does not exist yet.
    :param keys: its lines.
    :param armed: the mark of an unconfirmed change of sshd, which the host is about to revert.
    """

    root: bool = True
    address: str = ""
    spec: str = ""
    tools: tuple[str, ...] = ()
    installer: str = ""
    account: Account | None = None
    group_exists: bool = False
    rules: tuple[str, ...] = ()
    sshd: Sshd | None = None
    keys_file: str = ""
    keys: tuple[str, ...] = ()
    armed: str = ""

    @property
    def permitted(self) -> bool:
        """Whether the user may become root without a password."""
        # Of several rules for the same command the last one counts.
        unlimited = [rule for rule in self.rules if rule.endswith(" ALL")]
        return bool(unlimited) and unlimited[-1].endswith("NOPASSWD: ALL")
