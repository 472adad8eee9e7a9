"""What latents share is made once, and made again where it failed."""

import asyncio

import pytest

from autointerp.scorers.recent import Recent


def test_what_is_made_is_made_once_and_what_fails_is_made_again():
    made = []

    async def make() -> int:
        made.append(1)
        if len(made) == 1:
            raise OSError("gone")
        return 7

    async def ask() -> list[int]:
        recent: Recent[int] = Recent(1)
        with pytest.raises(OSError, match="gone"):
            await recent.get("a", make)
        await asyncio.sleep(0)
        several = await asyncio.gather(recent.get("a", make), recent.get("a", make))
        await recent.get("b", make)
        return [*several, await recent.get("a", make)]

    assert asyncio.run(ask()) == [7, 7, 7]
    assert len(made) == 4
