"""Devices that run matrix-nio with its end-to-end encryption (vodozemac), and keep their keys in a folder."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from devices import PASSWORD, Device, ok
from nio import (
    DeleteDevicesAuthResponse,
    EncryptionError,
    KeysQueryResponse,
    MegolmEvent,
    Response,
    RoomPreset,
)
from nio.crypto import SasState

if TYPE_CHECKING:
    from nio import RoomInfo, SyncResponse
    from nio.crypto import Sas


class EncryptedDevice(Device):
    """A device of a user, in encrypted rooms."""

    def __init__(self, url: str, name: str, folder: str) -> None:
        super().__init__(url, name, folder)
        self._folder = folder
        self._online = AsyncExitStack()
        self._sas: Sas | None = None
        self._unread: set[str] = set()
        self.failures: list[str] = []
        """The ids of events that could not be decrypted when they came."""
        self.client.add_response_callback(self._answered, KeysQueryResponse)

    def after_restart(self) -> EncryptedDevice:
        """The same device, as its program finds it when it is started again."""
        again = EncryptedDevice(self.client.homeserver, self.client.user, self._folder)
        self._hand_over(again)
        again._unread = self._unread
        return again

    async def start(self) -> None:
        """Sync from where the device was."""
        await self._online.enter_async_context(self.online(full_state=True))
        await self.until("the first sync", lambda: self.client.next_batch)

    async def leave(self) -> None:
        """Stop to sync, and end the connections."""
        await self._online.aclose()
        await self.client.close()

    async def log_out(self) -> None:
        """End the session for good."""
        await self._online.aclose()
        ok(await self.client.logout())
        await self.client.close()

    async def create_room(self, user_ids: list[str], rotation: int) -> str:
        """An encrypted room; `rotation` is the number of messages for which one key is good."""
        encryption = {
            "type": "m.room.encryption",
            "state_key": "",
            "content": {"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": rotation},
        }
        created = await self.client.room_create(
            preset=RoomPreset.private_chat, invite=user_ids, initial_state=[encryption]
        )
        return ok(created).room_id

    async def join(self, room_id: str) -> None:
        """Take up an invitation."""
        await self.until("the invitation", lambda: room_id in self.client.invited_rooms)
        ok(await self.client.join(room_id))
        await self.until("the room", lambda: room_id in self.client.rooms)

    async def say(self, room_id: str, text: str, transaction_id: str | None = None) -> str:
        """Send a message, whether or not the devices of its readers are verified."""
        content = {"msgtype": "m.text", "body": text}
        sent = await self.client.room_send(
            room_id, "m.room.message", content, tx_id=transaction_id, ignore_unverified_devices=True
        )
        return ok(sent).event_id

    async def say_with_keys(self, room_id: str, text: str) -> list[tuple[str, str]]:
        """Send a message; the answer is the devices that were sent a key for it first, sorted: (user, device)."""
        sessions = self.client.olm.outbound_group_sessions
        before = sessions.get(room_id)
        had = set(before.users_shared_with) if before else set()
        await self.say(room_id, text)
        after = sessions[room_id]
        return sorted(after.users_shared_with - (had if after is before else set()))

    async def session_of(self, room_id: str, event_id: str) -> str:
        """Which key a message was encrypted with."""
        event = ok(await self.client.room_get_event(room_id, event_id)).event
        return event.session_id

    async def invite(self, room_id: str, user_id: str) -> None:
        """Invite somebody."""
        ok(await self.client.room_invite(room_id, user_id))

    async def leave_room(self, room_id: str) -> None:
        """Leave a room."""
        ok(await self.client.room_leave(room_id))

    async def sees_member(self, room_id: str, user_id: str, is_there: bool) -> None:
        """Wait until somebody is, or is not, in a room."""
        room = self.client.rooms[room_id]

        def sees() -> bool:
            member = room.users.get(user_id)
            return (member is not None and not member.invited) == is_there

        await self.until(f"{user_id} in the room: {is_there}", sees)

    async def delete_device(self, device_id: str) -> None:
        """Delete another device of the user, with the password."""
        refused = await self.client.delete_devices([device_id])
        assert isinstance(refused, DeleteDevicesAuthResponse), "the server does not ask for a password"
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.client.user_id},
            "password": PASSWORD,
            "session": refused.session,
        }
        ok(await self.client.delete_devices([device_id], auth))

    async def knows(self, user_id: str, device_ids: list[str]) -> None:
        """Wait until the device knows these devices of a user (itself aside), and no others."""
        wanted = set(device_ids) - {self.client.device_id}
        await self.until(
            f"{wanted} to be the devices of {user_id}",
            lambda: {device.id for device in self.client.device_store.active_user_devices(user_id)} == wanted,
        )

    async def knows_device(self, user_id: str, device_id: str) -> None:
        """Wait until the device knows a device."""
        await self.until(f"the device {device_id}", lambda: device_id in self.client.device_store[user_id])

    async def read(self, room_id: str, event_ids: list[str]) -> dict[str, str]:
        """The texts of events, by id, once all of them have come and are decrypted."""
        await self.until_it_has(room_id, event_ids)
        await self.until(
            "the events to be decrypted", lambda: not set(event_ids) & set(self.unreadable(room_id))
        )
        texts = {event["event_id"]: event["content"].get("body") for event in self.events[room_id]}
        return {event_id: texts[event_id] for event_id in event_ids}

    def unreadable(self, room_id: str) -> list[str]:
        """The events of a room that are still encrypted."""
        return [event["event_id"] for event in self.events[room_id] if event["type"] == "m.room.encrypted"]

    # -- verification by short strings

    async def begin_verification(self, user_id: str, device_id: str, _room_id: str | None = None) -> None:
        """Ask another device for it; matrix-nio can do so directly only."""
        ok(await self.client.start_key_verification(self.client.device_store[user_id][device_id]))
        self._sas = self.client.get_active_sas(user_id, device_id)

    async def accept_verification(self, user_id: str) -> None:
        """Wait for a request of a user, and accept it."""

        def asked() -> list[Sas]:
            known = self.client.key_verifications.values()
            return [
                sas
                for sas in known
                if sas.other_olm_device.user_id == user_id and sas.state == SasState.started
            ]

        await self.until(f"a request of {user_id}", asked)
        (self._sas,) = asked()
        ok(await self.client.accept_key_verification(self._sas.transaction_id))

    async def short_string(self, _begins: bool) -> list[str]:
        """What the people compare."""
        sas = self._verification
        await self.until("the short string", lambda: sas.state == SasState.key_received)
        return [symbol for symbol, _ in sas.get_emoji()]

    async def confirm_verification(self) -> None:
        """The people found the strings to be the same."""
        sas = self._verification
        ok(await self.client.confirm_short_auth_string(sas.transaction_id))
        await self.until("the end of the verification", lambda: sas.verified or sas.canceled)
        assert sas.verified, f"the verification was cancelled: {sas.cancel_code} {sas.cancel_reason}"

    async def trusts(self, user_id: str, device_id: str) -> None:
        """Wait until a device is trusted."""
        device = self.client.device_store[user_id][device_id]
        await self.until("trust", lambda: device.verified)

    @property
    def _verification(self) -> Sas:
        assert self._sas is not None, "there is no verification"
        return self._sas

    # -- what comes in

    async def _answered(self, _answer: Response) -> None:
        await self._tell()

    async def _received(self, answer: SyncResponse) -> None:
        await super()._received(answer)
        if self._unread:
            # Keys may have come that did not fit into the answer with the events.
            self._try_again()
            await self._tell()

    async def _add(self, room_id: str, room: RoomInfo) -> None:
        before = len(self.events.get(room_id, []))
        await super()._add(room_id, room)
        new = self.events[room_id][before:]
        unread = [event["event_id"] for event in new if event["type"] == "m.room.encrypted"]
        self._unread.update(unread)
        self.failures += unread

    def _try_again(self) -> None:
        for room_id, events in self.events.items():
            for number, source in enumerate(events):
                if source["event_id"] in self._unread:
                    event = MegolmEvent.from_dict(source)
                    event.room_id = room_id
                    try:
                        events[number] = self.client.decrypt_event(event).source
                    except EncryptionError:
                        continue
                    self._unread.remove(event.event_id)
