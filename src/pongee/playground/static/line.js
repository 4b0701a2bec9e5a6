// The line between this page and the server, and a knife for it.

/** What the SDK takes for a WebSocket. When the line is cut, both ends stop hearing each other. */
class Link {
  onopen = null;
  onerror = null;
  onclose = null;
  onmessage = null;
  #socket = null;
  #lost = false;

  constructor(url) {
    if (url === null) {
      setTimeout(() => this.lose());
      return;
    }
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onopen = (event) => this.#lost || this.onopen?.(event);
    socket.onerror = (event) => this.#lost || this.onerror?.(event);
    socket.onclose = (event) => this.#lost || this.onclose?.(event);
    socket.onmessage = (event) => this.#lost || this.onmessage?.(event);
  }

  send(data) {
    if (!this.#lost) this.#socket?.send(data);
  }

  close() {
    if (!this.#lost) this.#socket?.close();
  }

  /** The page sees a loss at once. The server is told nothing, and its pings stay unanswered. */
  lose() {
    if (this.#lost) return;
    this.#lost = true;
    this.onerror?.(new Event("error"));
    this.onclose?.(new CloseEvent("close", { code: 1006 }));
  }

  /** The dead connection goes for good, as it would when the network is back. */
  discard() {
    this.#socket?.close();
  }
}

/** Dispatches "online" and "offline" as a browser does for its network, so that the SDK listens. */
export class Line extends EventTarget {
  /** The class to give to the SDK. */
  WebSocket;
  #down = false;
  #links = new Set();

  constructor() {
    super();
    const line = this;
    this.WebSocket = function (url) {
      return line.#open(url);
    };
    for (const name of ["online", "offline"]) {
      window.addEventListener(name, () => this.#down || this.dispatchEvent(new Event(name)));
    }
  }

  get down() {
    return this.#down;
  }

  cut() {
    this.#down = true;
    this.#links.forEach((link) => link.lose());
  }

  mend() {
    this.#down = false;
    this.#links.forEach((link) => link.discard());
    this.#links.clear();
    this.dispatchEvent(new Event("online")); // do not sit out the back-off
  }

  #open(url) {
    const link = new Link(this.#down ? null : url);
    if (this.#down) return link;
    this.#links.clear(); // the SDK opens another only when it is done with the one before
    this.#links.add(link);
    return link;
  }
}
