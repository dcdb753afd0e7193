// Sliding sync as the library speaks it: the room list, a subscription, a gap, encryption over the extensions.

import { check, checkEqual, checkOnce, idsOf, joined, run, textsOf, until } from "./device.js";
import { EncryptedDevice } from "./encrypted_device.js";

import { NotificationCountType, Preset, ReceiptType } from "matrix-js-sdk";
import { SlidingSync } from "matrix-js-sdk/lib/sliding-sync.js";

const ROOMS = 12;
const SHOWN = 5;
const SAID = 30;
const GAP = 2_000;
const AT_ONCE = 100;
const TIMEOUT_MS = 20_000;
const STATE = [["*", "*"]];
const PATH = "simplified_msc3575/sync";

// While it is shut, no answer of sliding sync arrives.
let gate = Promise.resolve();
let open = () => undefined;
const answered = globalThis.fetch;
globalThis.fetch = async (resource, options) => {
    if (String(resource).includes(PATH)) await gate;
    const response = await answered(resource, options);
    if (String(resource).includes(PATH)) await gate;
    return response;
};

function shut() {
    gate = new Promise((resolve) => (open = resolve));
}

class SlidingDevice extends EncryptedDevice {
    async follow(url) {
        const list = { ranges: [[0, SHOWN - 1]], timeline_limit: 1, required_state: STATE };
        const subscription = { timeline_limit: 20, required_state: STATE };
        this.sliding = new SlidingSync(url, new Map([["rooms", list]]), subscription, this.client, TIMEOUT_MS);
        await this.start({ slidingSync: this.sliding });
    }
}

/** That there is no backup of keys yet is told by a 404. */
function checkNothingRefused(device) {
    const refused = device.refused.filter((one) => !one.includes("/room_keys/version"));
    checkEqual(refused, [], `requests of ${device.userId} were refused`);
}

