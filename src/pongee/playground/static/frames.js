// What was typed -> a frame, and a frame -> what is shown.

import { clockTime, make, plural, sizeInWords } from "./dom.js";

const SHOWN_CHARACTERS = 4000;
const PRETTY_CHARACTERS = 8_000; // longer JSON is shown as it came
const LINE = 72;
const encoder = new TextEncoder();

/** JSON for reading: what fits on a line stays on one. */
export function pretty(value, indent = "") {
  const flat = JSON.stringify(value);
  if (value === null || typeof value !== "object" || indent.length + flat.length <= LINE) return spaced(value, flat);
  const deeper = `${indent}  `;
  const list = Array.isArray(value);
  const parts = Object.entries(value).map(([key, item]) => `${deeper}${list ? "" : `${JSON.stringify(key)}: `}${pretty(item, deeper)}`);
  return `${list ? "[" : "{"}\n${parts.join(",\n")}\n${indent}${list ? "]" : "}"}`;
}

function spaced(value, flat) {
  if (value === null || typeof value !== "object") return flat;
  if (Array.isArray(value)) return `[${value.map((item) => spaced(item, JSON.stringify(item))).join(", ")}]`;
  const parts = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${spaced(item, JSON.stringify(item))}`);
  return `{${parts.join(", ")}}`;
}

/** @returns {{data: string | Uint8Array, type: string}}; throws Error with a message for the user */
export function readTyped(kind, typed) {
  switch (kind) {
    case "json":
      try {
        JSON.parse(typed);
      } catch (error) {
        throw new Error(`Not JSON: ${error.message}. Choose Text to send it as it is.`);
      }
      return { data: typed, type: "json" };
    case "hex":
      return { data: parseHex(typed), type: "binary" };
    case "bytes":
      return { data: encoder.encode(typed), type: "binary" };
    default:
      return { data: typed, type: "text" };
  }
}

function parseHex(typed) {
  const digits = typed.replace(/0x/gi, "").replace(/[\s,:]/g, "");
  if (/[^0-9a-f]/i.test(digits)) throw new Error("Hex holds only 0–9 and a–f, such as 48 65 6c 6c 6f.");
  if (digits.length % 2) throw new Error("Hex needs two digits for every byte.");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** @returns an entry for the log */
export function frameEntry(direction, data) {
  if (typeof data === "string") {
    const size = encoder.encode(data).length;
    const value = parseStructured(data);
    const type = value === undefined ? "text" : value.type === "heartbeat" ? "heartbeat" : "json";
    return { direction, type, size, content: value === undefined ? data : readable(value, data), at: new Date() };
  }
  const bytes = new Uint8Array(data);
  return { direction, type: "binary", size: bytes.length, content: hexOf(bytes), also: textOf(bytes), at: new Date() };
}

/** Never other than what was sent: numbers beyond 2^53 and very deep values stay as they came. */
function readable(value, data) {
  if (data.length > PRETTY_CHARACTERS || /\d{16}/.test(data)) return data;
  try {
    return pretty(value);
  } catch {
    return data;
  }
}

/** Objects and arrays only: the text `7` is a text. */
function parseStructured(text) {
  if (!/^\s*[[{]/.test(text)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function hexOf(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

function textOf(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text && !/[\u0000-\u0008\u000e-\u001f\u007f]/.test(text) ? text : undefined;
  } catch {
    return undefined;
  }
}

const DIRECTIONS = { in: ["↓", "Received"], out: ["↑", "Sent"], note: ["·"] };

/** @returns {HTMLLIElement} */
export function renderEntry(entry) {
  const [arrow, word] = DIRECTIONS[entry.direction];
  const note = entry.direction === "note";
  const head = make(
    "div",
    { class: "entry-head" },
    make("span", { class: "arrow", "aria-hidden": "true", text: arrow }),
    note ? null : make("span", { class: "direction", text: word }),
    make("span", { class: "type", text: entry.type }),
    note
      ? make("span", { class: "content", text: entry.content })
      : make("span", { class: "size", text: sizeInWords(entry.size) }),
    make("time", { datetime: entry.at.toISOString(), text: clockTime(entry.at) }),
  );
  const item = make("li", { class: "entry", "data-direction": entry.direction, "data-type": entry.type }, head);
  if (!note && entry.content !== "") item.append(shortened(entry.content));
  if (entry.also !== undefined) item.append(make("p", { class: "also", text: `as text: ${entry.also.slice(0, 200)}` }));
  return item;
}

function shortened(content) {
  const body = make("pre", { class: "content", text: content });
  if (content.length <= SHOWN_CHARACTERS) return body;
  body.textContent = content.slice(0, SHOWN_CHARACTERS);
  const rest = plural(content.length - SHOWN_CHARACTERS, "more character");
  const button = make("button", { type: "button", class: "quiet small", text: `Show ${rest}` });
  button.addEventListener("click", () => {
    body.textContent = content;
    body.tabIndex = -1;
    body.focus();
    button.remove();
  });
  return make("div", {}, body, button);
}
