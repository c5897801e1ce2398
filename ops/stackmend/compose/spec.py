"""What is desired of a Compose stack: validated before any host is contacted."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    model_validator,
)

from stackmend.addresses.spec import LinksPolicy
from stackmend.checks.spec import Checks
from stackmend.compose.modes import Mode, check_pattern, list_services
from stackmend.paths import STATE_ROOT, is_inside
from stackmend.problems import abbreviate, show
from stackmend.raw import NAME_MAX, LocalPath, Seconds, check_lengths, check_plain

PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PROFILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
RULE = re.compile(
    r"container:.+|project:/.*|volume:[^:]+:/.*|repair:redis-aof|restart:resolver", re.DOTALL
)

#: What the other rooms remember of a host lies in directories of these names, beside the projects'.
ROOMS = frozenset({"access", "benchmarks", "engine", "models", "ports", "resolver", "schedule"})

#: Directories that belong to the system: a stack is never unpacked into one of them.
SYSTEM_DIRECTORIES = frozenset(
    "/ /bin /boot /dev /etc /home /lib /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys "
    "/tmp /usr /var /var/lib /var/lib/docker".split()
) | {STATE_ROOT}


def check_project_name(value: str) -> str:
    """A project's name, as it was given.

    :raises ValueError: it is none.
    """
    if not PROJECT_NAME.fullmatch(value):
        raise ValueError(
            "a Compose project name holds lowercase letters, digits, '-' and '_', and starts "
            f"with a letter or digit; {abbreviate(value)} does not"
        )
    # What is remembered of it on the host lies in a directory of that name.
    if len(value) > NAME_MAX:
        raise ValueError(f"a name of {len(value)} characters is too long; {NAME_MAX} are the most")
    return value


def _check_own_name(value: str) -> str:
    if value in ROOMS:
        raise ValueError(
            f"no project can be called {value!r}: stackmend keeps other records of a host in "
            f"{STATE_ROOT}/{value}; choose another name, such as {value}-1"
        )
    return value


def _check_directory(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(
            f"must be an absolute path on the host, such as /opt/ai; got {abbreviate(value)}"
        )
    if "\n" in value or "\0" in value:
        raise ValueError("must not hold a newline or a NUL")
    check_plain(value)
    check_lengths(value)
    parts = value.split("/")
    if ".." in parts or "." in parts:
        raise ValueError(f"must not hold '.' or '..'; got {abbreviate(value)}")
    path = "/" + "/".join(part for part in parts if part)
    if path in SYSTEM_DIRECTORIES:
        raise ValueError(f"{path} is the system's own; name a directory below it, such as /opt/ai")
    return path


#: Where a project's files live on a host.
Directory = Annotated[str, AfterValidator(_check_directory)]


def _check_rule(value: str) -> str:
    if not RULE.fullmatch(value):
        raise ValueError(
            "must be 'container:NAME' (a container that is not ours may be stopped and set aside), "
            "'project:/DIRECTORY' (a stack started from there may be taken over), "
            "'volume:SERVICE:/PATH' (a volume there may be left behind), 'repair:redis-aof' "
            "(what is broken of a redis's append-only file may be cut off, with a copy kept) or "
            "'restart:resolver' (what asks DNS servers that the host had before may be restarted); "
            f"got {abbreviate(value)}"
        )
    return value


def _check_profile(value: str) -> str:
    # Compose's own way to say every profile.
    if value != "*" and not PROFILE_NAME.fullmatch(value):
        raise ValueError(
            "a profile's name holds letters, digits, '_', '.' and '-', and starts with a letter "
            f"or digit; {abbreviate(value)} does not"
        )
    return value


def _parse_environment(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for name, item in value.items():
        if not isinstance(name, str) or not VARIABLE_NAME.fullmatch(name):
            raise ValueError(
                f"{abbreviate(name)} is not a variable name (letters, digits and '_', not first a "
                "digit)"
            )
        if isinstance(item, bool):
            item = "true" if item else "false"
        elif isinstance(item, int | float):
            item = str(item)
        if not isinstance(item, str | SecretStr):
            raise ValueError(
                f"{show(name)} must be text, a number, true, false or a SecretStr, not "
                f"{type(item).__name__}"
            )
        if "\0" in (item if isinstance(item, str) else item.get_secret_value()):
            raise ValueError(f"{show(name)} holds a NUL, which no environment can carry")
        out[name] = item
    return out


#: What a URL of git's may hold: no blanks, no quotes, nothing that a shell or a terminal reads.
_URL = re.compile(r"[!#$%&()*+,\-./:;=?@\[\]_~A-Za-z0-9]{1,2000}")
_SHORT_SSH = re.compile(r"(?:\w[\w.-]{0,63}@)?[A-Za-z0-9][A-Za-z0-9.-]{0,252}:(?!/)[^:]{1,1000}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# git-check-ref-format(1), and nothing that git takes for an expression.
_REF = re.compile(
    r"(?!-)(?!.*(?:\.\.|//|@\{|/\.|\.lock(?:/|$)))[^\s\x00-\x20\x7f~^:?*\[\\/.][^\s\x00-\x20\x7f~^:?*\[\\]{0,240}"
)
_SCHEMES = ("https", "ssh", "http", "git", "file")


def _check_url(value: str | SecretStr) -> str | SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if _SHORT_SSH.fullmatch(text) and "://" not in text and _URL.fullmatch(text):
        return value
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    local = parts.scheme == "file"
    if (
        parts.scheme not in _SCHEMES
        or not _URL.fullmatch(text)
        or bool(parts.hostname) == local
        or (parts.hostname or "").startswith("-")
        or not parts.path.strip("/")
        or parts.query
        or parts.fragment
    ):
        # It may hold a password.
        raise ValueError(
            "must be the URL of a repository, such as https://git.example.com/team/stack.git or "
            f"git@git.example.com:team/stack.git; known are {', '.join(_SCHEMES)}"
        )
    for part in (parts.username, parts.password):
        if part is not None and not unquote(part).isprintable():
            raise ValueError("holds a login with a control character")
    # git knows schemes in small letters alone.
    text = parts.scheme + text[len(parts.scheme) :]
    if parts.username or parts.password or isinstance(value, SecretStr):
        return SecretStr(text)
    return text


def _check_ref(value: str) -> str:
    if not _REF.fullmatch(value) or value.endswith(("/", ".")):
        raise ValueError(
            f"must be a branch, a tag, a full ref or a commit's id; got {abbreviate(value)}"
        )
    return value


def _check_inner(value: str) -> str:
    path = value.strip("/")
    if path and not is_inside(path):
        raise ValueError(f"must be a directory within the repository; got {abbreviate(value)}")
    return path


class GitSource(BaseModel):
    """The project's files in a git repository, which each host fetches by itself.

    :param git: the repository's URL. A login in it (``https://USER:TOKEN@…``) is sent to that
        server alone and never shown; with ``ssh://`` or ``git@HOST:PATH`` the keys of the login on
        the host count. No other protocol than the URL's is spoken.
    :param ref: a branch, a tag, a full ref such as ``refs/heads/main``, or a commit's full id.
    :param path: the directory in it that holds compose.yaml and all it names.
    :param insecure: whether ``http://`` and ``git://`` may be spoken, where anybody on the way can
        put other files in the place of these. Not needed where ``ref`` is a commit's id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    git: Annotated[str | SecretStr, AfterValidator(_check_url)]
    ref: Annotated[str, AfterValidator(_check_ref)] = "HEAD"
    path: Annotated[str, AfterValidator(_check_inner)] = ""
    insecure: bool = False

    @model_validator(mode="after")
    def _check_secure(self) -> "GitSource":
        scheme = self.url.partition("://")[0]
        if scheme in ("http", "git") and not self.insecure and not self.is_pinned:
            raise ValueError(
                f"{scheme}:// proves nothing about who answers: use https or ssh, name a commit by "
                'its full id in "ref", or add "insecure": True'
            )
        return self

    @property
    def is_pinned(self) -> bool:
        """Whether the ref is a commit's id, which is the same for ever."""
        return _COMMIT.fullmatch(self.ref) is not None

    @property
    def url(self) -> str:
        """The URL without its login, which may be shown."""
        text = self._text
        if "://" not in text or not self.login:
            return text
        parts = urlsplit(text)
        user = f"{quote(parts.username or '')}@" if parts.scheme == "ssh" else ""
        return parts._replace(netloc=user + parts.netloc.rpartition("@")[2]).geturl()

    @property
    def origin(self) -> str:
        """The server that its login is for."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}" if "://" in self.url else ""

    @property
    def login(self) -> tuple[str, str] | None:
        """The user and the password in the URL."""
        if "://" not in self._text:
            return None
        parts = urlsplit(self._text)
        if parts.username is None:
            return None
        return unquote(parts.username), unquote(parts.password or "")

    @property
    def secrets(self) -> frozenset[str]:
        """The values that must never be shown: a token may stand in the place of the user."""
        user, password = self.login or ("", "")
        if self.origin[:4] == "http" and password in ("", "x-oauth-basic"):
            password = user
        return frozenset(filter(None, (password,)))

    @property
    def _text(self) -> str:
        return self.git.get_secret_value() if isinstance(self.git, SecretStr) else self.git


def _choose_tag(value: Any) -> str:
    return "<git>" if isinstance(value, dict | GitSource) else "<path>"


class Mend(BaseModel):
    """How often a service that crashed or turned unhealthy may be restarted by us.

    :param attempts: mends of one service within ``window``; past that it is reported and left
        alone.
    :param window: seconds of the sliding window.
    :param backoff: seconds that must lie between one mend and the next; the last one repeats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(default=3, ge=0, le=100)
    window: Seconds = Field(default=3600, gt=0, allow_inf_nan=False)
    backoff: tuple[Annotated[Seconds, Field(ge=0, le=86400, allow_inf_nan=False)], ...] = (
        0,
        30,
        120,
    )


