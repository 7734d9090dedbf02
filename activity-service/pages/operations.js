// The quarantine: messages that could not be counted, and what becomes of them.

import { change, get } from "./api.js";
import { audit } from "./audit.js";
import { bytesOf, headersOf } from "./bytes.js";
import { confirm, done } from "./confirm.js";
import { byId, h, say } from "./dom.js";
import { editor } from "./editor.js";
import { ago, count, dateTime, longDay, ofTimes } from "./format.js";
import { failed, isCurrent, open } from "./frame.js";
import { loadGaps } from "./gaps.js";
import { List, choose, chosen, each, facts } from "./list.js";
import { Pausing } from "./pausing.js";
import { Peer } from "./peer.js";
import { Poll } from "./poll.js";
import { Strip } from "./strip.js";
import { loadTasks } from "./tasks.js";
import { Ways } from "./way.js";

/** In milliseconds: as old as the numbers of the tables may be. */
const EVERY = 5_000;
const STATES = ["waiting", "counted", "discarded"];

/** @type {import("./session.js").Settings} */
let settings;
/** @type {Strip} */
let strip;
/** @type {Ways} */
let ways;
const pausing = new Pausing("Counting", "What comes meanwhile waits in Kafka, and is counted afterwards.", changed);
const state = () => (STATES.includes(chosen("state")) ? chosen("state") : STATES[0]);

const list = new List({
  path: "admin/quarantine",
  filters: () => ({ state: state(), ...filter() }),
  columns: () => [
    { name: "Received", show: (entry) => h("span", { title: entry.receivedAt }, ago(entry.receivedAt)) },
    { name: "Reason", show: (entry) => words(entry.reason) },
    { name: "Detail", kind: "text", show: (entry) => entry.detail },
    { name: "Place", kind: "code", show: place },
    { name: "Times", kind: "number", show: (entry) => count(entry.messages) },
  ],
  key: (entry) => entry.id,
  onOpen: (id) => choose({ open: id }),
  empty: () => (state() === "waiting" && !Object.keys(filter()).length ? "Nothing waits: everything that was read is counted." : "There is none."),
  tick: () => (state() === "waiting" ? "Place" : null),
  onTick: nameButtons,
});

/** @param {any} entry */
const place = (entry) => `${entry.topic} / ${entry.partition} / ${entry.offset}`;
/** @param {string} reason */
const words = (reason) => reason.replaceAll("_", " ");

async function overview() {
  const now = await strip.load();
  reasons(now.quarantinedByReason);
  await loadGaps(now.openGaps ?? 0);
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
  for (const name of ["type", "topic"]) /** @type {HTMLInputElement} */ (byId(name)).value = chosen(name);
  nameButtons();
}

/** The buttons are for what is ticked, or for all that the filters leave. */
function nameButtons() {
  const { size } = list.ticked;
  const isNarrow = Object.keys(filter()).length > 0;
  const [replay, discard] = [isNarrow ? "Replay these …" : "Replay all …", "Discard these …"];
  byId("all").textContent = size > 0 ? `Replay ${count(size)} …` : replay;
  byId("discard-all").textContent = size > 0 ? `Discard ${count(size)} …` : discard;
  // All of them is never the right choice: some may be.
  byId("discard-all").hidden = state() !== "waiting" || (size === 0 && !isNarrow);
}

let shown = "";
/** Shows the message that the address names. */
async function opened() {
  const id = chosen("open");
  byId("opened").hidden = id === "";
  if (id === shown) return;
  shown = id;
  if (id === "") return;
  const entry = await get(`admin/quarantine/${encodeURIComponent(id)}`).catch((failure) => {
    shown = "";
    throw failure;
  });
  const waits = entry.state === "waiting";
  const close = h("button", { type: "button", onclick: () => choose({ open: "" }) }, "Close");
  const replay = h("button", { class: "primary", type: "button", onclick: () => replayOne(id) }, "Replay …");
  const discard = h("button", { type: "button", onclick: () => discardOne(id) }, "Discard …");
  const zone = settings.timeZone;
  const values = h("div", { class: "beside" }, bytesOf(entry.valueBase64, "As it came"));
  if (entry.correctedValueBase64) values.append(bytesOf(entry.correctedValueBase64, "As it was counted"));
  const edit = h("button", { type: "button", onclick: () => editOne(entry, values, edit) }, "Edit …");
  byId("opened").replaceChildren(
    h("header", {}, h("h2", {}, words(entry.reason)), waits && replay, waits && edit, waits && discard, close),
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
      ["Since", entry.resolvedAt && h("span", { title: entry.resolvedAt }, dateTime(entry.resolvedAt, zone))],
      ["By", entry.resolvedBy],
      ["Why", entry.resolution],
    ]),
    entry.headers ? headersOf(entry.headers) : "",
    values,
    ways.of({ order: entry.key, message: entry.messageRef }) ?? "",
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
  confirm({ title: "Replay this message?", text, action: "Replay", wantsReason: true }, async (reason) => {
    changed(outcome(await change("POST", `admin/quarantine/${id}/replay`, { reason })));
  });
}

