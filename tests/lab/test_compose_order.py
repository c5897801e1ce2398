"""What a run prints as its plan, what it does, and what it reports are the same steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.lab.controller import Run
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

#: A step of a plan on the terminal.
STEP = re.compile(r"\]\s+→ (.+)$", re.M)


def names(steps: list[dict[str, Any]], verb: str = "verb") -> list[str]:
    return [f"{step[verb]} {step['subject']}: {step['cause']}" for step in steps]


def check(shop: Shop, done: Run, journal: int, *, unreached: int = 0) -> list[str]:
    """Hold the printed plan, the report and the journal against one another.

    :param journal: the lines that the journal had before.
    :param unreached: how many steps of the first plan were not reached.
    """
    (operation,) = shop.report()["operations"]
    planned = names(operation["planned"])
    printed = STEP.findall(done.out)
    assert printed[-len(planned) :] == planned
    # Where pyinfra prepares a run before, the first plan is printed then as well.
    first = 1 + next(at for at, step in enumerate(planned) if step.startswith("record "))
    assert printed[: -len(planned)] in ([], planned[:first])
    reached = planned[: first - unreached] + planned[first:]
    assert names(operation["done"]) == reached
    assert all(step["result"] == "done" for step in operation["done"])
    lines = shop.journal()[journal:]
    assert all(line["subject"].startswith("shop/") for line in lines)
    subjects = ({**line, "subject": line["subject"].removeprefix("shop/")} for line in lines)
    assert names(list(subjects), "action") == reached
    return [name.partition(":")[0] for name in reached]


def deploy_first(shop: Shop) -> None:
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert check(shop, done, 0) == [
        "install files /opt/shop",
        "up redis",
        "up side",
        "up web",
        "record shop",
    ]


def change_image_and_config(shop: Shop) -> None:
    before = len(shop.journal())
    shop.services["web"]["image"] = "lab/box:2"
    shop.services["side"] = {"build": "./side", "restart": "unless-stopped"}
    shop.put("side/Dockerfile", "FROM lab/box:1\nRUN echo built >/www/index.html\n")
    shop.put("conf/motd", "goodbye\n")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert check(shop, done, before) == [
        "build side",
        "install files /opt/shop",
        "recreate side",
        "recreate web",
        "record shop",
    ]


def change_and_roll_back(shop: Shop) -> None:
    before = len(shop.journal())
    shop.services["web"]["command"] = ["sh", "-c", "echo no way; exit 3"]
    shop.services["extra"] = {"image": "lab/box:1", "restart": "unless-stopped"}
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert check(shop, done, before, unreached=1) == [
        "install files /opt/shop",
        "up extra",
        "recreate web",
        "restore files /opt/shop",
        "recreate web",
    ]
    assert "extra" not in shop.host.containers("shop")
    (operation,) = shop.report()["operations"]
    assert operation["findings"][-1]["kind"] == "rolled back"
    assert shop.page() == "box 2"


def test_what_is_planned_is_done_and_reported(host: LabHost, tmp_path: Path) -> None:
    """A first deploy, an image changed with a config file, and a rollback."""
    shop = Shop(tmp_path, host, mend={"backoff": [0, 600]})
    deploy_first(shop)
    change_image_and_config(shop)
    change_and_roll_back(shop)
