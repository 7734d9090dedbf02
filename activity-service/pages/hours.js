// The hours of a day of the business time zone. The service knows hours of UTC: where the zone is not whole hours off, the
// first and the last one are those that begin within the day.

import { get } from "./api.js";
import { now } from "./clock.js";
import { dayIn, plus } from "./days.js";

const HOUR = 3_600_000;

/**
 * Each hour of a day up to now, also those without anything.
 * @param {string} day
 * @param {string} type
 * @param {string} timeZone
 * @returns {Promise<{day: string, quantity: number}[]>} each by its beginning, as `2026-11-22T14:00:00Z`
 */
export async function ofDay(day, type, timeZone) {
  const query = new URLSearchParams({ from: plus(day, -1), to: plus(day, 1), activityTypeCode: type });
  /** @type {{hour: string, quantity: number}[]} */
  const told = await get(`activities/hourly?${query}`);
  const known = new Map(told.map(({ hour, quantity }) => [Date.parse(hour), quantity]));
  const hours = [];
  const end = Math.min(Date.parse(`${plus(day, 2)}T00:00:00Z`), now());
  for (let hour = Date.parse(`${plus(day, -1)}T00:00:00Z`); hour < end; hour += HOUR) {
    if (dayIn(timeZone, hour) === day) hours.push({ day: new Date(hour).toISOString(), quantity: known.get(hour) ?? 0 });
  }
  return hours;
}

/** How an hour is written. @param {string} timeZone @returns {import("./bars.js").Words} */
export function words(timeZone) {
  const format = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", timeZone });
  const brief = (/** @type {string} */ hour) => format.format(new Date(hour));
  return { brief, medium: brief, long: (hour) => `from ${brief(hour)}`, each: "an hour" };
}
