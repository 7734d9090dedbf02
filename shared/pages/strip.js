// A few numbers that are always in sight. What needs somebody is marked by a word and a sign, not by colour alone.

import { byId, h } from "./dom.js";

/**
 * @typedef {object} Tile
 * @property {string} name
 * @property {string} value
 * @property {string} [note]
 * @property {boolean} [isBad]
 */

/** @param {Tile[]} tiles */
export function strip(tiles) {
  const shown = tiles.map(({ name, value, note, isBad }) =>
    h(
      "div",
      { class: isBad ? "tile bad" : "tile" },
      h("dt", {}, name),
      h("dd", {}, h("b", {}, value), note && h("span", { class: "hint" }, note)),
    ),
  );
  byId("strip").replaceChildren(...shown);
}
