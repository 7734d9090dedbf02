// Who changed what, when and why: the newest, asked for when somebody opens it.

import { page } from "./api.js";
import { byId, h } from "./dom.js";
import { ago } from "./format.js";

/**
 * @param {import("./session.js").Settings} settings
 * @param {(failure: unknown) => void} onFailure
 */
export function audit(settings, onFailure) {
  const place = /** @type {HTMLDetailsElement} */ (byId("audit"));
  place.hidden = !settings.routes.includes("GET /admin/audit");
  const load = async () => {
    const { entries } = await page("admin/audit?limit=50");
    const names = ["When", "Who", "What", "Of what", "Why"];
    const head = names.map((name) => h("th", { scope: "col" }, name));
    const rows = entries.map(({ at, actor, action, subject, reason }) =>
      h(
        "tr",
        {},
        h("th", { scope: "row", title: at }, ago(at)),
        h("td", {}, actor),
        h("td", {}, action.replaceAll("_", " ")),
        h("td", { class: "code" }, subject),
        h("td", { class: "text" }, reason),
      ),
    );
    const table = h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
    byId("audited").replaceChildren(rows.length ? table : h("p", { class: "nothing" }, "Nobody has changed anything yet."));
  };
  place.addEventListener("toggle", () => {
    if (place.open) load().catch(onFailure);
  });
}
