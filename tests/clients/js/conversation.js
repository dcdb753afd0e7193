// Two users with three devices: live events both ways, state, receipts, typing, and a second device that sees the same.

import { check, checkEqual, checkOnce, Device, idsOf, run, stateOf, textsOf, until } from "./device.js";

import { EventStatus, EventType, NotificationCountType, Preset, ReceiptType, RelationType } from "matrix-js-sdk";

const TURNS = 12;

async function meet(phone, bob) {
    const { room_id: roomId } = await phone.client.createRoom({
        name: "Tea",
        topic: "Leaves",
        preset: Preset.PrivateChat,
        invite: [bob.userId],
    });
    const invitation = await bob.room(roomId, "invite");
    checkEqual(invitation.name, "Tea", "the invitation names the room");
    checkEqual(invitation.getDMInviter() ?? phone.userId, phone.userId, "the invitation names who invites");
    await bob.client.joinRoom(roomId);
    for (const device of [phone, bob]) {
        const room = await device.room(roomId);
        await until("both members", () => room.getJoinedMemberCount() === 2 && room.getJoinedMembers().length === 2);
        checkEqual(room.name, "Tea", "the name of the room");
    }
    return roomId;
}

async function talk(roomId, phone, bob) {
    const texts = [];
    for (let turn = 0; turn < TURNS; turn += 1) {
        const [speaker, listener] = turn % 2 ? [bob, phone] : [phone, bob];
        texts.push(`turn ${turn}`);
        const eventId = await speaker.say(roomId, texts.at(-1));
        const heard = await listener.event(roomId, eventId);
        checkEqual(heard.getContent().body, texts.at(-1), "the text that the other hears");
        checkEqual(heard.getSender(), speaker.userId, "the sender that the other sees");
        const echo = await speaker.event(roomId, eventId);
        check(echo.status !== EventStatus.NOT_SENT, "the echo of a message is not sent");
    }
    for (const device of [phone, bob]) {
        const events = device.client.getRoom(roomId).getLiveTimeline().getEvents();
        checkOnce(events, `the room of ${device.userId}`);
        checkEqual(textsOf(events), texts, `what ${device.userId} heard`);
    }
}

async function ephemera(roomId, phone, laptop, bob) {
    const [onPhone, onLaptop, onBobs] = await Promise.all([phone, laptop, bob].map((device) => device.room(roomId)));

    await bob.client.sendTyping(roomId, true, 30_000);
    await until("typing", () => onPhone.getMember(bob.userId).typing && onLaptop.getMember(bob.userId).typing);
    await bob.client.sendTyping(roomId, false, 0);
    await until("the end of typing", () => !onPhone.getMember(bob.userId).typing);

    const lastId = await bob.say(roomId, "read this");
    const last = await phone.event(roomId, lastId);
    await until("an unread message", () => onLaptop.getUnreadNotificationCount(NotificationCountType.Total) > 0);
    await phone.client.sendReadReceipt(last);
    await until("nothing unread on the other device", () => onLaptop.getUnreadNotificationCount() === 0);
    await until("the receipt", () => onBobs.getEventReadUpTo(phone.userId, true) === lastId);
    check(onBobs.hasUserReadEvent(phone.userId, lastId), "the message is read");

    const secretlyId = await bob.say(roomId, "read this in secret");
    const secretly = await phone.event(roomId, secretlyId);
    await until("another unread message", () => onLaptop.getUnreadNotificationCount() > 0);
    await phone.client.sendReadReceipt(secretly, ReceiptType.ReadPrivate);
    await until("nothing unread after a private receipt", () => onLaptop.getUnreadNotificationCount() === 0);
    checkEqual(onBobs.getEventReadUpTo(phone.userId, true), lastId, "the private receipt is nobody else's business");

    await phone.client.setRoomReadMarkers(roomId, secretlyId);
    await until(
        "the marker on the other device",
        () => onLaptop.getAccountData(EventType.FullyRead)?.getContent().event_id === secretlyId,
    );
    await until("presence", () => phone.client.getUser(bob.userId)?.presence === "online");
}

