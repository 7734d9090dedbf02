// An order's way through both services: what happened to it, to its messages, and where each of them was counted, oldest
// first. Each half is shown without the other where only one is to be had, and what is missing is said.

import { Refused, get } from "./api.js";
import { byId, h } from "./dom.js";
import { count, dateTime, longDay } from "./format.js";
import { choose, chosen } from "./list.js";

const ORDER = /^OS\d{6,19}-ORD$/i;
const MESSAGE = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What happened, by whom it was told. @typedef {Record<string, any> & {at: string, event: string, of: string}} Event */

/** An answer, or why there is none. @template Answer @typedef {{answer: Answer | null, problem: string}} Half */

/**
 * @template Answer
 * @param {string} service
 * @param {Promise<Answer>} question
 * @returns {Promise<Half<Answer>>}
 */
async function half(service, question) {
  try {
    return { answer: await question, problem: "" };
  } catch (failure) {
    if (!(failure instanceof Refused)) throw failure;
    return { answer: null, problem: failure.status === 404 ? `${service} does not know of it.` : `The half of ${service} is missing. ${failure.message}` };
  }
}

/** Shows ways, of what a page has opened and of what somebody looks for. The address names the latter. */
export class Ways {
  #shown = "";

  /** @param {import("./session.js").Settings} settings @param {import("./peer.js").Peer} peer */
  constructor(settings, peer) {
    this.settings = settings;
    this.peer = peer;
    const field = /** @type {HTMLInputElement} */ (byId("reference"));
    byId("find").addEventListener("submit", (event) => {
      event.preventDefault();
      choose({ way: field.value.trim() });
    });
  }

  /** Shows that of the address. */
  load() {
    const reference = chosen("way");
    if (reference === this.#shown) return;
    this.#shown = reference;
    const place = byId("way");
    /** @type {HTMLInputElement} */ (byId("reference")).value = reference;
    place.hidden = reference === "";
    if (reference === "") return place.replaceChildren();
    const button = (/** @type {string} */ name, /** @type {() => void} */ act) => h("button", { type: "button", onclick: act }, name);
    const again = button("Look again", () => {
      this.restart();
      this.load();
    });
    const shown = this.of({ order: reference, message: reference });
    const neither = h("p", { class: "soft" }, "This names neither an order, like OS000042-ORD, nor a message.");
    place.replaceChildren(h("header", {}, h("h2", {}, "An order's way"), again, button("Close", () => choose({ way: "" }))), shown ?? neither);
    place.focus({ preventScroll: true });
    place.scrollIntoView({ block: "nearest" });
  }

  /** It is read anew the next time. */
  restart() {
    this.#shown = "";
  }

  /**
   * A place that is filled as soon as both services have told what they know, or that they do not. Null where neither text
   * is the name of such a thing: a key or a field of a message may be anything.
   * @param {{order?: string | null, message?: string | null}} names
   */
  of({ order, message }) {
    const [ofOrder, ofMessage] = [order && ORDER.test(order) ? order : null, message && MESSAGE.test(message) ? message : null];
    if (ofOrder === null && ofMessage === null) return null;
    const place = h("div", { class: "way" });
    void this.#fill(place, ofOrder, ofMessage === null ? [] : [ofMessage]);
    return place;
  }

  /** @param {HTMLElement} place @param {string | null} order @param {string[]} given */
  async #fill(place, order, given) {
    const { settings, peer } = this;
    const of = (/** @type {string} */ service) => async (/** @type {string} */ path) => (settings.service === service ? get(path) : peer.get(path));
    const orders = await half("order-service", ofOrder(of("order-service"), order, given));
    const told = orders.answer?.events ?? [];
    const messages = new Set([...told.map((event) => event.messageRef).filter(Boolean), ...given]);
    const counting = await half("activity-service", ofMessages(of("activity-service"), [...messages]));
    const events = [...told, ...(counting.answer?.events ?? [])];
    events.sort((one, other) => Date.parse(one.at) - Date.parse(other.at));
    const problems = [orders.problem, counting.problem, ...(counting.answer?.unknown ?? [])];
    if (messages.size === 0 && orders.answer === null) problems.push("Which messages an order has only order-service knows: the name of one shows how it was counted.");
    /** @type {Map<string, string>} */
    const types = new Map();
    for (const { messageRef, activityTypeCode } of events) if (activityTypeCode) types.set(messageRef, activityTypeCode);
    place.replaceChildren(
      h("h3", {}, `The way of ${orders.answer?.orderRef ?? order ?? "the message"}`),
      ...problems.filter(Boolean).map((problem) => h("p", { class: "missing" }, problem)),
      h("ol", { class: "timeline" }, ...events.map((event) => line({ ...event, activityTypeCode: event.activityTypeCode ?? types.get(event.messageRef) }, settings.timeZone))),
    );
  }
}

