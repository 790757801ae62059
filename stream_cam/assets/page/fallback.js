// The page without a WebSocket, behind a proxy that does not pass it on: motion JPEG and polling.

const POLL_MS = 1000;
const PATIENCE_MS = 4000;

const at = (path) => new URL(path, document.baseURI);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Fallback {
  constructor({ onMessage, onPicture, onUp, onDown }) {
    Object.assign(this, { onMessage, onPicture, onUp, onDown });
    this.turn = 0; // loops of an earlier turn stop
    this.on = false;
    this.up = false;
    this.hud = false;
    document.addEventListener("visibilitychange", () => this.reading?.abort()); // pictures sent meanwhile are old
  }

  start() {
    if (this.on) return;
    Object.assign(this, { on: true, up: false, run: null, changes: 0 });
    this.turn += 1;
    this.#poll(this.turn);
    this.#watch(this.turn);
  }

  stop() {
    this.on = false;
    this.turn += 1;
    this.reading?.abort();
  }

  send({ type, n, changes, on }) {
    if (type === "set") this.#change(n, changes);
    if (type === "hud" && this.hud !== on) {
      this.hud = on;
      this.reading?.abort(); // the next one is of the other pictures
    }
    return this.up;
  }

  async #poll(turn) {
    while (this.turn === turn) {
      const before = this.changes;
      try {
        const answer = await fetch(at("stats"), { signal: AbortSignal.timeout(PATIENCE_MS) });
        if (answer.status === 401) throw new Error("THIS LINK IS NO LONGER VALID, open the new one");
        const { settings, ...stats } = await answer.json();
        if (stats.run !== this.run) this.onMessage(await (await fetch(at("hello"))).json());
        this.run = stats.run;
        if (this.turn !== turn) return;
        if (!this.up) this.onUp();
        this.up = true;
        if (before === this.changes) this.onMessage({ type: "settings", settings }); // else they are older than the change
        this.onMessage({ type: "stats", ...stats });
      } catch (error) {
        if (this.turn !== turn) return;
        this.up = false;
        this.onDown(error.message.startsWith("THIS") ? error.message : "");
      }
      await pause(POLL_MS);
    }
  }

  async #change(n, changes) {
    this.changes += 1;
    try {
      const headers = { "Content-Type": "application/json" };
      const answer = await fetch(at("settings"), { method: "POST", headers, body: JSON.stringify(changes) });
      const told = await answer.json();
      if (answer.ok) this.onMessage({ type: "settings", settings: told });
      else this.onMessage({ type: "error", message: told.error });
    } catch {
      this.onMessage({ type: "error", message: "not connected: nothing was changed" });
    }
    this.changes += 1;
    this.onMessage({ type: "done", n });
  }

  async #watch(turn) {
    while (this.turn === turn) {
      this.reading = new AbortController();
      try {
        if (!document.hidden) {
          const answer = await fetch(at(`stream.mjpg?about&hud=${Number(this.hud)}`), { signal: this.reading.signal });
          if (answer.ok) await this.#read(answer.body.getReader());
        }
      } catch { /* cut off or aborted: try again */ }
      await pause(POLL_MS / 4);
    }
  }

  // Each part: header lines, an empty line, and as many bytes as the header says.
  async #read(reader) {
    let bytes = new Uint8Array(0), about, length = -1;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const joined = new Uint8Array(bytes.length + value.length);
      joined.set(bytes);
      joined.set(value, bytes.length);
      bytes = joined;
      for (;;) {
        if (length < 0) {
          const end = endOfHeader(bytes);
          if (end < 0) break;
          const header = new TextDecoder().decode(bytes.subarray(0, end));
          length = Number(/Content-Length: (\d+)/.exec(header)[1]);
          about = JSON.parse(/X-About: ([^\r\n]*)/.exec(header)[1]);
          bytes = bytes.slice(end);
        }
        if (bytes.length < length) break;
        if (about) this.onPicture(about, new Blob([bytes.subarray(0, length)], { type: "image/jpeg" }));
        else this.onMessage({ type: "end" });
        bytes = bytes.slice(length);
        length = -1;
      }
    }
  }
}

function endOfHeader(bytes) {
  for (let i = 3; i < bytes.length; i++) {
    if (bytes[i] === 10 && bytes[i - 1] === 13 && bytes[i - 2] === 10 && bytes[i - 3] === 13) return i + 1;
  }
  return -1;
}
