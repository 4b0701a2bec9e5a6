// A chat room on /ws/chat/{room_id} that comes back on its own when the server does.

import { explainClose, inOneLine, probe } from "./codes.js";
import { announce, byId, clockTime, make, setEnabled, socketUrl } from "./dom.js";
import { BoundedLog } from "./log.js";

const BACKOFF_BASE_MS = 500;
const BACKOFF_CAP_MS = 20_000;
const CONNECT_TIMEOUT_MS = 10_000;
const STEADY_MS = 5_000; // open this long: the next loss starts counting from one again

/** Exponential back-off with full jitter: anywhere between now and a limit that doubles. */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** attempt);
}

/** A WebSocket that is replaced when it is lost, until the server says to stay away. */
class ReturningSocket {
  #path;
  #on;
  #socket = null;
  #timers = new Set();
  #attempt = 0;
  #stopped = false;
  #dueAt = null;

  /** @param on {state(name, details), text(data)} */
  constructor(path, on) {
    this.#path = path;
    this.#on = on;
    this.#connect();
  }

  send(text) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(text);
    return true;
  }

  stop() {
    this.#stopped = true;
    this.#clearTimers();
    this.#socket?.close(1000);
    this.#on.state("closed", { text: "Left the room." });
  }

  retryNow() {
    if (this.#dueAt !== null) this.#connect();
  }

  #connect() {
    this.#clearTimers();
    this.#dueAt = null;
    this.#on.state("connecting", { attempt: this.#attempt });
    const socket = new WebSocket(socketUrl(this.#path));
    this.#socket = socket;
    let opened = false;
    this.#later(CONNECT_TIMEOUT_MS, () => opened || socket.close());
    socket.onopen = () => {
      opened = true;
      this.#clearTimers();
      this.#later(STEADY_MS, () => (this.#attempt = 0));
      this.#on.state("connected", { again: this.#attempt > 0 });
    };
    socket.onmessage = (event) => this.#stopped || this.#on.text(event.data);
    socket.onclose = (event) => this.#ended(event, opened);
  }

  async #ended(event, opened) {
    if (this.#stopped) return;
    this.#clearTimers();
    if (opened) this.#on.state("lost", {});
    const verdict = opened ? explainClose(event.code, event.reason) : await probe(this.#path, null);
    if (this.#stopped) return;
    if (!verdict.retry) {
      this.#stopped = true;
      this.#on.state("closed", { text: inOneLine(verdict), refused: true });
      return;
    }
    this.#attempt += 1;
    if (opened) this.#on.state("interrupted", { text: inOneLine(verdict) });
    this.#dueAt = Date.now() + backoff(this.#attempt);
    this.#wait();
  }

  /** Counts down in whole seconds. */
  #wait() {
    this.#clearTimers();
    const left = this.#dueAt - Date.now();
    if (left <= 0) {
      this.#connect();
      return;
    }
    this.#on.state("reconnecting", { seconds: Math.ceil(left / 1000), attempt: this.#attempt });
    this.#later(left % 1000 || 1000, () => this.#wait());
  }

  #later(delay, action) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, delay);
    this.#timers.add(timer);
  }

  #clearTimers() {
    this.#timers.forEach(clearTimeout);
    this.#timers.clear();
  }
}

function renderMessage({ text, kind, at }) {
  return make(
    "li",
    { class: `chat-line ${kind}`, "data-kind": kind },
    make("span", { class: "chat-body", text }),
    make("time", { datetime: at.toISOString(), text: clockTime(at, false) }),
  );
}

export function startChat() {
  const room = byId("chat-room");
  const name = byId("chat-name");
  const join = byId("chat-join");
  const leave = byId("chat-leave");
  const retry = byId("chat-retry");
  const text = byId("chat-text");
  const send = byId("chat-send");
  const state = byId("chat-state");
  const log = new BoundedLog(byId("chat-log"), byId("chat-dropped"), renderMessage);
  let socket = null;
  let current = "";
  let echoes = []; // what we sent and have not seen come back

  const note = (line, kind = "note") => log.add({ text: line, kind, at: new Date() });

  function show(name, words, { say = true } = {}) {
    state.dataset.state = name;
    state.textContent = words;
    if (say) announce(`Chat: ${words}`);
    const active = name !== "closed";
    (active ? leave : join).disabled = false;
    setEnabled(join, !active, leave);
    setEnabled(leave, active, join);
    room.readOnly = active;
    setEnabled(send, name === "connected", text);
    if (document.activeElement === retry && name !== "reconnecting") text.focus();
    retry.hidden = name !== "reconnecting";
  }

  let announcedAttempt = 0;
  const states = {
    connecting: ({ attempt }) => show("connecting", attempt ? `Connecting (attempt ${attempt})…` : "Connecting…", { say: !attempt }),
    connected: ({ again }) => {
      show("connected", `Connected to room ${current}`);
      note(again ? `Back in room ${current}. What was written meanwhile is not shown here.` : `Joined room ${current}.`);
      if (byId("chat-form").contains(document.activeElement)) text.focus();
    },
    lost: () => (echoes = []),
    interrupted: ({ text: why }) => note(`Connection interrupted. ${why}`, "warning"),
    reconnecting: ({ seconds, attempt }) => {
      show("reconnecting", `Reconnecting in ${seconds} s (attempt ${attempt})`, { say: attempt !== announcedAttempt });
      announcedAttempt = attempt;
    },
    closed: ({ text: why, refused }) => {
      show("closed", refused ? "Closed by the server" : "Closed");
      note(why, refused ? "warning" : "note");
      socket = null;
    },
  };

  byId("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (socket) return;
    current = room.value.trim();
    announcedAttempt = 0;
    echoes = [];
    const prefix = `Room ${current}: `;
    socket = new ReturningSocket(`/ws/chat/${encodeURIComponent(current)}`, {
      state: (name, details) => states[name](details),
      text: (data) => {
        const own = typeof data === "string" && data.startsWith(prefix) ? echoes.indexOf(data.slice(prefix.length)) : -1;
        if (own >= 0) echoes.splice(own, 1);
        note(typeof data === "string" ? data : "(a binary message)", own >= 0 ? "mine" : "theirs");
      },
    });
  });

  leave.addEventListener("click", () => {
    socket?.stop();
  });
  retry.addEventListener("click", () => {
    text.focus();
    socket?.retryNow();
  });
  window.addEventListener("online", () => socket?.retryNow());

  byId("chat-send-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!text.value) return;
    const who = name.value.trim();
    const line = who ? `${who}: ${text.value}` : text.value;
    if (!socket?.send(line)) return;
    echoes = [...echoes, line].slice(-50);
    text.value = "";
    text.focus();
  });
}
