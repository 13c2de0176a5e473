import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ResumableTransport } from '../src/resumable-transport.js';
import { Net, Page, Timers } from './world.js';

const URL = 'wss://example.org/ws?roomId=r&peerName=p&token=t';
const EVENTS = ['open', 'disconnected', 'failed', 'close', 'message', 'resuming', 'resumed'];

function begin(options = {}) {
  const net = new Net();
  const timers = new Timers();
  const world = new Page();
  const transport = new ResumableTransport(URL, { WebSocket: net.WebSocket, timers, world, ...options });
  const events = [];
  const messages = [];
  for (const event of EVENTS) transport.on(event, (detail) => (event === 'message' ? messages : events).push(
    event === 'message' ? detail : event === 'failed' ? `failed ${detail}` : event,
  ));
  return { net, timers, world, transport, events, messages };
}

function open(options) {
  const setup = begin(options);
  setup.net.last.accept();
  return setup;
}

let lastId = 0;
function request(transport, data = {}) {
  lastId += 1;
  const sending = transport.send({ request: true, id: lastId, method: 'm', data });
  sending.catch(() => {});
  return sending;
}

const numbers = (frames) => frames.map(({ cseq }) => cseq);

// --- a session ------------------------------------------------------------------------------------------------

test('it asks for a session that can be resumed, and is open when the server has greeted', () => {
  const { net, events } = begin();
  assert.deepEqual(net.last.query, { roomId: 'r', peerName: 'p', token: 't', resumable: '1' });
  assert.equal(net.last.protocol, 'protoo');
  assert.deepEqual(events, []);
  net.last.accept();
  assert.deepEqual(events, ['open']);
});

test('frames are numbered, and messages look as protoo has them', async () => {
  const { net, transport, messages } = open();
  await transport.send({ notification: true, method: 'm', data: {} });
  await transport.send({ request: true, id: 7, method: 'm', data: 5 });
  assert.deepEqual(numbers(net.last.sent), [1, 2]);
  net.last.read();
  net.last.push({ notification: true, method: 'n' });
  net.last.push({ response: true, id: 8, errorCode: 404, errorReason: 'no' });
  net.last.push({ request: true, id: 9, method: 'q' });
  assert.deepEqual(messages, [
    { response: true, id: 7, ok: true, data: 5 },
    { notification: true, method: 'n', data: {} },
    { response: true, id: 8, ok: false, errorCode: 404, errorReason: 'no' },
    { request: true, id: 9, method: 'q', data: {} },
  ]);
});

test('what is no frame is ignored, and what has no number passes', () => {
  const { net, messages, events } = open();
  for (const text of ['', '{', 'null', '[]', '5', '{}', '{"response":true}', '{"notification":true}']) net.last.text(text);
  net.last.frame({ notification: true, method: 'error', data: { errorCode: 400 } });
  assert.deepEqual(messages, [{ notification: true, method: 'error', data: { errorCode: 400 } }]);
  assert.deepEqual(events, ['open']);
});

test('nothing can be sent before the first greeting or after the end', async () => {
  const { net, transport } = begin();
  await assert.rejects(request(transport), /not connected/);
  net.last.accept();
  transport.close();
  assert.equal(transport.closed, true);
  await assert.rejects(request(transport), /closed/);
});

// --- going on -------------------------------------------------------------------------------------------------

test('a lost connection is resumed at once and unseen', async () => {
  const { net, transport, events, messages } = open();
  await request(transport, 'read');
  net.last.read();
  await request(transport, 'lost');
  const first = net.last;
  first.end(1006);
  assert.notEqual(net.last, first);
  assert.deepEqual(net.last.query, {
    roomId: 'r', peerName: 'p', token: 't', resumable: '1', resume: 'token1', ack: '1', attempt: '1',
  });
  await request(transport, 'while away');
  assert.deepEqual(net.last.sent, []);
  net.last.accept();
  net.last.read();
  assert.deepEqual(messages.map(({ data }) => data), ['read', 'lost', 'while away']);
  assert.deepEqual(events, ['open', 'resuming', 'resumed']);
});

test('what was sent meanwhile is replayed, and nothing comes twice', () => {
  const { net, messages } = open();
  const first = net.last;
  first.push({ notification: true, method: 'a' });
  first.closed = { code: 1006 };
  first.push({ notification: true, method: 'b' });
  first.onclose({ code: 1006 });
  net.last.accept();
  net.last.frame({ notification: true, method: 'b', seq: 2, ack: 0 });
  net.last.push({ notification: true, method: 'c' });
  assert.deepEqual(messages.map(({ method }) => method), ['a', 'b', 'c']);
});

test('a gap in the server’s numbers is filled by resuming', () => {
  const { net, messages, events } = open();
  net.last.session.out.push({ notification: true, method: 'lost' });
  net.last.push({ notification: true, method: 'early' });
  assert.deepEqual(messages, []);
  net.last.accept();
  assert.deepEqual(messages.map(({ method }) => method), ['lost', 'early']);
  assert.deepEqual(events, ['open', 'resuming', 'resumed']);
});

