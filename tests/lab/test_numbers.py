"""What a run with nothing to do costs the host, counted by its own sshd."""

from __future__ import annotations

import pytest

from tests.lab import controller
from tests.lab.fixtures import Lab
from tests.lab.stacks import Shop, standing

#: The promise is two; one command that reads everything is the physical limit.
LIMIT = 1


@pytest.fixture(scope="module")
def shop(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """One for all: nothing is done to it here."""
    return standing(tmp_path_factory.mktemp("numbers"), lab.hold(1)[0])


@pytest.mark.parametrize("mode", ["-y", "--dry", "asked"])
@pytest.mark.parametrize("user", ["root", "operator", "keeper"])
def test_a_run_with_nothing_to_do_opens_one_channel(shop: Shop, user: str, mode: str) -> None:
    shop.user = user
    shop.write()
    mark = shop.host.mark()

    # Asked, as without -y, it looks twice: to show what would change, and to do it.
    words = [] if mode == "asked" else [mode]
    done = controller.run(shop.inventory(), "deploy/site.py", *words, stdin=b"\n")

    assert done.rc == 0, done.out
    sessions = shop.host.sessions_since(mark)
    print(f"{user}, {mode}: {len(sessions)} channel(s)")
    assert len(sessions) <= LIMIT, sessions
    assert shop.host.logins_since(mark) == 1
