// Node's `ws`. Prints its port, as benchmarks/serve.py does for the others.
"use strict";

const { WebSocketServer, WebSocket } = require("ws");

const members = new Set();
const server = new WebSocketServer(
  { host: "127.0.0.1", port: 0, backlog: 2048, perMessageDeflate: false },
  () => console.log(server.address().port),
);

server.on("connection", (socket, request) => {
  if (request.url === "/text") {
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
  } else if (request.url === "/room") {
    members.add(socket);
    socket.on("close", () => members.delete(socket));
  } else if (request.url === "/publish") {
    socket.on("message", (data, isBinary) => {
      for (const member of members) {
        if (member.readyState === WebSocket.OPEN) member.send(data, { binary: isBinary });
      }
    });
  }
});