/** @param {any} entry @param {HTMLElement} values where the bytes are shown @param {HTMLButtonElement} button */
function editOne(entry, values, button) {
  if (button.disabled) return;
  const leave = () => {
    form.remove();
    button.disabled = false;
    button.focus();
  };
  const form = editor(entry, {
    leave,
    agree(figures, count) {
      const would = figures.length > 0 ? `These bytes can be counted. ${changes([{ figures }])}.` : "These bytes were counted before: no figure changes.";
      const text = `${would} Those that came are kept beside them.`;
      confirm({ title: "Count these bytes in its place?", text, action: "Count", wantsReason: true }, async (reason) => {
        await count(reason);
        changed("Counted.");
      });
    },
  });
  button.disabled = true;
  values.append(form);
  form.querySelector("textarea")?.focus();
}

/** @param {string} id */
function discardOne(id) {
  const text = "It will never be counted. It stays to be looked at, with your name and the reason.";
  confirm({ title: "Discard this message?", text, action: "Discard", wantsReason: true }, async (reason) => {
    await change("DELETE", `admin/quarantine/${id}?reason=${encodeURIComponent(reason)}`);
    changed("Discarded.");
  });
}

/** What narrows the list, as the API takes it. @returns {Record<string, string>} */
function filter() {
  /** @type {[string, string][]} */
  const given = [["reason", state() === "waiting" ? chosen("reason") : ""], ["activityTypeCode", chosen("type")], ["topic", chosen("topic")]];
  return Object.fromEntries(given.filter(([, value]) => value !== ""));
}

/**
 * Does something with many messages: a request does a part, and says where the next one goes on.
 * @param {string} path
 * @param {Record<string, unknown>} body
 * @param {Record<string, string>} which those that this filter leaves
 * @returns {Promise<any[]>} an answer each
 */
async function many(path, body, which) {
  const answers = [];
  /** @type {{cursor?: string}} */
  let place = {};
  do {
    const answer = await change("POST", path, { ...body, filter: which, ...place });
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

/** How the figures would change by all answers together: the first few. @param {any[]} answers */
function changes(answers) {
  /** By day and type. @type {Map<string, number>} */
  const sums = new Map();
  for (const { activityDate, activityTypeCode, change: more } of answers.flatMap((answer) => answer.figures ?? [])) {
    const figure = `${activityDate} ${activityTypeCode}`;
    sums.set(figure, (sums.get(figure) ?? 0) + more);
  }
  const told = [...sums.keys()].sort().slice(0, 5).map((figure) => {
    const [day, code] = figure.split(" ");
    return `${longDay(day)}: ${count(sums.get(figure) ?? 0)} more of ${code}`;
  });
  return [...told, ...(sums.size > 5 ? [`and ${count(sums.size - 5)} figures more`] : [])].join("; ");
}

/**
 * What is ticked, or all that a filter leaves.
 * @param {Record<string, unknown>} how
 * @param {string[]} ticked
 * @param {Record<string, string>} which
 * @returns {Promise<any[]>}
 */
const replay = (how, ticked, which) =>
  ticked.length > 0 ? each(ticked, (id) => change("POST", `admin/quarantine/${id}/replay`, how)) : many("admin/quarantine/replay", how, which);

async function replayAll() {
  // As they are now: the address may be another one when somebody agrees.
  const [ticked, which] = [[...list.ticked], filter()];
  const tried = await replay({ dryRun: true }, ticked, which);
  const { counted, duplicates, stillWaiting } = replayed(tried);
  const would = `${count(counted)} would be counted, ${count(duplicates)} were counted before, ${count(stillWaiting)} would stay.`;
  confirm({ title: "Replay what waits?", text: `${would} ${changes(tried)}`, action: "Replay", wantsReason: true }, async (reason) => {
    changed(outcome(replayed(await replay({ reason }, ticked, which))));
  });
}

/** @param {string[]} ticked */
function discardTicked(ticked) {
  confirm({ title: "Discard these messages?", text: aboutDiscarded(ticked.length), action: "Discard", wantsReason: true }, async (reason) => {
    const done = await each(ticked, (id) => change("DELETE", `admin/quarantine/${id}?reason=${encodeURIComponent(reason)}`));
    changed(`${count(done.length)} discarded.`);
  });
}

/** @param {number} number */
const aboutDiscarded = (number) =>
  `${number === 1 ? "One message" : `${count(number)} messages`} will never be counted. What is discarded stays to be looked at, with your name and the reason.`;

async function discardAll() {
  if (list.ticked.size > 0) return discardTicked([...list.ticked]);
  const which = filter();
  const discarded = sum(await many("admin/quarantine/discard", { reason: "a look", dryRun: true }, which), "discarded");
  confirm({ title: "Discard these messages?", text: aboutDiscarded(discarded), action: "Discard", wantsReason: true }, async (reason) => {
    changed(`${count(sum(await many("admin/quarantine/discard", { reason }, which), "discarded"))} discarded.`);
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
    const again = () => {
      states();
      list.restart();
      poll.now();
    };
    byId("reasons").addEventListener("change", (event) => {
      choose({ reason: /** @type {HTMLSelectElement} */ (event.target).value, open: "" });
    });
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      const value = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (byId(id)).value.trim();
      choose({ type: value("type").toUpperCase(), topic: value("topic"), open: "" });
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
