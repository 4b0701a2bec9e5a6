// Why a connection ended, in words: close codes, HTTP refusals, and whether to come back.

import { pretty } from "./frames.js";

/** code -> [name, what happened, may the client come back as it is] */
export const CLOSE_CODES = new Map([
  [1000, ["Normal", "The handler returned, or one side said goodbye.", false]],
  [1001, ["Going away", "The page was left, or the server went away.", true]],
  [1002, ["Protocol error", "One side broke the WebSocket protocol.", false]],
  [1003, ["Unsupported data", "The endpoint cannot use this kind of frame.", false]],
  [1005, ["No code", "The close frame held no code.", true]],
  [1006, ["Lost", "The connection was lost without a close frame, or refused before accept.", true]],
  [1007, ["Invalid payload", "Text that is not valid UTF-8.", false]],
  [1008, ["Policy", "Refused, or too many errors, or too many messages.", false]],
  [1009, ["Too big", "A message was over the size limit.", false]],
  [1011, ["Handler crashed", "The handler on the server failed.", true]],
  [1012, ["Server restart", "The server is restarting: come back.", true]],
  [1013, ["Too slow", "This client read too slowly: come back.", true]],
  [4401, ["Token expired", "The token ran out: come back with a new one.", false]],
  [4403, ["Disconnected", "The application ended the connection.", false]],
  [4408, ["Idle timeout", "Nothing was heard for the idle timeout.", true]],
]);

const HTTP_NAMES = new Map([
  [400, "Bad Request"],
  [401, "Unauthorized"],
  [403, "Forbidden"],
  [404, "Not Found"],
  [405, "Method Not Allowed"],
  [408, "Request Timeout"],
  [410, "Gone"],
  [422, "Unprocessable Content"],
  [426, "Upgrade Required"],
  [429, "Too Many Requests"],
  [500, "Internal Server Error"],
  [502, "Bad Gateway"],
  [503, "Service Unavailable"],
  [504, "Gateway Timeout"],
]);

const HTTP_MEANINGS = new Map([
  [401, "The server asks for credentials."],
  [403, "The credentials or the origin were not accepted."],
  [404, "There is no such route."],
  [422, "The address does not have the right shape."],
  [429, "Too many connections."],
  [503, "The server takes no new connections now."],
]);

const RETRY_STATUSES = new Set([408, 429, 500, 502, 503, 504]);

const STAY = "Reconnecting unchanged will not help.";
const RETURN = "You may reconnect.";

/**
 * What happened, ready to be shown.
 * @typedef {{title: string, text: string, detail?: string, body?: string, advice: string,
 *   tone: "ok" | "retry" | "bad", retry: boolean, code?: number, status?: number}} Verdict
 */

/** @returns {Verdict} */
export function explainClose(code, reason, byUs = false) {
  const [name, text, retry] = CLOSE_CODES.get(code) ?? [
    code >= 3000 ? "Application code" : "Unknown code",
    "This code is not in Pongee's table.",
    false,
  ];
  const said = byUs && code === 1000;
  return {
    title: `${code} ${name}`,
    text: said ? "You disconnected." : code === 1006 ? "The connection was lost without a close frame." : text,
    detail: reason ? `Reason: ${reason}` : undefined,
    advice: said ? "Connect again whenever you like." : retry ? RETURN : code === 1000 ? "There is nothing to come back from." : STAY,
    tone: code === 1000 ? "ok" : retry ? "retry" : "bad",
    retry,
    code,
  };
}

/** @returns {Verdict} */
export function explainRefusal(status, body) {
  const retry = RETRY_STATUSES.has(status);
  const known = HTTP_MEANINGS.get(status);
  return {
    title: `HTTP ${status} ${HTTP_NAMES.get(status) ?? ""}`.trim(),
    text: `Refused before accept.${known ? ` ${known}` : ""}`,
    detail: summarise(body),
    body: body === null || body === undefined ? undefined : typeof body === "string" ? body : pretty(body),
    advice: retry ? "You may reconnect after a while." : STAY,
    tone: retry ? "retry" : "bad",
    retry,
    status,
  };
}

/** @returns {Verdict} */
export function explainUnreachable() {
  return {
    title: "The server cannot be reached",
    text: "No WebSocket and no HTTP answer. It may be stopped, or the network may be down.",
    advice: RETURN,
    tone: "retry",
    retry: true,
    code: 1006,
  };
}

/**
 * A browser hides why a handshake was refused. The server makes the same handshake to itself and
 * reports the HTTP answer.
 * @returns {Promise<Verdict>}
 */
export async function probe(path, token) {
  let response;
  try {
    response = await fetch("/playground/probe", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ path, token: token || null }),
      cache: "no-store",
      signal: AbortSignal.timeout(10_000),
    });
  } catch {
    return explainUnreachable();
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok || typeof answer?.status !== "number") {
    return {
      title: "Closed before it opened",
      text: `The handshake failed, and the server could not say why (the probe answered HTTP ${response.status}).`,
      advice: RETURN,
      tone: "retry",
      retry: true,
      code: 1006,
    };
  }
  if (answer.status === 101) {
    return {
      title: "1006 Lost",
      text: "The handshake failed on the way; the server itself accepts it.",
      advice: RETURN,
      tone: "retry",
      retry: true,
      code: 1006,
    };
  }
  return explainRefusal(answer.status, answer.body);
}

function summarise(body) {
  const detail = body?.detail ?? body?.reason ?? body?.message;
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail)) return undefined;
  const lines = detail
    .filter((item) => typeof item?.msg === "string")
    .map((item) => (Array.isArray(item.loc) ? `${item.loc.join(" › ")}: ${item.msg}` : item.msg));
  return lines.length ? lines.join("; ") : undefined;
}

/** One line, for a log. */
export function inOneLine(verdict) {
  const parts = [verdict.title, verdict.text, verdict.detail].filter(Boolean);
  return parts.map((part) => (/[.!?]$/.test(part) ? part : `${part}.`)).join(" ");
}
