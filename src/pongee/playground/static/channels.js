// Rooms on /connection/websocket, with the SDK: who is there, a line to cut, and what it caught up on.

import "./vendor/centrifuge-5.8.0.js"; // defines the global Centrifuge
import { announce, byId, clockTime, make, plural, setEnabled, socketUrl } from "./dom.js";
import { Line } from "./line.js";
import { BoundedLog } from "./log.js";
import { People } from "./people.js";
import { Room } from "./room.js";
import { NoDevTokens, fetchJwt } from "./tokens.js";

const PATH = "/connection/websocket";
const FIRST_SERVER_ERROR = 100; // errors below are the SDK's own: it had no answer

const codeInWords = ({ code, reason }) => `${code}: ${reason}`;

function errorInWords({ code, message }) {
  if (code >= FIRST_SERVER_ERROR) return `Refused by the server: ${message} (${code}).`;
  return `No answer from the server: ${message} (${code}).`;
}

/** Room 007 is room 7; the name of its channel says so too. */
function roomNumber(typed) {
  const digits = typed.trim();
  return /^-?[0-9]+$/.test(digits) ? String(BigInt(digits)) : digits;
}

function renderLine({ text, who, kind, recovered, at }) {
  return make(
    "li",
    { class: `chat-line ${kind}`, "data-kind": kind, "data-recovered": recovered ? "true" : null },
    make(
      "span",
      { class: "chat-body" },
      who && make("span", { class: "who", text: who }),
      make("span", { class: "text", text }),
      recovered && make("span", { class: "recovered", text: "recovered" }),
    ),
    make("time", { datetime: at.toISOString(), text: clockTime(at, false) }),
  );
}

/** What the SDK asks for a token, or nothing for somebody anonymous. */
function tokenSource(devTokens) {
  const name = byId("channels-name").value.trim();
  const pasted = byId("channels-token").value.trim();
  if (!devTokens) return pasted ? { token: pasted } : {};
  if (!name) return {};
  const getToken = async () => {
    try {
      return (await fetchJwt(name)).token;
    } catch (error) {
      if (error instanceof NoDevTokens) throw new Centrifuge.UnauthorizedError("no development tokens");
      throw error;
    }
  };
  return { getToken };
}

/** The card with the knife. @returns {{line: Line, enable(on: boolean): void}} */
function startLine() {
  const line = new Line();
  const cut = byId("channels-cut");
  const mend = byId("channels-mend");
  const state = byId("channels-line-state");
  let enabled = false;
  let timer = null;

  function show(words) {
    state.textContent = words;
    (line.down ? mend : cut).disabled = false;
    setEnabled(mend, line.down, cut);
    setEnabled(cut, enabled && !line.down, byId("channels-connect"));
  }

  function end() {
    clearInterval(timer);
    line.mend();
    show("Mended.");
    announce("The line is mended.");
  }

  byId("channels-line-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (line.down) return;
    const due = Date.now() + byId("channels-seconds").valueAsNumber * 1000;
    const tick = () => {
      const left = Math.ceil((due - Date.now()) / 1000);
      if (left > 0) show(`Cut. Mended in ${left} s.`);
      else end();
    };
    line.cut();
    announce("The line is cut.");
    tick();
    timer = setInterval(tick, 250);
  });
  mend.addEventListener("click", end);

  return {
    line,
    enable(on) {
      enabled = on;
      show(state.textContent);
    },
  };
}

/**
 * The input. What is against a text is said next to it, and the text stays.
 * @param say text -> promise  @param count text -> promise of {characters, words}
 */
function startComposer(say, count) {
  const text = byId("channels-text");
  const send = byId("channels-send");
  const complaint = byId("channels-text-error");
  const answer = byId("channels-answer");
  let open = false;
  let sending = false;

  function clear() {
    complaint.textContent = answer.textContent = "";
    text.removeAttribute("aria-invalid");
  }

  async function attempt(action) {
    clear();
    try {
      await action(text.value);
    } catch (error) {
      complaint.textContent = `${errorInWords(error)} Your text is still here.`;
      text.setAttribute("aria-invalid", "true");
    }
  }

  function showSend(nowSending) {
    sending = nowSending;
    setEnabled(send, open && !sending, text);
  }

  byId("channels-send-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!open || sending) return;
    showSend(true);
    await attempt(async (words) => {
      await say(words);
      if (text.value === words) text.value = "";
    });
    showSend(false);
    text.focus();
  });

  byId("channels-count").addEventListener("click", () =>
    attempt(async (words) => {
      const { characters, words: number } = await count(words);
      answer.textContent = `${plural(characters, "character")}, ${plural(number, "word")}.`;
    }),
  );

  return {
    clear,
    focus: () => text.focus(),
    enable(canSay, canCount) {
      open = canSay;
      showSend(sending);
      setEnabled(byId("channels-count"), canCount, text);
    },
  };
}

