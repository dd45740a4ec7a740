"""Who may enter the page that raters open: the links of its round, and nobody by a login."""

from __future__ import annotations

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.login import LoginFormHandler
from voila.voila_identity_provider import VoilaIdentityProvider

from evalkit.human.serve import DEAD

_PAGE = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Blind rating</title><link rel="icon" href="data:;base64,=">
<style>
  :root {{ color-scheme: light dark }}
  body {{ max-width: 40em; margin: 4em auto; padding: 0 1em; font: 16px/1.5 system-ui, sans-serif }}
</style>
<h1>Blind rating</h1>
<p role="alert">{DEAD}</p>
"""


class DeadLink(LoginFormHandler):
    """Where a link without the round's token ends: words for a rater, in place of a login."""

    @allow_unauthenticated
    def get(self) -> None:
        """The page."""
        self.set_status(403)
        self.finish(_PAGE)

    post = get


class Links(VoilaIdentityProvider):
    """Lets in who has the token; there is no other way in."""

    def get_handlers(self) -> list[tuple[str, object]]:
        """The page for those without it."""
        return [(r"/login", DeadLink)]
