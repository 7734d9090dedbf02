// Who looks: the token of this tab. It is in memory and in the session storage, which ends with the tab, and in no
// address that is sent anywhere.

import { now } from "./clock.js";

/**
 * @typedef {object} Settings
 * @property {string} service
 * @property {string} version
 * @property {boolean} needsToken
 * @property {{claims: string[], prefix: string | null, roles: Record<string, string[]>} | null} scopes where a token has
 *   them, as the service is set; null where it needs none
 * @property {{issuer: string, clientId: string} | null} oidc
 * @property {string | null} peerUrl
 * @property {string | null} timeZone
 * @property {string[]} routes
 */

const KEY = "token";

/** @type {string | null} */
let token = null;
/** Why there is no token any more, for whoever has to sign in again. */
export let ended = "";
/** Somebody has signed out, or was: what was still to be asked is not asked any more. */
export let isOver = false;

/** @returns {Promise<Settings>} */
export async function settings() {
  const answer = await fetch("pages/settings.json");
  if (!answer.ok) throw new Error(`the settings of the page answered ${answer.status}`);
  return answer.json();
}

/** Takes the token out of the address, or the one that this tab had before it was loaded again. */
export function resume() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    history.replaceState(history.state, "", location.pathname + location.search);
    signIn(given);
  } else {
    token = sessionStorage.getItem(KEY);
  }
  if (hasExpired()) signOut("Your session has ended.");
  // Nothing was asked yet, and a service without authentication needs no token.
  isOver = false;
}

/** @param {string} text a token, or a header with it */
export function signIn(text) {
  token = text.trim().replace(/^(authorization:\s*)?bearer\s+/i, "");
  ended = "";
  isOver = false;
  sessionStorage.setItem(KEY, token);
}

/** @param {string} [why] */
export function signOut(why = "") {
  token = null;
  ended = why;
  isOver = true;
  sessionStorage.removeItem(KEY);
}

export const bearer = () => token;

/**
 * What the token says of itself. It proves nothing: the service checks, this only decides what is shown.
 * @returns {Record<string, any>}
 */
export function claims() {
  try {
    const payload = (token ?? "").split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}

export function hasExpired() {
  const { exp } = claims();
  return typeof exp === "number" && exp * 1000 <= now();
}

/** As the service finds the scopes of a token. @param {Settings} settings @param {string} scope */
export function may({ scopes }, scope) {
  if (scopes === null) return true;
  const all = claims();
  const found = scopes.claims.map((name) => all[name] ?? name.split(".").reduce((inner, part) => inner?.[part], all));
  const given = found.flatMap((claim) => (typeof claim === "string" ? claim.split(" ") : (claim ?? [])));
  const { roles, prefix } = scopes;
  const isOne = (/** @type {any} */ word) => (Object.hasOwn(roles, word) ? roles[word].includes(scope) : word === `${prefix ?? ""}${scope}`);
  // Where a token says nothing of scopes the service tells, by refusing.
  return given.length === 0 || given.some(isOne);
}

/**
 * Goes to the other service's pages and takes the token along, behind `#`: that is sent to nobody.
 * @param {string} address
 */
export function goOn(address) {
  location.assign(token === null ? address : `${address}#token=${encodeURIComponent(token)}`);
}
