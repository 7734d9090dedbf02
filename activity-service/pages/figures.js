// The figures of a day, against others, as they come in.

import { checkSession, get } from "./api.js";
import { compared, draw } from "./bars.js";
import { inWords } from "./completeness.js";
import { download } from "./csv.js";
import { isDay, plus, range, todayIn } from "./days.js";
import { byId, h, say } from "./dom.js";
import { count, longDay, mediumDay, ofTimes, share, weekday } from "./format.js";
import { failed, isCurrent, open } from "./frame.js";
import { ofDay as hoursOfDay, words as wordsOfHours } from "./hours.js";
import { Live } from "./live.js";
import { Poll } from "./poll.js";
import { goOn, may } from "./session.js";

/** Today's figures are asked for so often, in milliseconds; those of all days shown with every tenth time. */
const EVERY = 1_000;
const ALL_EVERY = 10;
/** A screen reader is told of a new number at most so often, in milliseconds. */
const TOLD_EVERY = 15_000;
const SPANS = [7, 30, 90];
const VIEWS = ["bars", "hours", "table"];
const OF_ORDERS = ["ORDER_CREATED", "ORDER_COMPLETED", "ORDER_CANCELLED"];

/** @type {import("./session.js").Settings} */
let settings;
/** How many of a type were on a day, how many of these came after it was complete, and how many more were written. @typedef {{quantity: number, late: number, missing: number}} Figure */
/** By day, then by type. @type {Map<string, Map<string, Figure>>} */
let figures = new Map();
/** Names of types, by code. @type {Map<string, string>} */
const names = new Map();
let today = "";
/** Whether the days of this range are in `figures`. */
let loaded = { from: "", to: "" };
let ticks = 0;
/** The hours of a day and type. @type {{of: string, hours: {day: string, quantity: number}[]}} */
let hours = { of: "", hours: [] };
/** How complete the chosen day is, as the service told. @type {any} */
let completeDay;
/** How complete all figures are. @type {any} */
let completeness = null;
/** What a screen reader is told next, and when it was told last. */
let toTell = "";
let toldAt = -TOLD_EVERY;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let telling;
/** Tells of the day pointed at, or of all. @type {(text: string) => void} */
let pointAt = () => undefined;

/* What is shown is in the address, and nowhere else. */
const address = () => new URLSearchParams(location.search);
const chosenDay = () => (isDay(address().get("day")) ? /** @type {string} */ (address().get("day")) : today);
const span = () => SPANS.find((days) => String(days) === address().get("days")) ?? 30;
const view = () => VIEWS.find((name) => name === address().get("view")) ?? "bars";
const chosenType = () => {
  const asked = address().get("type");
  if (asked !== null && names.has(asked)) return asked;
  return names.has("ORDER_CREATED") ? "ORDER_CREATED" : ([...names.keys()][0] ?? "");
};

/** @param {Record<string, string | null>} changes */
function go(changes) {
  const next = address();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) next.delete(name);
    else next.set(name, value);
  }
  const text = next.toString();
  history.pushState(null, "", text ? `?${text}` : location.pathname);
  moved();
}

function moved() {
  follow();
  show();
  poll.now();
}

/** @param {string} day */
const choose = (day) => go({ day: day === today ? null : day });
/** @param {number} days */
const step = (days) => choose(plus(chosenDay(), days));

/** The days of the history, and before them those that the chosen one is compared with. */
function wanted() {
  const day = chosenDay();
  const to = day < plus(today, 1 - span()) || day > today ? day : today;
  const from = plus(to, 1 - span());
  const compare = plus(day, -7);
  return { from, to, first: compare < from ? compare : from };
}

/** @param {string} day @param {string} [type] */
const quantity = (day, type = chosenType()) => figures.get(day)?.get(type)?.quantity ?? 0;
/** @param {string} day @param {string} [type] */
const late = (day, type = chosenType()) => figures.get(day)?.get(type)?.late ?? 0;
/** @param {string} day @param {string} [type] */
const missing = (day, type = chosenType()) => figures.get(day)?.get(type)?.missing ?? 0;

/** @param {any[]} summaries @param {Map<string, Map<string, Figure>>} into */
function take(summaries, into) {
  for (const { activityDate, activityTypeCode, activityTypeName, quantity, lateQuantity, missingQuantity } of summaries) {
    names.set(activityTypeCode, activityTypeName);
    const day = into.get(activityDate) ?? new Map();
    into.set(activityDate, day.set(activityTypeCode, { quantity, late: lateQuantity, missing: missingQuantity }));
  }
}

