// The console: one connection at a time to any route, every frame shown, its end explained.

import { CLOSE_CODES, explainClose, probe } from "./codes.js";
import { announce, byId, make, plural, setEnabled, socketUrl } from "./dom.js";
import { frameEntry, readTyped, renderEntry } from "./frames.js";
import { BoundedLog } from "./log.js";
import { ROUTES, pathOf, shownPath } from "./routes.js";
import { startTokens } from "./token_field.js";

export function startConsole(config) {
  const picker = byId("route");
  const connect = byId("connect");
  const disconnect = byId("disconnect");
  const message = byId("message");
  const kind = byId("kind");
  const send = byId("send");
  const state = byId("state");
  const log = new BoundedLog(byId("log"), byId("log-dropped"), renderEntry);
  const counts = { out: 0, in: 0, heartbeat: 0 };
  let route = ROUTES[0];
  let heartbeat = 30;
  let socket = null;
  let generation = 0; // a late answer about an earlier connection is not shown

  const typed = new Map(); // route -> its parameters as last typed
  const tokens = startTokens(config, showUrl);

  const params = () =>
    Object.fromEntries([...byId("params").querySelectorAll("input")].map((input) => [input.name, input.value]));

  function showUrl() {
    byId("url").textContent = socketUrl(shownPath(route, params(), route.token && tokens.value()));
  }

  function showRoute() {
    route = ROUTES[picker.selectedIndex];
    byId("route-about").textContent = route.about(heartbeat);
    byId("params").replaceChildren(
      ...Object.entries({ ...route.params, ...typed.get(route) }).map(([name, value]) =>
        make(
          "div",
          { class: "field" },
          make("label", { for: `param-${name}`, text: name }),
          make("input", {
            id: `param-${name}`, "data-testid": `param-${name}`, name, value, type: "text", required: "", spellcheck: "false",
          }),
        ),
      ),
    );
    tokens.show(route);
    if (!socket) kind.value = route.kind;
    message.placeholder = route.example;
    showUrl();
  }

  function showState(name, words) {
    state.dataset.state = name;
    state.textContent = words;
    const active = name !== "idle";
    (active ? disconnect : connect).disabled = false;
    setEnabled(connect, !active, disconnect);
    setEnabled(disconnect, active, connect);
    setEnabled(send, name === "connected", message);
  }

  function showCounts() {
    byId("counter").textContent =
      `${plural(counts.out, "frame")} sent, ${counts.in.toLocaleString("en")} received, ` +
      plural(counts.heartbeat, "heartbeat");
  }

  function record(direction, data) {
    const entry = frameEntry(direction, data);
    counts[direction] += 1;
    if (entry.type === "heartbeat" && direction === "in") counts.heartbeat += 1;
    showCounts();
    log.add(entry);
  }

  const note = (type, content) => log.add({ direction: "note", type, content, at: new Date() });

  function showVerdict(verdict) {
    const box = byId("verdict");
    box.dataset.tone = verdict?.tone ?? "";
    if (!verdict) {
      box.replaceChildren();
      return;
    }
    box.replaceChildren(
      make(
        "div",
        {},
        make("h3", { text: verdict.title }),
        make("p", { text: verdict.text }),
        verdict.detail ? make("p", { class: "reason", text: verdict.detail }) : null,
        make("p", { class: "advice", text: verdict.advice }),
      ),
      verdict.body ? make("pre", { text: verdict.body, tabindex: "0", "aria-label": "Body of the answer" }) : "",
    );
  }

  function open() {
    const token = route.token ? tokens.value() : "";
    const path = pathOf(route, params(), token);
    const shown = shownPath(route, params(), token);
    const bearer = route.token === "subprotocol" ? token : "";
    const mine = ++generation;
    let opened = false;
    let leaving = false;
    showVerdict(null);
    try {
      socket = new WebSocket(socketUrl(path), bearer ? ["bearer", bearer] : []);
    } catch (error) {
      showVerdict({
        title: "Not sent",
        text: bearer
          ? "A browser cannot send this token: a subprotocol holds only letters, digits and a few signs, no spaces."
          : error.message,
        advice: "Correct it and connect again.",
        tone: "bad",
      });
      return;
    }
    const link = socket;
    link.binaryType = "arraybuffer";
    link.leave = () => {
      leaving = true;
      showState("closing", "Disconnecting…");
      link.close(1000);
    };
    showState("connecting", "Connecting…");
    announce("Connecting");
    note("connect", shown);

    link.onopen = () => {
      opened = true;
      tokens.used(token);
      showState("connected", "Connected");
      announce("Connected");
      note("open", link.protocol ? `Accepted, subprotocol ${link.protocol}` : "Accepted");
      if (byId("connect-form").contains(document.activeElement)) message.focus();
    };
    link.onmessage = (event) => record("in", event.data);
    link.onclose = async (event) => {
      socket = null;
      showState("idle", "Not connected");
      if (opened || leaving) {
        const verdict = opened
          ? explainClose(event.code, event.reason, leaving)
          : { title: "Given up", text: "You stopped before the handshake was done.", advice: "Connect again whenever you like.", tone: "ok" };
        note("close", `${verdict.title}${event.reason ? `: ${event.reason}` : ""}`);
        showVerdict(verdict);
        return;
      }
      showVerdict({ title: "Closed before it opened", text: "Asking the server why…", advice: "", tone: "retry" });
      const verdict = await probe(path, bearer || null);
      note("refused", verdict.title);
      if (mine !== generation) return;
      if (verdict.status === 403) tokens.used(token);
      showVerdict(verdict);
    };
  }

  function sendTyped() {
    const error = byId("message-error");
    try {
      if (socket?.readyState !== WebSocket.OPEN) throw new Error("Connect first.");
      const { data } = readTyped(kind.value, message.value);
      socket.send(data);
      record("out", data);
      message.value = "";
      resize();
      error.textContent = "";
      message.removeAttribute("aria-invalid");
    } catch (problem) {
      error.textContent = problem.message;
      message.setAttribute("aria-invalid", "true");
    }
    message.focus();
  }

  function resize() {
    message.rows = Math.min(8, message.value.split("\n").length);
  }

  picker.replaceChildren(...ROUTES.map((each) => make("option", { value: each.template, text: each.label ?? each.template })));
  picker.addEventListener("change", showRoute);
  byId("params").addEventListener("input", () => {
    typed.set(route, params());
    showUrl();
  });
  byId("connect-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!socket) open();
  });
  disconnect.addEventListener("click", () => socket?.leave());
  byId("send-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sendTyped();
  });
  message.addEventListener("input", resize);
  message.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    sendTyped();
  });
  byId("hide-heartbeats").addEventListener("change", (event) => {
    byId("log").dataset.hideHeartbeats = String(event.target.checked);
  });
  byId("clear").addEventListener("click", () => {
    log.clear();
    Object.keys(counts).forEach((key) => (counts[key] = 0));
    showCounts();
  });

  config.then((known) => {
    heartbeat = known.heartbeat_interval;
    byId("route-about").textContent = route.about(heartbeat);
  });

  fillCodeTable();
  showRoute();
  showCounts();
}

function fillCodeTable() {
  const row = (cell, ...texts) => make("tr", {}, ...texts.map((text) => make(cell, { text })));
  byId("code-table").replaceChildren(
    make("thead", {}, row("th", "Code", "Meaning", "Come back?")),
    make("tbody", {}, ...[...CLOSE_CODES].map(([code, [, text, retry]]) => row("td", code, text, retry ? "yes" : "no"))),
  );
}
