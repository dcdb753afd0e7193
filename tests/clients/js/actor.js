// Devices that do what they are told, line by line: {"id", "device", "verb", "arguments"} in, {"id", "answer" or "error"} out.

import { EncryptedDevice } from "./encrypted_device.js";

import { createInterface } from "node:readline";

const url = process.argv[2];
const devices = new Map();

const lives = {
    register: (username) => EncryptedDevice.register(url, username),
    login: (username) => EncryptedDevice.login(url, username),
};

async function obey(name, verb, values) {
    if (verb in lives) {
        const device = await lives[verb](...values);
        devices.set(name, device);
        return { user_id: device.userId, device_id: device.client.getDeviceId() };
    }
    const device = devices.get(name);
    if (verb === "come_back") {
        devices.set(name, device.afterRestart());
        return await devices.get(name).start();
    }
    const method = device[verb.replace(/_(.)/g, (_, letter) => letter.toUpperCase())];
    return typeof method === "function" ? await method.apply(device, values) : method;
}

function answer(id, outcome) {
    process.stdout.write(`${JSON.stringify({ id, ...outcome })}\n`);
}

for await (const line of createInterface({ input: process.stdin })) {
    const { id, device, verb, arguments: values } = JSON.parse(line);
    obey(device, verb, values).then(
        (result) => answer(id, { answer: result ?? null }),
        (error) => answer(id, { error: error?.stack ?? String(error) }),
    );
}
process.exit(0);
