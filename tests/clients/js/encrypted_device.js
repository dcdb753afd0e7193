// A device with end-to-end encryption (Rust, as WebAssembly), whose databases outlive its program as in a browser.

import { check, checkEqual, Device, joined, oldest, PASSWORD, until } from "./device.js";
import { Verification } from "./verification.js";

import "fake-indexeddb/auto";
import { Direction, EventStatus, IndexedDBStore, MatrixEventEvent, PendingEventOrdering, Preset } from "matrix-js-sdk";
import { CryptoEvent, decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/index.js";

const PAGE = 100;

export class EncryptedDevice extends Device {
    /** Events that could not be decrypted at the first attempt, with the reason. */
    failures = [];
    #url;
    #account;
    #recoveryKey = null;
    #verification = new Verification();

    constructor(url, account) {
        const name = `${account.user_id} ${account.device_id}`;
        super(url, account, {
            store: new IndexedDBStore({ indexedDB, dbName: name }),
            cryptoCallbacks: { getSecretStorageKey: ({ keys }) => this.#secretStorageKey(keys) },
        });
        this.#url = url;
        this.#account = account;
        this.client.on(MatrixEventEvent.Decrypted, (event) => this.#decrypted(event));
        this.client.on(CryptoEvent.VerificationRequestReceived, (request) => this.#verification.received(request));
    }

    get #crypto() {
        return this.client.getCrypto();
    }

    /** The same device, as its program finds it when it is started again: with what is in its databases. */
    afterRestart() {
        return new EncryptedDevice(this.#url, this.#account);
    }

    async start(options = {}) {
        await this.client.store.startup();
        await this.client.initRustCrypto({ cryptoDatabasePrefix: `${this.userId} ${this.client.getDeviceId()}` });
        await super.start({ pendingEventOrdering: PendingEventOrdering.Detached, ...options });
    }

    /** Saves how far it has come. */
    async save() {
        await this.client.store.save(true);
    }

    async leave() {
        await this.save();
        this.stop();
    }

    async logOut() {
        await this.client.logout(true);
    }

    // -- rooms

    /** An encrypted room; `rotation` is the number of messages for which one key is good. */
    async createRoom(userIds, rotation) {
        const content = { algorithm: "m.megolm.v1.aes-sha2", rotation_period_msgs: rotation };
        const { room_id: roomId } = await this.client.createRoom({
            preset: Preset.PrivateChat,
            invite: userIds,
            initial_state: [{ type: "m.room.encryption", state_key: "", content }],
        });
        await this.room(roomId);
        return roomId;
    }

    async join(roomId) {
        await this.room(roomId, "invite");
        await this.client.joinRoom(roomId);
        await this.room(roomId);
    }

    /** Sends a message, until the server has answered. */
    async say(roomId, text) {
        try {
            return await super.say(roomId, text);
        } catch (error) {
            check(error.name === "ConnectionError", "the server refused a message", String(error));
        }
        const room = await this.room(roomId);
        const unsent = await until("the message to be unsent", () =>
            room.getPendingEvents().find((event) => event.status === EventStatus.NOT_SENT && event.getContent().body === text),
        );
        return await until("an answer", () => this.#sendAgain(unsent, room));
    }

    async #sendAgain(event, room) {
        try {
            return (await this.client.resendEvent(event, room)).event_id;
        } catch (error) {
            check(error.name === "ConnectionError", "the server refused a message", String(error));
            return null;
        }
    }

    /** Sends a message; the answer is the devices that were sent a key for it first, sorted: [user, device]. */
    async sayWithKeys(roomId, text) {
        const before = this.encryptedFor.length;
        await this.say(roomId, text);
        return this.encryptedFor.slice(before).sort();
    }

    /** Which key a message was encrypted with. */
    async sessionOf(roomId, eventId) {
        return (await this.client.fetchRoomEvent(roomId, eventId)).content.session_id;
    }

    async invite(roomId, userId) {
        await this.client.invite(roomId, userId);
    }

    async leaveRoom(roomId) {
        await this.client.leave(roomId);
    }

    /** Waits until somebody is, or is not, in a room. */
    async seesMember(roomId, userId, isThere) {
        const room = await this.room(roomId);
        await until(`${userId} in the room: ${isThere}`, () => (room.getMember(userId)?.membership === "join") === isThere);
    }

    /** Deletes another device of the user, with the password. */
    async deleteDevice(deviceId) {
        const stages = await this.#authenticated((auth) => this.client.deleteDevice(deviceId, auth ?? undefined));
        checkEqual(stages, ["m.login.password"], "what the server asked for");
    }

    /** Waits for a message of a user that is new to the device. */
    async hasHeard(roomId, userId) {
        const room = await this.room(roomId);
        const newest = () => room.getLiveTimeline().getEvents().findLast((event) => event.getSender() === userId)?.getId();
        const before = newest();
        await until(`a message of ${userId}`, () => newest() !== before);
    }

    /** Waits until the device knows these devices of a user, and no others. */
    async knows(userId, deviceIds) {
        const wanted = JSON.stringify([...deviceIds].sort());
        await until(`${deviceIds} to be the devices of ${userId}, as ${this.userId} sees it`, async () => {
            const known = (await this.#crypto.getUserDeviceInfo([userId])).get(userId);
            return JSON.stringify([...(known?.keys() ?? [])].sort()) === wanted;
        });
    }

    /** Waits until the device knows a device. */
    async knowsDevice(userId, deviceId) {
        await until(`${deviceId} of ${userId} to be known to ${this.userId}`, async () =>
            (await this.#crypto.getUserDeviceInfo([userId], true)).get(userId)?.has(deviceId),
        );
    }

    /** The texts of events, by id, once all of them have come and are decrypted. */
    async read(roomId, eventIds) {
        const room = await this.room(roomId);
        const missing = () => eventIds.filter((id) => !room.findEventById(id));
        await until("the events", async () => missing().length === 0 || (await this.#pageBack(room)), missing);
        const encrypted = () =>
            eventIds
                .map((id) => room.findEventById(id))
                .filter((event) => event.isBeingDecrypted() || event.isDecryptionFailure() || event.getType() === "m.room.encrypted")
                .map((event) => [event.getId(), event.decryptionFailureReason]);
        await until("the events to be decrypted", () => encrypted().length === 0, encrypted);
        return Object.fromEntries(eventIds.map((id) => [id, room.findEventById(id).getContent().body]));
    }

    /** What in its timeline of a room cannot be read. */
    async unreadable(roomId) {
        const events = joined((await this.room(roomId)).getLiveTimeline());
        await Promise.all(events.map((event) => event.getDecryptionPromise()));
        return events.filter((event) => event.isDecryptionFailure()).map((event) => [event.getId(), event.decryptionFailureReason]);
    }

    /** Reads one page back, where the timeline has a gap or a beginning that it knows. Without a place to go on from the
        library would ask for the newest events, ahead of the keys that /sync brings. */
    async #pageBack(room) {
        const timeline = oldest(room.getLiveTimeline());
        if (timeline.getPaginationToken(Direction.Backward)) {
            await this.client.paginateEventTimeline(timeline, { backwards: true, limit: PAGE });
        }
    }

    #decrypted(event) {
        if (event.isDecryptionFailure()) {
            this.failures.push([event.getId(), event.decryptionFailureReason]);
        }
    }

    // -- cross-signing, secret storage, key backup

    /** Makes keys for cross-signing, secret storage and a key backup; the answer is the recovery key. */
    async bootstrap() {
        let stages = null;
        await this.#crypto.bootstrapCrossSigning({
            authUploadDeviceSigningKeys: async (upload) => {
                stages = await this.#authenticated(upload);
            },
        });
        checkEqual(stages, [], "what the server asked for at the first upload");
        await this.#crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => {
                const made = await this.#crypto.createRecoveryKeyFromPassphrase();
                this.#recoveryKey = made.encodedPrivateKey;
                return made;
            },
            setupNewKeyBackup: true,
        });
        check(await this.#crypto.isCrossSigningReady(), "cross-signing is not ready");
        check(await this.#crypto.isSecretStorageReady(), "secret storage is not ready");
        return this.#recoveryKey;
    }

    /** New keys for cross-signing, in place of those that the user had; the answer is what had to be shown for it. */
    async resetCrossSigning() {
        let stages = [];
        await this.#crypto.bootstrapCrossSigning({
            setupNewCrossSigning: true,
            authUploadDeviceSigningKeys: async (upload) => {
                stages = await this.#authenticated(upload);
            },
        });
        return stages;
    }

    /** Signs another device of the user, who compared the keys by hand. */
    async crossSign(deviceId) {
        await this.knowsDevice(this.userId, deviceId);
        await this.#crypto.crossSignDevice(deviceId);
    }

    /** What a new device does with the recovery key; the answer is the number of keys that were restored. */
    async restore(recoveryKey) {
        await this.#takeUpIdentity(recoveryKey);
        await this.#crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        check(await this.#crypto.isCrossSigningReady(), "cross-signing is not ready");
        const { total, imported } = await this.#crypto.restoreKeyBackup();
        check(imported === total, "keys that were not restored", { total, imported });
        return imported;
    }

    /** Waits until the key of each message of a room is in the backup. */
    async backedUp(roomId, eventIds) {
        const room = await this.room(roomId);
        const sessions = new Set(eventIds.map((id) => room.findEventById(id).getWireContent().session_id));
        const { version } = await this.#crypto.getKeyBackupInfo();
        await until(`${sessions.size} keys in the backup`, async () => {
            const stored = await this.client.http.authedRequest("GET", `/room_keys/keys/${encodeURIComponent(roomId)}`, { version });
            return [...sessions].every((session) => session in stored.sessions);
        });
    }

    /** Waits until a user is trusted, and with them a device. */
    async trusts(userId, deviceId) {
        await until(`trust in ${deviceId} of ${userId}`, async () => {
            const user = await this.#crypto.getUserVerificationStatus(userId);
            const device = await this.#crypto.getDeviceVerificationStatus(userId, deviceId);
            return user.isCrossSigningVerified() && device.signedByOwner && device.isVerified();
        });
    }

    /** Fetches the keys for cross-signing from secret storage, and signs this device. */
    async #takeUpIdentity(recoveryKey) {
        this.#recoveryKey = recoveryKey;
        check(await this.#crypto.userHasCrossSigningKeys(), "the user has no keys for cross-signing");
        await this.#crypto.bootstrapCrossSigning({});
    }

    /** Waits until a user is no longer trusted, since their keys are others. */
    async distrusts(userId) {
        await until(`the end of the trust in ${userId}`, async () => {
            const user = await this.#crypto.getUserVerificationStatus(userId);
            return user.wasCrossSigningVerified() && !user.isCrossSigningVerified();
        });
    }

    /** Uploads keys for cross-signing, with the password if the server asks for it; the answer is what it asked for. */
    async #authenticated(upload) {
        try {
            await upload(null);
            return [];
        } catch (error) {
            const stages = error.data?.flows?.flatMap((flow) => flow.stages);
            check(error.httpStatus === 401 && stages, "the server does not ask for a password", error);
            const identifier = { type: "m.id.user", user: this.userId };
            await upload({ type: "m.login.password", identifier, password: PASSWORD, session: error.data.session });
            return stages;
        }
    }

    async #secretStorageKey(keys) {
        const [keyId] = Object.keys(keys);
        return [keyId, decodeRecoveryKey(this.#recoveryKey)];
    }

    // -- verification

    async beginVerification(userId, deviceId, roomId) {
        await this.#verification.begin(this.#crypto, userId, deviceId, roomId);
    }

    async acceptVerification(userId) {
        await this.#verification.accept(userId);
    }

    async shortString(begins) {
        return await this.#verification.shortString(begins);
    }

    async confirmVerification() {
        await this.#verification.confirm();
    }

    // -- dehydrated devices

    /** Leaves a device behind that collects keys; the answer is its id. */
    async dehydrate() {
        check(await this.#crypto.isDehydrationSupported(), "the server has no dehydrated devices");
        await this.#crypto.startDehydration();
        const dehydrated = await until("the dehydrated device", async () => {
            const known = (await this.#crypto.getUserDeviceInfo([this.userId], true)).get(this.userId);
            return [...known.values()].find((device) => device.dehydrated);
        });
        return dehydrated.deviceId;
    }

    /** Takes in what the dehydrated device was sent; the answer is the number of keys of rooms. */
    async rehydrate(recoveryKey) {
        let keys = 0;
        this.client.on(CryptoEvent.RehydrationProgress, (roomKeys) => (keys = roomKeys));
        let error = null;
        this.client.on(CryptoEvent.RehydrationError, (message) => (error = message));
        await this.#takeUpIdentity(recoveryKey);
        await this.#crypto.startDehydration();
        check(error === null, "the dehydrated device was not taken in", error);
        return keys;
    }
}
