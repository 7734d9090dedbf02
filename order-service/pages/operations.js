// The outbox: messages by state, what keeps them, and sending them again.

import { change, get } from "./api.js";
import { audit } from "./audit.js";
import { confirm, done } from "./confirm.js";
import { byId, h, say } from "./dom.js";
import { ago, count, dateTime, ofTimes } from "./format.js";
import { failed, isCurrent, open } from "./frame.js";
import { List, choose, chosen, each, facts } from "./list.js";
import { Pausing } from "./pausing.js";
import { Peer } from "./peer.js";
import { Poll } from "./poll.js";
import { Strip } from "./strip.js";
import { loadTasks } from "./tasks.js";
import { Ways } from "./way.js";

/** In milliseconds: as old as the numbers of the tables may be. */
const EVERY = 5_000;
/** As the API names them, and as people do. @type {Record<string, string>} */
const STATES = { failed: "Failed", unpublished: "Unannounced", published: "Announced" };

const INSTANCE_STATES = { publishing: "Publishing", gone: "Gone: is taken over soon", ended: "Ended: others send its messages" };

/** @type {import("./session.js").Settings} */
let settings;
/** @type {Strip} */
let strip;
/** @type {Ways} */
let ways;
const pausing = new Pausing("Announcing", "Orders are taken meanwhile, and announced afterwards.", changed);
/** Whether the service has this route: what it cannot do is not offered. @param {string} route */
const has = (route) => settings.routes.includes(route);
const canDiscard = () => has("DELETE /admin/messages/{messageRef}");
const state = () => (chosen("state") in STATES ? chosen("state") : "failed");

/** What narrows the list, as the API takes it. @returns {Record<string, string>} */
function filters() {
  /** @type {[string, string][]} */
  const given = [["orderRef", chosen("order")], ["error", chosen("error")]];
  return Object.fromEntries(canDiscard() ? given.filter(([, value]) => value !== "") : []);
}

const list = new List({
  path: "admin/messages",
  filters: () => ({ state: state(), ...filters() }),
  columns: () => [
    { name: "Order", show: (message) => message.orderRef },
    { name: "Activity", kind: "code", show: (message) => message.activityTypeCode },
    { name: "Placed", show: (message) => h("span", { title: message.placedAt }, ago(message.placedAt)) },
    ...(state() === "published"
      ? [{ name: "Partition / offset", kind: "code", show: (/** @type {any} */ message) => place(message) }]
      : [
          { name: "Failures", kind: "number", show: (/** @type {any} */ message) => count(message.failures) },
          { name: "Last error", kind: "text", show: (/** @type {any} */ message) => message.lastError },
        ]),
  ],
  key: (message) => message.messageRef,
  onOpen: (messageRef) => choose({ open: messageRef }),
  empty: () => (state() === "failed" && !Object.keys(filters()).length ? "Nothing has failed." : "There is none."),
  tick: () => (state() === "failed" ? "Order" : null),
  onTick: nameButtons,
});

/** @param {any} message */
const place = (message) => (message.offset === null ? "" : `${message.partition} / ${message.offset}`);

async function overview() {
  const now = await strip.load();
  instances(strip.instances ?? []);
  /** @type {HTMLButtonElement} */ (byId("all")).disabled = now.failed === 0;
}

/** Who publishes, and whose messages are still to be sent by others. @param {any[]} all */
function instances(all) {
  const names = ["Instance", "State", "Since", "To be sent", "Sends those of", "Sent by"];
  const rows = all.map((one) => {
    const state = INSTANCE_STATES[/** @type {keyof typeof INSTANCE_STATES} */ (one.state)] ?? one.state;
    const since = one.endedAt ?? one.startedAt;
    /** @type {[Record<string, any>, import("./dom.js").Child][]} */
    const cells = [
      [{ class: one.state === "gone" ? "wrong" : null }, state],
      [{ title: since }, ago(since)],
      [{ class: "number" }, count(one.unpublished)],
      [{ class: "code" }, one.adopted.join(", ")],
      [{ class: "code" }, one.adoptedBy],
    ];
    const shown = cells.map(([attributes, text], index) => h("td", { "data-name": names[index + 1], ...attributes }, text));
    return h("tr", {}, h("th", { scope: "row", class: "code" }, one.instance), ...shown);
  });
  const head = names.map((name) => h("th", { scope: "col", class: name === "To be sent" ? "number" : null }, name));
  const table = h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
  byId("instances").replaceChildren(rows.length > 0 ? table : h("p", { class: "nothing" }, "There is none: nothing is announced."));
}

/** The button is for what is ticked, or for all that the filters leave. */
function nameButtons() {
  const { size } = list.ticked;
  const those = Object.keys(filters()).length ? "Send these again …" : "Send all again …";
  byId("all").textContent = size > 0 ? `Send ${count(size)} again …` : those;
}

function tools() {
  const button = (/** @type {[string, string]} */ [value, name]) =>
    h(
      "button",
      { type: "button", "aria-pressed": String(value === state()), onclick: () => choose({ state: value === "failed" ? "" : value, open: "" }) },
      name,
    );
  byId("states").replaceChildren(...Object.entries(STATES).map(button));
  byId("all").hidden = state() !== "failed";
  nameButtons();
  for (const name of ["order", "error"]) /** @type {HTMLInputElement} */ (byId(name)).value = chosen(name);
}