class ComposeSpec(BaseModel):
    """One Compose project on one host, as the user desires it.

    :param project: the Compose project's name.
    :param source: the directory on the controller that holds compose.yaml and all it names; or a
        git repository that the host fetches them from: ``{"git": URL, "ref": "main"}``.
    :param directory: where that directory's files live on the host.
    :param env: variables for the compose file, written to ``.env`` (mode 0600) beside it. A
        ``pydantic.SecretStr`` is never shown. What the compose file requires (``${NAME:?}``) stands
        here or in the ``.env`` of the source.
    :param checks: health criteria beyond healthchecks.
    :param profiles: Compose profiles to enable.
    :param health_timeout: seconds that a started service has to become healthy.
    :param stability: seconds that it must then stay so, without a restart.
    :param on_failure: ``rollback`` puts the previous files and images back, ``keep`` leaves the
        failed state for inspection.
    :param mend: the limits of restarting what crashed or is unhealthy.
    :param allow: consent to touch what is not ours, or what may be lost by it, one entry each.
    :param minimum_free: bytes that must be free where images and files live before anything is
        pulled, built or written.
    :param links: whether the addresses that services are given for each other are proven, and what
        is done about wrong ones.
    :param drift: what is done about a container or a file that is not as it was proven, by the path
        of the field: ``mend`` (the default), ``warn`` or ``ignore``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Annotated[str, AfterValidator(check_project_name), AfterValidator(_check_own_name)]
    source: Annotated[
        Annotated[LocalPath, Tag("<path>")] | Annotated[GitSource, Tag("<git>")],
        Discriminator(_choose_tag),
    ]
    directory: Directory
    env: Annotated[dict[str, str | SecretStr], BeforeValidator(_parse_environment)] = Field(
        default_factory=dict
    )
    checks: Checks = ()
    profiles: tuple[Annotated[str, AfterValidator(_check_profile)], ...] = ()
    health_timeout: Seconds = Field(default=120, gt=0, le=3600)
    stability: Seconds = Field(default=5, ge=0, le=600)
    on_failure: Literal["rollback", "keep"] = "rollback"
    mend: Mend = Mend()
    allow: tuple[Annotated[str, AfterValidator(_check_rule)], ...] = ()
    minimum_free: ByteSize = ByteSize(2 * 1024**3)
    links: LinksPolicy | None = None
    drift: dict[Annotated[str, AfterValidator(check_pattern)], Mode] = Field(
        default_factory=dict, max_length=200
    )

    @property
    def variables(self) -> dict[str, str]:
        """The variables with their secrets in clear: for the host's ``.env`` and nothing else."""
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self.env.items()
        }

    @property
    def secrets(self) -> frozenset[str]:
        """The values that must never be shown."""
        of_source = self.source.secrets if isinstance(self.source, GitSource) else frozenset()
        return of_source | self.env_secrets

    @property
    def env_secrets(self) -> frozenset[str]:
        """Those of them that the stack itself has."""
        return frozenset(
            value.get_secret_value()
            for value in self.env.values()
            if isinstance(value, SecretStr) and value.get_secret_value()
        )

    def list_named_services(self) -> list[tuple[str, str]]:
        """The settings that name a service of the project: the field, and the service."""
        named = [
            (f"checks[{index}].{field}", service)
            for index, check in enumerate(self.checks)
            for field in ("inside", "service")
            if (service := getattr(check, field, None)) is not None
        ]
        return [*named, *list_services(self.drift)]

    def is_allowed(self, kind: Literal["container", "project"], name: str) -> bool:
        """Whether the user consented to touch this thing that is not ours."""
        return f"{kind}:{name}" in self.allow
