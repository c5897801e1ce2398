"""As whom and how a command runs on a host, resolved the way pyinfra resolves it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from pyinfra.api.arguments import pop_global_arguments
from pyinfra.api.hiddenvalue import HiddenValue
from pyinfra.context import ContextObject

from stackmend.redaction import register

from .errors import PrivilegeError

if TYPE_CHECKING:
    from pyinfra.api.host import Host


@dataclass(frozen=True)
class Settings:
    """The connector arguments that decide what a command sees; equal ones may share a channel."""

    sudo: bool = False
    sudo_user: str | None = None
    sudo_login: bool = False
    sudo_env: bool = False
    sudo_password: str | None = field(default=None, repr=False, compare=False)
    doas: bool = False
    doas_user: str | None = None
    dzdo: bool = False
    dzdo_user: str | None = None
    shell: str = "sh"
    directory: str | None = None
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secret_env: bool = False
    timeout: float | None = field(default=None, compare=False)

    @property
    def elevated(self) -> bool:
        """Whether the command runs as a user other than the one who logged in."""
        return self.sudo or self.doas or self.dzdo

    def build_prefix(self, *, prompt: str | None) -> str:
        """The words before the shell that change the user.

        :param prompt: what sudo is to print when it asks for the password on standard input; None
            where no password may be asked for.
        """
        argv: list[str] = []
        if self.doas:
            argv += ["doas", "-n", *(("-u", self.doas_user) if self.doas_user else ())]
        if self.dzdo:
            argv += ["dzdo", "-H", "-n", *(("-u", self.dzdo_user) if self.dzdo_user else ())]
        if self.sudo:
            # -k: a cached credential must not decide whether the password line is read.
            argv += ["sudo", "-H", *(("-n",) if prompt is None else ("-S", "-k", "-p", prompt))]
            argv += ["-i"] if self.sudo_login else []
            argv += ["-E"] if self.sudo_env else []
            argv += ["-u", self.sudo_user] if self.sudo_user else []
        return shlex.join(argv)


def unwrap(host: Host) -> Host:
    """The host itself, where ``pyinfra.host`` (a view of the current one) may have been given."""
    if isinstance(host, ContextObject):
        return cast("Host", host._container.module)
    return host


def find_timeout(host: Host) -> float:
    """Seconds that ``_timeout`` gives each command on a host; 0 where nothing says it.

    :param host: the host.
    """
    return resolve(unwrap(host), {})[0].timeout or 0


def find_arguments(host: Host) -> dict[str, Any]:
    """pyinfra's own arguments of the current operation; without one, those that any would have.

    :param host: the host.
    """
    host = unwrap(host)
    if host.current_op_global_arguments:
        return dict(host.current_op_global_arguments)
    return _resolve_arguments(host, {})


def resolve(host: Host, options: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Splits keyword arguments into connector settings and the rest.

    The order is pyinfra's: given here, the current operation, the current deploy, the host's
    data, the configuration.

    :param host: the host.
    :param options: keyword arguments, global ones (``_sudo``) among others.
    :returns: the settings, and the arguments that are not global ones.
    :raises PrivilegeError: ``_su_user`` is set; su reads its password from a terminal only.
    """
    merged: dict[str, Any] = dict(host.current_op_global_arguments or {})
    merged.update(options)
    arguments = _resolve_arguments(host, merged)
    if arguments["_su_user"]:
        raise PrivilegeError(
            host.name,
            f"become {arguments['_su_user']}",
            "_su_user cannot be used; use _sudo_user",
        )
    env: Mapping[str, Any] = arguments["_env"] or {}
    password = arguments["_sudo_password"] or host.connector_data.get("prompted_sudo_password")
    if password:
        register(reveal(password))
    settings = Settings(
        sudo=bool(arguments["_sudo"]),
        sudo_user=arguments["_sudo_user"] or None,
        sudo_login=bool(arguments["_use_sudo_login"]),
        sudo_env=bool(arguments["_preserve_sudo_env"]),
        sudo_password=reveal(password) if password else None,
        doas=bool(arguments["_doas"]),
        doas_user=arguments["_doas_user"] or None,
        dzdo=bool(arguments["_dzdo"]),
        dzdo_user=arguments["_dzdo_user"] or None,
        shell=arguments["_shell_executable"] or "sh",
        directory=arguments["_chdir"] or None,
        env=tuple((key, reveal(value)) for key, value in env.items()),
        secret_env=any(isinstance(value, HiddenValue) for value in env.values()),
        timeout=arguments["_timeout"] or None,
    )
    return settings, {key: value for key, value in options.items() if key not in arguments}


def _resolve_arguments(host: Host, options: dict[str, Any]) -> dict[str, Any]:
    """pyinfra's own arguments, by its own rules.

    It asks a host's data for each of them, layer by layer; here it has the layers as one, which
    for each command of each host takes a tenth of the time.
    """
    data = {
        key: value
        for key, value in host.data.dict().items()  # type: ignore[no-untyped-call]
        if str(key).startswith("_")
    }
    flat = SimpleNamespace(
        data=SimpleNamespace(**data), current_deploy_kwargs=host.current_deploy_kwargs
    )
    resolved, _ = pop_global_arguments(host.state, cast("Host", flat), options)
    return cast("dict[str, Any]", resolved)


def reveal(value: object) -> str:
    """A value as text, a hidden one as it is underneath."""
    if not isinstance(value, HiddenValue):
        return str(value)
    register(value.unmask())
    return value.unmask()
