/** What protoo-client's `Peer` needs of Node's EventEmitter. A listener that throws harms no other. */
export class Emitter {
  #listeners = new Map();

  on(event, listener) {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
    return this;
  }

  addListener(event, listener) {
    return this.on(event, listener);
  }

  once(event, listener) {
    const one = (...args) => {
      this.off(event, one);
      listener(...args);
    };
    one.listener = listener;
    return this.on(event, one);
  }

  off(event, listener) {
    const others = this.#of(event).filter((one) => one !== listener && one.listener !== listener);
    this.#listeners.set(event, others);
    return this;
  }

  removeListener(event, listener) {
    return this.off(event, listener);
  }

  removeAllListeners(event) {
    if (event === undefined) this.#listeners.clear();
    else this.#listeners.delete(event);
    return this;
  }

  listenerCount(event) {
    return this.#of(event).length;
  }

  emit(event, ...args) {
    const listeners = this.#of(event);
    for (const listener of listeners) {
      try {
        listener(...args);
      } catch (error) {
        (globalThis.reportError ?? console.error)(error);
      }
    }
    return listeners.length > 0;
  }

  #of(event) {
    return this.#listeners.get(event) ?? [];
  }
}
