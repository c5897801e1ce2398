"""Probe text to state: how a user logs in to a host."""

from pyinfra.api import FactBase, StringCommand

from stackmend.access.state import Account, HostAccess, Sshd
from stackmend.connection import make_mark, parse_probe, parse_sections, script


class Operator(FactBase[HostAccess]):
    """How a user logs in to a host: account, keys, sudo, and what sshd would make of it.

    + user: the user's name

    Reads only, in one command; needs root to see all of it.

    **Example:**

    .. code:: shell

        pyinfra HOST fact stackmend.access.facts.Operator user=ops
    """

    _mark = ""

    def command(self, user: str) -> StringCommand:
        """The probe, with its argument quoted."""
        self._mark = make_mark()
        return script("stackmend.access", "probe", user, mark=self._mark, before=["as_user"])

    def process(self, output: list[str]) -> HostAccess:
        """The state that the probe printed.

        :raises FactProcessError: the probe did not run to its end.
        """
        return parse_probe(lambda lines: parse(lines, self._mark), output, "the access")


def parse(output: list[str], mark: str) -> HostAccess:
    """The state that the probe printed.

    :raises ValueError: the probe did not run to its end.
    """
    found = parse_sections(output, mark)
    if "whole" not in found:
        raise ValueError("it did not run to its end")
    words: dict[str, list[str]] = {}
    for line in found["host"][1]:
        word, _, value = line.partition(" ")
        words.setdefault(word, []).append(value)
    return HostAccess(
        root=words["root"] == ["0"],
        address=words["from"][0],
        spec=words["spec"][0],
        tools=tuple(words.get("tool", ())),
        installer="".join(words.get("installer", ())[:1]),
        account=_parse_account(found["account"][1], found["groups"][1]),
        group_exists=any(found["group"][1]),
        rules=_parse_rules(found["sudo"][1]),
        sshd=_parse_sshd(found),
        keys_file="".join(found["file"][1][:1]),
        keys=tuple(line for line in found["keys"][1] if line.strip()),
        armed="".join(words.get("armed", ())[:1]),
    )


def _parse_account(lines: list[str], groups: list[str]) -> Account | None:
    line = next((line for line in lines if line.count(":") == 6), None)
    if line is None:
        return None
    name, _, uid, _, _, home, shell = line.split(":")
    belongs = tuple(group for group in groups if group)
    return Account(name=name, uid=int(uid), home=home, shell=shell, groups=belongs)


def _parse_rules(lines: list[str]) -> tuple[str, ...]:
    return tuple(" ".join(line.split()) for line in lines if line.lstrip().startswith("("))


def _parse_sshd(found: dict[str, tuple[int, list[str]]]) -> Sshd | None:
    if "check" not in found:
        return None
    settings: dict[str, tuple[str, ...]] = {}
    for line in found["settings"][1]:
        keyword, *values = line.split()
        settings[keyword] = (*settings.get(keyword, ()), *values)
    status, output = found["check"]
    problem = " ".join(" ".join(output).split()) or f"exit status {status}"
    return Sshd(problem=problem if status else "", settings=settings)