export function startChannels(config) {
  const number = byId("channels-room");
  const connectButton = byId("channels-connect");
  const disconnectButton = byId("channels-disconnect");
  const joinButton = byId("channels-join");
  const leaveButton = byId("channels-leave");
  const log = new BoundedLog(byId("channels-log"), byId("channels-dropped"), renderLine);
  const people = new People(byId("channels-people"), byId("channels-people-total"));
  const { line, enable: enableLine } = startLine();
  const composer = startComposer(
    (text) => room.say(text),
    async (text) => (await client.rpc("count", { text })).data,
  );
  const own = new Set(); // ids of our connections: each new one has a new id
  let devTokens = true;
  let client = null;
  let room = null;
  let id = null;

  const note = (words, kind = "note") => log.add({ text: words, kind, at: new Date() });

  function show(element, state, words) {
    element.dataset.state = state;
    element.textContent = words;
    announce(`Channels: ${words}`);
  }
  const showConnection = (state, words) => show(byId("channels-state"), state, words);
  const showRoom = (state, words) => show(byId("channels-room-state"), state, words);

  function showButtons() {
    const wanted = roomNumber(number.value);
    (client ? disconnectButton : connectButton).disabled = false;
    setEnabled(connectButton, !client, disconnectButton);
    setEnabled(disconnectButton, client, connectButton);
    joinButton.textContent = room ? "Switch" : "Join";
    setEnabled(joinButton, client && room?.number !== wanted, number);
    setEnabled(leaveButton, room, number);
    composer.enable(room !== null, client !== null);
    byId("channels-name").readOnly = byId("channels-token").readOnly = client !== null;
    enableLine(client !== null);
  }

  function caughtUp(tone, words) {
    const box = byId("channels-catch-up");
    box.dataset.tone = tone;
    box.replaceChildren(...(words ? [make("p", { text: words })] : []));
  }

  const inRoom = {
    subscribing: (context) => {
      const again = `Coming back to room ${room.number} (${codeInWords(context)})`;
      showRoom("subscribing", context.code ? again : `Joining room ${room.number}…`);
      caughtUp("", "");
    },
    subscribed: ({ wasRecovering }) => {
      showRoom("subscribed", `In room ${room.number}`);
      note(wasRecovering ? `Back in room ${room.number}.` : `Joined room ${room.number}.`);
    },
    unsubscribed: (context) => {
      const words = `Out of room ${room.number} (${codeInWords(context)})`;
      showRoom("unsubscribed", words);
      note(`${words}.`, context.code ? "warning" : "note");
      room = null;
      people.clear();
      showButtons();
    },
  };

  function enter() {
    room?.leave();
    composer.clear();
    const wanted = roomNumber(number.value);
    room = new Room(client, wanted, {
      state: (state, context) => inRoom[state](context),
      said: ({ text: words, info, recovered }) => {
        const kind = info && own.has(info.client) ? "mine" : "theirs";
        const who = info ? info.user || "anonymous" : "the server";
        log.add({ text: words, who, kind, recovered, at: new Date() });
      },
      caughtUp: ({ recovered, missing }) => {
        if (missing) caughtUp("bad", `${plural(recovered, "message")} recovered, ${missing} lost.`);
        else caughtUp("ok", recovered ? `${plural(recovered, "message")} recovered, none lost.` : "Back, and nothing was missed.");
      },
      notCaughtUp: ({ missing }) => {
        const why = missing === null
          ? "the history begins anew, as after a restart of the server."
          : `the history was too short, ${plural(missing, "message")} lost.`;
        caughtUp("retry", `Not recovered: ${why}`);
      },
      present: (clients) => people.reset(clients, id),
      join: (info) => people.join(info),
      leave: (info) => people.leave(info),
      error: (error) => note(errorInWords(error), "warning"),
    });
    room.join();
    showButtons();
    composer.focus();
  }

  function connect() {
    client = new Centrifuge(socketUrl(PATH), {
      ...tokenSource(devTokens),
      websocket: line.WebSocket,
      networkEventTarget: line,
    });
    client.on("connecting", (context) => {
      showConnection("connecting", context.code ? `Connecting (${codeInWords(context)})` : "Connecting…");
      if (context.code) note(`Connection lost (${codeInWords(context)}).`, "warning");
    });
    client.on("connected", ({ client: given, data }) => {
      id = given;
      own.add(id);
      showConnection("connected", `Connected as ${data.you}`);
    });
    client.on("disconnected", (context) => {
      client = null;
      room?.leave();
      showConnection("disconnected", `Disconnected (${codeInWords(context)})`);
      note(`Disconnected (${codeInWords(context)}).`, context.code ? "warning" : "note");
      showButtons();
    });
    client.on("error", ({ type, error }) => {
      if (type !== "transport") note(`${type}: ${error.message} (${error.code}).`, "warning");
    });
    client.connect();
    enter();
  }

  byId("channels-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!client && byId("channels-room-form").reportValidity()) connect();
  });
  disconnectButton.addEventListener("click", () => client?.disconnect());

  byId("channels-room-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (client) enter();
  });
  leaveButton.addEventListener("click", () => room?.leave());
  number.addEventListener("input", showButtons);

  people.clear();
  config.then((known) => {
    devTokens = known.dev_token !== false;
    byId("channels-name-field").hidden = !devTokens;
    byId("channels-token-field").hidden = devTokens;
  });
}
