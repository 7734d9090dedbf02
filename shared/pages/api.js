// Questions to the API of this service, with the token of this tab.

import { setBy } from "./clock.js";
import { bearer, ended, hasExpired, isOver, signOut } from "./session.js";

/** An answer that is none: what went wrong, in words for whoever looks. */
export class Refused extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 where there was no answer
   * @param {number} retryAfter seconds
   */
  constructor(message, status, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** How long an answer is waited for, in milliseconds: longer than the service waits for its database. */
const PATIENCE = 10_000;
/** The same for a change: many messages at once may take the service 20 s, and a last step. */
const PATIENCE_FOR_CHANGES = 60_000;

/**
 * @param {string} path relative to the page, so that a proxy may have put both below a path of its own
 * @param {{method?: string, body?: unknown, signal?: AbortSignal, lastEventId?: string, isPeer?: boolean}} [how]
 * @returns {Promise<Response>}
 */
async function ask(path, { method = "GET", body, signal, lastEventId, isPeer = false } = {}) {
  checkSession();
  const token = bearer();
  /** @type {Record<string, string>} */
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (lastEventId) headers["last-event-id"] = lastEventId;
  signal ??= AbortSignal.timeout(method === "GET" ? PATIENCE : PATIENCE_FOR_CHANGES);
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const answer = await fetch(path, { method, headers, signal, body: sent }).catch(() => {
    throw new Refused(isPeer ? "It cannot be reached from here." : "The service cannot be reached.", 0);
  });
  if (!isPeer) setBy(answer.headers.get("date"));
  if (!answer.ok) throw await refusal(answer, isPeer);
  return answer;
}

/** Ends a session that is over. Whoever asks for nothing meanwhile has to look. */
export function checkSession() {
  if (isOver) throw new Refused(ended, 401);
  if (!hasExpired()) return;
  signOut("Your session has ended.");
  throw new Refused("Your session has ended.", 401);
}

/** @param {Response} answer @param {boolean} isPeer */
async function refusal(answer, isPeer) {
  const problem = await answer.json().catch(() => ({}));
  const retryAfter = Number(answer.headers.get("retry-after") ?? 0);
  // What the other service does not take may be good here.
  if (answer.status === 401 && isPeer) return new Refused("It does not take this token.", 401);
  if (answer.status === 401) signOut("The service does not take this token.");
  const errors = (problem.errors ?? []).map((/** @type {{detail: string}} */ error) => error.detail).join(" ");
  const text = errors || problem.detail || problem.title || `The service answered ${answer.status}.`;
  return new Refused(text, answer.status, retryAfter);
}

/**
 * What an answer says. It may be cut off on its way, or be that of something in between, which is no JSON.
 * @param {Response} answer
 * @returns {Promise<any>}
 */
async function read(answer) {
  try {
    return await answer.json();
  } catch {
    throw new Refused("The answer cannot be read.", 0);
  }
}

/** @param {string} path @returns {Promise<any>} */
export async function get(path) {
  return read(await ask(path));
}

/** Of the other service. @param {string} url @returns {Promise<any>} */
export async function getFrom(url) {
  return read(await ask(url, { isPeer: true }));
}

/**
 * An answer without an end.
 * @param {string} path
 * @param {AbortSignal} signal ends it
 * @param {string} [lastEventId] what the caller has
 * @returns {Promise<ReadableStream<Uint8Array>>}
 */
export async function stream(path, signal, lastEventId) {
  const { body } = await ask(path, { signal, lastEventId });
  if (body === null) throw new Refused("The service answered nothing.", 0);
  return body;
}

/**
 * One page of a list, and the cursor of the next one.
 * @param {string} path
 * @returns {Promise<{entries: any[], next: string | null}>}
 */
export async function page(path) {
  const answer = await ask(path);
  const link = /<([^>]*)>;\s*rel="next"/.exec(answer.headers.get("link") ?? "");
  const next = link && new URL(link[1], location.href).searchParams.get("cursor");
  return { entries: await read(answer), next };
}

/** @param {string} method @param {string} path @param {unknown} [body] @returns {Promise<any>} */
export async function change(method, path, body) {
  return read(await ask(path, { method, body }));
}
