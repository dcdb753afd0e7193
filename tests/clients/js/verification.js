// Verification by short strings that two people compare, with one partner after the other.

import { check, until } from "./device.js";

import { VerificationPhase } from "matrix-js-sdk/lib/crypto-api/index.js";

export class Verification {
    #received = [];
    #request = null;
    #verifying = null;

    /** Somebody asks for it. */
    received(request) {
        this.#received.push(request);
    }

    /** Asks for it: in a room, or else the device itself. */
    async begin(crypto, userId, deviceId, roomId) {
        this.#request = roomId
            ? await crypto.requestVerificationDM(userId, roomId)
            : await crypto.requestDeviceVerification(userId, deviceId);
    }

    /** Waits for a user to ask, and accepts. */
    async accept(userId) {
        const request = await until(`a request of ${userId}`, () =>
            this.#received.find((request) => request.otherUserId === userId && request.phase === VerificationPhase.Requested),
        );
        await request.accept();
        this.#request = request;
    }

    /** What the people compare. Who asked for the verification begins, and so chooses the method. */
    async shortString(begins) {
        const request = this.#request;
        if (begins) {
            await this.#phase(VerificationPhase.Ready);
            await request.startVerification("m.sas.v1");
        }
        await until("a method", () => request.verifier);
        this.#verifying = request.verifier.verify();
        const shown = await until("the short string", () => request.verifier.getShowSasCallbacks());
        return shown.sas.emoji.map(([symbol]) => symbol);
    }

    /** The people found the strings to be the same. */
    async confirm() {
        await this.#request.verifier.getShowSasCallbacks().confirm();
        await this.#verifying;
        await this.#phase(VerificationPhase.Done);
    }

    async #phase(phase) {
        const request = this.#request;
        await until(`phase ${VerificationPhase[phase]}`, () => {
            check(request.phase !== VerificationPhase.Cancelled, `${request.cancellingUserId} cancelled the verification: ${request.cancellationCode}`);
            return request.phase === phase;
        });
    }
}
