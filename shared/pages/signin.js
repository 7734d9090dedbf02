// Signing in: by OpenID Connect (authorization code with PKCE) where an issuer is named, or with a pasted token.

import { byId, h } from "./dom.js";
import { ended, signIn } from "./session.js";

const KEY = "signing-in";
const SCOPES = ["orders:read", "activity:read", "operations"];

/** @param {Uint8Array} bytes */
const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const here = () => location.origin + location.pathname;

/** @param {{issuer: string}} oidc @returns {Promise<{authorization_endpoint: string, token_endpoint: string}>} */
async function endpoints({ issuer }) {
  const answer = await fetch(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
  if (!answer.ok) throw new Error(`the issuer answered ${answer.status}`);
  return answer.json();
}

/** Leaves for the issuer. @param {{issuer: string, clientId: string}} oidc @param {string} prefix before each scope */
async function leave(oidc, prefix) {
  const { authorization_endpoint } = await endpoints(oidc);
  const [verifier, state] = [random(), random()];
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  sessionStorage.setItem(KEY, JSON.stringify({ verifier, state, search: location.search }));
  const address = new URL(authorization_endpoint);
  const asked = {
    response_type: "code",
    client_id: oidc.clientId,
    redirect_uri: here(),
    scope: ["openid", ...SCOPES.map((scope) => prefix + scope)].join(" "),
    state,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(asked)) address.searchParams.set(name, value);
  location.assign(address);
}

/**
 * Takes the token where the issuer has sent somebody back, and restores the address that was left.
 * @param {{issuer: string, clientId: string} | null} oidc
 */
export async function comeBack(oidc) {
  const given = new URLSearchParams(location.search);
  // A page has a state of its own in its address.
  if (!oidc || !given.has("state") || !(given.has("code") || given.has("error"))) return;
  const begun = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  sessionStorage.removeItem(KEY);
  history.replaceState(null, "", location.pathname + (begun?.search ?? "") + location.hash);
  // Whoever sends somebody here with a code of their own does not know the state.
  if (!begun || begun.state !== given.get("state")) throw new Error("it was not begun in this tab");
  const code = given.get("code");
  if (!code) throw new Error(given.get("error_description") ?? given.get("error") ?? "the issuer gave no code");
  const { token_endpoint } = await endpoints(oidc);
  const sent = {
    grant_type: "authorization_code",
    code,
    redirect_uri: here(),
    client_id: oidc.clientId,
    code_verifier: begun.verifier,
  };
  const answer = await fetch(token_endpoint, { method: "POST", body: new URLSearchParams(sent) });
  if (!answer.ok) throw new Error(`the issuer answered ${answer.status}`);
  signIn((await answer.json()).access_token);
}

/**
 * Asks for a token, and calls `then` once there is one.
 * @param {import("./session.js").Settings} settings
 * @param {string} problem what went wrong before
 * @param {() => void} then
 */
export function askForToken(settings, problem, then) {
  const panel = byId("signin");
  const told = h("p", { class: "problem", role: "alert" }, problem || ended);
  const field = h("textarea", { id: "token", rows: 3, autocomplete: "off", spellcheck: "false", required: true });
  const useToken = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!field.value.trim()) return;
    signIn(field.value);
    panel.replaceChildren();
    panel.hidden = true;
    then();
  };
  const form = h(
    "form",
    { onsubmit: useToken },
    h("label", { for: "token" }, settings.oidc ? "or paste a token" : "Paste a token"),
    field,
    h("button", { class: settings.oidc ? "" : "primary" }, "Use this token"),
    h("p", { class: "hint" }, "It stays in this tab and is forgotten when the tab is closed."),
  );
  const { oidc } = settings;
  const goToIssuer = async () => {
    try {
      if (oidc) await leave(oidc, settings.scopes?.prefix ?? "");
    } catch (failure) {
      told.textContent = `Signing in is not possible now: ${/** @type {Error} */ (failure).message}.`;
    }
  };
  const host = oidc && new URL(oidc.issuer).host;
  const button = oidc && h("button", { class: "primary", type: "button", onclick: goToIssuer }, `Sign in with ${host}`);
  panel.replaceChildren(h("h1", {}, "Sign in"), told, button ?? "", form);
  panel.hidden = false;
  (button ?? field).focus();
}
