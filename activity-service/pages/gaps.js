// Gaps in what was read: messages that the topic had deleted before they were counted.

import { get } from "./api.js";
import { byId, h } from "./dom.js";
import { ago, count } from "./format.js";

let shown = "";

/** @param {number} open how many there are, as far as is known */
export async function loadGaps(open) {
  const place = byId("gaps");
  if (open === 0) {
    place.hidden = true;
    return;
  }
  /** @type {any[]} */
  const gaps = await get("admin/gaps");
  place.hidden = gaps.length === 0;
  const text = JSON.stringify([gaps, Math.floor(Date.now() / 60_000)]);
  if (text === shown) return;
  shown = text;
  const head = ["Gap", "Topic / partition", "Offsets", "At most", "Found"].map((name) => h("th", { scope: "col" }, name));
  const rows = gaps.map((one) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, String(one.id)),
      h("td", { "data-name": "Topic / partition", class: "code" }, `${one.topic} / ${one.partition}`),
      h("td", { "data-name": "Offsets", class: "code" }, `${one.from} – ${one.to - 1}`),
      h("td", { "data-name": "At most" }, one.to - one.from === 1 ? "one message" : `${count(one.to - one.from)} messages`),
      h("td", { "data-name": "Found", title: one.foundAt }, ago(one.foundAt)),
    ),
  );
  byId("gap-list").replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)));
}
