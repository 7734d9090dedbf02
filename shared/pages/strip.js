// A few numbers that are always in sight, of both services. What needs somebody is marked by a word and a sign, not by
// colour alone. What is not known has a dash.

import { get } from "./api.js";
import { byId, h } from "./dom.js";
import { count, decimal, duration } from "./format.js";

/**
 * @typedef {object} Tile
 * @property {string} name
 * @property {string} value
 * @property {string} [note]
 * @property {boolean} [isBad]
 */

/** The rate of orders is that of so many milliseconds: numbers that are up to 5 s old make a shorter one jump. */
const RATE_OVER = 60_000;
/** As many seconds of waiting want somebody: where alerts begin too. */
const LONG = 60;

/** The numbers of newest orders, and when they were told. @type {{at: number, number: number}[]} */
let seen = [];

/** @param {number | null | undefined} value */
const known = (value) => (value === null || value === undefined ? "–" : count(value));
/** @param {number | null | undefined} seconds */
const age = (seconds) => (seconds ? duration(seconds) : "–");

/** Orders a second, as the newest order's number grows. @param {number | null} number */
function rate(number) {
  if (number === null) return "–";
  const at = performance.now();
  seen = [...seen.filter((one) => at - one.at <= RATE_OVER && one.number <= number), { at, number }];
  const seconds = (at - seen[0].at) / 1000;
  return seconds < 1 ? "–" : decimal((number - seen[0].number) / seconds);
}

/** @param {any} now as order-service tells it @param {any[] | null} instances @returns {Tile[]} */
function ofOrders(now, instances) {
  const waits = now.unannounced > 0;
  return [
    { name: "Orders a second", value: rate(now.lastOrderNumber) },
    { name: "Unannounced", value: known(now.unannounced) },
    { name: "Oldest of them", value: waits ? age(now.oldestUnannouncedAgeSeconds) : "–", isBad: now.oldestUnannouncedAgeSeconds > LONG },
    { name: "Failed", value: known(now.failed), isBad: now.failed > 0 },
    { name: "Queue", value: known(now.queueLength), note: `of ${known(now.queueCapacity)}` },
    { name: "Kafka", value: now.outage === null ? "–" : now.outage ? "Away" : "Takes all", isBad: now.outage === true },
    ...(instances ? [ofInstances(instances)] : []),
  ];
}

/** @param {any[]} instances @returns {Tile} */
function ofInstances(instances) {
  const number = (/** @type {string} */ state) => instances.filter((one) => one.state === state).length;
  const [gone, ended] = [number("gone"), number("ended")];
  const note = ["publishing", gone > 0 && `${count(gone)} gone`, ended > 0 && `${count(ended)} ended`].filter(Boolean).join(", ");
  return { name: "Instances", value: count(number("publishing")), note, isBad: gone > 0 || number("publishing") === 0 };
}

/** @param {any} now as activity-service tells it @returns {Tile[]} */
function ofCounting(now) {
  return [
    { name: "Not counted yet", value: known(now.lagMessages), note: "of one instance" },
    { name: "Figures complete", value: age(now.freshnessSeconds), note: now.freshnessSeconds ? "ago" : "", isBad: now.freshnessSeconds > LONG },
    { name: "In quarantine", value: known(now.quarantined), isBad: now.quarantined > 0 },
    { name: "Longest there", value: now.quarantined > 0 ? age(now.oldestQuarantinedAgeSeconds) : "–" },
    { name: "Open gaps", value: known(now.openGaps), note: "lost before counted", isBad: now.openGaps > 0 },
  ];
}

/** What is said of the other service where it does not answer. @param {import("./peer.js").Peer} peer @returns {Tile[]} */
function ofPeer({ service, problem }) {
  return problem ? [{ name: service, value: "No answer", note: problem, isBad: true }] : [];
}

/** Instances are asked for with every so manieth question: they are read from the tables, as seldom as scrapes do it. */
const INSTANCES_EVERY = 3;

export class Strip {
  #asked = 0;
  #isAskingPeer = false;
  /** The last answers, of both services. @type {any} */
  #own = null;
  /** @type {any} */
  #others = null;
  /** Those of order-service, whoever asks. @type {any[] | null} */
  instances = null;

  /** @param {import("./session.js").Settings} settings @param {import("./peer.js").Peer} peer */
  constructor(settings, peer) {
    this.isOfOrders = settings.service === "order-service";
    this.peer = peer;
  }

  /** @returns {Promise<any>} the overview of this service */
  async load() {
    const wantsInstances = this.#asked++ % INSTANCES_EVERY === 0;
    const ask = (/** @type {(path: string) => Promise<any>} */ get, /** @type {boolean} */ isOfOrders) =>
      Promise.all([get("admin/overview"), wantsInstances && isOfOrders ? get("admin/instances") : this.instances]);
    // The other service may take its time: this page does not wait for it.
    void this.#askPeer(() => ask((path) => this.peer.get(path), !this.isOfOrders));
    const [overview, instances] = await ask(get, this.isOfOrders);
    this.#own = overview;
    if (this.isOfOrders) this.instances = instances;
    this.#draw();
    return overview;
  }

  /** Everything anew with the next question. */
  restart() {
    this.#asked = 0;
  }

  /** @param {() => Promise<[any, any[] | null]>} question */
  async #askPeer(question) {
    if (this.#isAskingPeer) return;
    this.#isAskingPeer = true;
    const answer = await this.peer.ifThere(question).finally(() => (this.#isAskingPeer = false));
    this.#others = answer?.[0] ?? null;
    if (!this.isOfOrders) this.instances = answer?.[1] ?? null;
    if (this.#own !== null) this.#draw();
  }

  #draw() {
    const [orders, counting] = this.isOfOrders ? [this.#own, this.#others] : [this.#others, this.#own];
    const ofBoth = [orders ? ofOrders(orders, this.instances) : [], counting ? ofCounting(counting) : []];
    // What the page is about comes first.
    show([...(this.isOfOrders ? ofBoth : ofBoth.reverse()).flat(), ...ofPeer(this.peer)]);
  }
}

/** @param {Tile[]} tiles */
function show(tiles) {
  const shown = tiles.map(({ name, value, note, isBad }) =>
    h(
      "div",
      { class: isBad ? "tile bad" : "tile" },
      h("dt", {}, name),
      h("dd", {}, h("b", {}, value), note && h("span", { class: "hint" }, note)),
    ),
  );
  byId("strip").replaceChildren(...shown);
}