/* Where the service tells of changes by itself, only what it does not tell is asked for. */
async function ask() {
  checkSession();
  today = todayIn(settings.timeZone ?? "UTC");
  follow();
  const isWhole = ticks % ALL_EVERY === 0;
  ticks += 1;
  if (isWhole) for (const type of await get("activity-types")) names.set(type.activityTypeCode, type.activityTypeName);
  if (!live.isOpen) await askForFigures(isWhole);
  if (view() === "hours" && (isWhole || hours.of !== ofHours())) await askForHours();
  if (isWhole || completeDay?.activityDate !== chosenDay()) await askHowComplete();
  show();
  if (!live.isOpen) isCurrent(settings.timeZone);
}

/** @param {boolean} isWhole */
async function askForFigures(isWhole) {
  const { first, to } = wanted();
  if (isWhole || first < loaded.from || to > loaded.to) {
    const all = new Map();
    take(await get(`activities?from=${first}&to=${to}`), all);
    // What the service tells by itself since is newer.
    if (live.isOpen) return;
    figures = all;
    loaded = { from: first, to };
  } else {
    take(await get("activities/today"), figures);
  }
}

const ofHours = () => `${chosenDay()} ${chosenType()}`;

async function askForHours() {
  const of = ofHours();
  hours = { of, hours: await hoursOfDay(chosenDay(), chosenType(), settings.timeZone ?? "UTC") };
}

/** Follows the days that are shown. */
function follow() {
  if (!settings.routes.includes("GET /activities/stream")) return;
  const { first, to } = wanted();
  live.follow(`activities/stream?from=${first}&to=${to}`);
}

/** @param {string} name @param {any} data @param {boolean} isFirst */
function told(name, data, isFirst) {
  if (name === "figures") {
    const { first, to } = wanted();
    if (isFirst) figures = new Map();
    // A day comes whole.
    for (const { activityDate } of data) figures.delete(activityDate);
    take(data, figures);
    loaded = { from: first, to };
    show();
  } else if (name === "completeness") {
    completeness = data;
    if (completeDay?.state === "open") completeDay = { ...completeDay, completeTo: data.completeTo, quarantined: data.quarantined };
    showCompleteness();
  }
  isCurrent(settings.timeZone);
}

async function askHowComplete() {
  if (!settings.routes.includes("GET /activities/{date}/completeness")) return;
  [completeDay, completeness] = await Promise.all([get(`activities/${chosenDay()}/completeness`), get("completeness")]);
  showCompleteness();
}

function showCompleteness() {
  if (!completeDay) return;
  const { state, text, utc, reasons } = inWords(completeDay, completeness, (code) => names.get(code) ?? code, settings.timeZone);
  byId("complete").dataset.state = state;
  byId("complete").title = utc;
  say(byId("complete"), text);
  byId("complete").hidden = false;
  const why = byId("why");
  why.hidden = reasons.length === 0;
  // Whoever has a link in focus keeps it, also while a time in the text moves on.
  const places = JSON.stringify(reasons.map(({ place }) => place ?? ""));
  if (why.dataset.places !== places) {
    why.dataset.places = places;
    why.replaceChildren(...reasons.map(({ place }) => h("li", {}, h("span"), " ", place && wayTo(place))));
  }
  for (const [index, { text, utc }] of reasons.entries()) {
    const told = why.children[index].children[0];
    say(told, text);
    told.setAttribute("title", utc ?? "");
  }
}

/** To where an operator can do something about it. @param {"quarantine" | "failed" | "unannounced"} place */
function wayTo(place) {
  const peer = settings.peerUrl?.replace(/\/$/, "");
  if (!may(settings, "operations") || (place !== "quarantine" && !peer)) return false;
  if (place === "quarantine") return h("a", { href: "operations" }, "Quarantine");
  const address = `${peer}/operations${place === "failed" ? "" : "?state=unpublished"}`;
  const go = (/** @type {Event} */ event) => {
    event.preventDefault();
    goOn(address);
  };
  return h("a", { href: address, onclick: go }, "Outbox");
}

const live = new Live(told, () => {
  // What was missed between the last event and now.
  ticks = 0;
  poll.now();
});
const poll = new Poll(ask, EVERY, failed);

