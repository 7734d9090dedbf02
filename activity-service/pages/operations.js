// The quarantine: messages that could not be counted, and what becomes of them.

import { change, get } from "./api.js";
import { audit } from "./audit.js";
import { bytesOf } from "./bytes.js";
import { confirm, done } from "./confirm.js";
import { byId, h } from "./dom.js";
import { ago, count, dateTime, duration, longDay } from "./format.js";
import { failed, isCurrent, open } from "./frame.js";
import { List, choose, chosen, facts } from "./list.js";
import { Poll } from "./poll.js";
import { strip } from "./strip.js";

/** In milliseconds: as old as the numbers of the tables may be. */
const EVERY = 5_000;
const STATES = ["waiting", "counted", "discarded"];

/** @type {import("./session.js").Settings} */
let settings;
const state = () => (STATES.includes(chosen("state")) ? chosen("state") : STATES[0]);

const list = new List({
  path: "admin/quarantine",
  filters: () => ({ state: state(), ...(chosen("reason") && state() === "waiting" ? { reason: chosen("reason") } : {}) }),
  columns: () => [
    { name: "Received", show: (entry) => ago(entry.receivedAt) },
    { name: "Reason", show: (entry) => words(entry.reason) },
    { name: "Detail", kind: "text", show: (entry) => entry.detail },
    { name: "Place", kind: "code", show: place },
    { name: "Times", kind: "number", show: (entry) => count(entry.messages) },
  ],
  key: (entry) => entry.id,
  onOpen: (id) => choose({ open: id }),
  empty: () => (state() === "waiting" ? "Nothing waits: everything that was read is counted." : "There is none."),
});

/** @param {any} entry */
const place = (entry) => `${entry.topic} / ${entry.partition} / ${entry.offset}`;
/** @param {string} reason */
const words = (reason) => reason.replaceAll("_", " ");

async function overview() {
  const now = await get("admin/overview");
  const known = (/** @type {number | null} */ value) => (value === null ? "–" : count(value));
  const oldest = now.oldestQuarantinedAgeSeconds;
  strip([
    { name: "In quarantine", value: known(now.quarantined), isBad: now.quarantined > 0 },
    { name: "Longest there", value: now.quarantined > 0 ? duration(oldest) : "–" },
    { name: "Not counted yet", value: known(now.lagMessages), note: "of this instance" },
    { name: "Lost before counted", value: known(now.openGaps), note: "open gaps", isBad: now.openGaps > 0 },
  ]);
  reasons(now.quarantinedByReason);
  /** @type {HTMLButtonElement} */ (byId("all")).disabled = now.quarantined === 0;
}

/** @param {Record<string, number>} byReason */
function reasons(byReason) {
  const select = /** @type {HTMLSelectElement} */ (byId("reasons"));
  select.hidden = state() !== "waiting";
  if (document.activeElement === select) return;
  const present = Object.entries(byReason).filter(([reason, waiting]) => waiting > 0 || reason === chosen("reason"));
  const options = present.map(([reason, waiting]) => h("option", { value: reason }, `${words(reason)} (${count(waiting)})`));
  select.replaceChildren(h("option", { value: "" }, "All reasons"), ...options);
  select.value = chosen("reason");
}

function states() {
  const button = (/** @type {string} */ name) =>
    h(
      "button",
      { type: "button", "aria-pressed": String(name === state()), onclick: () => choose({ state: name === STATES[0] ? "" : name, open: "" }) },
      name[0].toUpperCase() + name.slice(1),
    );
  byId("states").replaceChildren(...STATES.map(button));
  byId("all").hidden = state() !== "waiting";
  byId("all").textContent = chosen("reason") ? "Replay these …" : "Replay all …";
  // All of them is never the right choice: those of one reason may be.
  byId("discard-all").hidden = state() !== "waiting" || chosen("reason") === "";
}

let shown = "";
/** Shows the message that the address names. */
async function opened() {
  const id = chosen("open");
  byId("opened").hidden = id === "";
  if (id === shown) return;
  shown = id;
  if (id === "") return;
  const entry = await get(`admin/quarantine/${encodeURIComponent(id)}`);
  const waits = entry.state === "waiting";
  const close = h("button", { type: "button", onclick: () => choose({ open: "" }) }, "Close");
  const replay = h("button", { class: "primary", type: "button", onclick: () => replayOne(id) }, "Replay …");
  const discard = h("button", { type: "button", onclick: () => discardOne(id) }, "Discard …");
  const zone = settings.timeZone;
  byId("opened").replaceChildren(
    h("header", {}, h("h2", {}, words(entry.reason)), waits && replay, waits && discard, close),
    facts([
      ["Detail", entry.detail],
      ["Place", h("span", { class: "code" }, place(entry))],
      ["Received", h("span", { title: entry.receivedAt }, `${dateTime(entry.receivedAt, zone)}, ${ago(entry.receivedAt)}`)],
      ["SHA-256 of the value", entry.valueSha256],
      ["Key", entry.key],
      ["Type", entry.activityTypeCode],
      ["Message", entry.messageRef],
      ["Copies", entry.messages > 1 && count(entry.messages - 1)],
      ["State", entry.state],
      ["Since", entry.resolvedAt && dateTime(entry.resolvedAt, zone)],
      ["By", entry.resolvedBy],
      ["Why", entry.resolution],
    ]),
    bytesOf(entry.valueBase64),
  );
  byId("opened").focus({ preventScroll: true });
  byId("opened").scrollIntoView({ block: "nearest" });
}

