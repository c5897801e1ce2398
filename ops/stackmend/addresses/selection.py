"""Which of the software that a service could use it does use, as its environment says. Pure."""

import re
from collections.abc import Mapping

from stackmend.addresses.kinds import KINDS, find_kinds, split_name

#: Words of variables that choose between kinds of software, by what is chosen.
_GROUPS: Mapping[str, frozenset[str]] = {
    "vector": frozenset({"vector", "vectordb", "vectorstore"}),
    "ai": frozenset(
        "llm ai chat model models embedding embeddings rag tts stt transcription whisper agent "
        "inference completion".split()
    ),
    "db": frozenset({"db", "database", "sql", "datasource"}),
    "storage": frozenset({"storage", "file", "files", "media", "upload", "uploads", "filesystem"}),
    "cache": frozenset({"cache", "queue", "session", "broker", "broadcast"}),
    "search": frozenset({"search"}),
}
#: Words of variables that mean software of a group, whichever it is.
MEANT: Mapping[str, frozenset[str]] = {
    **_GROUPS,
    "ai": _GROUPS["ai"] | {"openai"},
    "cache": _GROUPS["cache"] | {"celery", "bull"},
    "queue": frozenset({"queue", "broker", "brokers", "bootstrap", "events"}),
    "storage": frozenset({"storage", "s3", "bucket", "blob"}),
}
_CHOOSES = frozenset(
    "provider engine backend driver type store connection client adapter dialect vendor".split()
)
_CHOICE = re.compile(r"[A-Za-z][\w.+:-]{1,40}")
_SWITCH = frozenset({"enable", "enabled", "use", "disable", "disabled"})
#: What says of software that it is in the service's own image.
_BUNDLED = frozenset({"builtin", "bundled", "docker", "embedded", "local"})
#: Words beside what is switched that mean nothing of their own.
_PLAIN = frozenset({"api", "base", "host", "server", "service", "url"})
_OFF = frozenset({"0", "false", "no", "off", "none"})
_ON = frozenset({"1", "true", "yes", "on"})
#: Words of variables that are no product's name.
_GENERIC = frozenset(
    "address addr api async backend base broker bull bullmq cache celery client cluster "
    "connection conn data database datasource db default dsn endpoint endpoints host hostname "
    "hosts http https internal job jobs main master migration native path port postgresdb "
    "primary queue read reader replica result results root server servers service session "
    "socket source spring sql store string sync tcp uri uris url urls user worker write "
    "writer".split()
)


class Selection:
    """What one service's environment chooses.

    :param environment: its variables, those of its image among them.
    :param own: words of the service's and its image's name, which are no other product's.
    """

    def __init__(self, environment: Mapping[str, str], own: frozenset[str]) -> None:
        self._own = own
        self._chosen: dict[str, set[str]] = {}
        #: What is switched on and off, each by the words that name it.
        self._on: list[frozenset[str]] = []
        self._off: list[frozenset[str]] = []
        for key, value in environment.items():
            words = frozenset(split_name(key))
            plain = value.strip(" \"'").lower()
            if words & _SWITCH and (plain in _OFF or plain in _ON):
                on = (plain in _ON) != bool(words & {"disable", "disabled"})
                (self._on if on else self._off).append(words - _SWITCH - _PLAIN)
            elif (words & _CHOOSES or words == {"vector", "db"}) and _CHOICE.fullmatch(plain):
                group = next((name for name, of in _GROUPS.items() if words & of), "")
                self._chosen.setdefault(group, set()).add(re.sub(r"[^a-z0-9]", "", plain))

    def is_unselected(self, variable: str, kind: str) -> bool:
        """Whether an address is of something that the service could use and does not.

        :param variable: what holds the address.
        :param kind: the kind of software that it would lead to.
        """
        words = frozenset(split_name(variable))
        if any(switch and switch <= words for switch in self._off):
            return True
        # Of a database that is named for what it stores, such as PGVECTOR_HOST.
        vector = any("vector" in word for word in words)
        group = "vector" if vector else KINDS[kind].group if kind in KINDS else ""
        tokens = KINDS[kind].tokens.split() if kind in KINDS else []
        stores = self._chosen.get("vector")
        if stores and group in ("db", "search"):
            products = words - _GENERIC - self._own - frozenset(tokens)
            if products and not any(
                len(product) > 2 and product in store for product in products for store in stores
            ):
                return True
        choices = self._chosen.get(group) if group else None
        if not choices:
            return False
        plain = re.sub(r"[^a-z0-9]", "", variable.lower())
        if any(choice in plain or any(token in choice for token in tokens) for choice in choices):
            return False
        return bool(find_kinds(variable)) or group in ("ai", "vector")

    def is_unused(self, variable: str) -> bool:
        """Whether an address is of a product that none of the choices names."""
        products = {*split_name(variable)} - _GENERIC - self._own
        choices = {choice for of in self._chosen.values() for choice in of}
        plain = re.sub(r"[^a-z0-9]", "", variable.lower())
        return bool(products and choices) and not any(
            choice in plain or any(len(word) > 2 and word in choice for word in products)
            for choice in choices
        )

    def is_other_store(self, variable: str, kind: str) -> bool:
        """Whether an address is of a database or a search, and another one stores the vectors."""
        return (
            bool(self._chosen.get("vector"))
            and KINDS[kind].group in ("db", "search")
            and self.is_unused(variable)
        )

    def is_bundled(self, kind: str) -> bool:
        """Whether the service may well run such software itself."""
        return any(
            switch & _BUNDLED and (kind in switch or switch <= _BUNDLED) for switch in self._on
        )
