// The routes the console knows, and how each takes its token.

/** token: how it travels; get: what the page can fetch for it */
export const ROUTES = [
  {
    template: "/ws/chat/{room_id}",
    about: () => "Text in; everyone in the room, you included, gets “Room {room_id}: {text}”.",
    params: { room_id: "1" },
    kind: "text",
    example: "hello",
  },
  {
    template: "/ws/secure/{client_id}",
    label: "/ws/secure/{client_id}?token=…",
    about: () => "client_id above 0, and a valid token of at least 8 characters. Refused before accept.",
    params: { client_id: "1" },
    token: "query",
    get: "ticket",
    tokenHint: "A one-time ticket, or a static token. It travels in the address. Leave it empty to connect without.",
    kind: "text",
    example: "hello",
  },
  {
    template: "/ws/auth",
    about: () => "Asks for a JWT. Refused after accept: the close code and its reason can be read.",
    params: {},
    token: "subprotocol",
    get: "jwt",
    tokenHint: "A JWT. A browser cannot set headers here, so it travels in the list of subprotocols. Leave it empty to connect without.",
    kind: "text",
    example: "hello",
  },
  {
    template: "/ws/status",
    about: () => "Tells how many are connected, and about you, on connect and on every change.",
    params: {},
    kind: "text",
    example: "still here",
  },
  {
    template: "/ws/realtime",
    about: (seconds) => `JSON in, and a heartbeat every ${seconds} s. Bad input gets an answer and the connection lives on.`,
    params: {},
    kind: "json",
    example: '{"text": "hello"}',
  },
];

/** The path and query of `route`; the token only if it travels there. */
export function pathOf(route, params, token) {
  const path = route.template.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(params[name] ?? ""));
  return route.token === "query" && token ? `${path}?token=${encodeURIComponent(token)}` : path;
}

/** The same to be shown: tokens do not belong on screens or in logs. */
export function shownPath(route, params, token) {
  return pathOf(route, params, token && "…").replace("token=%E2%80%A6", "token=…");
}
