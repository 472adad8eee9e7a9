"""What a refusal means: status, headers and body become `Refused`, `BadRequest`, `TooLong` or `UsageError`."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from autointerp.llm.errors import BadRequest, Refused, TooLong
from autointerp.llm.keys import key_variable, variables, without_key
from store.errors import UsageError

RETRIED = frozenset({408, 409, 425, 429})
"""Statuses, beside 5xx, after which the same request may pass."""

LONGEST_MESSAGE = 300
"""Characters of a service's own words that are passed on."""

_LIMIT = re.compile(r"maximum context length (?:is|of) (\d+)|> (\d+) maximum|context size \((\d+)")
_ASKED = re.compile(
    r"requested (?:about )?(\d+) tokens|(?:has|contains|resulted in) (?:at least )?(\d+)|(\d+) tokens? >"
)
_TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|prompt is too long|exceed_context_size|too many (?:input )?tokens",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(r"model_not_found|not a valid model|model\b.{0,200}\b(?:not found|does not exist)", re.I | re.S)
_NO_CREDIT = re.compile(
    r"insufficient_quota|credit balance|insufficient (?:credits|balance)|billing_(?:hard_limit|not_active)", re.I
)
_NO_ACCOUNT = re.compile(
    r"(?:account|organization)\b.{0,60}\b(?:deactivated|disabled|suspended|not active)|account_deactivated", re.I
)
_FLAGGED = re.compile(r"moderation|flagged|content[ _](?:policy|filter|management)|safety", re.I)
"""Of a 403 that is about the text: some services word a filter of content so."""


class Failure(NamedTuple):
    """What came back in place of a reply."""

    status: int
    text: str
    """The message, with the service's code and type where it gave them."""
    param: str | None = None
    """The field of the request that it objects to, where it says."""
    retry_after_s: float | None = None

    @classmethod
    def of(cls, status: int, body: Any, headers: Mapping[str, str] | None = None, url: str = "") -> "Failure":
        """From the JSON (or text) of a body; `url` is where the key that must not be shown went."""
        error = body.get("error", body) if isinstance(body, dict) else body
        param = None
        if isinstance(error, dict):
            found = error.get("param")
            param = found if isinstance(found, str) else None
            words = [error.get(name) for name in ("message", "detail", "code", "type")]
            error = " ".join(word for word in words if isinstance(word, str)) or str(error)
        text = " ".join(str(error).split())
        return cls(status, without_key(text, url), param, retry_after(headers or {}))

    @property
    def says_no_model(self) -> bool:
        """Whether it is the model's name that the service does not know."""
        return self.status in (400, 404) and bool(_NO_MODEL.search(self.text))

    def error(self, url: str) -> Exception:
        """The exception to raise for it."""
        host, said = urlsplit(url).hostname, self.text[:LONGEST_MESSAGE]
        if self.status == 401:
            return _bad_key(url)
        if self.status == 402 or (self.status in (400, 403, 429) and _NO_CREDIT.search(self.text)):
            return UsageError(f"the account at {host} has no credit left: add some, or use another backend")
        if _NO_ACCOUNT.search(self.text) or (self.status == 403 and not _FLAGGED.search(self.text)):
            return UsageError(f"{host} does not let this account in: {said}: mend that there, or use another key")
        if self.status in RETRIED or self.status >= 500:
            return Refused(f"{host} answered {self.status}: {said}", self.retry_after_s)
        if self.status == 413 or _TOO_LONG.search(self.text):
            return TooLong(f"{host} says the request is too long: {said}", *_sizes(self.text))
        if 300 <= self.status < 400:
            return UsageError(f"{url} redirects elsewhere, where no key is sent: give the final address")
        return BadRequest(f"{host} answered {self.status}: {said}")


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait by `retry-after-ms` or `Retry-After` (seconds or an HTTP date); None where none can be read."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        said = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d+)?", said):
            return float(said) * unit
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max((when - (now or datetime.now(UTC))).total_seconds(), 0.0)


def no_model(model: str, host: str, available: list[str] | None) -> UsageError:
    """The error for a model that `host` does not serve; `available` None where it does not list them."""
    if not available:
        return UsageError(f"{host} has no model '{model}' and lists none: check its name there")
    shown = ", ".join(available[:10]) + (f" and {len(available) - 10} more" if len(available) > 10 else "")
    return UsageError(f"{host} has no model '{model}': choose one of {shown}")


def _bad_key(url: str) -> UsageError:
    host, name = urlsplit(url).hostname, key_variable(url)
    if name:
        return UsageError(
            f"{host} does not accept the key in {name}: check it, or use the backend local, which needs none"
        )
    return UsageError(f"{host} wants a key: set {' or '.join(variables(url))}")


def _sizes(text: str) -> tuple[int | None, int | None]:
    """Tokens asked for and tokens there is room for, as far as the message tells."""
    return _number(_ASKED, text), _number(_LIMIT, text)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(next(filter(None, found.groups()))) if found else None
