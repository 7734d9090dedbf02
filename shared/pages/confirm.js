// Nothing is changed before it was said what will be, and somebody has agreed.

import { Refused } from "./api.js";
import { h } from "./dom.js";

/**
 * Asks, does it, and says in the same place when it is refused.
 * @param {object} question
 * @param {string} question.title
 * @param {string} question.text
 * @param {string} question.action what the button says
 * @param {boolean} [question.wantsReason]
 * @param {import("./dom.js").Child[]} [question.more] fields of its own
 * @param {(reason: string) => Promise<void>} act
 */
export function confirm({ title, text, action, wantsReason = false, more = [] }, act) {
  const told = h("p", { class: "problem", role: "alert" });
  const reason = h("input", { id: "reason", maxlength: 500, required: true, autocomplete: "off" });
  const go = h("button", { class: "primary" }, action);
  const leave = h("button", { type: "button", onclick: () => dialog.close() }, "Leave it");
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await act(reason.value.trim());
      dialog.close();
    } catch (failure) {
      if (!(failure instanceof Refused)) throw failure;
      told.textContent = failure.message;
      go.disabled = false;
    }
  };
  const form = h(
    "form",
    { onsubmit: submit },
    h("h2", { id: "question" }, title),
    h("p", {}, text),
    ...more,
    wantsReason && h("label", { for: "reason" }, "Why? It is kept, with your name."),
    wantsReason && reason,
    told,
    h("div", { class: "buttons" }, leave, go),
  );
  // Whoever goes back has left what was asked about.
  const left = () => dialog.close();
  window.addEventListener("popstate", left);
  const onclose = () => {
    window.removeEventListener("popstate", left);
    dialog.remove();
  };
  const dialog = h("dialog", { "aria-labelledby": "question", onclose }, form);
  document.body.append(dialog);
  dialog.showModal();
}

/** Says below the strip what was done. @param {string} text */
export function done(text) {
  const place = document.getElementById("done");
  if (place) place.textContent = text;
}