test('it tries again with growing pauses, and each attempt has its number', () => {
  const { net, timers, events } = open();
  net.refuse = true;
  net.last.end();
  for (let attempt = 1; attempt <= 4; attempt += 1) {
    assert.equal(net.last.query.attempt, String(attempt));
    const before = net.sockets.length;
    net.last.accept();
    timers.advance(200 * 2 ** (attempt - 1) - 1);
    assert.equal(net.sockets.length, before);
    timers.advance(1);
    assert.equal(net.sockets.length, before + 1);
  }
  net.refuse = false;
  net.last.accept();
  assert.deepEqual(events, ['open', 'resuming', 'resumed']);
});

test('an attempt that nobody answers is given up for another', () => {
  const { net, timers, events } = open();
  net.last.end();
  const silent = net.last;
  timers.advance(13_000);
  assert.equal(silent.closed.byClient, true);
  assert.notEqual(net.last, silent);
  net.last.accept();
  assert.deepEqual(events, ['open', 'resuming', 'resumed']);
});

test('after the grace the loss is told, and a new session begun', async () => {
  const { net, timers, transport, events, messages } = open();
  await request(transport, 'lost');
  net.refuse = true;
  net.last.end();
  for (let tries = 0; tries < 20 && !events.includes('disconnected'); tries += 1) {
    net.last.accept();
    timers.advance(2000);
  }
  assert.deepEqual(events.slice(0, 3), ['open', 'resuming', 'disconnected']);
  net.refuse = false;
  timers.advance(8000);
  assert.equal(net.last.query.resume, undefined);
  net.last.accept();
  assert.equal(events.at(-1), 'open');
  await request(transport, 'new');
  assert.deepEqual(numbers(net.last.sent), [1]);
  net.last.read();
  assert.deepEqual(messages.map(({ data }) => data), ['new']);
});

test('a refused resumption is told, and a new session begun at once', () => {
  const { net, events } = open();
  net.sessions.clear();
  net.last.end();
  net.last.accept();
  assert.deepEqual(events, ['open', 'resuming', 'disconnected']);
  assert.equal(net.last.query.resume, undefined);
  net.last.accept();
  assert.equal(events.at(-1), 'open');
});

test('a session that the server has given up is not asked for', () => {
  const { net, events } = open();
  net.last.end(4001);
  assert.deepEqual(events, ['open', 'disconnected']);
  assert.equal(net.last.query.resume, undefined);
});

test('a session whose messages the server misses again and again is given up', () => {
  const { net, events } = open();
  for (let times = 0; times < 5; times += 1) {
    net.last.end(4002);
    net.last.accept();
  }
  assert.ok(events.includes('disconnected'));
});

// --- ends -----------------------------------------------------------------------------------------------------

test('4000 is the end, whenever it comes', () => {
  for (const when of ['open', 'resuming', 'connecting']) {
    const { net, timers, transport, events } = when === 'connecting' ? begin() : open();
    if (when === 'resuming') net.last.end();
    let detail;
    transport.on('close', (end) => { detail = end; });
    net.last.end(4000, 'replaced');
    assert.equal(events.at(-1), 'close');
    assert.deepEqual(detail, { code: 4000, reason: 'replaced' });
    assert.ok(transport.closed);
    assert.ok(timers.idle);
  }
});

test('closing says so to the server and leaves nothing behind', () => {
  const { net, timers, transport, events } = open();
  transport.close();
  transport.close();
  assert.deepEqual(net.last.closed, { code: 1000, byClient: true });
  assert.deepEqual(events, ['open', 'close']);
  assert.ok(timers.idle);
  const { net: other, timers: otherTimers, transport: resuming } = open();
  other.last.end();
  resuming.close();
  assert.ok(otherTimers.idle);
  assert.ok(other.last.closed);
});

test('a server that cannot be reached at first is tried as protoo does', () => {
  const { net, timers, events } = begin({ retry: { retries: 2, minTimeout: 1000, factor: 2, maxTimeout: 8000 } });
  net.refuse = true;
  net.last.accept();
  timers.advance(1000);
  net.last.accept();
  timers.advance(2000);
  net.last.accept();
  assert.deepEqual(events, ['failed 1', 'failed 2', 'failed 3', 'close']);
  assert.equal(net.sockets.length, 3);
});

test('listeners may close it at any event', () => {
  for (const event of ['open', 'resuming', 'disconnected', 'failed', 'resumed', 'message']) {
    const { net, timers, transport } = begin();
    transport.on(event, () => transport.close());
    if (event === 'failed') net.last.end();
    net.last.accept();
    if (!transport.closed) net.last.push({ notification: true, method: 'm' });
    if (event === 'disconnected') net.sessions.clear();
    if (!transport.closed) net.last.end();
    if (!transport.closed) net.last.accept();
    assert.ok(transport.closed, event);
    assert.ok(timers.idle, event);
    assert.ok(net.sockets.every(({ closed }) => closed), event);
  }
});

