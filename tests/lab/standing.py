"""One deployed shop for many tests of a module: put back as it was before each of them."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable

from tests.lab.stacks import Shop


class Standing:
    """A shop that is deployed once, and healed between tests instead of made anew.

    + shop: the shop; its compose file, settings and files as they are now are what every test
      comes back to
    + furnish: puts on its host what the shop needs there, again before each test
    """

    def __init__(self, shop: Shop, furnish: Callable[[], object] = lambda: None) -> None:
        self.shop = shop
        self._furnish = furnish
        self._compose = copy.deepcopy(shop.compose)
        self._settings = copy.deepcopy(shop.settings)
        self._files = {
            path.relative_to(shop.source).as_posix(): path.read_bytes()
            for path in shop.source.rglob("*")
            if path.is_file()
        }

    def renew(self) -> Shop:
        """The shop as declared at first, deployed and well; nothing remembered of failures."""
        shop = self.shop
        shop.compose = copy.deepcopy(self._compose)
        shop.settings = copy.deepcopy(self._settings)
        shop.secret_env, shop.user = {}, "root"
        shutil.rmtree(shop.source, ignore_errors=True)
        for path, content in self._files.items():
            shop.put(path, content)
        shop.host.sh("rm -f /var/lib/stackmend/*/mends")
        self._furnish()
        if shop.run("-y").rc != 0:
            shop.host.reset()
            self._furnish()
            shop.deploy()
        return shop
