// Who is in a room: a list of users, each with the number of their connections.

import { make, plural } from "./dom.js";

export class People {
  #list;
  #total;
  #clients = new Map(); // client id -> user
  #me;

  constructor(list, total) {
    this.#list = list;
    this.#total = total;
  }

  /** @param clients as the SDK's presence() gives them, by id  @param id our own */
  reset(clients, id) {
    this.#me = clients[id]?.user;
    this.#clients = new Map(Object.values(clients).map((info) => [info.client, info.user]));
    this.#draw();
  }

  join(info) {
    this.#clients.set(info.client, info.user);
    this.#draw();
  }

  leave(info) {
    this.#clients.delete(info.client);
    this.#draw();
  }

  clear() {
    this.#clients.clear();
    this.#draw();
  }

  #draw() {
    const counts = new Map();
    for (const user of this.#clients.values()) counts.set(user, (counts.get(user) ?? 0) + 1);
    const users = [...counts].sort(([one], [other]) => one.localeCompare(other));
    this.#list.replaceChildren(...users.map(([user, count]) => this.#entry(user, count)));
    const named = counts.size - (counts.has("") ? 1 : 0);
    const words = [
      named && plural(named, "user"),
      counts.has("") && `${counts.get("").toLocaleString("en")} anonymous`,
    ];
    this.#total.textContent = words.filter(Boolean).join(", ") || "Nobody to see: join a room.";
  }

  #entry(user, count) {
    const you = user !== this.#me ? "" : user ? " (you)" : " (you among them)";
    return make(
      "li",
      { "data-user": user },
      make("span", { class: user ? "user" : "user nameless", text: `${user || "anonymous"}${you}` }),
      make("span", { class: "counter", text: plural(count, "connection") }),
    );
  }
}
