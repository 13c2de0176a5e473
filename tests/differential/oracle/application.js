'use strict';

/** A server application over the library's objects: one room, a connection per peer, and what each was sent. */

const { Engine } = require('./engine');

// Periodic statistics never come due here; the first ones do not wait for the interval.
global.setInterval = () => ({});

const utils = require('mediasoup/lib/utils');
const Room = require('mediasoup/lib/Room');

const MAIN_REQUEST = {
  createTransport: 'router.createWebRtcTransport',
  updateTransport: 'transport.setRemoteDtlsParameters',
  restartTransport: 'transport.changeUfragPwd',
  createProducer: 'router.createProducer',
  enableConsumer: 'consumer.enable',
};
const OF_THE_ROOM = ['queryRoom', 'join'];
const NO_SUCH_CONSUMER = 99999;

class Application {
  constructor(rtpCapabilities) {
    // Unlike drawn ones these never collide, and a sequence always runs the same.
    let ids = 10000000;
    utils.randomNumber = () => ++ids;

    this._connections = new Map();
    this._engine = new Engine();
    this._room = new Room({ routerId: 1 }, { rtpCapabilities }, this._engine);
    this._room.on('newpeer', (peer) => this._attach(peer));
    this._uncaught = [];
    this._onUncaught = (error) => this._uncaught.push(String(error));
    process.on('unhandledRejection', this._onUncaught);
  }

  close() {
    process.off('unhandledRejection', this._onUncaught);
  }

  /** Carries one operation out. Tells what every peer was sent by it, in order, and what the engine then carries. */
  async perform(operation) {
    this._engine.refusing = operation.refuse ? MAIN_REQUEST[operation.message.method] : null;
    const connection = operation.peer === undefined ? null : this._connection(operation.peer);
    try {
      this._start(operation, connection);
    } catch (error) {
      this._uncaught.push(String(error));
    }
    await this._engine.settle();
    this._engine.refusing = null;

    const frames = {};
    for (const { name, sent } of this._connections.values()) {
      if (sent.length) frames[name] = sent.splice(0).map((frame) => JSON.parse(frame));
    }
    return { frames, engine: this._engine.picture(), uncaught: this._uncaught.splice(0) };
  }

  _start(operation, connection) {
    const { peer } = connection ?? {};
    switch (operation.do) {
      case 'request':
        this._answer(connection, () => this._request(connection, this._resolved(connection, operation.message)));
        break;
      case 'notify':
        this._notify(connection, this._resolved(connection, operation.message)).catch(() => {});
        break;
      case 'notifyAsRequest':
        this._answer(connection, () => this._notify(connection, this._resolved(connection, operation.message)));
        break;
      case 'disconnect':
      case 'replace':
        this._connections.delete(connection.name);
        peer?.close();
        break;
      case 'profile':
        this._engine.changeProfile(consumerId(connection, operation.consumer), operation.profile);
        break;
      case 'closeRoom':
        this._room.close(operation.appData);
        break;
      case 'closePeer':
        peer?.close(operation.appData);
        break;
      case 'closeTransport':
        peer?.getTransportById(operation.id)?.close(operation.appData);
        break;
      case 'pauseProducer':
        peer?.getProducerById(operation.id)?.pause(operation.appData);
        break;
      case 'resumeProducer':
        peer?.getProducerById(operation.id)?.resume(operation.appData);
        break;
      case 'closeProducer':
        peer?.getProducerById(operation.id)?.close(operation.appData);
        break;
      case 'pauseConsumer':
        peer?.getConsumerById(consumerId(connection, operation.consumer))?.pause(operation.appData);
        break;
      case 'resumeConsumer':
        peer?.getConsumerById(consumerId(connection, operation.consumer))?.resume(operation.appData);
        break;
      case 'setConsumerPreferredProfile':
        peer?.getConsumerById(consumerId(connection, operation.consumer))?.setPreferredProfile(operation.profile);
        break;
      default:
        throw new Error(`unknown operation ${operation.do}`);
    }
  }

  _connection(name) {
    if (!this._connections.has(name)) this._connections.set(name, { name, peer: null, sent: [], consumers: [] });
    return this._connections.get(name);
  }

  _attach(peer) {
    const connection = this._connection(peer.name);
    connection.peer = peer;
    connection.consumers = [];
    peer.on('close', () => {
      if (connection.peer === peer) connection.peer = null;
    });
    peer.on('notify', (notification) => {
      const frame = { notification };
      if (notification.method === 'newConsumer') {
        connection.consumers.push(notification.id);
        frame.sourcesPaused = [peer.getConsumerById(notification.id).source.paused];
      }
      connection.sent.push(JSON.stringify(frame));
    });
  }

  async _answer(connection, handle) {
    let frame;
    try {
      const data = await handle();
      frame = { answer: { ok: true, data: data ?? {} } };
      if (data?.peers) this._joined(connection, data, frame);
    } catch (error) {
      frame = { answer: { ok: false, error: String(error) } };
    }
    connection.sent.push(JSON.stringify(frame));
  }

  _joined(connection, { peers }, frame) {
    connection.consumers = peers.flatMap(({ consumers }) => consumers.map(({ id }) => id));
    frame.sourcesPaused = connection.consumers.map((id) => connection.peer?.getConsumerById(id).source.paused);
  }

  async _request(connection, message) {
    if (OF_THE_ROOM.includes(message?.method)) return this._room.receiveRequest(message);
    if (!connection.peer) throw new Error('not joined');
    return connection.peer.receiveRequest(message);
  }

  async _notify(connection, message) {
    if (!connection.peer) throw new Error('not joined');
    await connection.peer.receiveNotification(message);
  }

  _resolved(connection, message) {
    if (message?.id?.$consumer === undefined) return message;
    return { ...message, id: consumerId(connection, message.id.$consumer) };
  }
}

/** The id of the n-th consumer that the peer was told of since it joined. */
function consumerId(connection, n) {
  return connection.consumers[n] ?? NO_SUCH_CONSUMER;
}

module.exports = { Application };