/** Sends many messages without the library: as fast as the server takes them. */
async function sayMany(url, device, roomId, texts) {
    const headers = { "Authorization": `Bearer ${device.client.getAccessToken()}`, "Content-Type": "application/json" };
    const sent = [];
    for (let start = 0; start < texts.length; start += AT_ONCE) {
        const some = texts.slice(start, start + AT_ONCE).map(async (body, number) => {
            const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message/many${start + number}`;
            const content = JSON.stringify({ msgtype: "m.text", body });
            const response = await fetch(url + path, { method: "PUT", headers, body: content });
            check(response.ok, "a message was refused", response.status);
            return (await response.json()).event_id;
        });
        sent.push(...(await Promise.all(some)));
    }
    return sent;
}

/** The list holds as many rooms as were asked for, and more when more are. */
async function roomList(alice, rooms) {
    const known = () => alice.client.getRooms().map((room) => room.roomId);
    await until("the top of the list", () => known().length >= SHOWN);
    checkEqual(known().sort(), rooms.slice(-SHOWN).sort(), "the rooms with the newest activity");
    checkEqual(alice.sliding.getListData("rooms").joinedCount, ROOMS, "the number of rooms in the list");
    alice.sliding.setListRanges("rooms", [[0, ROOMS - 1]]);
    await until("all rooms", () => known().length === ROOMS);
    const byStamp = alice.client.getRooms().sort((one, other) => one.getBumpStamp() - other.getBumpStamp());
    checkEqual(byStamp.map((room) => room.roomId), rooms, "the rooms by their stamps");
    for (const room of byStamp) {
        check(room.name.startsWith("Room "), "a room without its name", room.name);
        checkEqual(room.getJoinedMemberCount(), 1, "the members of a room");
    }
}

/** Whoever opens a room gets more of it. */
async function subscription(url, alice, roomId) {
    const texts = Array.from({ length: SAID }, (_, number) => `said ${number}`);
    for (const text of texts) await alice.say(roomId, text);
    const room = await alice.room(roomId);
    await until("the last of them", () => textsOf(room.getLiveTimeline().getEvents()).includes(texts.at(-1)));

    // A second device that has seen one event of each room.
    const other = await SlidingDevice.login(url, "alice");
    await other.follow(url);
    const seen = await other.room(roomId);
    checkEqual(textsOf(seen.getLiveTimeline().getEvents()), texts.slice(-1), "the newest event");
    other.sliding.modifyRoomSubscriptions(new Set([roomId]));
    await until("the subscription", () => textsOf(seen.getLiveTimeline().getEvents()).length === 20);
    checkOnce(seen.getLiveTimeline().getEvents(), "a room that was subscribed to");
    checkEqual(textsOf(seen.getLiveTimeline().getEvents()), texts.slice(-20), "the events in order");
    await until("all of it", async () => {
        await other.client.scrollback(seen, 10);
        return textsOf(seen.getLiveTimeline().getEvents()).length === SAID;
    });
    checkEqual(textsOf(seen.getLiveTimeline().getEvents()), texts, "the events that were read back, in order");
    checkNothingRefused(other);
    return other;
}

/** Two people in an encrypted room: one follows by sliding sync, one as ever. */
async function encryption(alice, other, bob) {
    const roomId = await bob.createRoom([alice.userId], 5);
    await alice.join(roomId);
    await bob.client.getRoom(roomId).loadMembersIfNeeded();
    const devices = [alice, other].map((device) => device.client.getDeviceId());
    for (const device of [alice, other, bob]) await device.knows(alice.userId, devices);
    const said = {};
    for (let turn = 0; turn < 8; turn += 1) {
        const speaker = turn % 2 ? alice : bob;
        const text = `secret ${turn}`;
        said[await speaker.say(roomId, text)] = text;
        for (const device of [alice, other, bob]) {
            const read = await device.read(roomId, Object.keys(said));
            checkEqual(Object.values(read).sort(), Object.values(said).sort(), `what ${device.userId} reads`);
        }
    }
    const room = await alice.room(roomId);
    const newest = room.getLiveTimeline().getEvents().at(-1);
    await bob.client.sendTyping(roomId, true, 20_000);
    await until("bob to be typing", () => room.getMember(bob.userId)?.typing);
    await bob.client.sendReadReceipt(bob.client.getRoom(roomId).findEventById(newest.getId()), ReceiptType.Read);
    await until("bob's receipt", () => room.hasUserReadEvent(bob.userId, newest.getId()));
    await alice.client.setRoomTag(roomId, "m.favourite", { order: 0.5 });
    await until("the tag", () => room.tags["m.favourite"]);
    return roomId;
}

/** Much is said while no answer arrives; nothing of it is missing afterwards, and nothing there twice. */
async function gap(url, alice, bob) {
    const { room_id: roomId } = await bob.client.createRoom({ preset: Preset.PublicChat, name: "Gap" });
    await alice.client.joinRoom(roomId);
    const room = await alice.room(roomId);
    const before = await bob.say(roomId, "before");
    await alice.event(roomId, before);
    shut();
    const sent = await sayMany(url, bob, roomId, Array.from({ length: GAP }, (_, number) => `${number}`));
    const last = await bob.say(roomId, "after");
    open();
    await alice.event(roomId, last);
    await until("the unread count", () => room.getUnreadNotificationCount(NotificationCountType.Total) === GAP + 2);
    const held = () => joined(room.getLiveTimeline());
    await until("all that was missed", async () => {
        await alice.client.scrollback(room, 250);
        return held().some((event) => event.getType() === "m.room.create");
    });
    checkOnce(held(), "a room with a gap");
    const ids = new Set(idsOf(held()));
    checkEqual(sent.filter((id) => !ids.has(id)), [], "messages that are missing");
}

await run(async (url) => {
    const alice = await SlidingDevice.register(url, "alice");
    const bob = await EncryptedDevice.register(url, "bob");
    await bob.start();
    const rooms = [];
    for (let number = 0; number < ROOMS; number += 1) {
        rooms.push((await alice.client.createRoom({ name: `Room ${number}` })).room_id);
    }
    await alice.follow(url);
    await roomList(alice, rooms);
    const other = await subscription(url, alice, rooms[3]);
    const roomId = await encryption(alice, other, bob);
    await gap(url, alice, bob);
    for (const device of [alice, other, bob]) {
        check((await device.unreadable(roomId)).length === 0, "something cannot be read");
        checkNothingRefused(device);
        device.stop();
    }
});
