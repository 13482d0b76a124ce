"""What may be shown of the service's own words.

The service echoes what it was sent, and what others sent to it: session strings and secrets, whole
or in part, in texts, arguments, codes and addresses.  So a word is shown only if it is one that the
program knows, or if its shape proves that it is a name.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Final

from etl.process.secrets import Scrubber

_NAMES: Final = {
    name.lower(): name
    for name in (
        *("uploadToken", "list", "session", "get", "start", "startWidgetSession"),
        *("appToken", "startSession", "ks", "secret", "id", "type", "tokenHash", "widgetId"),
        *("format", "nocache", "clientTag", "partnerId", "userId", "expiry", "privileges"),
        *("filter", "orderBy", "statusIn", "statusEqual", "idIn", "idEqual"),
        *("pager", "pageSize", "pageIndex", "responseProfile", "objectType", "fields"),
    )
}
"""Services, actions and parameters that the program's requests name, by their lower case."""
_ARGS: Final = ("SERVICE", "SERVICE_NAME", "ACTION_NAME", "SRV_NAME", "PARAM_NAME", "PROP_NAME")
"""Arguments of an error whose value is such a name."""
_CODE: Final = re.compile(r"(?=.{1,64}\Z)[A-Z]+(?:_[A-Z]+)+")
"""Words in capitals, joined by underscores: neither a secret nor a session looks like that."""
_HOST: Final = re.compile(r"[\w.\-:]{1,100}", re.ASCII)


def shown_names(args: Mapping[str, object]) -> list[str]:
    """The known names among the arguments of an error, such as ``uploadToken->list``."""
    shown = []
    for arg in _ARGS:
        pieces = re.split(r"(->|:)", str(args.get(arg, "")))
        known = [_NAMES.get(piece.lower()) for piece in pieces[::2]]
        if None not in known:
            pieces[::2] = [name for name in known if name]
            shown.append("".join(pieces))
    return shown


def shown_code(code: str, known: Container[str], scrubber: Scrubber) -> str:
    """``code`` if it is one of the ``known``, or proves to be a code like them."""
    is_code = code in known or (_CODE.fullmatch(code) and not scrubber.holds_part_of_secret(code))
    return code if is_code else "(unreadable code)"


def shown_host(host: str | None, scrubber: Scrubber) -> str | None:
    """A host name that the service sent, unless it may hold a secret."""
    if host is None or not _HOST.fullmatch(host) or scrubber.scrub_foreign(host) != host:
        return None
    return None if scrubber.holds_part_of_secret(host) else host
