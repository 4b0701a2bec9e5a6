// The few helpers every part of the page needs. Text goes in as text, never as HTML.

export const byId = (id) => document.getElementById(id);

/** make("p", {class: "hint", text: "…"}, child, …) */
export function make(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  element.append(...children.filter(Boolean));
  return element;
}

/** Read out by screen readers, seen by nobody. */
export function announce(text) {
  byId("announcer").textContent = text;
}

export function socketUrl(path) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}${path}`;
}

/** Disabling the element that has the focus would lose it: hand it on first. */
export function setEnabled(element, enabled, heir) {
  if (!enabled && document.activeElement === element) heir?.focus();
  element.disabled = !enabled;
}

const pad = (number, digits = 2) => String(number).padStart(digits, "0");

export function clockTime(date, milliseconds = true) {
  const seconds = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return milliseconds ? `${seconds}.${pad(date.getMilliseconds(), 3)}` : seconds;
}

export function sizeInWords(bytes) {
  if (bytes === 1) return "1 byte";
  return bytes < 1024 ? `${bytes} bytes` : `${(bytes / 1024).toFixed(1)} KiB`;
}

export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
