// How far the figures can be trusted: up to when they are complete, and why not further.

import { count, time } from "./format.js";

/**
 * A sentence for what the service tells of a day, and its state: "complete", "open", "behind" or "unknown".
 * @param {any} told
 * @param {string | null} timeZone
 * @returns {{state: string, text: string}}
 */
export function inWords({ state, completeTo, quarantined, late, difference }, timeZone) {
  const upTo = completeTo ? `Complete up to ${time(completeTo, timeZone)}` : "Not known to be complete";
  const sum = (late ?? []).reduce((/** @type {number} */ all, /** @type {any} */ one) => all + one.quantity, 0);
  const notes = [
    (difference ?? []).length > 0 && "differs from what the sources say they wrote",
    quarantined > 0 && `${count(quarantined)} in quarantine`,
    sum > 0 && `${count(sum)} came after the day was complete`,
  ].filter(Boolean);
  const known = {
    complete: "Complete",
    open: `${upTo}; the day still runs`,
    behind: `${upTo}; not everything is counted yet`,
    unknown: "Not known to be complete: a source tells nothing",
  };
  const text = known[/** @type {keyof typeof known} */ (state)] ?? upTo;
  return { state, text: [text, ...notes].join(" · ") };
}
