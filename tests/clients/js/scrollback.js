// History: back to the creation of a room, around an event, and over a gap.

import { check, checkEqual, checkOnce, Device, idsOf, joined, run, textsOf, until } from "./device.js";

import { Direction, Preset } from "matrix-js-sdk";

const BEFORE = 130;
const MEANWHILE = 70;
const PAGE = 25;

/** In turn; who has not heard the last message would see their own before it. */
async function speak(roomId, speakers, from, to) {
    const ids = [];
    for (let number = from; number < to; number += 1) {
        const speaker = speakers[number % speakers.length];
        if (ids.length > 0) await speaker.event(roomId, ids.at(-1));
        ids.push(await speaker.say(roomId, `message ${number}`));
    }
    return ids;
}

const expected = (to) => Array.from({ length: to }, (_, number) => `message ${number}`);

function checkWhole(events, to, how) {
    checkOnce(events, how);
    checkEqual(events[0]?.getType(), "m.room.create", `${how}: the first event`);
    checkEqual(textsOf(events), expected(to), `${how}: the messages`);
}

/** The way of clients without timelines: more and more of one room. */
async function byScrollback(url, roomId) {
    const device = await Device.login(url, "bob");
    await device.start({ initialSyncLimit: 10 });
    const room = await device.room(roomId);
    check(room.getLiveTimeline().getEvents().length <= 10, "the first sync holds as much as was asked for");
    while (room.oldState.paginationToken !== null) {
        await device.client.scrollback(room, PAGE);
    }
    const events = room.getLiveTimeline().getEvents();
    checkWhole(events, BEFORE, "by scrollback");
    device.checkNothingRefused();
    device.stop();
    return idsOf(events);
}

/** The way of clients with timelines. */
async function byPagination(url, roomId) {
    const device = await Device.login(url, "alice");
    await device.start({ initialSyncLimit: 1 });
    const room = await device.room(roomId);
    while (await device.client.paginateEventTimeline(room.getLiveTimeline(), { backwards: true, limit: PAGE }));
    const events = room.getLiveTimeline().getEvents();
    checkWhole(events, BEFORE, "by pagination");
    device.checkNothingRefused();
    device.stop();
    return idsOf(events);
}

/** A timeline around an event in the middle, from there to both ends, where it meets the newest events. */
async function fromTheMiddle(url, roomId, eventId) {
    const device = await Device.login(url, "bob");
    await device.start({ initialSyncLimit: 10 });
    const room = await device.room(roomId);
    const timeline = await device.client.getEventTimeline(room.getUnfilteredTimelineSet(), eventId);
    check(timeline !== room.getLiveTimeline(), "a timeline of its own");
    check(idsOf(timeline.getEvents()).includes(eventId), "the event is in the timeline around it");
    while (await device.client.paginateEventTimeline(timeline, { backwards: true, limit: PAGE }));
    while (
        !timeline.getNeighbouringTimeline(Direction.Forward) &&
        (await device.client.paginateEventTimeline(timeline, { backwards: false, limit: PAGE }))
    );
    const events = joined(timeline);
    checkWhole(events, BEFORE, "from the middle");
    checkEqual(events.at(-1).getId(), room.getLiveTimeline().getEvents().at(-1).getId(), "from the middle: the end");
    device.checkNothingRefused();
    device.stop();
    return idsOf(events);
}

/** A device without a network while others talk: its next sync leaves a gap, which is closed from either side. */
async function overGap(device, roomId, speakers, backwards) {
    const room = await device.room(roomId);
    const said = textsOf(joined(room.getLiveTimeline())).length;
    const before = room.getLiveTimeline();
    await device.loseNetwork();
    const ids = await speak(roomId, speakers, said, said + MEANWHILE);
    await device.findNetwork();
    await device.event(roomId, ids.at(-1));
    const after = room.getLiveTimeline();
    check(after !== before, "so many messages leave a gap");
    const [timeline, direction] = backwards ? [after, Direction.Backward] : [before, Direction.Forward];
    while (
        !timeline.getNeighbouringTimeline(direction) &&
        (await device.client.paginateEventTimeline(timeline, { backwards, limit: PAGE }))
    );
    check(timeline.getNeighbouringTimeline(direction), "the timelines on both sides of the gap meet");
    checkWhole(joined(after), said + MEANWHILE, backwards ? "back over the gap" : "forward over the gap");
    return said + MEANWHILE;
}

await run(async (url) => {
    const phone = await Device.register(url, "alice");
    const bob = await Device.register(url, "bob");
    await Promise.all([phone.start(), bob.start()]);
    const { room_id: roomId } = await phone.client.createRoom({ name: "History", preset: Preset.PublicChat });
    await bob.client.joinRoom(roomId);
    const live = await phone.room(roomId);
    await bob.room(roomId);
    await until("both members", () => live.getJoinedMembers().length === 2);
    const ids = await speak(roomId, [phone, bob], 0, BEFORE);
    await until("the last message", () => textsOf(live.getLiveTimeline().getEvents()).length === BEFORE);
    const known = idsOf(live.getLiveTimeline().getEvents());
    checkWhole(live.getLiveTimeline().getEvents(), BEFORE, "live");

    checkEqual(await byScrollback(url, roomId), known, "scrollback tells what was told live");
    checkEqual(await byPagination(url, roomId), known, "pagination tells what was told live");
    checkEqual(await fromTheMiddle(url, roomId, ids[BEFORE / 2]), known, "the middle leads to what was told live");

    const device = await Device.login(url, "alice");
    await device.start({ initialSyncLimit: 30 });
    const room = await device.room(roomId);
    while (await device.client.paginateEventTimeline(room.getLiveTimeline(), { backwards: true, limit: PAGE }));
    await overGap(device, roomId, [phone, bob], true);
    const said = await overGap(device, roomId, [phone, bob], false);

    const found = await phone.client.timestampToEvent(roomId, (await phone.event(roomId, ids[9])).getTs(), Direction.Forward);
    check(ids.includes(found.event_id), "an event is found by its time", found);
    await until("all of it live", () => textsOf(joined(live.getLiveTimeline())).length === said);
    for (const each of [phone, bob, device]) {
        each.checkNothingRefused();
        each.stop();
    }
});
