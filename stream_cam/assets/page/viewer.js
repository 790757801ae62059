// Choices of this viewer alone: labels on the picture, the theme, the full screen, saved pictures.

const at = (id) => document.getElementById(id);
const stored = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
const store = (name, value) => { try { localStorage.setItem(name, value); } catch { /* private */ } };

export class Viewer {
  constructor({ link, kiosk, tell, showError }) {
    Object.assign(this, { link, kiosk, tell, showError });
    this.hud = !kiosk && stored("labels") === "on"; // a wall has its label in the page
    at("fullscreen").hidden = !document.fullscreenEnabled;
    at("fullscreen").addEventListener("click", () => this.fullscreen());
    at("snapshot").addEventListener("click", () => this.save());
    at("hud").addEventListener("click", () => this.toggleHud());
    this.#theme();
    this.#show();
  }

  // The labels stand beside the picture. Who wants them on it as well gets pictures that have them.
  toggleHud() {
    if (this.kiosk) return;
    this.hud = !this.hud;
    store("labels", this.hud ? "on" : "off");
    this.#show();
    this.sendHud();
  }

  sendHud() {
    this.link.send({ type: "hud", on: this.hud });
  }

  #show() {
    at("hud").setAttribute("aria-pressed", String(this.hud));
    document.body.classList.toggle("has-hud", this.hud);
  }

  async save() {
    try {
      const answer = await fetch(new URL(`snapshot.png?hud=${Number(this.hud)}`, document.baseURI));
      if (!answer.ok) throw new Error((await answer.text()).trim());
      const name = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "stream-cam.png";
      const url = URL.createObjectURL(await answer.blob());
      const anchor = Object.assign(document.createElement("a"), { href: url, download: name });
      document.body.append(anchor);
      anchor.click();
      anchor.remove();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
      this.tell(`saved ${name}\nin this browser's downloads`);
    } catch (error) {
      this.showError(error instanceof TypeError ? "not connected: no picture was saved" : `no picture was saved: ${error.message}`);
    }
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (document.fullscreenEnabled) at("stage").requestFullscreen().catch((error) => this.showError(error.message));
    else this.showError("this browser has no full screen");
  }

  // Dark, unless the system or the viewer prefers light.
  #theme() {
    const root = document.documentElement;
    const system = matchMedia("(prefers-color-scheme: light)");
    const paint = () => (root.dataset.theme = stored("theme") ?? (system.matches ? "light" : "dark"));
    system.addEventListener("change", paint);
    at("theme").addEventListener("click", () => {
      store("theme", root.dataset.theme === "light" ? "dark" : "light");
      paint();
    });
    paint();
  }
}
