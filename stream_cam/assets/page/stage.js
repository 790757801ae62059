// The picture, its state, and the divider between the frame and its map.

// Stale: three pictures missed at the usual interval, so that a slow camera is not stale.
const STALE_MS = 1500, UNMEASURED_MS = 5000, MISSED = 3, RECENT = 5;

export class Stage {
  constructor({ onDivide, drawn }) {
    this.canvas = document.getElementById("picture");
    this.frame = document.getElementById("frame");
    this.banner = document.getElementById("banner");
    this.divider = document.getElementById("divider");
    this.badge = document.getElementById("state");
    this.context = this.canvas.getContext("2d", { alpha: false, desynchronized: true });
    this.drawn = drawn;
    this.turn = Promise.resolve();
    this.freshAt = 0;
    this.intervals = [];
    this.everDrawn = false;
    this.reason = { up: false, why: "", ended: false, paused: false, away: null, waiting: null };
    this.dragging = false;
    this.#dividerEvents(onDivide);
    setInterval(() => this.updateState(), 200);
  }

  // One after the other; the next picture travels while this one is decoded.
  show(about, blob) {
    this.turn = this.turn.then(() => this.#draw(about, blob)).catch(() => this.drawn(about));
  }

  async #draw(about, blob) {
    const bitmap = await createImageBitmap(blob);
    const { canvas } = this;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
      document.body.style.setProperty("--ratio", String(bitmap.width / bitmap.height));
    }
    this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    canvas.dataset.n = about.n;
    canvas.dataset.frame = about.frame;
    canvas.dataset.explained = about.explained ?? "";
    if (!about.repeated) {
      const now = performance.now();
      if (this.freshAt) this.intervals = [...this.intervals, now - this.freshAt].slice(-RECENT);
      this.freshAt = now;
    }
    this.everDrawn = true;
    this.updateState();
    this.drawn(about);
  }

  // A picture that is not live says so: in words, by a colour and by losing its own colours.
  updateState() {
    const { up, why, ended, paused, away, waiting } = this.reason;
    const age = (performance.now() - this.freshAt) / 1000;
    const last = this.everDrawn ? `, last picture ${age.toFixed(0)} s ago` : "";
    let state = "live", text = "";
    if (ended) [state, text] = ["ended", "THE RUN HAS ENDED"];
    else if (!up) [state, text] = ["away", `${why || "NOT CONNECTED, trying again"}${last}`];
    else if (waiting) [state, text] = ["waiting", waiting.lines.join(" · ")];
    else if (paused) [state, text] = ["paused", "PAUSED"];
    else if (away?.awaits_key_frame) [state, text] = ["away", `WAITING FOR A KEY FRAME${last}`];
    else if (away) [state, text] = ["away", `THE CAMERA IS AWAY${last}`];
    else if (!this.everDrawn) [state, text] = ["waiting", "WAITING FOR THE FIRST PICTURE"];
    else if (age * 1000 > this.#staleMs()) [state, text] = ["stale", `NO NEW PICTURE${last}`];
    if (document.body.dataset.state !== state) {
      document.body.dataset.state = state;
      this.badge.textContent = { live: "live", ended: "ended", paused: "paused" }[state] ?? "not live";
    }
    this.banner.hidden = !text || state === "paused"; // its badge says so, and covers nothing
    if (this.banner.textContent !== text) this.banner.textContent = text;
  }

  #staleMs() {
    if (!this.intervals.length) return UNMEASURED_MS;
    const usual = [...this.intervals].sort((a, b) => a - b)[this.intervals.length >> 1];
    return Math.max(STALE_MS, MISSED * usual);
  }

  // Settings decide where the divider stands, except while it is being dragged here.
  divide(share, possible) {
    this.divider.hidden = !possible;
    if (!this.dragging) this.#place(share);
  }

  #place(share) {
    this.share = share;
    this.divider.style.left = `clamp(1.375rem, ${100 * share}%, calc(100% - 1.375rem))`;
    const percent = Math.round(100 * share);
    this.divider.setAttribute("aria-valuenow", String(percent));
    this.divider.setAttribute("aria-valuetext", percent ? `${percent} % without map` : "all with map");
  }

  #dividerEvents(onDivide) {
    const { divider, frame } = this;
    const move = (event) => {
      const box = frame.getBoundingClientRect();
      let share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      if (share < 0.02) share = 0;
      this.#place(share);
      onDivide(share);
    };
    divider.addEventListener("pointerdown", (event) => {
      this.dragging = true;
      divider.setPointerCapture(event.pointerId);
      move(event);
    });
    divider.addEventListener("pointermove", (event) => this.dragging && move(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      divider.addEventListener(end, () => (this.dragging = false));
    }
    divider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.05, ArrowRight: 0.05, Home: -1, End: 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      const share = Math.min(1, Math.max(0, (this.share ?? 0) + step));
      this.#place(share);
      onDivide(share);
    });
  }
}
