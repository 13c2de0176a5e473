'use strict';

/**
 * The far end of the library's channel: no media, but the answers and events that the engine's own sources promise.
 *
 * Requests are carried out one after another; what comes of one is delivered message by message, events before the
 * answer, each in a turn of its own, as it would come from another process.
 */

const { EventEmitter } = require('node:events');

const PROFILES = ['default', 'low', 'medium', 'high'];
const LAYERS = ['low', 'medium', 'high'];
const FINGERPRINTS = ['sha-1', 'sha-224', 'sha-256', 'sha-384', 'sha-512'];
const LOCAL_ROLE = { auto: 'client', client: 'server', server: 'client' };

class Refused extends Error {}

class Engine extends EventEmitter {
  constructor() {
    super();
    this.setMaxListeners(0);
    this.transports = new Map();
    this.producers = new Map();
    this.consumers = new Map();
    /** Channel method that is refused although nothing is wrong with it. */
    this.refusing = null;
    this._requests = [];
    this._messages = [];
    this._running = null;
  }

  /** What the library calls. */
  request(method, internal, data) {
    return new Promise((resolve, reject) => {
      // The library goes on to change what it passes; on a real channel it is serialised here.
      const [ids, body] = JSON.parse(JSON.stringify([internal, data ?? null]));
      this._requests.push({ method, ids, body, resolve, reject });
      this._run();
    });
  }

  /** Until nothing is under way, here or in the library. */
  async settle() {
    do {
      await this._running;
      await turn();
    } while (this._running);
  }

  /** The stream that a consumer gets has changed. */
  changeProfile(consumerId, profile) {
    const consumer = this.consumers.get(consumerId);
    if (consumer?.transport) this._report(consumerId, 'effectiveprofilechange', { profile });
    this._run();
  }

  /** What it carries, by the clients' ids; of the consumers those that are enabled. */
  picture() {
    const transports = Object.fromEntries([...this.transports].map(([id, { connected }]) => [id, { connected }]));
    const producers = Object.fromEntries(
      [...this.producers].map(([id, { paused, transport }]) => [id, { paused, transport: transport.id }]),
    );
    const consumers = Object.fromEntries(
      [...this.consumers.values()]
        .filter(({ transport }) => transport)
        .map(({ producer, transport, paused, profile }) => [
          `${producer.id} over ${transport.id}`,
          { paused, profile },
        ]),
    );
    return { transports, producers, consumers };
  }

  _run() {
    this._running ??= this._work().finally(() => {
      this._running = null;
    });
  }

  async _work() {
    await turn();
    while (this._messages.length || this._requests.length) {
      if (!this._messages.length) this._carryOut(this._requests.shift());
      this._messages.shift()();
      await turn();
    }
  }

  _carryOut({ method, ids, body, resolve, reject }) {
    try {
      if (method === this.refusing) throw new Refused(`${method} refused`);
      const answer = METHODS[method](this, ids, body);
      this._messages.push(() => resolve(answer));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this._messages.push(() => reject(error));
    }
  }

  _report(id, event, data) {
    this._messages.push(() => this.emit(id, event, data));
  }

  _closeProducer(producer) {
    this.producers.delete(producer.id);
    producer.transport.producers.delete(producer);
    for (const consumer of producer.consumers) this._closeConsumer(consumer);
  }

  _closeConsumer(consumer) {
    this.consumers.delete(consumer.id);
    consumer.producer.consumers.delete(consumer);
    consumer.transport?.consumers.delete(consumer);
    this._report(consumer.id, 'close');
  }

  _setPaused(producer, paused) {
    if (producer.paused === paused) return;
    producer.paused = paused;
    for (const consumer of producer.consumers) {
      this._report(consumer.id, paused ? 'sourcepaused' : 'sourceresumed');
    }
  }
}