function show() {
  const day = chosenDay();
  const isToday = day === today;
  say(byId("title"), isToday ? `Today, ${longDay(day)}` : longDay(day));
  document.title = `${isToday ? "Today" : mediumDay(day)} · Figures`;
  const field = /** @type {HTMLInputElement} */ (byId("date"));
  if (document.activeElement !== field) field.value = day;
  /** @type {HTMLButtonElement} */ (byId("after")).disabled = day >= today;
  byId("today").hidden = isToday;

  if (loaded.from === "") return;
  showNumber(day, isToday);
  showTypes(day);
  const isEmpty = [...figures.values()].every((types) => [...types.values()].every(({ quantity }) => quantity === 0));
  byId("empty").hidden = !isEmpty || !isToday;
  byId("history").hidden = isEmpty && isToday;
  if (!byId("history").hidden) showHistory(day);
}

/** Tells a screen reader: at once, or, where it was told of another number just now, when that is over, the last one. @param {string} text */
function announce(text) {
  toTell = text;
  telling ??= setTimeout(() => {
    telling = undefined;
    toldAt = performance.now();
    say(byId("announcement"), toTell);
  }, toldAt + TOLD_EVERY - performance.now());
}

/** @param {string} day @param {boolean} isToday */
function showNumber(day, isToday) {
  const now = quantity(day);
  const name = names.get(chosenType()) ?? "Activities";
  const number = count(now);
  say(byId("of-what"), isToday ? `${name}, so far` : name);
  if (byId("number").textContent !== number) {
    say(byId("number"), number);
    byId("number").toggleAttribute("data-long", number.length > 8);
    announce(`${name}: ${number}`);
  }
  const rows = [
    [isToday ? "Yesterday" : "The day before", plus(day, -1)],
    [`The ${weekday(day)} before`, plus(day, -7)],
  ].flatMap(([label, other]) => {
    const then = quantity(other);
    // Half a day is not fewer than a whole one: it is a part of it.
    const part = then === 0 ? "" : `${share(now / then)} reached`;
    return [h("dt", {}, label), h("dd", {}, h("b", {}, count(then))), h("dd", { class: "hint" }, isToday ? part : compared(now, then))];
  });
  byId("against").replaceChildren(...rows);
}

/** What begins first comes first: orders are created before they end. */
const sortedCodes = () => [...names.keys()].sort((one, other) => rank(one) - rank(other) || (one < other ? -1 : 1));
/** @param {string} code */
const rank = (code) => (OF_ORDERS.includes(code) ? OF_ORDERS.indexOf(code) : OF_ORDERS.length);

/** @param {string} day */
function showTypes(day) {
  const place = byId("types");
  const codes = sortedCodes();
  const known = [...place.children].map((button) => /** @type {HTMLElement} */ (button).dataset.type).join();
  if (known !== codes.join()) {
    const button = (/** @type {string} */ code) =>
      h("button", { type: "button", "data-type": code, onclick: () => go({ type: code }) }, h("span"), h("b"));
    place.replaceChildren(...codes.map(button));
  }
  place.hidden = codes.length < 2;
  for (const button of place.children) {
    const code = /** @type {HTMLElement} */ (button).dataset.type ?? "";
    button.setAttribute("aria-pressed", String(code === chosenType()));
    say(button.children[0], names.get(code) ?? code);
    say(button.children[1], count(quantity(day, code)));
  }
}

/** @param {string} day */
function showHistory(day) {
  const { from, to } = wanted();
  const days = range(from, to);
  for (const button of document.querySelectorAll("[data-span], [data-view]")) {
    const { span: ofSpan, view: ofView } = /** @type {HTMLElement} */ (button).dataset;
    button.setAttribute("aria-pressed", String((ofSpan === String(span()) && view() !== "hours") || ofView === view()));
  }
  const sum = days.reduce((all, one) => all + quantity(one), 0);
  pointAt = (text) => say(byId("readout"), text || `${count(sum)} in ${days.length} days`);
  if (view() === "hours") return showHours(day);
  if (!byId("bars").querySelector(".day-slot:hover")) pointAt("");
  byId("bars").hidden = view() !== "bars";
  byId("table").hidden = view() !== "table";
  if (view() === "table") return showTable(days, day);
  draw(byId("bars"), {
    days: days.map((day) => ({ day, quantity: quantity(day), late: late(day), missing: missing(day) })),
    chosen: day,
    today,
    name: names.get(chosenType()) ?? "Activities",
    // The hours of a day that is chosen already.
    onChoose: (one) => (one === day ? go({ view: "hours" }) : choose(one)),
    onPoint: (text) => pointAt(text),
  });
}

