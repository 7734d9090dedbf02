// How far the figures can be trusted: up to when they are complete, and why not further.

import { now } from "./clock.js";
import { dayIn, todayIn } from "./days.js";
import { count, dateTime, time } from "./format.js";

/** What waits longer than this many milliseconds to be announced, or to be counted, holds the figures up. */
const LONG = 60_000;
/** Differences, and sources that are behind, are said up to so many; the API has more. */
const MOST = 5;

/**
 * Why a day is not complete, or more than it was when it was: and where somebody can do something about it.
 * @typedef {object} Reason
 * @property {string} text
 * @property {string} [utc] the times in it
 * @property {"quarantine" | "failed" | "unannounced"} [place]
 */

/**
 * A sentence for what the service tells of a day, its state ("complete", "open", "behind" or "unknown"), and reasons.
 * @param {any} day what it tells of the day
 * @param {any} all what it tells of all figures; null while it has not been asked
 * @param {(code: string) => string} nameOf
 * @param {string | null} timeZone
 * @returns {{state: string, text: string, utc: string, reasons: Reason[]}}
 */
export function inWords(day, all, nameOf, timeZone) {
  const { state, completeTo, late = [] } = day;
  const upTo = completeTo ? `Complete up to ${timeOrDay(completeTo, timeZone)}` : "Not known to be complete";
  const known = { complete: "Complete", open: `${upTo}; the day still runs`, behind: "Not complete", unknown: "Not known to be complete" };
  const held = [...silence(state, all, timeZone), ...behind(day, all, timeZone), ...waiting(day, all, timeZone), ...differences(day, nameOf, timeZone)];
  if (state === "behind" && held.length === 0) held.push({ text: `Everything up to ${dateTime(completeTo, timeZone)} is counted, what came later is not yet.`, utc: completeTo });
  const text = known[/** @type {keyof typeof known} */ (state)] ?? upTo;
  const added = late.map((/** @type {any} */ one) => ({ text: `${count(one.quantity)} of ${nameOf(one.activityTypeCode)} came after the day was complete.` }));
  // A day that still runs may be held up as well.
  return { state: state === "open" && held.length > 0 ? "behind" : state, text, utc: completeTo ?? "", reasons: [...held, ...added] };
}

/** With its day, where that is not today's. @param {string} moment @param {string | null} timeZone */
function timeOrDay(moment, timeZone) {
  const zone = timeZone ?? "UTC";
  return dayIn(zone, new Date(moment)) === todayIn(zone) ? time(moment, zone) : dateTime(moment, zone);
}

/** @param {any} source */
const nameOfSource = ({ source }) => source.replace(/^\//, "");

/**
 * Whose activities of the day come late, although it tells of them: the slowest first.
 * @param {any} day @param {any} all @param {string | null} timeZone @returns {Reason[]}
 */
function behind({ activityDate, completeTo }, all, timeZone) {
  const zone = timeZone ?? "UTC";
  // What comes after the end of a day does not hold it up.
  if (!completeTo || dayIn(zone, new Date(completeTo)) > activityDate) return [];
  const isLong = (/** @type {string | null} */ moment) => moment !== null && now() - Date.parse(moment) > LONG;
  /** @type {any[]} */
  const late = (all?.sources ?? []).filter((/** @type {any} */ one) => !one.silentSince && isLong(one.countedTo));
  late.sort((one, other) => Date.parse(one.countedTo) - Date.parse(other.countedTo));
  return late.slice(0, MOST).map((one) => {
    const { announcedTo, countedTo } = one;
    const far = `${nameOfSource(one)} has announced up to ${timeOrDay(announcedTo, zone)}, and is counted up to ${timeOrDay(countedTo, zone)}`;
    const utc = `${announcedTo}, ${countedTo}`;
    // The page it leads to tells which of the two.
    if (isLong(announcedTo)) return { text: `Announcing is paused or behind: ${far}.`, utc, place: "unannounced" };
    return { text: `Counting is paused or behind: ${far}.`, utc, place: "quarantine" };
  });
}

/** Who tells nothing. @param {string} state @param {any} all @param {string | null} timeZone @returns {Reason[]} */
function silence(state, all, timeZone) {
  if (all === null) return [];
  const silent = all.sources.filter((/** @type {any} */ one) => one.silentSince);
  if (silent.length > 0) return silent.map((/** @type {any} */ one) => ({ text: `${nameOfSource(one)} has told nothing since ${dateTime(one.silentSince, timeZone)}.`, utc: one.silentSince }));
  if (all.completeTo === null) return [{ text: "Not every source has told how far it is." }];
  return state === "unknown" ? [{ text: "The sources have not told of each minute of this day." }] : [];
}

/** What waits for somebody. @param {any} day @param {any} all @param {string | null} timeZone @returns {Reason[]} */
function waiting({ quarantined }, all, timeZone) {
  /** @type {any[]} */
  const sources = all?.sources ?? [];
  const sum = (/** @type {string} */ name) => sources.reduce((so, one) => so + one[name], 0);
  const oldest = Math.min(...sources.map((one) => Date.parse(one.oldestUnannouncedAt ?? "")).filter((at) => !Number.isNaN(at)));
  const [unannounced, failed, gaps] = [sum("unannounced"), sum("failed"), all?.openGaps ?? 0];
  /** @type {(Reason | false)[]} */
  const reasons = [
    now() - oldest > LONG && { text: `${count(unannounced)} not announced yet, the oldest of ${dateTime(oldest, timeZone)}.`, utc: new Date(oldest).toISOString(), place: "unannounced" },
    failed > 0 && { text: `${count(failed)} failed to be announced.`, place: "failed" },
    quarantined > 0 && { text: `${count(quarantined)} in quarantine, of this day or another.`, place: "quarantine" },
    gaps > 0 && { text: `${count(gaps)} open ${gaps === 1 ? "gap" : "gaps"} in what was read, of this day or another.`, place: "quarantine" },
  ];
  return reasons.filter((reason) => reason !== false);
}

/** Where something else was counted than was written. @param {any} day @param {(code: string) => string} nameOf @param {string | null} timeZone @returns {Reason[]} */
function differences({ difference = [] }, nameOf, timeZone) {
  const texts = difference.slice(0, MOST).map((/** @type {any} */ one) => {
    const place = one.minute ? `In the minute of ${time(one.minute, timeZone)},` : "On this day";
    return { text: `${place} ${count(one.expected)} of ${nameOf(one.activityTypeCode)} were written, and ${count(one.counted)} are ${one.minute ? "counted" : "in the figure"}.`, utc: one.minute ?? "" };
  });
  const more = difference.length - texts.length;
  return more > 0 ? [...texts, { text: `${count(more)} differences more.` }] : texts;
}
