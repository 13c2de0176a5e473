// An application of the two unmodified clients and nothing else: tests call it, and read what it has seen.

import * as mediasoupClient from 'mediasoup-client';
import protooClient from 'protoo-client';

import { ResumableTransport } from '../../../web/src/resumable-transport.js';

class App {
  constructor(url) {
    this.url = url;
    this.log = [];
    this.messages = [];
    this.tracks = new Map();
    this.videos = new Map();
    this.line = { resuming: 0, resumed: 0 };
    this.samples = [];
  }

  /** Connects and joins; `roomId`, `peerName`. A `resumable` one uses the other transport, and nothing else differs. */
  async join(roomId, peerName, { resumable = false, ...options } = {}) {
    const query = `roomId=${encodeURIComponent(roomId)}&peerName=${encodeURIComponent(peerName)}`;
    const Transport = resumable ? ResumableTransport : protooClient.WebSocketTransport;
    const transport = new Transport(`${this.url}/ws?${query}`);
    // What happens beneath the application.
    if (resumable) for (const event of Object.keys(this.line)) transport.on(event, () => (this.line[event] += 1));
    this.protoo = new protooClient.Peer(transport);
    this.#listen('socket', peerName, this.protoo);
    await new Promise((resolve, reject) => {
      this.protoo.on('open', resolve);
      this.protoo.on('failed', () => reject(new Error('connection failed')));
    });
    this.room = new mediasoupClient.Room({ requestTimeout: 15000, ...options });
    this.room.on('request', (request, done, failed) => this.protoo.request('mediasoup-request', request).then(done, failed));
    this.room.on('notify', (notification) => this.protoo.notify('mediasoup-notification', notification));
    this.protoo.on('notification', ({ method, data }) => {
      if (method === 'mediasoup-notification') this.room.receiveNotification(data);
      else this.messages.push({ method, data });
    });
    this.#listen('room', roomId, this.room);
    this.room.on('newpeer', (peer) => this.#peer(peer));
    const peers = await this.room.join(peerName, { device: 'test' });
    for (const peer of peers) this.#peer(peer);
    return peers.map(({ name }) => name);
  }

  async transports() {
    this.send = this.room.createTransport('send', { tcp: false });
    this.recv = this.room.createTransport('recv', { tcp: false });
    this.#listen('transport', 'send', this.send);
    this.#listen('transport', 'recv', this.recv);
  }

  async track(kind) {
    const constraints = kind === 'audio' ? { audio: true } : { video: { width: 1280, height: 720 } };
    const [track] = (await navigator.mediaDevices.getUserMedia(constraints)).getTracks();
    this.tracks.set(kind, track);
    return track;
  }

  /** Sends a camera or microphone; the producer is then `app.producers[kind]`. */
  async produce(kind, { simulcast = false, appData = { kind } } = {}) {
    const track = await this.track(kind);
    const producer = this.room.createProducer(track, { simulcast }, appData);
    this.producers = { ...this.producers, [kind]: producer };
    this.#listen('producer', kind, producer);
    await producer.send(this.send);
    if (simulcast) await this.#scale(producer.track);
    return producer.id;
  }

  /** Each layer half as large as the next: what today's Chromium no longer does by itself. */
  async #scale(track) {
    const sender = this.send.handler._pc.getSenders().find((candidate) => candidate.track === track);
    const parameters = sender.getParameters();
    const layers = [[4, 100_000], [2, 300_000], [1, 1_500_000]].slice(-parameters.encodings.length);
    parameters.encodings.forEach((encoding, n) => {
      [encoding.scaleResolutionDownBy, encoding.maxBitrate] = layers[n];
    });
    await sender.setParameters(parameters);
  }

  /** Receives what the other sends of a kind; returns the consumer's id. */
  async receive(peerName, kind) {
    const consumer = this.consumer(peerName, kind);
    const track = await consumer.receive(this.recv);
    const element = document.body.appendChild(document.createElement(kind));
    element.autoplay = true;
    element.muted = true;
    element.srcObject = new MediaStream([track]);
    this.videos.set(`${peerName}/${kind}`, element);
    return consumer.id;
  }

  consumer(peerName, kind) {
    const peer = this.room.getPeerByName(peerName);
    return peer?.consumers.find((candidate) => candidate.kind === kind && !candidate.closed) ?? null;
  }

  /** {packets, frames, width} of what is received of the other. */
  async received(peerName, kind) {
    const { rtpParameters } = this.consumer(peerName, kind);
    const reports = [...(await this.recv.handler._pc.getStats()).values()];
    const report = reports.find(({ type, ssrc }) => type === 'inbound-rtp' && ssrc === rtpParameters.encodings[0].ssrc);
    return { packets: report?.packetsReceived ?? 0, frames: report?.framesDecoded ?? 0, width: report?.frameWidth ?? 0 };
  }

  /** From now on, each other second, what has been received of the other is put into `samples`. */
  async watch(peerName) {
    for (;;) {
      const [video, audio] = [await this.received(peerName, 'video'), await this.received(peerName, 'audio')];
      this.samples.push({ frames: video.frames, video: video.packets, audio: audio.packets });
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }

  /** ICE credentials the server answers with now, of a transport ('send' or 'recv'). */
  remoteFragment(direction) {
    return this[direction].handler._pc.remoteDescription.sdp.match(/a=ice-ufrag:(\S+)/)[1];
  }

  seen(object, name, event) {
    return this.log.filter((entry) => entry.object === object && entry.name === name && entry.event === event);
  }

  close() {
    this.protoo.close();
  }

  #peer(peer) {
    this.#listen('peer', peer.name, peer);
    for (const consumer of peer.consumers) this.#consumer(peer, consumer);
    peer.on('newconsumer', (consumer) => this.#consumer(peer, consumer));
  }

  #consumer(peer, consumer) {
    this.#listen('consumer', `${peer.name}/${consumer.kind}`, consumer);
  }

  /** Notes whatever it emits, but for the libraries' own (`@…`) and what is on its way to the server. */
  #listen(object, name, emitter) {
    const emit = emitter.emit;
    emitter.emit = (event, ...data) => {
      const outgoing = object === 'room' && (event === 'request' || event === 'notify');
      if (!event.startsWith('@') && !outgoing) this.#note(object, name, event, data);
      return emit.call(emitter, event, ...data);
    };
  }

  #note(object, name, event, data) {
    const plain = data.map((value) => {
      try {
        return structuredClone(value);
      } catch {
        return value?.name ?? value?.id ?? String(value);
      }
    });
    this.log.push({ object, name, event, data: plain });
  }
}

window.App = App;