/** @param {(path: string) => Promise<any>} ask @param {string | null} order @param {string[]} messages */
async function ofOrder(ask, order, messages) {
  const orderRef = order?.toUpperCase() ?? (await ask(`admin/messages/${messages[0]}`)).orderRef;
  /** @type {Event[]} */
  const events = await ask(`admin/orders/${orderRef}/timeline`);
  for (const event of events) event.of = "order-service";
  return { orderRef, events };
}

/** @param {(path: string) => Promise<any>} ask @param {string[]} messages */
async function ofMessages(ask, messages) {
  const found = await Promise.all(
    messages.map(async (message) => {
      try {
        return { message, lookup: await ask(`admin/activities/${message}`) };
      } catch (failure) {
        if (failure instanceof Refused && failure.status === 404) return { message, lookup: null };
        throw failure;
      }
    }),
  );
  const unknown = found.filter(({ lookup }) => lookup === null).map(({ message }) => `activity-service knows nothing of message ${message}, yet or any more.`);
  return { events: found.flatMap(({ lookup }) => (lookup ? ofLookup(lookup) : [])), unknown };
}

/** @param {any} lookup @returns {Event[]} */
function ofLookup({ messageRef, counted, quarantined }) {
  const common = { of: "activity-service", messageRef };
  /** @type {Event[]} */
  const events = quarantined.flatMap((/** @type {any} */ entry) => {
    const { partition, offset, reason, detail, activityTypeCode } = entry;
    const came = { ...common, at: entry.receivedAt, event: "quarantined", activityTypeCode, reason: reason.replaceAll("_", " "), detail, partition, offset };
    if (!entry.resolvedAt) return [came];
    const event = entry.state === "counted" ? "counted out of quarantine" : entry.state;
    return [came, { ...common, at: entry.resolvedAt, event, by: entry.resolvedBy, reason: entry.resolution }];
  });
  if (!counted) return events;
  const { activityTypeCode, activityDate, countedAt, partition, offset, copies } = counted;
  const more = copies.length > 0 ? `${count(copies.length)}, counted once all the same` : null;
  return [...events, { ...common, at: countedAt, event: "counted", activityTypeCode, forDay: longDay(activityDate), partition, offset, copies: more }];
}

/** @param {Event} event @param {string | null} timeZone */
function line({ at, event, of, messageRef, activityTypeCode, ...others }, timeZone) {
  const words = (/** @type {string} */ name) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  const more = Object.entries(others).filter(([, value]) => value !== null && value !== undefined);
  const told = [activityTypeCode, ...more.map(([name, value]) => `${words(name)} ${value}`)].filter(Boolean).join(", ");
  return h(
    "li",
    { class: of },
    h("b", {}, event),
    " ",
    h("span", { class: "soft", title: at }, `${dateTime(at, timeZone)} · ${of}`),
    h("div", { class: "hint", title: messageRef && `message ${messageRef}` }, told),
  );
}
