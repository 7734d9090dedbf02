// Other bytes in place of those that came: written as text, JSON or hex, whichever can hold them. The service says what
// they would do before somebody is asked whether they are to count.

import { Refused, change } from "./api.js";
import { decoded, indented } from "./bytes.js";
import { h } from "./dom.js";

/** Bytes of a line of hex. */
const LINE = 16;
/** As many bytes fit into a request, as Base64: it may have 64 KiB. */
const MOST = 48_000;

/** What somebody has written is no bytes. */
class Unreadable extends Error {}

/**
 * A way to write bytes: null where it would not hold them as they are.
 * @typedef {object} Notation
 * @property {(bytes: Uint8Array) => string | null} show
 * @property {(text: string) => Uint8Array} read
 * @property {(text: string) => void} [check] what is wrong with it as such
 */

const utf8 = new TextEncoder();

/** @param {Uint8Array} bytes */
function text(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** @param {string} written */
const ofText = (written) => utf8.encode(written);

/** @param {string} written */
function isJson(written) {
  try {
    JSON.parse(written);
  } catch (failure) {
    throw new Unreadable(`This is no JSON: ${/** @type {Error} */ (failure).message}.`);
  }
}

/** @param {string} written */
function ofHex(written) {
  const digits = written.replace(/\s+/g, "");
  if (!/^([0-9a-f]{2})*$/i.test(digits)) throw new Unreadable("This is no hex: two digits of 0-9 and a-f are a byte.");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** @param {Uint8Array} bytes */
function hex(bytes) {
  const pairs = [...bytes].map((byte) => byte.toString(16).padStart(2, "0"));
  return pairs.map((pair, at) => pair + (at % LINE === LINE - 1 ? "\n" : " ")).join("").trimEnd();
}

/** @type {Record<string, Notation>} */
const NOTATIONS = {
  Text: { show: text, read: ofText },
  // What is to become JSON may be none yet.
  JSON: { show: (bytes) => indented(text(bytes) ?? "") ?? text(bytes), read: ofText, check: isJson },
  Hex: { show: hex, read: ofHex },
};

/** @param {Uint8Array} bytes */
const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

/**
 * @param {any} entry what is in quarantine
 * @param {object} then
 * @param {() => void} then.leave
 * @param {(figures: any[], count: (reason: string) => Promise<any>) => void} then.agree is asked with what would change
 */
export function editor({ id, valueBase64 }, { leave, agree }) {
  const field = h("textarea", { id: "edited", rows: 12, spellcheck: "false", autocomplete: "off" });
  const told = h("p", { class: "problem", role: "alert" });
  const size = h("span", { class: "hint" });
  let name = "JSON";

  /** Shows bytes in a notation, if that holds them. @param {Uint8Array} bytes @param {string} wanted */
  const show = (bytes, wanted) => {
    const before = field.value;
    const written = NOTATIONS[wanted].show(bytes);
    field.value = written ?? "";
    // A field has no carriage returns, and may have its own mind about other characters.
    if (field.value !== written) {
      field.value = before;
      return false;
    }
    name = wanted;
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.textContent === name)));
    field.setAttribute("aria-label", `The bytes as ${name}`);
    measure(bytes);
    return true;
  };
  const measure = (/** @type {Uint8Array} */ bytes) => (size.textContent = ` ${bytes.length} bytes`);
  /** @param {() => void | Promise<void>} act what may find that something is wrong */
  const trying = async (act) => {
    told.textContent = "";
    try {
      await act();
    } catch (failure) {
      if (!(failure instanceof Unreadable || failure instanceof Refused)) throw failure;
      told.textContent = failure.message;
    }
  };
  const turnTo = (/** @type {string} */ wanted) =>
    trying(() => {
      if (!show(NOTATIONS[name].read(field.value), wanted)) throw new Unreadable(`These bytes cannot be written as ${wanted}.`);
    });
  const buttons = Object.keys(NOTATIONS).map((one) => h("button", { type: "button", onclick: () => turnTo(one) }, one));
  const check = (/** @type {Event} */ event) => {
    event.preventDefault();
    return trying(async () => {
      NOTATIONS[name].check?.(field.value);
      const bytes = NOTATIONS[name].read(field.value);
      measure(bytes);
      if (bytes.length > MOST) throw new Unreadable(`These are more than the ${MOST} bytes that a request has room for.`);
      const body = { valueBase64: base64(bytes) };
      const path = `admin/quarantine/${id}/value`;
      const { figures } = await change("PUT", path, { ...body, reason: "a look", dryRun: true });
      agree(figures, (reason) => change("PUT", path, { ...body, reason }));
    });
  };
  const original = valueBase64 === null ? new Uint8Array() : decoded(valueBase64);
  show(original, "JSON") || show(original, "Hex");
  return h(
    "form",
    { class: "bytes", onsubmit: check },
    h("h3", {}, "To be counted in its place"),
    h("div", { class: "group", role: "group", "aria-label": "Written as" }, ...buttons),
    size,
    field,
    told,
    h("div", { class: "buttons" }, h("button", { type: "button", onclick: leave }, "Leave it"), h("button", { class: "primary" }, "Check …")),
  );
}
