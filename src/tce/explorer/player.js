// Plays a clip from a frame on: the footage where the browser can, else its pictures as a flip-book.

class Player {
  constructor(onFrame) {
    Object.assign(this, { onFrame, video: element("video"), flip: element("flip"), button: element("play"), number: -1, playing: false, mode: "" });
    this.button.addEventListener("click", () => this.toggle());
    this.video.addEventListener("error", () => this.number >= 0 && this.mode === "video" && this.useFlip(this.frame));
    for (const name of ["play", "pause", "ended"]) this.video.addEventListener(name, () => this.mode === "video" && this.setPlaying(!this.video.paused));
    this.video.addEventListener("timeupdate", () => this.follow());
    this.addresses = new Map();
  }
  addressOf(video) {
    if (!video.embedded) return video.source;
    if (!this.addresses.has(video)) this.addresses.set(video, URL.createObjectURL(new Blob([bytes(video.embedded)], { type: "video/mp4" })));
    return this.addresses.get(video);
  }
  // Shows frame i; plays from there if asked to.
  show(i, play) {
    const number = owner[i], video = videos[number], address = this.addressOf(video), changed = number !== this.number;
    this.frame = i;
    this.number = number;
    if (!address || video.failed) return this.useFlip(i, play);
    this.stopFlip();
    this.offset = video.embedded ? video.offset : 0;
    const second = Math.max(0, times[i] - this.offset);
    this.setMode("video");
    if (changed) this.video.src = `${address}#t=${second.toFixed(3)}`;
    this.video.currentTime = second;
    if (play) this.video.play().catch(() => {}); else this.video.pause();
  }
  setMode(mode) {
    this.mode = mode;
    this.video.hidden = mode !== "video";
    this.flip.hidden = mode !== "flip";
    this.button.hidden = mode !== "flip"; // the video brings its own
    element("how").textContent = mode === "flip" ? "preview" : "";
  }
  useFlip(i, play = this.playing || this.mode === "video") {
    if (this.mode === "video") { videos[this.number].failed = true; this.video.pause(); }
    this.setMode("flip");
    paintPicture(this.flip, i, 320);
    if (!play) return this.stopFlip();
    this.setPlaying(true);
    const start = performance.now() - times[i] * 1000, number = this.number, { first, frames: count } = videos[number];
    const step = () => {
      if (!this.playing || this.mode !== "flip" || number !== this.number) return;
      const now = (performance.now() - start) / 1000, at = frameAt(number, now);
      if (at !== this.frame) { this.frame = at; paintPicture(this.flip, at, 320); this.onFrame(at); }
      if (at === first + count - 1) return this.stopFlip();
      this.ticking = requestAnimationFrame(step);
    };
    cancelAnimationFrame(this.ticking);
    this.ticking = requestAnimationFrame(step);
  }
  stopFlip() { cancelAnimationFrame(this.ticking); this.setPlaying(false); }
  setPlaying(playing) {
    this.playing = playing;
    this.button.textContent = playing ? "Pause" : "Play";
    if (playing && this.mode === "video") this.watch();
  }
  watch() {
    const step = () => {
      if (!this.playing || this.mode !== "video") return;
      this.follow();
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }
  follow() {
    if (this.mode !== "video" || this.number < 0 || this.video.readyState < 2 || this.video.seeking) return;
    const now = this.video.currentTime + this.offset, { end } = videos[this.number];
    if (end !== null && now >= end && !this.video.paused) this.video.pause();
    const at = frameAt(this.number, now);
    if (at !== this.frame) { this.frame = at; this.onFrame(at); }
  }
  toggle() {
    if (this.number < 0) return;
    const { first, frames: count } = videos[this.number];
    if (this.playing) { if (this.mode === "video") this.video.pause(); else this.stopFlip(); return; }
    const from = this.frame === first + count - 1 ? first : this.frame;
    this.show(from, true);
    this.onFrame(from);
  }
}