/** @param {string} day */
function showHours(day) {
  byId("bars").hidden = false;
  byId("table").hidden = true;
  if (hours.of !== ofHours() || hours.hours.length === 0) return byId("bars").replaceChildren();
  const sum = hours.hours.reduce((all, { quantity }) => all + quantity, 0);
  const unknown = quantity(day) - sum;
  // What was counted before hours were kept.
  const rest = unknown > 0 && hours.hours.length > 0 ? ` · of ${count(unknown)} the hour is not known` : "";
  pointAt = (text) => say(byId("readout"), text || `${count(sum)} in ${hours.hours.length} hours${rest}`);
  if (!byId("bars").querySelector(".day-slot:hover")) pointAt("");
  draw(byId("bars"), {
    days: hours.hours,
    chosen: "",
    today: day === today ? hours.hours[hours.hours.length - 1].day : "",
    name: names.get(chosenType()) ?? "Activities",
    onChoose: () => go({ view: null }),
    onPoint: (text) => pointAt(text),
    words: wordsOfHours(settings.timeZone ?? "UTC"),
  });
}

/** @param {string[]} days @param {string} chosen */
function showTable(days, chosen) {
  const codes = sortedCodes();
  const head = h("tr", {}, h("th", { scope: "col" }, "Day"));
  head.append(...codes.map((code) => h("th", { scope: "col", class: "number" }, names.get(code))));
  const rows = days.toReversed().map((day) => {
    const row = h("tr", { "aria-current": day === chosen ? "date" : null, onclick: () => choose(day) });
    row.append(h("th", { scope: "row", title: longDay(day) }, `${mediumDay(day)}${day === today ? ", so far" : ""}`));
    const cell = (/** @type {string} */ code) => h("td", { class: "number" }, missing(day, code) > 0 && h("span", { class: "hint" }, `${count(missing(day, code))} missing, `), late(day, code) > 0 && h("span", { class: "hint" }, `${count(late(day, code))} late, `), count(quantity(day, code)));
    row.append(...codes.map(cell));
    return row;
  });
  byId("table").replaceChildren(h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows)));
}

function saveCsv() {
  const { from, to } = wanted();
  const codes = sortedCodes();
  // New columns come last: whoever reads these files counts them.
  const marks = codes.flatMap((code) => [`${code}.lateQuantity`, `${code}.missingQuantity`]);
  const rows = range(from, to).map((day) => [
    day,
    ...codes.map((code) => quantity(day, code)),
    ...codes.flatMap((code) => [late(day, code), missing(day, code)]),
  ]);
  download(`figures-${from}-${to}.csv`, [["day", ...codes, ...marks], ...rows]);
}

function firstOrder() {
  const url = settings.peerUrl?.replace(/\/$/, "") ?? "http://127.0.0.1:8080";
  const token = settings.needsToken ? ` \\\n  -H 'authorization: Bearer TOKEN'` : "";
  const order = '{"customerRef":"C-1001","orderItems":[{"productId":"0192f0c1-7a5e-7000-8000-000000000001","quantity":2}]}';
  return `curl -sS ${url}/orders${token} \\\n  -H 'content-type: application/json' \\\n  -d '${order}'`;
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.altKey || event.ctrlKey || event.metaKey || byId("content").hidden) return;
  if (target.closest("input, textarea, select, pre")) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight" && chosenDay() < today) step(1);
  else if (event.key === "t") go({ day: null });
}

void open({
  scope: "activity:read",
  begin(known) {
    settings = known;
    today = todayIn(settings.timeZone ?? "UTC");
    byId("before").addEventListener("click", () => step(-1));
    byId("after").addEventListener("click", () => step(1));
    byId("today").addEventListener("click", () => go({ day: null }));
    byId("date").addEventListener("change", (event) => {
      const { value } = /** @type {HTMLInputElement} */ (event.target);
      if (isDay(value)) choose(value);
    });
    for (const button of document.querySelectorAll("[data-span], [data-view]")) {
      const { span: ofSpan, view: ofView } = /** @type {HTMLElement} */ (button).dataset;
      button.addEventListener("click", () => go(ofSpan ? { days: ofSpan, view: view() === "table" ? "table" : null } : { view: ofView ?? null }));
    }
    byId("csv").addEventListener("click", saveCsv);
    say(byId("request"), firstOrder());
    byId("copy").addEventListener("click", () => void navigator.clipboard.writeText(firstOrder()));
    const keys = "← and → go to the day before and after, t to today.";
    say(byId("footnote"), `Days end at midnight in ${settings.timeZone}. ${ofTimes(settings.timeZone)} ${keys}`);
    addEventListener("keydown", onKey);
    addEventListener("popstate", moved);
    // In a frame of its own: what it draws must not be measured again at once.
    new ResizeObserver(() => requestAnimationFrame(show)).observe(byId("history"));
    show();
  },
  resume: () => poll.start(),
  pause() {
    poll.stop();
    live.stop();
  },
});
