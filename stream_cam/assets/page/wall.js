// The wall: a tile for each camera. The server encodes only tiles that somebody sees.

const KIOSK_SECONDS = Math.max(2, Number(new URLSearchParams(location.search).get("kiosk")) || 8);
const LOST_MS = 4000;

const wall = document.getElementById("wall");
const search = document.getElementById("search");
const summary = document.getElementById("summary");
const banner = document.getElementById("banner");
const kioskButton = document.getElementById("kiosk");

// As the cameras' own pages: dark or light as chosen there, or else as the system is.
const light = matchMedia("(prefers-color-scheme: light)");
let chosen = null;
try {
  chosen = localStorage.getItem("theme");
} catch { /* no storage here */ }
const paint = () => (document.documentElement.dataset.theme = chosen ?? (light.matches ? "light" : "dark"));
light.addEventListener("change", paint);
paint();

const tiles = new Map(); // by name
const visible = new Set(); // names
let socket = null;
let heardAt = 0;
let wait = 250;
let asked = "";
let kiosk = null;

class Tile {
  constructor(name) {
    this.name = name;
    this.element = document.createElement("a");
    this.element.className = "tile";
    this.element.href = `camera/${encodeURIComponent(name)}/`;
    this.element.dataset.name = name;
    this.element.dataset.state = "starting";
    this.canvas = this.#add("canvas", "");
    this.canvas.width = 16;
    this.canvas.height = 9;
    this.key = this.#add("span", "key");
    this.what = this.#add("span", "what");
    const line = this.#add("span", "line");
    for (const part of ["name", "class", "rec", "age"]) {
      this[part] = document.createElement("span");
      this[part].className = part;
      line.append(this[part]);
    }
    this.named = name;
    line.firstChild.textContent = name;
    wall.append(this.element);
    seen.observe(this.element);
    sizes.observe(this.element);
  }

  #add(kind, name) {
    const element = document.createElement(kind);
    element.className = name;
    this.element.append(element);
    return element;
  }

  update(camera) {
    this.camera = camera;
    this.element.dataset.state = camera.state;
    if (camera.state !== "live") this.class.textContent = "";
    this.rec.textContent = camera.recording ? "● rec" : "";
    this.age.textContent = camera.age_seconds === null ? "" : age(camera.age_seconds);
    const why = camera.error || (camera.waiting || []).join(" · ");
    this.what.replaceChildren(bold(camera.state), document.createTextNode(why));
    this.element.setAttribute("aria-label", `${camera.name}: ${camera.state}${this.class.textContent ? ", " + this.class.textContent : ""}`);
  }

  async draw(jpeg, { label, probability }) {
    const bitmap = await createImageBitmap(jpeg);
    this.class.textContent = label === undefined ? "" : `${label} ${Math.round(100 * probability)} %`;
    if (this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height) {
      this.canvas.width = bitmap.width;
      this.canvas.height = bitmap.height;
    }
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  }
}

function bold(text) {
  const element = document.createElement("b");
  element.textContent = text;
  return element;
}

function age(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) visible.add(target.dataset.name);
    else visible.delete(target.dataset.name);
  }
  ask();
}, { rootMargin: "40px" });
const sizes = new ResizeObserver(() => ask());

function ask() {
  const show = {};
  if (!document.hidden) {
    for (const name of visible) {
      const tile = tiles.get(name);
      if (tile) show[name] = Math.round(tile.element.clientWidth * Math.min(2, devicePixelRatio || 1));
    }
  }
  const message = JSON.stringify({ show });
  if (message !== asked && socket?.readyState === WebSocket.OPEN) {
    asked = message;
    socket.send(message);
  }
}

