// What time it is for the service: the reader's own clock may be off by days.

let ahead = 0;

/** Takes the time that an answer was made at. @param {string | null} date a header */
export function setBy(date) {
  const told = Date.parse(date ?? "");
  // It is of whole seconds: less than two are no difference.
  if (!Number.isNaN(told)) ahead = Math.abs(told - Date.now()) < 2_000 ? 0 : told - Date.now();
}

export const now = () => Date.now() + ahead;
