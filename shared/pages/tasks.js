// The background tasks of the instance that answers: one that waits or hangs is why the numbers above do not move.

import { get } from "./api.js";
import { byId, h, say } from "./dom.js";
import { ago, count } from "./format.js";

/** As a person says what the service calls by these words. @type {Record<string, string>} */
const STATES = { starting: "Starting", working: "Working", waiting: "Waits for something outside", hung: "Hangs", ended: "Ended" };
/** In these somebody has to look. */
const BAD = ["waiting", "hung", "ended"];

let shown = "";

/** @param {import("./session.js").Settings} settings */
export async function loadTasks(settings) {
  const place = byId("tasks");
  place.hidden = !settings.routes.includes("GET /admin/tasks");
  if (place.hidden) return;
  /** @type {any[]} */
  const all = await get("admin/tasks");
  // Whoever reads a row keeps it; times of a task that works say nothing new.
  const text = JSON.stringify([all.map((task) => [task.name, task.state, task.lastError, task.since]), Math.floor(Date.now() / 30_000)]);
  if (text === shown) return;
  shown = text;
  const bad = all.filter((task) => BAD.includes(task.state));
  byId("tasks-in-short").className = bad.length > 0 ? "wrong" : "hint";
  say(byId("tasks-in-short"), inShort(all.length, bad));
  const head = ["Task", "State", "Since", "Last done", "Last error"].map((name) => h("th", { scope: "col" }, name));
  const rows = all.map((task) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, task.name),
      h("td", { "data-name": "State", class: BAD.includes(task.state) ? "wrong" : null }, STATES[task.state] ?? task.state),
      h("td", { "data-name": "Since", title: task.since }, ago(task.since)),
      h("td", { "data-name": "Last done", title: task.lastSuccess }, task.lastSuccess && ago(task.lastSuccess)),
      h("td", { "data-name": "Last error", class: "text" }, task.lastError),
    ),
  );
  byId("task-list").replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)));
}

/** @param {number} number @param {any[]} bad */
function inShort(number, bad) {
  if (bad.length === 0) return `all ${count(number)} work`;
  return bad.map((task) => `${task.name}: ${(STATES[task.state] ?? task.state).toLowerCase()}`).join("; ");
}
