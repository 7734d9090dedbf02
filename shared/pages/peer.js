// The other service, asked with the same token. It may be away, or take no token of this one: then its part of a page
// is left out and the reason said, and this service's part stays.

import { Refused, getFrom } from "./api.js";

/** Questions that are left out after one that failed, so that a service that is away is not asked all the time. */
const LEFT_OUT = 5;

export class Peer {
  #leftOut = 0;
  /** Why it is not asked now; empty where nothing is wrong. */
  problem = "";

  /** @param {import("./session.js").Settings} settings */
  constructor({ service, peerUrl }) {
    this.service = service === "order-service" ? "activity-service" : "order-service";
    this.url = peerUrl?.replace(/\/$/, "") ?? null;
  }

  /** @param {string} path @returns {Promise<any>} */
  get(path) {
    if (this.url === null) throw new Refused("The setting pages.peer_url does not say where it is.", 0);
    return getFrom(`${this.url}/${path}`);
  }

  /**
   * What is asked again and again: null where there is no answer, for now.
   * @template Answer
   * @param {() => Promise<Answer>} question
   * @returns {Promise<Answer | null>}
   */
  async ifThere(question) {
    if (this.url === null || this.#leftOut-- > 0) return null;
    try {
      const answer = await question();
      this.#leftOut = 0;
      this.problem = "";
      return answer;
    } catch (failure) {
      if (!(failure instanceof Refused)) throw failure;
      this.#leftOut = LEFT_OUT;
      this.problem = failure.message;
      return null;
    }
  }
}