let shown = "";
/** Shows the message that the address names. */
async function opened() {
  const messageRef = chosen("open");
  byId("opened").hidden = messageRef === "";
  if (messageRef === shown) return;
  shown = messageRef;
  if (messageRef === "") return;
  const message = await get(`admin/messages/${encodeURIComponent(messageRef)}`).catch((failure) => {
    shown = "";
    throw failure;
  });
  const isFailed = message.state === "failed";
  const close = h("button", { type: "button", onclick: () => choose({ open: "" }) }, "Close");
  const again = h("button", { class: "primary", type: "button", onclick: () => retryOne(message) }, "Send again …");
  const discard = h("button", { type: "button", onclick: () => discardOne(message) }, "Discard …");
  const at = (/** @type {string | null} */ moment) =>
    moment && h("span", { title: moment }, `${dateTime(moment)}, ${ago(moment)}`);
  byId("opened").replaceChildren(
    h("header", {}, h("h2", {}, message.orderRef), isFailed && again, isFailed && canDiscard() && discard, close),
    facts([
      ["Activity", h("span", { class: "code" }, message.activityTypeCode)],
      ["Message", h("span", { class: "code" }, message.messageRef)],
      ["State", STATES[message.state] ?? message.state],
      ["Placed", at(message.placedAt)],
      ["Failures", message.failures > 0 && count(message.failures)],
      ["Last error", message.lastError],
      ["Announced", at(message.publishedAt)],
      ["Partition / offset", place(message)],
      ["Discarded", at(message.discardedAt)],
      ["By", message.discardedBy],
      ["Why", message.discardReason],
    ]),
    ways.of({ order: message.orderRef, message: message.messageRef }) ?? "",
  );
  byId("opened").focus({ preventScroll: true });
  byId("opened").scrollIntoView({ block: "nearest" });
}

/** @param {any} message */
function retryOne(message) {
  const text = `The message of ${message.orderRef} is sent as it is. Its ${count(message.failures)} failures are forgotten.`;
  confirm({ title: "Send this message again?", text, action: "Send again", wantsReason: true }, async (reason) => {
    await change("POST", `admin/messages/${message.messageRef}/retry`, { reason });
    changed("It will be sent.");
  });
}

/** @param {any} message */
function discardOne(message) {
  const text = `${message.orderRef} will never be announced, and not be counted. The message stays to be looked at.`;
  confirm({ title: "Discard this message?", text, action: "Discard", wantsReason: true }, async (reason) => {
    await change("DELETE", `admin/messages/${message.messageRef}?reason=${encodeURIComponent(reason)}`);
    changed("Discarded.");
  });
}

/** @param {string} number */
const aboutMany = (number) => `${number} will be sent again; the failures are forgotten. What the broker refused for its size it refuses again.`;
/** @param {number} number */
const messages = (number) => (number === 1 ? "One message" : `${count(number)} messages`);

async function retryTicked() {
  const keys = [...list.ticked];
  const retry = (/** @type {Record<string, any>} */ body) => each(keys, (key) => change("POST", `admin/messages/${key}/retry`, body));
  // Some may have been sent meanwhile.
  const text = aboutMany(messages((await retry({ dryRun: true })).length));
  confirm({ title: "Send the ticked messages again?", text, action: "Send again", wantsReason: true }, async (reason) => {
    changed(`${count((await retry({ reason })).length)} will be sent.`);
  });
}

/** How many will be sent is asked first, where the service can tell without doing it. */
async function retryAll() {
  if (list.ticked.size > 0) return retryTicked();
  const query = new URLSearchParams(filters());
  const path = `admin/messages/retry${query.size ? `?${query}` : ""}`;
  const { failed: waiting } = await get("admin/overview");
  const retried = canDiscard() ? (await change("POST", path, { dryRun: true })).retried : waiting;
  const text = aboutMany(retried === null ? "Every failed message" : messages(retried));
  confirm({ title: "Send failed messages again?", text, action: "Send again", wantsReason: true }, async (reason) => {
    const sent = await change("POST", path, { reason });
    changed(`${count(sent.retried)} will be sent.`);
  });
}

/** @param {string} text */
function changed(text) {
  done(text);
  shown = "";
  ways.restart();
  strip.restart();
  list.restart();
  poll.now();
}

const poll = new Poll(
  async () => {
    ways.load();
    await Promise.all([overview(), pausing.load(settings.timeZone), list.load(), opened(), loadTasks(settings)]);
    isCurrent(settings.timeZone);
  },
  EVERY,
  failed,
);

void open({
  scope: "operations",
  begin(known) {
    settings = known;
    const peer = new Peer(settings);
    strip = new Strip(settings, peer);
    ways = new Ways(settings, peer);
    audit(settings, failed);
    say(byId("footnote"), ofTimes(settings.timeZone));
    if (canDiscard()) STATES.discarded = "Discarded";
    byId("search").hidden = !canDiscard();
    const again = () => {
      tools();
      list.restart();
      poll.now();
    };
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      const value = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (byId(id)).value.trim();
      choose({ order: value("order"), error: value("error"), open: "" });
    });
    byId("all").addEventListener("click", () => void retryAll().catch(failed));
    addEventListener("chosen", again);
    addEventListener("popstate", again);
    addEventListener("turned", () => poll.now());
    tools();
  },
  resume: () => poll.start(),
  pause: () => poll.stop(),
});
