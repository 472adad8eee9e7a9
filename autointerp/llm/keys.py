"""Which key goes to which service: read from the environment at every use, never kept, logged or shown."""

import os
from urllib.parse import urlsplit

from store.errors import UsageError

ANY_SERVICE = "MONOSEM_LLM_KEY"
"""The variable that is read first, whatever the address."""

SERVICE_VARIABLES = {
    "api.anthropic.com": "ANTHROPIC_API_KEY",
    "api.deepseek.com": "DEEPSEEK_API_KEY",
    "api.groq.com": "GROQ_API_KEY",
    "api.mistral.ai": "MISTRAL_API_KEY",
    "api.openai.com": "OPENAI_API_KEY",
    "api.together.xyz": "TOGETHER_API_KEY",
    "openrouter.ai": "OPENROUTER_API_KEY",
}
"""The service's own variable by host: it is sent to that host over https, and to no other."""

HOSTS = "MONOSEM_LLM_HOSTS"
"""The variable that names more hosts, between spaces."""
PORTS = {"http": 80, "https": 443}
"""The port of an address that tells none."""
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})


def checked_url(url: str) -> str:
    """`url` without a trailing slash.

    Raises:
        UsageError: it is no http address, or holds a password or a query, which would be stored with every reply.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(
            f"'{url}' is no address of a server ({error}): give one like http://localhost:8000/v1"
        ) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"'{url}' is no address of a server: give one like http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise UsageError(f"the address of {parts.hostname} holds a password or a query: give the key in {ANY_SERVICE}")
    return url.rstrip("/")


def address(url: str) -> str:
    """`url` as part of a reply's identity: a host may serve other models on other paths; https goes without saying.

    >>> address("https://OpenRouter.ai:443/api/v1/"), address("http://localhost:8000/v1")
    ('openrouter.ai/api/v1', 'http://localhost:8000/v1')
    """
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, PORTS[parts.scheme]) else f":{parts.port}"
    scheme = "" if parts.scheme == "https" else f"{parts.scheme}://"
    return f"{scheme}{host}{port}{parts.path.rstrip('/')}"


def is_local(url: str) -> bool:
    """Whether `url` is on this machine, where no key is needed and no proxy is asked."""
    return urlsplit(url).hostname in LOCAL_HOSTS


def is_known(url: str) -> bool:
    """Whether `url` is on this machine, of a service that is known here, or named in `MONOSEM_LLM_HOSTS`: what people
    who may start jobs from a page may have the key sent to."""
    hosts = {*SERVICE_VARIABLES, *os.environ.get(HOSTS, "").split()}
    return is_local(url) or urlsplit(url).hostname in hosts


def variables(url: str) -> tuple[str, ...]:
    """The environment variables that may hold the key for `url`, in the order they are read."""
    parts = urlsplit(url)
    own = SERVICE_VARIABLES.get(parts.hostname or "") if parts.scheme == "https" else None
    return (ANY_SERVICE, own) if own else (ANY_SERVICE,)


def key_variable(url: str) -> str | None:
    """The first of `variables(url)` that is set; None where none is."""
    return next((name for name in variables(url) if os.environ.get(name, "").strip()), None)


def find_key(url: str) -> str | None:
    """The key for `url`; None where none is set and the server is on this machine.

    Raises:
        UsageError: no variable is set, or what it holds cannot be sent.
    """
    name = key_variable(url)
    if name is None:
        if is_local(url):
            return None
        names = " or ".join(reversed(variables(url)))
        raise UsageError(f"no key for {urlsplit(url).hostname}: set {names}, or use a backend that needs none (local)")
    key = os.environ[name].strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"{name} holds something that is no key: it must be one line of ASCII without spaces")
    return key


def without_key(text: str, url: str) -> str:
    """`text` with the key for `url` blacked out: servers quote what they were sent."""
    name = key_variable(url)
    return text.replace(os.environ[name].strip(), "[key]") if name else text
