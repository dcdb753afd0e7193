"""Random logins, refreshes and logouts against what the specification says of tokens, written down a second time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client import Client, Refused, refused

if TYPE_CHECKING:
    from tests.server import Server

DEVICES = ("LAPTOP", "PHONE")
NAMES = itertools.count()
DEEDS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *["login", "login refreshable", "login refreshable"],
                *["use"] * 8,
                *["refresh"] * 8,
                *["logout", "logout all", "password", "delete", "hour", "restart"],
            ]
        ),
        st.sampled_from(DEVICES),
        st.integers(0, 5),
    ),
    min_size=30,
    max_size=60,
)


@dataclass(eq=False)
class Pair:
    """An access token, and the refresh token that came with it; `hour` is when it was given out."""

    access: str
    refresh: str | None
    hour: int


@dataclass
class Device:
    """The pair that is good, and the one that is to take its place once it is used."""

    current: Pair | None = None
    pending: Pair | None = None

    def holds(self, pair: Pair) -> bool:
        return pair in (self.current, self.pending)

    def used(self, pair: Pair) -> None:
        if pair is self.pending:
            self.current, self.pending = pair, None


@dataclass
class Model:
    """What a user's tokens are worth."""

    hour: int = 0
    password: str = "secret"
    devices: dict[str, Device] = field(default_factory=lambda: {name: Device() for name in DEVICES})
    issued: list[tuple[str, Pair]] = field(default_factory=list)

    def end(self, *names: str) -> None:
        for name in names:
            self.devices[name] = Device()

    def remember(self, name: str, answer: dict[str, Any]) -> Pair:
        pair = Pair(answer["access_token"], answer.get("refresh_token"), self.hour)
        self.issued.append((name, pair))
        return pair

    def worth(self, name: str, pair: Pair) -> str:
        """Whether an access token is good, or ends a session softly or for good."""
        if not self.devices[name].holds(pair):
            return "unknown"
        return "good" if pair.refresh is None or self.hour == pair.hour else "expired"


async def worth_of(client: Client) -> str:
    try:
        await client.get("/account/whoami")
    except Refused as error:
        return "expired" if error.body["soft_logout"] else "unknown"
    return "good"


class Run:
    """The deeds, done to the server and to the model."""

    def __init__(self, server: Server, user_id: str) -> None:
        self.server = server
        self.user_id = user_id
        self.model = Model()

    def client(self, pair: Pair) -> Client:
        return Client(self.server.http, self.user_id, access_token=pair.access)

    async def login(self, name: str, *, refreshable: bool) -> None:
        body = {"type": "m.login.password", "user": self.user_id, "password": self.model.password}
        body |= {"device_id": name, "refresh_token": refreshable}
        answer = await self.server.nobody().post("/login", body)
        self.model.devices[name] = Device(self.model.remember(name, answer))

    async def use(self, name: str, pair: Pair) -> str:
        worth = self.model.worth(name, pair)
        assert await worth_of(self.client(pair)) == worth
        self.model.devices[name].used(pair)
        return worth

    async def refresh(self, name: str, pair: Pair) -> None:
        device = self.model.devices[name]
        good = device.holds(pair)
        call = self.server.nobody().post("/refresh", {"refresh_token": pair.refresh})
        if good:
            answer = await call
            device.used(pair)
            device.pending = self.model.remember(name, answer)
        else:
            with refused(401, "M_UNKNOWN_TOKEN"):
                await call

    async def do(self, deed: str, name: str, number: int) -> None:
        model = self.model
        if deed.startswith("login"):
            await self.login(name, refreshable=deed == "login refreshable")
        elif deed == "hour":
            model.hour += 1
            self.server.clock.offset_ms += 3_600_001
        elif deed == "restart":
            await self.server.restart()
        elif model.issued:
            # One of the newest: it is there that something happens.
            name, pair = model.issued[-1 - number % len(model.issued)]
            if deed == "refresh":
                if pair.refresh is not None:
                    await self.refresh(name, pair)
            elif await self.use(name, pair) == "good" and deed != "use":
                await self.end(deed, name, pair)

    async def end(self, deed: str, name: str, pair: Pair) -> None:
        client, model = self.client(pair), self.model
        auth = {"type": "m.login.password", "password": model.password}
        others = [other for other in DEVICES if other != name]
        if deed == "logout":
            await client.post("/logout")
            model.end(name)
        elif deed == "logout all":
            await client.post("/logout/all")
            model.end(*DEVICES)
        elif deed == "delete":
            await client.delete(f"/devices/{others[0]}", {"auth": auth})
            model.end(others[0])
        else:
            await client.post("/account/password", {"new_password": model.password + "!", "auth": auth})
            model.password += "!"
            model.end(*others)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(deeds=DEEDS)
async def test_tokens_are_worth_what_the_specification_says(
    server: Server, deeds: list[tuple[str, str, int]]
) -> None:
    first = await server.register(f"user{next(NAMES)}")
    await first.post("/logout")
    run = Run(server, first.user_id)
    for deed, name, number in deeds:
        await run.do(deed, name, number)
    for name, pair in run.model.issued:
        await run.use(name, pair)
