// What every page has round it: who is signed in, the way to the other pages, whether what is shown is current.

import { Refused } from "./api.js";
import { byId, h, say } from "./dom.js";
import { time } from "./format.js";
import { bearer, claims, goOn, may, resume, settings as read, signOut } from "./session.js";
import { askForToken, comeBack } from "./signin.js";

/**
 * @typedef {object} Page
 * @property {string} scope what a token must have for this page to show anything
 * @property {(settings: import("./session.js").Settings) => void} begin called once
 * @property {() => void} resume called whenever there is a token to ask with
 * @property {() => void} pause called when there is none any more
 */

/** Opens a page: signs in first where that is needed. @param {Page} page */
export async function open(page) {
  const settings = await known();
  let problem = "";
  await comeBack(settings.oidc).catch((failure) => (problem = `Signing in failed: ${failure.message}.`));
  resume();
  page.begin(settings);

  const show = () => {
    const isSignedIn = !settings.needsToken || bearer() !== null;
    const isAllowed = isSignedIn && may(settings, page.scope);
    account(settings, show);
    byId("content").hidden = !isAllowed;
    byId("signin").hidden = isAllowed;
    byId("status").hidden = !isAllowed;
    if (isAllowed) return page.resume();
    page.pause();
    askForToken(settings, isSignedIn ? `This page needs a token with the scope ${page.scope}.` : problem, show);
    problem = "";
  };
  addEventListener("signedout", show);
  show();
}

/** Asks again until the service answers. @returns {Promise<import("./session.js").Settings>} */
async function known() {
  for (;;) {
    try {
      return await read();
    } catch {
      byId("status").hidden = false;
      tell("waiting", "The service cannot be reached. Trying again …");
      await new Promise((resolve) => setTimeout(resolve, 2_000));
    }
  }
}

/** @param {import("./session.js").Settings} settings @param {() => void} show */
function account(settings, show) {
  const leave = () => {
    signOut();
    show();
  };
  byId("peer").replaceChildren(...(settings.peerUrl ? ways(settings.service, settings.peerUrl.replace(/\/$/, "")) : []));
  const who = claims().sub;
  const isSignedIn = settings.needsToken && bearer() !== null;
  const name = typeof who === "string" ? h("span", { class: "who", title: "Signed in" }, who) : "";
  const button = h("button", { class: "quiet", type: "button", onclick: leave }, "Sign out");
  byId("account").replaceChildren(...(isSignedIn ? [name, button] : []));
}

/** To the pages of the other service. @param {string} service @param {string} peer */
function ways(service, peer) {
  /** @type {[string, string][]} */
  const pages = service === "order-service" ? [["Figures", "/"], ["Quarantine", "/operations"]] : [["Outbox", "/operations"]];
  return pages.map(([name, path]) => {
    const go = (/** @type {Event} */ event) => {
      event.preventDefault();
      goOn(peer + path);
    };
    return h("a", { href: peer + path, onclick: go }, name);
  });
}

/**
 * Says how current the page is.
 * @param {"live" | "waiting" | "bad"} state
 * @param {string} text
 */
function tell(state, text) {
  byId("status").dataset.state = state;
  say(byId("status-text"), text);
}

/** @param {string | null} timeZone */
export function isCurrent(timeZone) {
  const now = new Date();
  tell("live", `Live · ${time(now, timeZone)}`);
  byId("status-text").title = now.toISOString();
}

/** What to do about a question that was refused. @param {unknown} failure */
export function failed(failure) {
  if (failure instanceof Refused && (failure.status === 401 || failure.status === 403)) {
    if (failure.status === 403) signOut(failure.message);
    dispatchEvent(new Event("signedout"));
  } else if (failure instanceof Refused) {
    tell(failure.status === 0 ? "waiting" : "bad", `${failure.message} Trying again …`);
  } else {
    // A mistake of the page: nothing it shows is known to be current.
    tell("bad", "This page has failed. Trying again …");
    throw failure;
  }
}
