"""One deployed shop for many tests of a module: put back as it was before each of them."""

from __future__ import annotations

import copy
import shutil
from typing import Any

from tests.lab.stacks import Shop, compose


class Standing:
    """A shop that is deployed once, and healed between tests instead of made anew.

    + shop: the shop; not deployed yet
    + base: its compose file, to which every test comes back
    + files: the project's further files, path to content
    """

    def __init__(self, shop: Shop, base: dict[str, Any] | None = None, **files: str) -> None:
        self.shop = shop
        self._base = base or compose()
        self._settings = copy.deepcopy(shop.settings)
        self._files = {"web.env": "COLOUR=blue\n", "conf/web.conf": "answer = 42\n", **files}

    def renew(self) -> Shop:
        """The shop as declared at first, deployed and well; nothing remembered of failures."""
        shop = self.shop
        shop.compose, shop.settings = copy.deepcopy(self._base), copy.deepcopy(self._settings)
        shop.secret_env, shop.user = {}, "root"
        shutil.rmtree(shop.source, ignore_errors=True)
        for path, content in self._files.items():
            shop.put(path, content)
        shop.host.sh("rm -f /var/lib/stackmend/*/mends")
        if shop.run("-y").rc != 0:
            shop.host.reset()
            shop.deploy()
        return shop
