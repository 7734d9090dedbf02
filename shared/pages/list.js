// A list in pages: never more rows in the page than one answer has, and what is chosen is in the address.

import { page } from "./api.js";
import { byId, h } from "./dom.js";

const LIMIT = 50;

/** @param {string} name @returns {string} */
export const chosen = (name) => new URLSearchParams(location.search).get(name) ?? "";

/** @param {Record<string, string>} changes an empty text takes a name out of the address */
export function choose(changes) {
  const next = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === "") next.delete(name);
    else next.set(name, value);
  }
  const text = next.toString();
  history.pushState(null, "", text ? `?${text}` : location.pathname);
  dispatchEvent(new Event("chosen"));
}

/**
 * @typedef {object} Column
 * @property {string} name
 * @property {(entry: any) => import("./dom.js").Child} show
 * @property {string} [kind] a class of its cells
 */

export class List {
  /** The cursors of the pages before this one; the last is this one's. @type {string[]} */
  #cursors = [];
  /** @type {string | null} */
  #next = null;
  #shown = "";

  /**
   * @param {object} how
   * @param {string} how.path
   * @param {() => Record<string, string>} how.filters
   * @param {() => Column[]} how.columns
   * @param {(entry: any) => string} how.key what an entry is found under again
   * @param {(key: string) => void} how.onOpen
   * @param {() => string} how.empty what is said where there is nothing
   */
  constructor({ path, filters, columns, key, onOpen, empty }) {
    this.path = path;
    this.filters = filters;
    this.columns = columns;
    this.key = key;
    this.onOpen = onOpen;
    this.empty = empty;
    byId("newer").addEventListener("click", () => this.#turn(() => this.#cursors.pop()));
    byId("older").addEventListener("click", () => this.#turn(() => this.#cursors.push(this.#next ?? "")));
  }

  /** @param {() => void} change */
  #turn(change) {
    change();
    dispatchEvent(new Event("turned"));
  }

  /** To the first page: other messages are asked for. */
  restart() {
    this.#cursors = [];
    this.#shown = "";
  }

  async load() {
    const query = new URLSearchParams({ ...this.filters(), limit: String(LIMIT) });
    const cursor = this.#cursors.at(-1);
    if (cursor) query.set("cursor", cursor);
    const { entries, next } = await page(`${this.path}?${query}`);
    this.#next = next;
    /** @type {HTMLButtonElement} */ (byId("newer")).disabled = this.#cursors.length === 0;
    /** @type {HTMLButtonElement} */ (byId("older")).disabled = next === null;
    byId("pages").hidden = this.#cursors.length === 0 && next === null;
    this.#show(entries);
  }

  /** Draws only what has changed: whoever reads a row keeps it, and the focus. @param {any[]} entries */
  #show(entries) {
    const text = JSON.stringify([location.search, entries, Math.floor(Date.now() / 30_000)]);
    if (text === this.#shown) return;
    this.#shown = text;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement?.closest("[data-key]"))?.dataset.key;
    const columns = this.columns();
    if (entries.length === 0) {
      byId("list").replaceChildren(h("p", { class: "nothing" }, this.empty()));
      return;
    }
    const head = columns.map(({ name, kind }) => h("th", { scope: "col", class: kind }, name));
    const rows = entries.map((entry) => {
      const key = this.key(entry);
      const isOpen = chosen("open") === key;
      const [first, ...others] = columns;
      const open = h("button", { class: "quiet open", type: "button", "data-key": key, onclick: () => this.onOpen(key) });
      open.append(asNode(first.show(entry)));
      const cells = others.map(({ name, show, kind }) => h("td", { class: kind, "data-name": name }, show(entry)));
      return h("tr", { "aria-current": isOpen ? "true" : null }, h("th", { scope: "row" }, open), ...cells);
    });
    byId("list").replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)));
    if (focused) /** @type {HTMLElement | null} */ (document.querySelector(`[data-key="${CSS.escape(focused)}"]`))?.focus();
  }
}

/** @param {import("./dom.js").Child} child @returns {Node | string} */
const asNode = (child) => (child instanceof Node ? child : String(child ?? ""));

/**
 * Names and values below each other; what is not there is left out.
 * @param {[string, import("./dom.js").Child][]} pairs
 */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  return h("dl", { class: "facts" }, ...known.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
