"""Puts the built page into the wheel, where `gateway/http/site.py` looks for it."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """An editable install uses the checkout's own `web/dist`, also one that is built later."""
        page = Path(self.root, "web", "dist")
        if version == "editable":
            return
        if (page / "index.html").is_file():
            build_data["force_include"][str(page)] = "gateway/page"
        else:
            self.app.display_warning("web/dist is not built (`make page`): this wheel has no call page")
