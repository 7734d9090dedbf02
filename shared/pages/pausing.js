// What a service does all the time rests while an operator wants it: whether it does, and the way to begin and to end it.

import { change, get } from "./api.js";
import { confirm } from "./confirm.js";
import { byId, h } from "./dom.js";
import { ago, dateTime } from "./format.js";

/** How long a pause may last, as the API takes it. @type {[string, string][]} */
const LASTS = [
  ["", "until somebody resumes"],
  ["15m", "15 minutes"],
  ["30m", "30 minutes"],
  ["1h", "an hour"],
  ["4h", "4 hours"],
  ["1d", "a day"],
];

export class Pausing {
  #shown = "";

  /**
   * @param {string} what rests, as a sentence begins with it
   * @param {string} meanwhile what goes on all the same
   * @param {(text: string) => void} onChange
   */
  constructor(what, meanwhile, onChange) {
    this.what = what;
    this.meanwhile = meanwhile;
    this.onChange = onChange;
  }

  /** @param {string | null} timeZone */
  async load(timeZone) {
    const pause = await get("admin/pause");
    // Whoever has the button in focus keeps it.
    const text = JSON.stringify([pause, Math.floor(Date.now() / 60_000)]);
    if (text === this.#shown) return;
    this.#shown = text;
    const place = byId("pause");
    place.hidden = false;
    place.classList.toggle("paused", pause.paused);
    const button = (/** @type {string} */ name, /** @type {() => void} */ act) =>
      h("button", { type: "button", onclick: act }, name);
    if (!pause.paused) {
      place.replaceChildren(h("p", {}, `${this.what} is not paused.`), button("Pause …", () => this.#pause()));
      return;
    }
    const end = pause.until ? h("span", { title: pause.until }, dateTime(pause.until, timeZone)) : "somebody resumes";
    const told = h(
      "p",
      {},
      h("b", {}, `${this.what} is paused`),
      ` by ${pause.by} since `,
      h("span", { title: pause.since }, ago(pause.since)),
      ", until ",
      end,
      `: ${pause.reason}`,
    );
    place.replaceChildren(told, button("Resume …", () => this.#resume()));
  }

  #pause() {
    const lasts = h("select", { id: "lasts" }, ...LASTS.map(([value, name]) => h("option", { value }, name)));
    const question = {
      title: `Pause on all instances?`,
      text: `${this.what} rests. ${this.meanwhile}`,
      action: "Pause",
      wantsReason: true,
      more: [h("label", { for: "lasts" }, "How long?"), lasts],
    };
    confirm(question, async (reason) => {
      await change("PUT", "admin/pause", lasts.value ? { reason, for: lasts.value } : { reason });
      this.#changed("Paused.");
    });
  }

  #resume() {
    const question = { title: "Resume on all instances?", text: `${this.what} goes on within about a second.`, action: "Resume" };
    confirm(question, async () => {
      await change("DELETE", "admin/pause");
      this.#changed("Resumed.");
    });
  }

  /** @param {string} text */
  #changed(text) {
    this.#shown = "";
    this.onChange(text);
  }
}
