"""What goes wrong with a language-model service: `Refused` is worth another try, `BadRequest` is not.

What the person can fix (a missing key, a model that is not there) is `store.errors.UsageError` instead.
"""


class Refused(Exception):
    """The service would not or could not answer now: busy, broken, slow or cut off; the same request may pass later."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds the service asked to be left alone; None where it did not say."""


class Lost(Refused):
    """The request went out and no whole answer came back: the service may have worked on it, and charge for it."""


class BadRequest(Exception):
    """The service will never answer this request: nothing is gained by sending it again."""


class TooLong(BadRequest):
    """The request does not fit the model's context window."""

    def __init__(self, message: str, n_tokens: int | None = None, limit: int | None = None) -> None:
        super().__init__(message)
        self.n_tokens = n_tokens
        """Tokens asked for, with those kept for the reply where the service counts them; None where it did not say."""
        self.limit = limit
        """Tokens the model takes; None where the service did not say."""
