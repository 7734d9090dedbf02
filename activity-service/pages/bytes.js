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

/** Indented, with every other character as it came: numbers that are too long for this language, and names that are there
 * twice, stay. Null where it is no JSON. @param {string} text */
export function indented(text) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  const parts = text.match(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s"[\]{},:]+/g) ?? [];
  let depth = 0;
  let shown = "";
  const onNewLine = () => `\n${"  ".repeat(depth)}`;
  parts.forEach((part, index) => {
    const isEmpty = /[[{]/.test(parts[index - 1] ?? "");
    if (/^[\]}]$/.test(part)) {
      depth -= 1;
      shown += isEmpty ? part : onNewLine() + part;
      return;
    }
    if (isEmpty) shown += onNewLine();
    if (/^[[{]$/.test(part)) depth += 1;
    shown += part === ":" ? ": " : part === "," ? `,${onNewLine()}` : part;
  });
  return shown;
}

/** @param {string} text */
function json(text) {
  const shown = indented(text);
  return shown === null ? null : visible(shown);
}

/** @param {string} base64 */
export const decoded = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/** Headers of a message, several of which may have one name. @param {{name: string, valueBase64: string | null}[]} headers */
export function headersOf(headers) {
  const text = (/** @type {string} */ base64) => visible(new TextDecoder().decode(decoded(base64)));
  const rows = headers.flatMap(({ name, valueBase64 }) => [
    h("dt", { class: "code" }, visible(name) || "(no name)"),
    h("dd", { class: "code" }, valueBase64 === null ? "(no value)" : text(valueBase64)),
  ]);
  return h("div", { class: "headers" }, h("h3", {}, "Headers"), h("dl", { class: "facts" }, ...rows));
}

/** @param {string | null} base64 @param {string} title */
export function bytesOf(base64, title) {
  if (base64 === null) return h("p", { class: "soft" }, "The message has no value, or it was not kept.");
  const bytes = decoded(base64);
  const text = new TextDecoder().decode(bytes);
  /** @type {[string, string | null][]} */
  const all = [
    ["JSON", json(text)],
    ["Text", visible(text)],
    ["Hex", hex(bytes)],
  ];
  const views = all.filter(([, shown]) => shown !== null);
  const shown = h("pre", { tabindex: 0, role: "region", "aria-label": title });
  const choose = (/** @type {number} */ index) => {
    shown.textContent = views[index][1];
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === index)));
  };
  const buttons = views.map(([name], index) => h("button", { type: "button", onclick: () => choose(index) }, name));
  choose(0);
  const size = h("span", { class: "hint" }, ` ${bytes.length} bytes`);
  const group = h("div", { class: "group", role: "group", "aria-label": `${title}, shown as` }, ...buttons);
  return h("div", { class: "bytes" }, h("h3", {}, title), group, size, shown);
}
