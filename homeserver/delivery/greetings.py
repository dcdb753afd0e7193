"""After a start: a word to the servers that share rooms with this one, since some of them may have given it up.

Whoever could not reach a server leaves it in peace for longer and longer, until it makes a valid request: then what
waits is sent at once (here, at Synapse, and elsewhere, though no specification says so). So each is sent a
transaction, with what waits for it or with nothing, and nothing more has to be asked for.

Greeted are those that were alive within a month of the last sign of life that came here: so many in a second and so
many at most, and as patiently as they are sent anything. All of them hear less of it than of one message in each of
their rooms, so no absence is too short for it: whoever called in vain once may keep away for minutes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from federation.sender import Sender
    from homeserver.clock import Clock
    from homeserver.storage.destinations import DestinationStore

_MAX_GREETED = 5_000
_AT_ONCE = 20
_EVERY_SECONDS = 1.0
_ALIVE_MS = 30 * 24 * 3_600_000


class Greetings:
    """Greets the destinations that no other process sends to."""

    def __init__(self, clock: Clock, sender: Sender, destinations: DestinationStore) -> None:
        self._clock = clock
        self._sender = sender
        self._destinations = destinations

    async def greet_all(self) -> None:
        """Greet them, those that were alive last first; raises what the database does."""
        # By then this server answers; and a program that ends again at once calls nobody.
        await asyncio.sleep(_EVERY_SECONDS)
        acquainted = await self._destinations.load_acquainted(
            self._clock.now_ms(), alive_for_ms=_ALIVE_MS, limit=_MAX_GREETED
        )
        for start in range(0, len(acquainted), _AT_ONCE):
            for server_name in acquainted[start : start + _AT_ONCE]:
                self._sender.greet(server_name)
            await asyncio.sleep(_EVERY_SECONDS)