test('a listener that throws harms no other', (t) => {
  const { net, transport, messages } = open();
  const said = t.mock.method(console, 'error', () => {});
  transport.removeAllListeners('message');
  transport.on('message', () => { throw new Error('mine'); });
  transport.on('message', (message) => messages.push(message));
  net.last.push({ notification: true, method: 'm' });
  assert.equal(messages.length, 1);
  assert.equal(said.mock.calls[0].arguments[0].message, 'mine');
});

// --- bounds ---------------------------------------------------------------------------------------------------

test('what the server has got is not kept', async () => {
  const { net, transport } = open();
  for (let n = 0; n < 5000; n += 1) {
    await request(transport);
    net.last.read();
  }
  net.last.end();
  net.last.accept();
  assert.deepEqual(net.last.sent, []);
});

test('a session that can keep no more is given up honestly', async () => {
  const { net, transport, events } = open();
  net.last.end();
  for (let n = 0; n < 1024; n += 1) await request(transport);
  await assert.rejects(request(transport), /has not got/);
  assert.deepEqual(events, ['open', 'resuming', 'disconnected']);
});

test('a message that the server would never take is not sent', async () => {
  const { net, transport, events } = open();
  await assert.rejects(request(transport, 'x'.repeat(1024 * 1024)), /too large/);
  await request(transport, 'fine');
  assert.deepEqual(numbers(net.last.sent), [1]);
  assert.deepEqual(events, ['open']);
});

// --- dead connections -----------------------------------------------------------------------------------------

test('silence is asked about, and a dead connection left', () => {
  const { net, timers, events } = open();
  const dead = net.last;
  timers.advance(25_000);
  assert.deepEqual(dead.sent, [{ notification: true, method: 'session' }]);
  timers.advance(5000);
  assert.notEqual(net.last, dead);
  net.last.accept();
  assert.deepEqual(events, ['open', 'resuming', 'resumed']);
});

test('a connection that answers stays', () => {
  const { net, timers } = open();
  for (let times = 0; times < 10; times += 1) {
    timers.advance(25_000);
    net.last.read();
  }
  assert.equal(net.sockets.length, 1);
});

test('while something is not acknowledged silence is asked about sooner', async () => {
  const { net, timers, transport } = open();
  timers.advance(20_000);
  await transport.send({ notification: true, method: 'm' });
  timers.advance(5000);
  assert.equal(net.last.sent.length, 2);
  net.last.read();
  timers.advance(20_000);
  assert.equal(net.last.sent.length, 0);
});

test('another network is used at once', () => {
  const { net, world, events } = open();
  world.dispatchEvent(new Event('online'));
  assert.equal(net.sockets.length, 1);
  world.dispatchEvent(new Event('offline'));
  assert.equal(net.sockets.length, 1);
  world.dispatchEvent(new Event('online'));
  assert.equal(net.sockets.length, 2);
  net.last.accept();
  assert.deepEqual(events, ['open', 'resuming', 'resumed']);
});

test('a network that comes back ends the pause between attempts', () => {
  const { net, world } = open();
  net.refuse = true;
  net.last.end();
  net.last.accept();
  const before = net.sockets.length;
  world.dispatchEvent(new Event('online'));
  assert.equal(net.sockets.length, before + 1);
});

// --- the whole ------------------------------------------------------------------------------------------------

test('whatever is cut, everything arrives once and in order, both ways', async () => {
  for (let seed = 1; seed <= 300; seed += 1) {
    let state = seed;
    const random = (below) => {
      state = (state * 1103515245 + 12345) % 2 ** 31;
      return Math.floor((state / 2 ** 31) * below);
    };
    const { net, timers, transport, events, messages } = open();
    let sent = 0;
    for (let step = 0; step < 120; step += 1) {
      const { last } = net;
      switch (random(7)) {
        case 0: case 1: sent += 1; await request(transport, sent); break;
        case 2: if (last.session) last.read(random(4)); break;
        case 3: if (last.session) last.push({ notification: true, method: 'n' }); break;
        case 4: if (!last.session && !last.closed) last.accept(); break;
        case 5: last.end([1006, 1012, 1001, 1013][random(4)]); break;
        default: timers.advance(random(300));
      }
    }
    timers.advance(2000);
    if (!net.last.session) net.last.accept();
    net.last.read();
    const { session } = net.last;
    assert.deepEqual(session.seen.map(({ data }) => data), Array.from({ length: sent }, (_, n) => n + 1), `seed ${seed}`);
    assert.deepEqual(numbers(session.seen), session.seen.map((_, n) => n + 1));
    assert.equal(messages.length, session.out.length, `seed ${seed}`);
    assert.deepEqual(messages.map(({ id }) => id), session.out.map(({ id }) => id));
    assert.deepEqual(new Set(events), new Set(['open', ...(events.includes('resumed') ? ['resuming', 'resumed'] : [])]));
    transport.close();
    assert.ok(timers.idle);
  }
});
