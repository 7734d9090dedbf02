// Bytes that somebody sent, for people to look at. Whatever they say, they are text here.

import { h } from "./dom.js";

/** Bytes of a line of hex. */
const LINE = 16;
/** More bytes than this are not shown as hex: the page would become slow, and nobody reads them. */
const MOST_HEX = 4096;

/** @param {Uint8Array} bytes */
function hex(bytes) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, MOST_HEX); at += LINE) {
    const part = [...bytes.subarray(at, at + LINE)];
    const codes = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const letters = part.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${codes.padEnd(LINE * 3)} ${letters}`);
  }
  if (bytes.length > MOST_HEX) lines.push(`… ${bytes.length - MOST_HEX} bytes more`);
  return lines.join("\n");
}

/** Characters that would change how the others are seen are shown by their numbers. @param {string} text */
const visible = (text) =>
  text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });

/** Indented; none where it is no JSON. @param {string} text */
function json(text) {
  try {
    return visible(JSON.stringify(JSON.parse(text), null, 2));
  } catch {
    return null;
  }
}

/** @param {string | null} base64 */
export function bytesOf(base64) {
  if (base64 === null) return h("p", { class: "soft" }, "The message has no value.");
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const text = new TextDecoder().decode(bytes);
  /** @type {[string, string | null][]} */
  const all = [
    ["JSON", json(text)],
    ["Text", visible(text)],
    ["Hex", hex(bytes)],
  ];
  const views = all.filter(([, shown]) => shown !== null);
  const shown = h("pre", { tabindex: 0 });
  const choose = (/** @type {number} */ index) => {
    shown.textContent = views[index][1];
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === index)));
  };
  const buttons = views.map(([name], index) => h("button", { type: "button", onclick: () => choose(index) }, name));
  choose(0);
  const size = h("span", { class: "hint" }, ` ${bytes.length} bytes`);
  const group = h("div", { class: "group", role: "group", "aria-label": "The value as" }, ...buttons);
  return h("div", { class: "bytes" }, group, size, shown);
}
