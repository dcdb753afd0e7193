// A device that runs matrix-js-sdk, and a log of what it asked the server for.

import "./silence.js";

import { createClient, Direction, SyncState } from "matrix-js-sdk";

export const PASSWORD = "a long enough secret";
const PATIENCE_MS = 120_000;
const GLANCE_MS = 10;
// No server needs to have these, and the library asks for some of them.
const EXPERIMENTS = "/_matrix/client/unstable/";

/** Fails where a condition does not hold; `details` is shown with the message. */
export function check(condition, message, details) {
    if (!condition) {
        throw new Error(details === undefined ? message : `${message}: ${JSON.stringify(details)}`);
    }
}

/** Fails where two values differ, compared as JSON. */
export function checkEqual(actual, expected, message) {
    const [left, right] = [JSON.stringify(actual), JSON.stringify(expected)];
    check(left === right, `${message}: expected ${right}, found ${left}`);
}

/** Waits until a condition holds, and answers with its value; `details` tells how far it is. What follows a sync may
    take more requests. */
export async function until(what, condition, details = () => undefined) {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
        const value = await condition();
        if (value) return value;
        check(Date.now() < deadline, `waited in vain for: ${what}`, details());
        await new Promise((resolve) => setTimeout(resolve, GLANCE_MS));
    }
}

export class Device {
    /** Requests that were not answered with 2xx. */
    refused = [];
    /** The devices to which encrypted messages went: [user, device]. */
    encryptedFor = [];
    #online = true;
    /** The requests to send events that have not been answered yet. */
    #sending = new Set();
    /** For parts of requests (method, space, path): how many of their answers are still to be lost on the way. */
    #toLose = new Map();

    constructor(url, account, options = {}) {
        this.client = createClient({
            baseUrl: url,
            userId: account?.user_id,
            deviceId: account?.device_id,
            accessToken: account?.access_token,
            timelineSupport: true,
            fetchFn: (resource, options) => this.#fetch(resource, options),
            ...options,
        });
    }

    /** The first device of a new user. */
    static async register(url, username) {
        const nobody = new Device(url);
        const account = await nobody.client.registerRequest({
            username,
            password: PASSWORD,
            auth: { type: "m.login.dummy" },
        });
        nobody.checkNothingRefused();
        return new this(url, account);
    }

    /** Another device of a user. */
    static async login(url, username) {
        const nobody = new Device(url);
        const account = await nobody.client.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: username },
            password: PASSWORD,
        });
        nobody.checkNothingRefused();
        return new this(url, account);
    }

    get userId() {
        return this.client.getUserId();
    }

    /** Starts to sync, and comes back when the first answer has been worked in. */
    async start(options = {}) {
        await this.client.startClient({ threadSupport: true, initialSyncLimit: 20, ...options });
        await until(`the first sync of ${this.userId}`, () =>
            [SyncState.Prepared, SyncState.Syncing].includes(this.client.getSyncState()),
        );
    }

    stop() {
        this.client.stopClient();
    }

    /** Every request fails from now on, as without a network. */
    async loseNetwork() {
        this.#online = false;
        await until("the loss to be noticed", () =>
            [SyncState.Reconnecting, SyncState.Error].includes(this.client.getSyncState()),
        );
    }

    async findNetwork() {
        this.#online = true;
        this.client.retryImmediately();
        await until("the next sync", () => this.client.getSyncState() === SyncState.Syncing);
    }

    /** The server does what the next requests ask for, but its answers do not arrive. */
    loseAnswers(part, count) {
        this.#toLose.set(part, count);
    }

    /** A room, once a sync has told of it. */
    async room(roomId, membership = "join") {
        return await until(`${membership} in the room`, () => {
            const room = this.client.getRoom(roomId);
            return room?.getMyMembership() === membership ? room : null;
        });
    }

    /** Sends a message, in a thread if there is one; the answer is the id of its event. */
    async say(roomId, text, threadId = null) {
        return (await this.client.sendTextMessage(roomId, threadId, text)).event_id;
    }

    /** Waits for an event of a room, as the server tells it and not as it was written here. */
    async event(roomId, eventId) {
        return await until(`event ${eventId}`, () => {
            const event = this.client.getRoom(roomId)?.findEventById(eventId);
            return event && !event.status && event.event.origin_server_ts ? event : null;
        });
    }

    checkNothingRefused() {
        checkEqual(this.refused, [], `requests of ${this.userId} were refused`);
    }

    async #fetch(resource, options) {
        if (!this.#online) {
            throw new TypeError("no network");
        }
        const { pathname, search } = new URL(resource);
        const asked = fetch(resource, options);
        if (pathname.includes("/send/")) {
            this.#sending.add(asked);
            asked.finally(() => this.#sending.delete(asked)).catch(() => {});
        }
        const response = await asked;
        if (pathname.endsWith("/sync") && this.#sending.size > 0) {
            // The library fails to send what a sync brings before the sending is answered, if it is in a thread
            // (`Room.updatePendingEvent` looks for it in the timelines of the room alone).
            await Promise.allSettled(this.#sending);
            await new Promise((resolve) => setTimeout(resolve, 20));
        }
        if (response.ok && pathname.includes("/sendToDevice/m.room.encrypted/")) {
            for (const [userId, messages] of Object.entries(JSON.parse(options.body).messages)) {
                this.encryptedFor.push(...Object.keys(messages).map((deviceId) => [userId, deviceId]));
            }
        }
        if (!response.ok && !pathname.startsWith(EXPERIMENTS)) {
            const answer = await response.clone().text();
            this.refused.push(`${options?.method ?? "GET"} ${pathname}${search} ${response.status} ${answer}`);
        }
        for (const [part, count] of this.#toLose) {
            if (count > 0 && `${options?.method ?? "GET"} ${pathname}`.includes(part)) {
                await response.arrayBuffer();
                this.#toLose.set(part, count - 1);
                throw new TypeError("the answer was lost");
            }
        }
        return response;
    }
}

/** The oldest of the timelines that one is joined to. */
export function oldest(timeline) {
    const older = timeline.getNeighbouringTimeline(Direction.Backward);
    return older ? oldest(older) : timeline;
}

/** The events of a timeline and of those that it is joined to, oldest first. */
export function joined(timeline) {
    const events = [];
    for (let newer = oldest(timeline); newer; newer = newer.getNeighbouringTimeline(Direction.Forward)) {
        events.push(...newer.getEvents());
    }
    return events;
}

export const idsOf = (events) => events.map((event) => event.getId());

export const textsOf = (events) =>
    events.filter((event) => event.getType() === "m.room.message").map((event) => event.getContent().body);

/** The current state of a room, in a form that can be compared. */
export function stateOf(room) {
    const state = [];
    for (const [type, byKey] of room.getLiveTimeline().getState(Direction.Forward).events) {
        for (const [key, event] of byKey) {
            state.push([type, key, event.getId(), event.getContent()]);
        }
    }
    return state.map((entry) => JSON.stringify(entry)).sort();
}

/** Fails where an event is there twice. */
export function checkOnce(events, message) {
    const ids = idsOf(events);
    const doubled = ids.filter((id, index) => ids.indexOf(id) !== index);
    checkEqual(doubled, [], `${message}: events that are there twice`);
}

/** Runs a test with the address of the server, and ends the process. */
export async function run(test) {
    try {
        await test(process.argv[2]);
    } catch (error) {
        console.error(error);
        process.exit(1);
    }
    // Timers of the library would keep it alive.
    process.exit(0);
}
