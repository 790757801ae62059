// The connection to the server; it reconnects by itself.

import { Fallback } from "./fallback.js";

const SILENT_MS = 4000; // statistics come every second: without any the connection is lost
const LONGEST_WAIT_MS = 4000;
const FALLBACK_WAIT_MS = 10000; // between attempts to open a WebSocket although none was passed on
const FULL = 1013; // the close code of a server with too many viewers

export class Link {
  constructor({ onMessage, onPicture, onUp, onDown, onFallback }) {
    Object.assign(this, { onMessage, onPicture, onUp, onDown, onFallback });
    this.fallback = new Fallback({ onMessage, onPicture, onUp, onDown });
    this.socket = null;
    this.wait = 250;
    this.heardAt = 0;
    this.timer = 0;
    this.failures = 0;
    this.refusals = 0;
    setInterval(() => this.#watch(), 1000);
    addEventListener("online", () => this.#now());
    addEventListener("pageshow", () => this.#now());
    document.addEventListener("visibilitychange", () => document.hidden || this.#now());
    this.#open();
  }

  get up() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  send(message) {
    if (this.fallback.on) return this.fallback.send(message);
    if (this.up) this.socket.send(JSON.stringify(message));
    return this.up;
  }

  #open() {
    clearTimeout(this.timer);
    const url = new URL("ws", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = "";
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heardAt = performance.now();
    socket.onopen = () => this.fallback.on || this.onUp();
    socket.onmessage = (event) => {
      this.heardAt = performance.now();
      this.wait = 250;
      this.failures = this.refusals = 0;
      if (this.fallback.on) this.#fallBack(false);
      if (typeof event.data === "string") this.onMessage(JSON.parse(event.data));
      else this.onPicture(...unpack(event.data));
    };
    socket.onclose = (event) => this.#onLost(socket, event.code);
  }

  #onLost(socket, code) {
    if (socket !== this.socket) return;
    this.socket = null;
    if (this.fallback.on) this.wait = FALLBACK_WAIT_MS;
    else this.onDown(code === FULL ? "TOO MANY VIEWERS, trying again" : "");
    if (code !== FULL && ++this.failures >= 2) this.#checkServer();
    this.timer = setTimeout(() => this.#open(), this.wait * (0.7 + 0.6 * Math.random()));
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 1.7);
  }

  #watch() {
    const socket = this.socket;
    if (socket && performance.now() - this.heardAt > SILENT_MS) {
      socket.onclose = null;
      socket.close();
      this.#onLost(socket, 0);
    }
  }

  // A WebSocket does not say why it was refused. If a server refuses it twice and answers other
  // requests, a proxy does not pass it on.
  async #checkServer() {
    try {
      const answer = await fetch(new URL("settings", document.baseURI));
      if (answer.status === 401) this.fallback.on || this.onDown("THIS LINK IS NO LONGER VALID, open the new one");
      else if (answer.ok && !this.up && ++this.refusals >= 2 && !this.fallback.on) this.#fallBack(true);
    } catch { /* the server is away */ }
  }

  #fallBack(on) {
    if (on) this.fallback.start();
    else this.fallback.stop();
    this.onFallback(on);
    if (!on) this.onUp();
  }

  #now() {
    if (!this.socket && !this.fallback.on) {
      this.wait = 250;
      this.#open();
    }
  }
}

// The length of a header (4 bytes, little-endian), the header (JSON), the JPEG.
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  return [JSON.parse(header), new Blob([new Uint8Array(buffer, 4 + length)], { type: "image/jpeg" })];
}
