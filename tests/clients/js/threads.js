// Threads: replies, summaries, lists, unread counts of their own, receipts.

import { check, checkEqual, checkOnce, Device, idsOf, run, textsOf, until } from "./device.js";

import { NotificationCountType, Preset } from "matrix-js-sdk";

const REPLIES = 40;
const AFTER = 30;

/** In turn; who has not heard the last reply would see their own before it. */
async function replies(roomId, rootId, speakers, count) {
    const ids = [];
    for (let number = 0; number < count; number += 1) {
        const speaker = speakers[number % speakers.length];
        await speaker.event(roomId, ids.at(-1) ?? rootId);
        ids.push(await speaker.say(roomId, `reply ${number}`, rootId));
    }
    return ids;
}

const repliesOf = (thread) =>
    thread.events.filter((event) => event.getId() !== thread.id && event.isRelation("m.thread"));

async function thread(device, roomId, rootId, length) {
    const room = await device.room(roomId);
    return await until(`a thread of ${length}, as ${device.userId} sees it`, () => {
        const found = room.getThread(rootId);
        return found?.length === length && found.replyToEvent ? found : null;
    });
}

/** Those who are there see a thread grow. */
async function live(roomId, phone, laptop, bob) {
    const rootId = await phone.say(roomId, "root");
    for (const device of [phone, laptop, bob]) await device.event(roomId, rootId);
    const sent = await replies(roomId, rootId, [bob, phone], REPLIES);
    for (const device of [phone, laptop, bob]) {
        const found = await thread(device, roomId, rootId, REPLIES);
        await until("the replies", () => repliesOf(found).length === REPLIES);
        checkEqual(idsOf(repliesOf(found)), sent, `the replies as ${device.userId} sees them`);
        checkOnce(found.events, "a thread");
        checkEqual(found.replyToEvent.getId(), sent.at(-1), "the last reply");
        check(found.hasCurrentUserParticipated, "who replied takes part");
        checkEqual(found.rootEvent.getId(), rootId, "the root");
        const main = device.client.getRoom(roomId).getLiveTimeline().getEvents();
        check(!idsOf(main).some((id) => sent.includes(id)), "replies are in the thread only");
    }
    return [rootId, sent];
}

/** A device that comes later finds the thread, though none of it is in its first sync. */
async function found(url, roomId, rootId, sent) {
    const device = await Device.login(url, "alice");
    await device.start({ initialSyncLimit: 5 });
    const room = await device.room(roomId);
    check(!room.findEventById(rootId), "the root is not among the newest events");
    await room.createThreadsTimelineSets();
    await room.fetchRoomThreads();
    const listed = await thread(device, roomId, rootId, sent.length);
    checkEqual(listed.replyToEvent.getId(), sent.at(-1), "the last reply in the list");
    check(listed.hasCurrentUserParticipated, "the list says who takes part");
    await until("the newest replies", () => listed.initialEventsFetched);
    while (await device.client.paginateEventTimeline(listed.liveTimeline, { backwards: true, limit: 7 }));
    checkOnce(listed.events, "a thread that was read back");
    checkEqual(idsOf(listed.events), [rootId, ...sent], "a thread that was read back");

    const mine = await device.client.createThreadListMessagesRequest(roomId, null, 10, "b", "Participated");
    checkEqual(mine.chunk.map((event) => event.event_id), [rootId], "the threads in which one takes part");
    device.checkNothingRefused();
    device.stop();
}

/** The root of a thread in the first sync says how long the thread is. */
async function bundled(url, roomId, rootId, sent) {
    const device = await Device.login(url, "bob");
    await device.start({ initialSyncLimit: 200 });
    const found = await thread(device, roomId, rootId, sent.length);
    const summary = device.client.getRoom(roomId).findEventById(rootId).getServerAggregatedRelation("m.thread");
    checkEqual(summary.count, sent.length, "the length of the thread, bundled with its root");
    checkEqual(summary.latest_event.event_id, sent.at(-1), "the last reply, bundled with the root");
    checkEqual(summary.current_user_participated, true, "whether one takes part, bundled with the root");
    await until("the replies", () => repliesOf(found).length === sent.length);
    device.checkNothingRefused();
    device.stop();
}