/** @param {{counted: number, duplicates: number, stillWaiting: number}} replayed */
const outcome = ({ counted, duplicates, stillWaiting }) =>
  `${count(counted)} counted, ${count(duplicates)} counted before, ${count(stillWaiting)} still waiting.`;

/** @param {string} id */
function replayOne(id) {
  const text = "It is checked and counted like any message. Where it still cannot be, it stays here.";
  confirm({ title: "Replay this message?", text, action: "Replay" }, async () => {
    changed(outcome(await change("POST", `admin/quarantine/${id}/replay`)));
  });
}

/** @param {string} id */
function discardOne(id) {
  const text = "It will never be counted. It stays to be looked at, with your name and the reason.";
  confirm({ title: "Discard this message?", text, action: "Discard", wantsReason: true }, async (reason) => {
    await change("DELETE", `admin/quarantine/${id}?reason=${encodeURIComponent(reason)}`);
    changed("Discarded.");
  });
}

/** What the list shows of those that wait. @returns {Record<string, string>} */
const filter = () => (chosen("reason") ? { reason: chosen("reason") } : {});

/**
 * Does something with many messages: a request does a part, and says where the next one goes on.
 * @param {string} path
 * @param {Record<string, unknown>} body
 * @returns {Promise<any[]>} an answer each
 */
async function many(path, body) {
  const answers = [];
  /** @type {{cursor?: string}} */
  let place = {};
  do {
    const answer = await change("POST", path, { ...body, filter: filter(), ...place });
    answers.push(answer);
    place = answer.cursor ? { cursor: answer.cursor } : {};
  } while (place.cursor);
  return answers;
}

/** @param {any[]} answers @param {string} name */
const sum = (answers, name) => answers.reduce((all, answer) => all + answer[name], 0);
/** @param {any[]} answers */
const replayed = (answers) => ({
  counted: sum(answers, "counted"),
  duplicates: sum(answers, "duplicates"),
  stillWaiting: sum(answers, "stillWaiting"),
});

/** How the figures would change: the first few. @param {any[]} answers */
function changes(answers) {
  const figures = answers.flatMap((answer) => answer.figures ?? []);
  const told = figures.slice(0, 5).map((one) => `${longDay(one.activityDate)}: ${count(one.change)} more of ${one.activityTypeCode}`);
  return [...told, ...(figures.length > 5 ? [`and ${count(figures.length - 5)} figures more`] : [])].join("; ");
}

async function replayAll() {
  const tried = await many("admin/quarantine/replay", { dryRun: true });
  const { counted, duplicates, stillWaiting } = replayed(tried);
  const would = `${count(counted)} would be counted, ${count(duplicates)} were counted before, ${count(stillWaiting)} would stay.`;
  confirm({ title: "Replay what waits?", text: `${would} ${changes(tried)}`, action: "Replay" }, async () => {
    changed(outcome(replayed(await many("admin/quarantine/replay", {}))));
  });
}

async function discardAll() {
  const discarded = sum(await many("admin/quarantine/discard", { reason: "a look", dryRun: true }), "discarded");
  const text = `${count(discarded)} messages will never be counted. They stay to be looked at, with your name and the reason.`;
  confirm({ title: "Discard these messages?", text, action: "Discard", wantsReason: true }, async (reason) => {
    changed(`${count(sum(await many("admin/quarantine/discard", { reason }), "discarded"))} discarded.`);
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
    isCurrent(settings.timeZone);
  },
  EVERY,
  (failure) => {
    // A message that is gone must not keep the list from being shown.
    if (shown !== "") shown = "";
    failed(failure);
  },
);

void open({
  scope: "operations",
  begin(known) {
    settings = known;
    audit(settings, failed);
    const again = () => {
      states();
      list.restart();
      poll.now();
    };
    byId("reasons").addEventListener("change", (event) => {
      choose({ reason: /** @type {HTMLSelectElement} */ (event.target).value, open: "" });
    });
    byId("all").addEventListener("click", () => void replayAll().catch(failed));
    byId("discard-all").addEventListener("click", () => void discardAll().catch(failed));
    addEventListener("chosen", again);
    addEventListener("popstate", again);
    addEventListener("turned", () => poll.now());
    states();
  },
  resume: () => poll.start(),
  pause: () => poll.stop(),
});
