// Numbers, days and times as the reader's language writes them.

import { now } from "./clock.js";

const number = new Intl.NumberFormat();
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "long" });

/** @param {number} value */
export const count = (value) => number.format(value);
/** @param {number} value */
export const decimal = (value) => tenths.format(value);
/** @param {number} value */
export const share = (value) => percent.format(value);
/** @param {number} value */
export const short = (value) => (Math.abs(value) < 10_000 ? count(value) : compact.format(value));

/** Days are told apart from moments: they have no zone. @param {Intl.DateTimeFormatOptions} options */
const ofDays = (options) => new Intl.DateTimeFormat(undefined, { ...options, timeZone: "UTC" });
const long = ofDays({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
const medium = ofDays({ weekday: "short", day: "numeric", month: "short" });
const brief = ofDays({ day: "numeric", month: "short" });
const week = ofDays({ weekday: "long" });

/** @param {string} day `2026-11-22` */
const atNoon = (day) => new Date(`${day}T12:00:00Z`);
/** @param {string} day */
export const longDay = (day) => long.format(atNoon(day));
/** @param {string} day */
export const mediumDay = (day) => medium.format(atNoon(day));
/** @param {string} day */
export const briefDay = (day) => brief.format(atNoon(day));
/** @param {string} day */
export const weekday = (day) => week.format(atNoon(day));

/**
 * A moment, in a zone if there is one to prefer.
 * @param {string | number | Date} moment
 * @param {string | null} [timeZone]
 */
export function time(moment, timeZone) {
  const options = { timeStyle: /** @type {const} */ ("medium"), timeZone: timeZone ?? undefined };
  return new Intl.DateTimeFormat(undefined, options).format(new Date(moment));
}

/** @param {string | number} moment @param {string | null} [timeZone] */
export function dateTime(moment, timeZone) {
  const options = { dateStyle: /** @type {const} */ ("medium"), timeStyle: /** @type {const} */ ("medium") };
  return new Intl.DateTimeFormat(undefined, { ...options, timeZone: timeZone ?? undefined }).format(new Date(moment));
}

/** Whose times those of a page are. @param {string | null} timeZone where there is one to prefer */
export const ofTimes = (timeZone) =>
  `Times are those of ${timeZone ?? new Intl.DateTimeFormat().resolvedOptions().timeZone}; pointed at, they are told in UTC.`;

/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

/** "3 minutes ago". @param {string} moment */
export function ago(moment) {
  const seconds = (Date.parse(moment) - now()) / 1000;
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS[3];
  return relative.format(Math.round(seconds / size), unit);
}

/** "3 min". @param {number} seconds */
export function duration(seconds) {
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? UNITS[3];
  const options = { style: /** @type {const} */ ("unit"), unit, unitDisplay: /** @type {const} */ ("short") };
  return new Intl.NumberFormat(undefined, { ...options, maximumFractionDigits: 0 }).format(seconds / size);
}