function onCameras(message) {
  const names = new Set(message.cameras.map((camera) => camera.name));
  for (const [name, tile] of tiles) {
    if (names.has(name)) continue;
    seen.unobserve(tile.element);
    sizes.unobserve(tile.element);
    tile.element.remove();
    tiles.delete(name);
    visible.delete(name);
  }
  message.cameras.forEach((camera, number) => {
    if (!tiles.has(camera.name)) tiles.set(camera.name, new Tile(camera.name));
    const tile = tiles.get(camera.name);
    tile.key.textContent = number < 9 ? number + 1 : "";
    tile.key.hidden = number >= 9;
    if (wall.children[number] !== tile.element) wall.insertBefore(tile.element, wall.children[number] || null);
    tile.update(camera);
  });
  const live = message.cameras.filter((camera) => camera.state === "live").length;
  const drawn = message.cameras.reduce((sum, camera) => sum + (camera.fps || 0), 0);
  summary.textContent = `${live} of ${message.cameras.length} cameras live · ${drawn.toFixed(0)} pictures/s · ${message.network.model}`;
  fit();
  filter();
  ask();
}

// As many columns as let all tiles stand on one screen, but none smaller than 11 rem.
function fit() {
  const count = Math.max(1, [...tiles.values()].filter((tile) => !tile.element.hidden).length);
  const width = innerWidth - 16;
  const height = innerHeight - wall.offsetTop - 24;
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  let columns = 1;
  while (columns < count && Math.ceil(count / columns) * ((width / columns) * 9 / 16 + 8) > height && width / (columns + 1) >= 11 * rem) columns++;
  wall.style.setProperty("--tile", `${Math.floor(width / columns) - 8}px`);
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let changed = false;
  for (const tile of tiles.values()) {
    const camera = tile.camera || {};
    const text = `${tile.named} ${camera.class || ""} ${camera.state || ""} ${camera.source || ""}`.toLowerCase();
    const hidden = !words.every((word) => text.includes(word));
    changed ||= hidden !== tile.element.hidden;
    tile.element.hidden = hidden;
  }
  if (changed) fit();
}

function open() {
  const url = new URL("wall", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = "";
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  heardAt = performance.now();
  const own = socket;
  socket.onopen = () => {
    asked = "";
    ask();
  };
  socket.onmessage = async ({ data }) => {
    heardAt = performance.now();
    wait = 250;
    banner.hidden = true;
    document.body.dataset.state = "live";
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "cameras") onCameras(message);
      return;
    }
    const length = new DataView(data).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const tile = tiles.get(header.name);
    try {
      await tile?.draw(new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }), header);
    } finally {
      if (own.readyState === WebSocket.OPEN) own.send(JSON.stringify({ drawn: header.name }));
    }
  };
  socket.onclose = () => own === socket && lost();
}

function lost() {
  socket = null;
  document.body.dataset.state = "lost";
  banner.textContent = "The connection is lost; trying again.";
  banner.hidden = false;
  for (const tile of tiles.values()) tile.element.dataset.state = "away";
  setTimeout(open, wait * (0.7 + 0.6 * Math.random()));
  wait = Math.min(4000, wait * 1.7);
}

setInterval(() => {
  if (socket && performance.now() - heardAt > LOST_MS) socket.close();
}, 1000);

function step() {
  const shown = [...wall.children].filter((element) => !element.hidden);
  const now = shown.findIndex((element) => element.classList.contains("current"));
  for (const element of shown) element.classList.remove("current");
  shown[(now + 1) % shown.length]?.classList.add("current");
}

function cycle(on) {
  clearInterval(kiosk);
  kiosk = null;
  document.body.toggleAttribute("data-kiosk", on);
  kioskButton.setAttribute("aria-pressed", String(on));
  if (!on) return;
  step();
  kiosk = setInterval(step, 1000 * KIOSK_SECONDS);
}

search.addEventListener("input", filter);
addEventListener("resize", fit);
document.addEventListener("visibilitychange", ask);
kioskButton.addEventListener("click", () => cycle(kiosk === null));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === search) {
    if (event.key === "Escape") {
      search.value = "";
      filter();
      search.blur();
    }
    return;
  }
  const shown = [...wall.children].filter((element) => !element.hidden);
  if (/^[1-9]$/.test(event.key)) shown[Number(event.key) - 1]?.click();
  else if (event.key === "/") {
    event.preventDefault();
    search.focus();
  } else if (event.key === "k") cycle(kiosk === null);
  else if (event.key === "Escape") cycle(false);
});

open();
if (new URLSearchParams(location.search).has("kiosk")) {
  const ready = setInterval(() => {
    if (!wall.children.length) return;
    clearInterval(ready);
    cycle(true);
  }, 200);
}
