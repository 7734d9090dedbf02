// Figures as the service tells them by itself (server-sent events), for as long as somebody looks. They are read by
// `fetch`: the browser's own reader cannot send a token but in the address.

import { stream } from "./api.js";

/** Comments come every 15 s: a stream that is quiet for so long is dead, in milliseconds. */
const DEAD_AFTER = 40_000;
/** Before a stream that ended is opened again, in milliseconds; after each one that could not be opened twice that. */
const AGAIN_AFTER = 1_000;
const LONGEST = 60_000;

export class Live {
  /** @type {AbortController | undefined} */
  #reading;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #failures = 0;
  #path = "";
  #id = "";
  #isStopped = true;
  /** Whether the service tells by itself now. */
  isOpen = false;

  /**
   * @param {(name: string, data: any, isFirst: boolean) => void} onEvent `isFirst`: nothing that was told before counts
   * @param {() => void} onChange it was opened, or has ended
   */
  constructor(onEvent, onChange) {
    this.onEvent = onEvent;
    this.onChange = onChange;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#end() : this.#begin()));
  }

  /** Reads `path` from now on. @param {string} path */
  follow(path) {
    this.#isStopped = false;
    if (path === this.#path && (this.#reading || this.#timer)) return;
    if (path !== this.#path) this.#id = "";
    this.#path = path;
    this.#end();
    this.#begin();
  }

  stop() {
    this.#isStopped = true;
    this.#id = "";
    this.#end();
  }

  #end() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#reading?.abort();
    this.#reading = undefined;
    this.#tell(false);
  }

  #begin() {
    if (this.#isStopped || document.hidden || this.#reading) return;
    const reading = new AbortController();
    this.#reading = reading;
    void this.#read(reading).then(() => {
      if (this.#reading !== reading) return;
      this.#end();
      const pause = Math.min(LONGEST, AGAIN_AFTER * 2 ** this.#failures);
      this.#failures += 1;
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#begin();
      }, pause);
    });
  }

  /** Until it ends, however it does: whoever polls meanwhile tells what is wrong. @param {AbortController} reading */
  async #read(reading) {
    let alarm = setTimeout(() => reading.abort(), DEAD_AFTER);
    try {
      const body = await stream(this.#path, reading.signal, this.#id);
      const reader = body.getReader();
      const decoder = new TextDecoder();
      let unread = "";
      let isFirst = true;
      for (;;) {
        const { done, value } = await reader.read();
        if (done || reading.signal.aborted) return;
        clearTimeout(alarm);
        alarm = setTimeout(() => reading.abort(), DEAD_AFTER);
        const blocks = (unread + decoder.decode(value, { stream: true })).split("\n\n");
        unread = blocks.pop() ?? "";
        this.#failures = 0;
        this.#tell(true);
        for (const block of blocks) isFirst = this.#take(block, isFirst);
      }
    } catch {
      // As above.
    } finally {
      clearTimeout(alarm);
    }
  }

  /** @param {string} block @param {boolean} isFirst @returns {boolean} whether the next figures are the first */
  #take(block, isFirst) {
    const lines = block.split("\n").map((line) => /^(\w*): ?(.*)$/.exec(line) ?? ["", "", ""]);
    const { event, id, data } = Object.fromEntries(lines.map(([, name, value]) => [name, value]));
    if (id) this.#id = id;
    this.onEvent(event ?? "", data === undefined ? undefined : JSON.parse(data), isFirst);
    // Where nothing has changed since the last id no figures come first: then what was told before counts.
    return isFirst && !event;
  }

  /** @param {boolean} isOpen */
  #tell(isOpen) {
    if (isOpen === this.isOpen) return;
    this.isOpen = isOpen;
    this.onChange();
  }
}