/** Threads have unread counts and receipts of their own. */
async function unread(roomId, phone, laptop, bob) {
    const room = await laptop.room(roomId);
    const inThread = (rootId, type) => room.getThreadUnreadNotificationCount(rootId, type);
    const inRoom = (type) => room.getRoomUnreadNotificationCount(type);
    await phone.client.sendReadReceipt(await phone.event(roomId, await bob.say(roomId, "all read")), undefined, true);
    await until("nothing unread", () => inRoom() === 0);

    const rootIds = [await phone.say(roomId, "tea"), await phone.say(roomId, "coffee")];
    for (const rootId of rootIds) await bob.event(roomId, rootId);
    const first = [];
    for (const text of ["one", "two", "three"]) first.push(await bob.say(roomId, text, rootIds[0]));
    const mention = await bob.client.sendMessage(roomId, rootIds[1], {
        "msgtype": "m.text",
        "body": "alice?",
        "m.mentions": { user_ids: [phone.userId] },
    });
    const main = await bob.say(roomId, "in the room");
    await until("the counts of both threads", () => inThread(rootIds[0]) === 3 && inThread(rootIds[1]) === 1);
    await until("the count of the room", () => inRoom() === 1);
    checkEqual(inThread(rootIds[0], NotificationCountType.Highlight), 0, "mentions in the first thread");
    checkEqual(inThread(rootIds[1], NotificationCountType.Highlight), 1, "mentions in the second thread");
    checkEqual(inRoom(NotificationCountType.Highlight), 0, "mentions in the room");

    const read = async (eventId, ...options) => phone.client.sendReadReceipt(await phone.event(roomId, eventId), ...options);
    await read(first[1]);
    await until("one unread reply", () => inThread(rootIds[0]) === 1);
    checkEqual([inThread(rootIds[1]), inRoom()], [1, 1], "a receipt in one thread leaves the others alone");
    await read(main);
    await until("nothing unread in the room", () => inRoom() === 0);
    checkEqual([inThread(rootIds[0]), inThread(rootIds[1])], [1, 1], "a receipt in the room leaves the threads alone");
    await read(mention.event_id, undefined, true);
    await until("nothing unread at all", () => rootIds.every((rootId) => inThread(rootId) === 0));
    checkEqual(inThread(rootIds[1], NotificationCountType.Highlight), 0, "mentions after a receipt for everything");

    // The library makes no thread of what it sent alone; a program does when its user opens one.
    const bobs = await bob.room(roomId);
    const seenByBob = bobs.getThread(rootIds[0]) ?? bobs.createThread(rootIds[0], bobs.findEventById(rootIds[0]), [], false);
    await until("the receipt in the thread", () => seenByBob.getReadReceiptForUserId(phone.userId, true)?.eventId === first[1]);
}

await run(async (url) => {
    const phone = await Device.register(url, "alice");
    const bob = await Device.register(url, "bob");
    const laptop = await Device.login(url, "alice");
    await Promise.all([phone, laptop, bob].map((device) => device.start()));
    const { room_id: roomId } = await phone.client.createRoom({ name: "Threads", preset: Preset.PublicChat });
    await bob.client.joinRoom(roomId);
    await Promise.all([phone, laptop, bob].map((device) => device.room(roomId)));

    const [rootId, sent] = await live(roomId, phone, laptop, bob);
    for (let number = 0; number < AFTER; number += 1) await bob.say(roomId, `message ${number}`);
    await found(url, roomId, rootId, sent);
    await bundled(url, roomId, rootId, sent);
    await unread(roomId, phone, laptop, bob);

    const texts = textsOf((await phone.room(roomId)).getLiveTimeline().getEvents());
    check(!texts.some((text) => text.startsWith("reply")), "no reply of a thread is in the timeline of the room");
    for (const device of [phone, laptop, bob]) {
        device.checkNothingRefused();
        device.stop();
    }
});
