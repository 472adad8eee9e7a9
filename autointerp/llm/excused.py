"""A request that a service will not answer costs its answer, not the job; one that goes on so stops it."""

import logging
from typing import final

from autointerp.llm import LLM, Reply, Request
from autointerp.llm.errors import BadRequest, TooLong
from store.errors import UsageError

log = logging.getLogger(__name__)

REFUSED = "refused"
"""`finish` of the empty reply in place of an answer that will never come; it is not kept."""
PATIENCE = 8
"""Requests refused while none was ever answered, after which the service, or how it is asked, is at fault."""
PATIENCE_LATER = 20
"""The same once some were answered, in a row: filters of content seldom turn down so many next to each other."""


@final
class Excused:
    """Calls of `llm`, with an empty reply where the service turned the request down, as filters of content do.

    What reads replies finds nothing in it, and counts it as unread.
    """

    def __init__(self, llm: LLM) -> None:
        self.name, self._llm = llm.name, llm
        self._ever_answered = False
        self._n_refused = 0

    async def complete(self, request: Request) -> Reply:
        """The model's answer, or an empty one.

        Raises:
            TooLong: the request does not fit the context window.
            UsageError: the service turns one request after another down.
        """
        try:
            reply = await self._llm.complete(request)
        except TooLong:
            raise
        except BadRequest as error:
            self._n_refused += 1
            if self._n_refused >= (PATIENCE_LATER if self._ever_answered else PATIENCE):
                which = "the last" if self._ever_answered else "all of"
                raise UsageError(
                    f"{self.name} turned down {which} {self._n_refused} requests (last: {error}): mend what it says, or"
                    " choose another --model or --backend"
                ) from error
            log.warning("%s will not answer a request: its answers count as unread (%s)", self.name, error)
            return Reply(text="", n_tokens_in=0, n_tokens_out=0, finish=REFUSED)
        self._ever_answered, self._n_refused = True, 0
        return reply
