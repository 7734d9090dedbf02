// The outbox: messages by state, what keeps them, and sending them again.

import { change, get } from "./api.js";
import { audit } from "./audit.js";
import { confirm, done } from "./confirm.js";
import { byId, h } from "./dom.js";
import { ago, count, dateTime, duration } from "./format.js";
import { failed, isCurrent, open } from "./frame.js";
import { List, choose, chosen, facts } from "./list.js";
import { Poll } from "./poll.js";
import { strip } from "./strip.js";

/** In milliseconds: as old as the numbers of the tables may be. */
const EVERY = 5_000;
/** As the API names them, and as people do. @type {Record<string, string>} */
const STATES = { failed: "Failed", unpublished: "Unannounced", published: "Announced" };

/** @type {import("./session.js").Settings} */
let settings;
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
    { name: "Placed", show: (message) => ago(message.placedAt) },
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
});

/** @param {any} message */
const place = (message) => (message.offset === null ? "" : `${message.partition} / ${message.offset}`);

async function overview() {
  const now = await get("admin/overview");
  const known = (/** @type {number | null} */ value) => (value === null ? "–" : count(value));
  const age = now.unannounced > 0 ? duration(now.oldestUnannouncedAgeSeconds) : "–";
  strip([
    { name: "Unannounced", value: known(now.unannounced) },
    { name: "Oldest of them", value: age, isBad: now.oldestUnannouncedAgeSeconds > 60 },
    { name: "Failed", value: known(now.failed), isBad: now.failed > 0 },
    { name: "Queue", value: known(now.queueLength), note: `of ${known(now.queueCapacity)}` },
    { name: "Kafka", value: now.outage === null ? "–" : now.outage ? "Away" : "Takes all", isBad: now.outage === true },
  ]);
  /** @type {HTMLButtonElement} */ (byId("all")).disabled = now.failed === 0;
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
  byId("all").textContent = Object.keys(filters()).length ? "Send these again …" : "Send all again …";
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
  const message = await get(`admin/messages/${encodeURIComponent(messageRef)}`);
  const timeline = has("GET /admin/orders/{orderRef}/timeline")
    ? await get(`admin/orders/${encodeURIComponent(message.orderRef)}/timeline`)
    : [];
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
    ...(timeline.length > 0 ? [h("div", {}, h("h3", {}, "The order's way"), way(timeline))] : []),
  );
  byId("opened").focus({ preventScroll: true });
  byId("opened").scrollIntoView({ block: "nearest" });
}

/** @param {any[]} events oldest first */
function way(events) {
  const line = (/** @type {Record<string, any>} */ { at, event, ...others }) => {
    const more = Object.entries(others).filter(([name, value]) => name !== "messageRef" && value !== null);
    const words = (/** @type {string} */ name) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    const told = more.map(([name, value]) => (name === "activityTypeCode" ? value : `${words(name)} ${value}`)).join(", ");
    return h("li", {}, h("b", {}, event), " ", h("span", { class: "soft", title: at }, dateTime(at)), h("div", { class: "hint" }, told));
  };
  return h("ol", { class: "timeline" }, ...events.map(line));
}

/** @param {any} message */
function retryOne(message) {
  const text = `The message of ${message.orderRef} is sent as it is. Its ${count(message.failures)} failures are forgotten.`;
  confirm({ title: "Send this message again?", text, action: "Send again" }, async () => {
    await change("POST", `admin/messages/${message.messageRef}/retry`);
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

/** How many will be sent is asked first, where the service can tell without doing it. */
async function retryAll() {
  const query = new URLSearchParams(filters());
  const path = `admin/messages/retry${query.size ? `?${query}` : ""}`;
  const { failed: waiting } = await get("admin/overview");
  const retried = canDiscard() ? (await change("POST", path, { dryRun: true })).retried : waiting;
  const number = retried === null ? "Every failed message" : retried === 1 ? "One message" : `${count(retried)} messages`;
  const text = `${number} will be sent again; the failures are forgotten. What the broker refused for its size it refuses again.`;
  confirm({ title: "Send failed messages again?", text, action: "Send again" }, async () => {
    const sent = await change("POST", path);
    changed(`${count(sent.retried)} will be sent.`);
  });
}

/** @param {string} text */
function changed(text) {
  done(text);
  shown = "";
  list.restart();
  poll.now();
}

const poll = new Poll(
  async () => {
    await Promise.all([overview(), list.load(), opened()]);
    isCurrent(null);
  },
  EVERY,
  (failure) => {
    // A message that is gone must not keep the list from being shown.
    shown = "";
    failed(failure);
  },
);

void open({
  scope: "operations",
  begin(known) {
    settings = known;
    audit(settings, failed);
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
