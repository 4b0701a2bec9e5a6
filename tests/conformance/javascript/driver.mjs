// Drives the official JavaScript SDK for a test in Python.
//
// Commands come as JSON lines on standard input, {"id", "client", "do", "args"}. On standard output
// leave, as JSON lines too, their answers {"id", "result"} or {"id", "error"}, and what clients
// report, {"of", "on", ...}. Members have the protocol's names, in snake case. A payload is a JSON
// value on both ends, whatever the encoding of the connection.

import readline from 'node:readline';
import WebSocket from 'ws';

const protobuf = process.argv[2] === 'protobuf';
const { Centrifuge, UnauthorizedError } = await import(
  protobuf ? 'centrifuge/build/protobuf' : 'centrifuge'
);

const clients = new Map();
const asked = new Map(); // what the test was asked for and has not answered
let asks = 0;

const write = (message) => process.stdout.write(JSON.stringify(message) + '\n');

const encode = (value) => (protobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);

function decode(data) {
  if (!protobuf || data === undefined || data === null) return data;
  return data.length ? JSON.parse(new TextDecoder().decode(data)) : undefined;
}

const snake = (name) => name.replace(/[A-Z]/g, (letter) => '_' + letter.toLowerCase());

// Write what the SDK tells as JSON: payloads decoded, 64-bit numbers as numbers.
function plain(value, name = '') {
  if (['data', 'connInfo', 'chanInfo'].includes(name)) return decode(value);
  if (name === 'tags') return value;
  if (name === 'offset') return Number(value);
  if (Array.isArray(value)) return value.map((one) => plain(one));
  if (value === null || typeof value !== 'object') return value;
  const byName = name === 'clients'; // its members are ids of connections
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) =>
      byName ? [key, plain(one)] : [snake(key), plain(one, key)],
    ),
  );
}

const failure = (error) => ({
  code: error?.code ?? -1,
  message: error?.message ?? String(error),
});

const CLIENT_EVENTS = [
  'connecting', 'connected', 'disconnected', 'message', 'error',
  'subscribed', 'subscribing', 'unsubscribed', 'publication', 'join', 'leave',
];
const SUBSCRIPTION_EVENTS = [
  'subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error',
];

function report(emitter, names, source) {
  for (const name of names) {
    emitter.on(name, (context) => write({ ...plain(context), ...source, on: name }));
  }
}

// Asks the test for what an application would know: a token, the position of its state.
function ask(client, on, channel) {
  const number = ++asks;
  return new Promise((resolve, reject) => {
    asked.set(number, (value) =>
      value === null ? reject(new UnauthorizedError()) : resolve(value),
    );
    write({ of: client, on, ask: number, channel });
  });
}

// Tells of every frame that leaves, so that a test can count them.
const reporting = (client) =>
  class extends WebSocket {
    send(data, ...rest) {
      write({ of: client, on: 'frame', size: data.length ?? data.byteLength });
      return super.send(data, ...rest);
    }
  };

async function create(client, { url, transports, token, asks_token, data, headers, emulation }) {
  const options = {
    websocket: reporting(client),
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
    token: token ?? '',
    getToken: asks_token ? () => ask(client, 'get_token') : null,
    headers: headers ?? {},
  };
  if (data !== undefined && data !== null) options.data = encode(data);
  if (transports) {
    const { EventSource } = await import('eventsource');
    Object.assign(options, { eventsource: EventSource, emulationEndpoint: emulation });
  }
  const made = new Centrifuge(transports ?? url, options);
  report(made, CLIENT_EVENTS, { of: client, server_side: true });
  clients.set(client, made);
}

function subscription(client, { channel, token, asks_token, asks_state, data, join_leave, since }) {
  const options = {
    token: token ?? '',
    getToken: asks_token ? () => ask(client, 'get_token', channel) : null,
    minResubscribeDelay: 20,
    maxResubscribeDelay: 200,
    joinLeave: join_leave ?? false,
  };
  if (data !== undefined && data !== null) options.data = encode(data);
  if (since) options.since = since;
  if (asks_state) options.getState = () => ask(client, 'get_state', channel);
  const made = clients.get(client).newSubscription(channel, options);
  report(made, SUBSCRIPTION_EVENTS, { of: client, server_side: false, channel });
  made.subscribe();
}

const COMMANDS = {
  create,
  subscribe: subscription,
  connect: (client) => clients.get(client).connect(),
  disconnect: (client) => clients.get(client).disconnect(),
  resubscribe: (client, { channel }) => clients.get(client).getSubscription(channel).subscribe(),
  unsubscribe: (client, { channel }) => clients.get(client).getSubscription(channel).unsubscribe(),
  publish: (client, { channel, data }) => clients.get(client).publish(channel, encode(data)),
  rpc: (client, { method, data }) => clients.get(client).rpc(method, encode(data)),
  send: (client, { data }) => clients.get(client).send(encode(data)),
  presence: (client, { channel }) => clients.get(client).presence(channel),
  presence_stats: (client, { channel }) => clients.get(client).presenceStats(channel),
  history: (client, { channel, ...options }) => clients.get(client).history(channel, options),
};

async function run({ id, client, do: name, args }) {
  try {
    write({ id, result: plain(await COMMANDS[name](client, args)) ?? null });
  } catch (error) {
    write({ id, error: failure(error) });
  }
}

// An answer is to the SDK's own question; everything else is a command.
for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.do === 'answer') {
    asked.get(command.ask)(command.value);
    asked.delete(command.ask);
  } else {
    void run(command);
  }
}
process.exit(0);