const METHODS = {
  'router.createWebRtcTransport'(engine, { transportId: id }) {
    mustBeNew(engine.transports, id, 'transport');
    engine.transports.set(id, { id, connected: false, restarts: 0, producers: new Set(), consumers: new Set() });
    return {
      iceRole: 'controlled',
      iceLocalParameters: { usernameFragment: 'fragment0', password: 'password', iceLite: true },
      iceLocalCandidates: [
        { foundation: '1', priority: 1, ip: '192.0.2.1', protocol: 'udp', port: 40000, type: 'host' },
      ],
      iceState: 'new',
      dtlsLocalParameters: { role: 'auto', fingerprints: [{ algorithm: 'sha-256', value: 'CC:DD' }] },
      dtlsState: 'new',
    };
  },

  'transport.setRemoteDtlsParameters'(engine, { transportId }, body) {
    const transport = find(engine.transports, transportId, 'transport');
    if (transport.connected) throw new Refused('already connected');
    if (!Array.isArray(body?.fingerprints)) throw new Refused('no fingerprints');
    if (!body.fingerprints.some(({ algorithm }) => FINGERPRINTS.includes(algorithm))) {
      throw new Refused('no known fingerprint algorithm');
    }
    const role = LOCAL_ROLE[body.role ?? 'auto'];
    if (!role) throw new Refused('unknown role');
    transport.connected = true;
    return { role };
  },

  'transport.changeUfragPwd'(engine, { transportId }) {
    const transport = find(engine.transports, transportId, 'transport');
    transport.restarts += 1;
    return { usernameFragment: `fragment${transport.restarts}`, password: 'password' };
  },

  'transport.getStats'(engine, { transportId }) {
    find(engine.transports, transportId, 'transport');
    return [];
  },

  'transport.close'(engine, { transportId }) {
    const transport = find(engine.transports, transportId, 'transport');
    engine.transports.delete(transportId);
    for (const producer of transport.producers) engine._closeProducer(producer);
    for (const consumer of transport.consumers) consumer.transport = null;
    engine._report(transportId, 'close');
  },

  'router.createProducer'(engine, { producerId: id, transportId }, body) {
    mustBeNew(engine.producers, id, 'producer');
    const transport = find(engine.transports, transportId, 'transport');
    checkRtpParameters(body.rtpParameters);
    const ssrcs = body.rtpParameters.encodings.flatMap(({ ssrc, rtx }) => [ssrc, rtx?.ssrc].filter(Boolean));
    const taken = [...transport.producers].flatMap((producer) => producer.ssrcs);
    if (new Set([...taken, ...ssrcs]).size < taken.length + ssrcs.length) throw new Refused('SSRC in use');
    const producer = { id, transport, ssrcs, paused: body.paused === true, consumers: new Set() };
    engine.producers.set(id, producer);
    transport.producers.add(producer);
  },

  'producer.pause'(engine, { producerId }) {
    engine._setPaused(find(engine.producers, producerId, 'producer'), true);
  },

  'producer.resume'(engine, { producerId }) {
    engine._setPaused(find(engine.producers, producerId, 'producer'), false);
  },

  'producer.getStats'(engine, { producerId }) {
    find(engine.producers, producerId, 'producer');
    return [];
  },

  'producer.close'(engine, { producerId }) {
    engine._closeProducer(find(engine.producers, producerId, 'producer'));
  },

  'router.createConsumer'(engine, { consumerId: id, producerId }) {
    mustBeNew(engine.consumers, id, 'consumer');
    const producer = find(engine.producers, producerId, 'producer');
    const consumer = { id, producer, transport: null, paused: false, profile: 'default' };
    engine.consumers.set(id, consumer);
    producer.consumers.add(consumer);
    if (producer.paused) engine._report(id, 'sourcepaused');
  },

  'consumer.enable'(engine, { consumerId, transportId }, body) {
    const consumer = find(engine.consumers, consumerId, 'consumer');
    const transport = find(engine.transports, transportId, 'transport');
    checkRtpParameters(body.rtpParameters);
    consumer.transport = transport;
    transport.consumers.add(consumer);
  },

  'consumer.pause'(engine, { consumerId }) {
    find(engine.consumers, consumerId, 'consumer').paused = true;
  },

  'consumer.resume'(engine, { consumerId }) {
    find(engine.consumers, consumerId, 'consumer').paused = false;
  },

  'consumer.setPreferredProfile'(engine, { consumerId }, body) {
    const consumer = find(engine.consumers, consumerId, 'consumer');
    if (!PROFILES.includes(body?.profile)) throw new Refused('unknown profile');
    consumer.profile = body.profile;
  },

  'consumer.getStats'(engine, { consumerId }) {
    find(engine.consumers, consumerId, 'consumer');
    return [];
  },

  'consumer.close'(engine, { consumerId }) {
    engine._closeConsumer(find(engine.consumers, consumerId, 'consumer'));
  },

  'router.close'(engine) {
    for (const producer of engine.producers.values()) engine._closeProducer(producer);
    for (const id of engine.transports.keys()) engine._report(id, 'close');
    engine.transports.clear();
  },
};

function isUint(value) {
  return Number.isInteger(value) && value >= 0 && value <= 0xffffffff;
}

function mustBeNew(objects, id, what) {
  if (!isUint(id)) throw new Refused(`${what} id is no number`);
  if (objects.has(id)) throw new Refused(`${what} exists`);
}

function find(objects, id, what) {
  const object = objects.get(id);
  if (!object) throw new Refused(`no such ${what}`);
  return object;
}

function checkRtpParameters(parameters) {
  const { codecs, encodings } = parameters ?? {};
  if (!Array.isArray(codecs) || !codecs.length) throw new Refused('no codecs');
  const payloadTypes = new Set();
  for (const codec of codecs) {
    if (typeof codec.mimeType !== 'string') throw new Refused('a codec without mimeType');
    if (!isUint(codec.payloadType) || !isUint(codec.clockRate)) throw new Refused('a codec without numbers');
    if (payloadTypes.has(codec.payloadType)) throw new Refused('a payload type twice');
    payloadTypes.add(codec.payloadType);
  }
  if (codecs.every(({ mimeType }) => /\/rtx$/i.test(mimeType))) throw new Refused('nothing but rtx');
  if (!Array.isArray(encodings) || !encodings.length) throw new Refused('no encodings');
  const profiles = encodings.map(({ profile }) => profile ?? 'default');
  if (encodings.some(({ profile }) => typeof profile === 'string' && !LAYERS.includes(profile))) {
    throw new Refused('unknown profile');
  }
  if (new Set(profiles).size < profiles.length) throw new Refused('a profile twice');
  if (encodings.length === 1 && profiles[0] !== 'default') throw new Refused('a profile without simulcast');
}

function turn() {
  return new Promise((resolve) => setImmediate(resolve));
}

module.exports = { Engine };
