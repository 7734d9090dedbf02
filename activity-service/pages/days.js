// Days of the calendar, as `2026-11-22`: texts that sort as the days do.

import { now } from "./clock.js";

const DAY = 86_400_000;

/** @param {string} day @param {number} number of days to go on by, or back */
export const plus = (day, number) => new Date(Date.parse(`${day}T12:00:00Z`) + number * DAY).toISOString().slice(0, 10);

/** The day it is now in a zone. @param {string} timeZone */
export const todayIn = (timeZone) => dayIn(timeZone, now());

/** The day of a moment in a zone. @param {string} timeZone @param {number | Date} moment */
export function dayIn(timeZone, moment) {
  const format = new Intl.DateTimeFormat("en-GB", { timeZone, year: "numeric", month: "2-digit", day: "2-digit" });
  const parts = Object.fromEntries(format.formatToParts(moment).map(({ type, value }) => [type, value]));
  return `${parts.year}-${parts.month}-${parts.day}`;
}

/** Both included. @param {string} from @param {string} to */
export function range(from, to) {
  const days = [];
  for (let day = from; day <= to; day = plus(day, 1)) days.push(day);
  return days;
}

/**
 * A day that there may be figures of. Nothing is counted for one before 2000; and a few days after it the year must still
 * have four digits, or else days do not sort as texts.
 * @param {string | null} text
 */
export const isDay = (text) =>
  text !== null && /^2\d{3}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(text)) && plus(text, 0) === text;
