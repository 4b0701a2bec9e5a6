// Development tokens and one-time tickets, fetched from this server.

/** The server hands out no development tokens: its secret is a real one. */
export class NoDevTokens extends Error {}

async function post(path, { body, jwt } = {}) {
  const headers = { "content-type": "application/json" };
  if (jwt) headers.authorization = `Bearer ${jwt}`;
  let response;
  try {
    response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body ?? {}), cache: "no-store" });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  return response;
}

/** @returns {Promise<{token: string, expires_in: number}>} */
export async function fetchJwt(user) {
  const response = await post("/dev/token", { body: { user } });
  if (response.status === 404) throw new NoDevTokens();
  if (!response.ok) throw new Error(`No token: POST /dev/token answered HTTP ${response.status}.`);
  return response.json();
}

/** @returns {Promise<{ticket: string, expires_in: number}>} */
export async function fetchTicket(jwt) {
  if (!/^[\x21-\x7e]+$/.test(jwt)) throw new Error("A JWT holds no spaces and only ASCII characters.");
  const response = await post("/tickets", { jwt });
  if (response.status === 401 || response.status === 403) {
    throw new Error(`The server did not accept this JWT (HTTP ${response.status}).`);
  }
  if (!response.ok) throw new Error(`No ticket: POST /tickets answered HTTP ${response.status}.`);
  return response.json();
}

/** @returns {Promise<{dev_token: boolean, heartbeat_interval: number}>} */
export async function fetchConfig() {
  const defaults = { dev_token: true, heartbeat_interval: 30 };
  try {
    const response = await fetch("/playground/config", { cache: "no-store" });
    return response.ok ? { ...defaults, ...(await response.json()) } : defaults;
  } catch {
    return defaults;
  }
}
