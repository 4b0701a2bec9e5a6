// The token field of the console, and where its content can come from.

import { byId, clockTime } from "./dom.js";
import { NoDevTokens, fetchJwt, fetchTicket } from "./tokens.js";

/** @param config promise of the server's config  @param changed called when the token changes */
export function startTokens(config, changed) {
  const field = byId("token");
  const status = byId("token-status");
  const button = byId("get-token-button");
  const user = byId("user");
  const jwt = byId("jwt");
  const perRoute = new Map(); // a token typed for one route is not offered to another
  let route = null;
  let devTokens = true;
  let ticket = "";
  let expiry = null;

  function showSources() {
    const canGet = route.get === "ticket" || (route.get === "jwt" && devTokens);
    byId("token-field").hidden = !route.token;
    byId("get-token").hidden = !canGet;
    byId("token-hint").textContent = route.tokenHint ?? "";
    byId("get-token-legend").textContent = route.get === "ticket" ? "No ticket yet?" : "No token yet?";
    button.textContent = route.get === "ticket" ? "Get a ticket" : "Get a token";
    byId("user-field").hidden = !devTokens;
    byId("jwt-field").hidden = devTokens;
  }

  function put(value) {
    field.value = value;
    changed();
  }

  async function fetchJwtHere() {
    if (!devTokens) {
      const pasted = jwt.value.trim();
      if (!pasted) throw new Error("Paste a JWT first.");
      return { token: pasted };
    }
    try {
      return await fetchJwt(user.value.trim() || "ada");
    } catch (error) {
      if (!(error instanceof NoDevTokens)) throw error;
      devTokens = false;
      showSources();
      jwt.focus();
      throw new Error("This server hands out no development tokens: paste a JWT.");
    }
  }

  async function get() {
    const wanted = route;
    status.textContent = "Asking the server…";
    try {
      const answer = await fetchJwtHere();
      if (wanted.get === "jwt") {
        if (wanted !== route) return;
        put(answer.token);
        status.textContent = `A token for ${user.value.trim() || "ada"}, valid until ${until(answer.expires_in)}.`;
        return;
      }
      const got = await fetchTicket(answer.token);
      if (wanted !== route) return;
      ticket = got.ticket;
      put(ticket);
      status.textContent = `A ticket for one connection, valid until ${until(got.expires_in)}.`;
      clearTimeout(expiry);
      expiry = setTimeout(() => field.value === ticket && (status.textContent = "This ticket has expired: get a new one."), got.expires_in * 1000);
    } catch (error) {
      if (wanted === route) status.textContent = error.message;
    }
  }

  const until = (seconds) => clockTime(new Date(Date.now() + seconds * 1000), false);

  button.addEventListener("click", get);
  for (const input of [user, jwt]) {
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // Enter here fetches; it does not connect
      get();
    });
  }
  field.addEventListener("input", () => {
    status.textContent = "";
    changed();
  });
  config.then((known) => {
    devTokens = known.dev_token !== false;
    if (route) showSources();
  });

  return {
    value: () => field.value.trim(),
    show(next) {
      if (route) perRoute.set(route, field.value);
      route = next;
      field.value = perRoute.get(next) ?? "";
      status.textContent = "";
      showSources();
    },
    /** A ticket opens one connection. */
    used(token) {
      if (!token || token !== ticket) return;
      clearTimeout(expiry);
      status.textContent = "This ticket is used up: it opens one connection. Get a new one for the next.";
    },
  };
}
