// A bar a day, or an hour. Drawn anew whenever something has changed: 90 bars are nothing to a browser.

import { svg } from "./dom.js";
import { briefDay, count, longDay, mediumDay, share, short } from "./format.js";

/**
 * @typedef {object} Words
 * @property {(day: string) => string} brief
 * @property {(day: string) => string} medium
 * @property {(day: string) => string} long
 * @property {string} each
 */
/** @type {Words} */
const OF_DAYS = { brief: briefDay, medium: mediumDay, long: longDay, each: "a day" };

/**
 * @typedef {object} Bars
 * @property {{day: string, quantity: number, late?: number, missing?: number}[]} days of these so many came after the day was complete, and so many more were written
 * @property {string} chosen
 * @property {string} today its bar is not finished
 * @property {Words} [words] how a day is written; where bars are hours, an hour
 * @property {string} name what is counted
 * @property {(day: string) => void} onChoose
 * @property {(text: string) => void} onPoint
 */

const HEIGHT = 260;
const BELOW = 26;
const ABOVE = 10;

/** 1, 2 or 5 of a power of ten: the steps of a scale with about four lines. @param {number} top */
function step(top) {
  const rough = Math.max(top, 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  return Math.max(1, power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10));
}

/** @param {HTMLElement} place @param {Bars} bars */
export function draw(place, { days, chosen, today, name, onChoose, onPoint, words = OF_DAYS }) {
  const width = Math.max(240, place.clientWidth);
  const most = Math.max(...days.map(({ quantity }) => quantity));
  const unit = step(most);
  const top = Math.max(unit, Math.ceil(most / unit) * unit);
  const lines = Array.from({ length: Math.round(top / unit) + 1 }, (_, index) => index * unit);
  const left = 12 + 7.5 * Math.max(...lines.map((line) => short(line).length));
  const y = (/** @type {number} */ value) => ABOVE + (HEIGHT - ABOVE - BELOW) * (1 - value / top);
  const slot = (width - left) / days.length;
  const thick = Math.min(48, slot * (days.length > 40 ? 0.74 : 0.66));
  // As many labels as fit beside each other, counted from the last day: that one is always named.
  const every = Math.ceil((days.length > 10 ? 58 : 84) / slot);
  const labelled = (/** @type {number} */ index) => (days.length - 1 - index) % every === 0;

  const scale = lines.flatMap((line) => [
    svg("line", { x1: left, x2: width, y1: y(line), y2: y(line) }),
    svg("text", { class: "end", x: left - 10, y: y(line) + 4 }, short(line)),
  ]);
  const drawn = days.map(({ day, quantity, late = 0, missing = 0 }, index) => {
    const middle = left + slot * (index + 0.5);
    const height = Math.max(quantity > 0 ? 2 : 0, y(0) - y(quantity));
    const round = Math.min(4, thick / 2, height);
    const [from, to, head] = [middle - thick / 2, middle + thick / 2, y(0) - height];
    const outline = `M${from} ${y(0)}V${head + round}q0 ${-round} ${round} ${-round}H${to - round}q${round} 0 ${round} ${round}V${y(0)}Z`;
    const label = days.length > 10 ? words.brief(day) : words.medium(day);
    const classes = ["day-slot", day === chosen && "chosen", day === today && "open"].filter(Boolean).join(" ");
    // The last label would reach over the edge.
    const anchor = index === days.length - 1 && slot < 60 ? "end" : "middle";
    const x = anchor === "end" ? Math.min(width, middle + slot / 2) : middle;
    return svg(
      "g",
      {
        class: classes,
        "data-day": day,
        onclick: () => onChoose(day),
        onpointerenter: () => onPoint(`${words.long(day)}: ${count(quantity)}${day === today ? " so far" : ""}${late > 0 ? `, ${count(late)} of them late` : ""}${missing > 0 ? `, ${count(missing)} missing` : ""}`),
        onpointerleave: () => onPoint(""),
      },
      svg("rect", { class: "slot", x: middle - slot / 2, y: 0, width: slot, height: HEIGHT }),
      height > 0 && svg("path", { class: "bar", d: outline }),
      // Above the bar, or in its head where there is no room.
      late + missing > 0 && svg("text", { class: "middle", x: middle, y: Math.max(ABOVE + 2, head - 4) }, late > 0 && svg("tspan", { class: "late" }, "◆"), missing > 0 && svg("tspan", { class: "missing" }, "▼")),
      labelled(index) && svg("text", { class: anchor, x, y: HEIGHT - 4 }, label),
    );
  });
  const sum = days.reduce((all, { quantity }) => all + quantity, 0);
  const later = days.reduce((all, { late = 0 }) => all + late, 0);
  const lacking = days.reduce((all, { missing = 0 }) => all + missing, 0);
  const label = `${name}, ${words.long(days[0].day)} to ${words.long(days[days.length - 1].day)}: ${count(sum)} in all, at most ${count(most)} ${words.each}${later > 0 ? `, ${count(later)} came late` : ""}${lacking > 0 ? `, ${count(lacking)} missing` : ""}. The table has each day.`;
  const chart = svg("svg", { role: "img", "aria-label": label, width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` });
  chart.append(...scale, ...drawn);
  place.replaceChildren(chart);
}

/** "12 % more than 1,102". @param {number} value @param {number} other */
export function compared(value, other) {
  if (value === other) return "as many";
  if (other === 0) return "";
  return `${share(Math.abs(value - other) / other)} ${value > other ? "more" : "fewer"}`;
}
