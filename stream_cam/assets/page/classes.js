// The best classes with their probabilities, and the search for other classes.

export const N_BARS = 5; // as many as the server predicts
const N_FOUND = 8;

export class Classes {
  constructor({ onLock, onNothing }) {
    this.onLock = onLock;
    this.onNothing = onNothing;
    this.list = document.getElementById("bars");
    this.follow = document.getElementById("follow");
    this.following = document.getElementById("following");
    this.announce = document.getElementById("announce");
    this.top = [];
    this.locked = [];
    this.announced = "";
    this.announcedAt = 0;
    this.rows = Array.from({ length: N_BARS }, (_, place) => this.#row(place));
    this.follow.addEventListener("click", () => onLock(null));
  }

  #row(place) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const name = Object.assign(document.createElement("span"), { className: "name" });
    const share = Object.assign(document.createElement("span"), { className: "share" });
    button.type = "button";
    button.append(name, share);
    button.addEventListener("click", () => this.choose(place));
    item.append(button);
    item.hidden = true;
    this.list.append(item);
    return { item, button, name, share };
  }

  // Locks the class at this place; if it is locked, follows the best class again.
  choose(place) {
    const best = this.top[place];
    if (best) this.onLock(this.locked.includes(best[1]) ? null : best[1]);
    else this.onNothing("no such class at the moment");
  }

  show(top) {
    this.top = top;
    this.rows.forEach((row, place) => {
      const best = top[place];
      row.item.hidden = !best;
      if (!best) return;
      const [label, index, probability] = best;
      if (row.name.textContent !== label) row.name.textContent = label;
      const percent = `${(100 * probability).toFixed(0)} %`;
      if (row.share.textContent !== percent) row.share.textContent = percent;
      row.button.style.setProperty("--share", String(probability));
      row.button.dataset.index = String(index);
      const pressed = String(this.locked.includes(index));
      if (row.button.getAttribute("aria-pressed") !== pressed) {
        row.button.setAttribute("aria-pressed", pressed);
        row.button.title = pressed === "true" ? "Follow the best class" : "Keep the map of this class";
      }
    });
    this.#announce(top[0]?.[0] ?? "");
  }

  lock(indices, labels) {
    this.locked = indices;
    this.follow.hidden = !indices.length;
    this.following.textContent = indices.length
      ? `Shows the map of ${labels.join(", ")}.`
      : "Shows the map of the best class.";
    this.show(this.top);
  }

  // For screen readers, at most every two seconds.
  #announce(label) {
    const now = performance.now();
    if (!label || label === this.announced || now - this.announcedAt < 2000) return;
    [this.announced, this.announcedAt] = [label, now];
    this.announce.textContent = label;
  }
}

// Indices of matching labels: by number, beginning, a word in them, or similarity.
export function nearest(labels, text, count = N_FOUND) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const scored = [];
  labels.forEach((label, index) => {
    const score = similarity(label.toLowerCase(), wanted, index);
    if (score > 0) scored.push([score, index]);
  });
  scored.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  return scored.slice(0, count).map(([, index]) => index);
}

function similarity(label, wanted, index) {
  if (String(index) === wanted) return 6;
  if (label === wanted) return 5;
  if (label.startsWith(wanted)) return 4;
  if (label.split(/[^\p{L}\p{N}]+/u).some((word) => word.startsWith(wanted))) return 3;
  if (label.includes(wanted)) return 2;
  const shared = pairs(wanted).filter((pair) => pairs(label).includes(pair)).length;
  const dice = (2 * shared) / (pairs(wanted).length + pairs(label).length || 1);
  return dice >= 0.35 ? dice : 0;
}

function pairs(text) {
  return Array.from({ length: Math.max(0, text.length - 1) }, (_, at) => text.slice(at, at + 2));
}

export class Search {
  constructor({ onLock, onNothing }) {
    this.onLock = onLock;
    this.onNothing = onNothing;
    this.input = document.getElementById("search");
    this.list = document.getElementById("found");
    this.labels = [];
    this.active = -1;
    this.input.addEventListener("input", () => this.#find());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("blur", () => setTimeout(() => document.activeElement !== this.input && this.#close(), 150));
  }

  #find() {
    const found = nearest(this.labels, this.input.value);
    this.list.replaceChildren(...found.map((index) => this.#option(index)));
    this.list.hidden = !found.length;
    this.input.setAttribute("aria-expanded", String(!!found.length));
    this.#activate(found.length ? 0 : -1);
  }

  #option(index) {
    const option = document.createElement("li");
    Object.assign(option, { id: `class-${index}`, textContent: this.labels[index] });
    option.setAttribute("role", "option");
    option.dataset.index = String(index);
    option.addEventListener("mousedown", (event) => event.preventDefault()); // keeps the focus
    option.addEventListener("click", () => this.#choose(option));
    return option;
  }

  #activate(place) {
    const options = [...this.list.children];
    this.active = options.length ? (place + options.length) % options.length : -1;
    options.forEach((option, at) => option.setAttribute("aria-selected", String(at === this.active)));
    const active = options[this.active];
    if (active) this.input.setAttribute("aria-activedescendant", active.id);
    else this.input.removeAttribute("aria-activedescendant");
    active?.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    if (event.key === "ArrowDown") this.#activate(this.active + 1);
    else if (event.key === "ArrowUp") this.#activate(this.active - 1);
    else if (event.key === "Enter") this.#choose(this.list.children[this.active]);
    else if (event.key === "Escape" && this.input.value) this.#clear();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #choose(option) {
    if (!option) {
      const asked = this.input.value.trim();
      if (asked) this.onNothing(`no class is called ${asked}, or anything like it`);
      return;
    }
    this.onLock(Number(option.dataset.index));
    this.#clear();
    this.input.blur(); // letters are shortcuts again
  }

  #clear() {
    this.input.value = "";
    this.#close();
  }

  #close() {
    this.list.hidden = true;
    this.list.replaceChildren();
    this.active = -1;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }
}
