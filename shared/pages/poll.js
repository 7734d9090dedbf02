// Work done again and again while somebody looks: not in a hidden tab, and more slowly while it fails.

import { Refused } from "./api.js";

/** The longest pause after failures, in milliseconds. */
const LONGEST = 15_000;

export class Poll {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #failures = 0;
  #isRunning = false;
  #isAskedAgain = false;
  #isStopped = true;

  /**
   * @param {() => Promise<void>} work
   * @param {number} every milliseconds
   * @param {(failure: unknown) => void} onFailure
   */
  constructor(work, every, onFailure) {
    this.work = work;
    this.every = every;
    this.onFailure = onFailure;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#rest() : this.now()));
  }

  start() {
    this.#isStopped = false;
    this.now();
  }

  stop() {
    this.#isStopped = true;
    this.#rest();
  }

  /** At once, and then again after the pause. */
  now() {
    if (this.#isStopped) return;
    this.#rest();
    this.#isAskedAgain = this.#isRunning;
    if (!this.#isRunning) void this.#run();
  }

  #rest() {
    clearTimeout(this.#timer);
  }

  async #run() {
    this.#isRunning = true;
    let pause = this.every;
    try {
      await this.work();
      this.#failures = 0;
    } catch (failure) {
      this.#failures += 1;
      const asked = failure instanceof Refused ? failure.retryAfter * 1000 : 0;
      pause = Math.max(asked, Math.min(LONGEST, Math.max(this.every, 500) * 2 ** Math.min(this.#failures - 1, 5)));
      this.onFailure(failure);
    } finally {
      // It goes on, whatever that was, and also where whoever is told of it throws it on.
      this.#isRunning = false;
      if (this.#isAskedAgain) {
        this.#isAskedAgain = false;
        this.now();
      } else if (!this.#isStopped && !document.hidden) {
        this.#timer = setTimeout(() => this.now(), pause);
      }
    }
  }
}