async function changes(roomId, phone, laptop, bob) {
    const rooms = await Promise.all([phone, laptop, bob].map((device) => device.room(roomId)));

    await phone.client.setRoomName(roomId, "Coffee");
    await phone.client.setRoomTopic(roomId, "Beans");
    await phone.client.sendStateEvent(roomId, "org.example.cup", { size: 3 }, "blue");
    await phone.client.setPowerLevel(roomId, bob.userId, 50);
    await bob.client.setDisplayName("Robert");
    for (const room of rooms) {
        await until("the new name", () => room.name === "Coffee");
        await until("the new topic", () => room.currentState.getStateEvents("m.room.topic", "")?.getContent().topic === "Beans");
        await until("state of its own kind", () => room.currentState.getStateEvents("org.example.cup", "blue")?.getContent().size === 3);
        await until("the power of a member", () => room.getMember(bob.userId).powerLevel === 50);
        await until("the name of a member", () => room.getMember(bob.userId).rawDisplayName === "Robert");
    }

    const typoId = await bob.say(roomId, "tpyo");
    const { event_id: correctionId } = await bob.client.sendMessage(roomId, {
        "msgtype": "m.text",
        "body": "* typo",
        "m.new_content": { msgtype: "m.text", body: "typo" },
        "m.relates_to": { rel_type: RelationType.Replace, event_id: typoId },
    });
    await phone.event(roomId, correctionId);
    await phone.client.sendEvent(roomId, EventType.Reaction, {
        "m.relates_to": { rel_type: RelationType.Annotation, event_id: typoId, key: "🍵" },
    });
    const slipId = await bob.say(roomId, "a slip of the tongue");
    await bob.client.redactEvent(roomId, slipId, undefined, { reason: "oops" });
    for (const device of [phone, laptop, bob]) {
        const room = await device.room(roomId);
        const typo = await device.event(roomId, typoId);
        await until("the correction", () => typo.getContent().body === "typo");
        await until("the reaction", () =>
            room.relations
                .getChildEventsForEvent(typoId, RelationType.Annotation, EventType.Reaction)
                ?.getRelations()
                .some((event) => event.getRelation().key === "🍵"),
        );
        await until("the redaction", () => room.findEventById(slipId)?.isRedacted());
        checkEqual(room.findEventById(slipId).getContent(), {}, "what is left of a redacted message");
    }
    return { typoId, slipId };
}

async function accountData(roomId, phone, laptop) {
    await phone.client.setAccountData("org.example.taste", { sweet: false });
    await phone.client.setRoomTag(roomId, "m.favourite", { order: 0.5 });
    const room = await laptop.room(roomId);
    await until("account data", () => laptop.client.getAccountData("org.example.taste")?.getContent().sweet === false);
    await until("the tag", () => room.tags["m.favourite"]?.order === 0.5);
}

/** A device that is new gets what the others have; whether members come at once or when needed. */
async function newDevice(url, roomId, phone, { typoId, slipId }, options) {
    const tablet = await Device.login(url, "alice");
    await tablet.start({ initialSyncLimit: 100, ...options });
    const [theirs, ours] = [await phone.room(roomId), await tablet.room(roomId)];
    await ours.loadMembersIfNeeded();
    const name = JSON.stringify(options);
    checkEqual(stateOf(ours), stateOf(theirs), `the state on a new device ${name}`);
    checkEqual(idsOf(ours.getLiveTimeline().getEvents()), idsOf(theirs.getLiveTimeline().getEvents()), `the events on a new device ${name}`);
    checkEqual(ours.name, theirs.name, "the name of the room on a new device");
    checkEqual(ours.getJoinedMembers().map((member) => member.name).sort(), ["Robert", "alice"], "the members on a new device");
    checkEqual(ours.findEventById(typoId).getContent().body, "typo", "the corrected message on a new device");
    check(ours.findEventById(slipId).isRedacted(), "a new device is told what was redacted");
    check(ours.tags["m.favourite"], "a new device knows the tags");
    check(tablet.client.getAccountData("org.example.taste"), "a new device knows the account data");
    checkEqual(ours.getUnreadNotificationCount(), theirs.getUnreadNotificationCount(), "unread messages on a new device");
    tablet.checkNothingRefused();
    tablet.stop();
    await tablet.client.logout(true);
}

async function part(roomId, phone, bob) {
    await phone.client.kick(roomId, bob.userId, "closing time");
    const left = await bob.room(roomId, "leave");
    checkEqual(left.getMember(bob.userId).events.member.getContent().reason, "closing time", "the reason of a kick");
    const theirs = await phone.room(roomId);
    await until("the end of the membership", () => theirs.getMember(bob.userId).membership === "leave");
    const aloneId = await phone.say(roomId, "alone");
    await phone.client.setRoomName(roomId, "Closed");
    await phone.client.invite(roomId, bob.userId);
    await bob.room(roomId, "invite");
    await bob.client.joinRoom(roomId);
    const again = await bob.room(roomId);
    await until("the name that was given meanwhile", () => again.name === "Closed");
    const welcomeId = await phone.say(roomId, "welcome back");
    await bob.event(roomId, welcomeId);
    while (await bob.client.paginateEventTimeline(again.getLiveTimeline(), { backwards: true, limit: 50 }));
    check(again.findEventById(aloneId), "in a room with shared history what was said meanwhile can be read");
}

await run(async (url) => {
    const phone = await Device.register(url, "alice");
    const bob = await Device.register(url, "bob");
    const laptop = await Device.login(url, "alice");
    check(phone.client.getDeviceId() !== laptop.client.getDeviceId(), "two devices have one id");
    await Promise.all([phone.start(), bob.start({ lazyLoadMembers: true })]);
    const roomId = await meet(phone, bob);
    await talk(roomId, phone, bob);
    await laptop.start({ lazyLoadMembers: true });
    await ephemera(roomId, phone, laptop, bob);
    const special = await changes(roomId, phone, laptop, bob);
    await accountData(roomId, phone, laptop);
    await newDevice(url, roomId, phone, special, { lazyLoadMembers: false });
    await newDevice(url, roomId, phone, special, { lazyLoadMembers: true });
    await part(roomId, phone, bob);
    for (const device of [phone, laptop, bob]) {
        device.checkNothingRefused();
        device.stop();
    }
});
