import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ResumableTransport } from '../src/resumable-transport.js';
import { Net, Page, Timers } from './world.js';

const protoo = await import('protoo-client').catch(() => null);

test('protoo’s own Peer notices nothing of a lost connection', { skip: !protoo && 'not installed' }, async () => {
  const net = new Net();
  const options = { WebSocket: net.WebSocket, timers: new Timers(), world: new Page() };
  const peer = new protoo.Peer(new ResumableTransport('wss://example.org/ws?roomId=r&peerName=p', options));
  const events = [];
  for (const event of ['open', 'disconnected', 'failed', 'close']) peer.on(event, () => events.push(event));
  const notifications = [];
  peer.on('notification', ({ method }) => notifications.push(method));
  net.last.accept();
  const before = peer.request('m', { n: 1 });
  await Promise.resolve();
  net.last.end();
  const during = peer.request('m', { n: 2 });
  await Promise.resolve();
  net.last.accept();
  net.last.read();
  net.last.push({ notification: true, method: 'hello' });
  assert.deepEqual(await Promise.all([before, during]), [{ n: 1 }, { n: 2 }]);
  assert.deepEqual(notifications, ['hello']);
  assert.deepEqual(events, ['open']);
  assert.equal(peer.connected, true);
  peer.close();
  assert.deepEqual(events, ['open', 'close']);
});
