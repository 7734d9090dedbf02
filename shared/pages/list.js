// A list in pages: never more rows in the page than one answer has, and what is chosen is in the address.

import { Refused, page } from "./api.js";
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
  /** What is ticked, of the rows that are shown. @type {Set<string>} */
  ticked = new Set();

  /**
   * @param {object} how
   * @param {string} how.path
   * @param {() => Record<string, string>} how.filters
   * @param {() => Column[]} how.columns
   * @param {(entry: any) => string} how.key what an entry is found under again
   * @param {(key: string) => void} how.onOpen
   * @param {() => string} how.empty what is said where there is nothing
   * @param {() => string | null} how.tick the column whose text names a row that can be ticked; null where none can be
   * @param {() => void} how.onTick
   */
  constructor({ path, filters, columns, key, onOpen, empty, tick, onTick }) {
    this.path = path;
    this.filters = filters;
    this.columns = columns;
    this.key = key;
    this.onOpen = onOpen;
    this.empty = empty;
    this.tick = tick;
    this.onTick = onTick;
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
    this.#untick();
  }

  /** Nothing is done with what nobody sees. @param {(key: string) => boolean} [isShown] */
  #untick(isShown = () => false) {
    const before = this.ticked.size;
    for (const key of this.ticked) if (!isShown(key)) this.ticked.delete(key);
    if (this.ticked.size !== before) this.onTick();
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
    const keys = new Set(entries.map(this.key));
    this.#untick((key) => keys.has(key));
    if (entries.length === 0) {
      byId("list").replaceChildren(h("p", { class: "nothing" }, this.empty()));
      return;
    }
    const named = columns.findIndex(({ name }) => name === this.tick());
    const head = columns.map(({ name, kind }) => h("th", { scope: "col", class: kind }, name));
    if (named >= 0) head[0].prepend(this.#ticks("Tick all that are shown", [...keys]));
    const rows = entries.map((entry) => {
      const key = this.key(entry);
      const isOpen = chosen("open") === key;
      const [first, ...others] = columns;
      const open = h("button", { class: "quiet open", type: "button", "data-key": key, onclick: () => this.onOpen(key) });
      open.append(asNode(first.show(entry)));
      const tick = named >= 0 && this.#ticks(`Tick ${columns[named].show(entry)}`, [key]);
      const cells = others.map(({ name, show, kind }) => h("td", { class: kind, "data-name": name }, show(entry)));
      return h("tr", { "aria-current": isOpen ? "true" : null }, h("th", { scope: "row" }, tick, open), ...cells);
    });
    byId("list").replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)));
    if (focused) /** @type {HTMLElement | null} */ (document.querySelector(`[data-key="${CSS.escape(focused)}"]`))?.focus();
  }

  /** A box that ticks these. @param {string} label @param {string[]} keys */
  #ticks(label, keys) {
    const onchange = (/** @type {Event} */ event) => {
      const { checked } = /** @type {HTMLInputElement} */ (event.target);
      for (const key of keys) checked ? this.ticked.add(key) : this.ticked.delete(key);
      for (const box of byId("list").querySelectorAll("input")) box.checked = this.#areTicked(box.value.split(" "));
      this.onTick();
    };
    const box = h("input", { type: "checkbox", class: "tick", "aria-label": label, value: keys.join(" "), "data-key": `tick ${keys.join(" ")}`, onchange });
    box.checked = this.#areTicked(keys);
    return box;
  }

  /** @param {string[]} keys */
  #areTicked(keys) {
    return keys.every((key) => this.ticked.has(key));
  }
}

/**
 * Does something with each of these, one after the other. What is not as it was any more is passed over: somebody else
 * was quicker.
 * @param {Iterable<string>} keys
 * @param {(key: string) => Promise<any>} act
 * @returns {Promise<any[]>} the answers
 */
export async function each(keys, act) {
  const answers = [];
  for (const key of [...keys]) {
    try {
      answers.push(await act(key));
    } catch (failure) {
      if (!(failure instanceof Refused) || ![404, 409].includes(failure.status)) throw failure;
    }
  }
  return answers;
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
