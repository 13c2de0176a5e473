'use strict';

/**
 * What Plenary is compared with: one process with protoo-server 4 and the room objects of mediasoup 2, everything in
 * memory. The channel to the media engine accepts all there is, so only signaling is measured.
 *
 *     node [--expose-gc] main.js RTP_CAPABILITIES        (JSON; prints the port it listens on)
 *
 * SIGUSR2 collects garbage and then prints "collected".
 */

const { EventEmitter } = require('node:events');
const http = require('node:http');
const protoo = require('protoo-server');
const MediaRoom = require('mediasoup/lib/Room');
const { randomNumber } = require('mediasoup/lib/utils');

const OF_THE_ROOM = new Set(['queryRoom', 'join']);
const ANSWERS = {
  'router.createWebRtcTransport': () => ({
    iceRole: 'controlled',
    iceLocalParameters: { usernameFragment: 'fragment', password: 'password', iceLite: true },
    iceLocalCandidates: [{ foundation: 'udp', priority: 1, ip: '127.0.0.1', protocol: 'udp', port: 40000, type: 'host' }],
    iceState: 'new',
    dtlsLocalParameters: { role: 'auto', fingerprints: [{ algorithm: 'sha-256', value: 'CC:DD' }] },
    dtlsState: 'new',
  }),
  'transport.setRemoteDtlsParameters': () => ({ role: 'server' }),
  'transport.changeUfragPwd': () => ({ usernameFragment: 'fragment', password: 'password' }),
};

class AcceptingChannel extends EventEmitter {
  constructor() {
    super();
    this.setMaxListeners(0);
  }

  async request(method) {
    return ANSWERS[method]?.();
  }
}

class Room {
  constructor(name, rtpCapabilities) {
    this._media = new MediaRoom({ routerId: randomNumber() }, { rtpCapabilities }, new AcceptingChannel());
    this._protoo = new protoo.Room();
    this._media.on('newpeer', (media) => this._joined(this._protoo.getPeer(media.name), media));
  }

  get empty() {
    return this._protoo.peers.length === 0;
  }

  add(name, transport) {
    const peer = this._protoo.createPeer(name, transport);
    peer.on('request', (request, accept, reject) => {
      this._answer(peer, request).then(accept, (error) => reject(500, String(error)));
    });
    peer.on('notification', ({ method, data }) => {
      if (method === 'message') this._relay(peer, data);
      else peer.data.media?.receiveNotification(data).catch(() => {});
    });
    peer.on('close', () => peer.data.media?.close());
    return peer;
  }

  close() {
    this._media.close();
    this._protoo.close();
  }

  async _answer(peer, { method, data }) {
    if (method === 'message') return this._relay(peer, data);
    if (!OF_THE_ROOM.has(data.method)) {
      if (!peer.data.media) throw new Error('join first');
      return peer.data.media.receiveRequest(data);
    }
    return this._media.receiveRequest(data);
  }

  _joined(peer, media) {
    peer.data.media = media;
    media.on('notify', (notification) => {
      peer.notify('mediasoup-notification', notification).catch(() => {});
    });
  }

  _relay(peer, { to, data }) {
    const others = to === undefined ? this._protoo.peers : [this._protoo.getPeer(to)].filter(Boolean);
    if (to !== undefined && !others.length) throw new Error(`no peer ${to}`);
    for (const other of others) {
      if (other !== peer) other.notify('message', { from: peer.id, data }).catch(() => {});
    }
  }
}

function main(rtpCapabilities) {
  const rooms = new Map();
  const httpServer = http.createServer();
  const server = new protoo.WebSocketServer(httpServer, { maxReceivedFrameSize: 1 << 20 });
  server.on('connectionrequest', (info, accept) => {
    const query = new URL(info.request.url, 'http://localhost').searchParams;
    const name = query.get('roomId');
    if (!rooms.has(name)) rooms.set(name, new Room(name, rtpCapabilities));
    const room = rooms.get(name);
    const peer = room.add(query.get('peerName'), accept());
    peer.on('close', () => {
      if (!room.empty || rooms.get(name) !== room) return;
      rooms.delete(name);
      room.close();
    });
  });
  httpServer.listen(0, '127.0.0.1', () => process.stdout.write(`${httpServer.address().port}\n`));
  process.on('SIGUSR2', () => {
    global.gc?.();
    process.stdout.write('collected\n');
  });
}

main(JSON.parse(process.argv[2]));
