// A strip a video, coloured as the map is; only the rows in sight are drawn.

class Timelines {
  constructor(host, handlers) {
    Object.assign(this, { host, handlers, canvas: host.querySelector("canvas"), extent: host.querySelector(".extent"), row: 24, zoom: 1, current: -1, hover: -1 });
    this.rows = videos.map((_, number) => number);
    this.lengths = videos.map(video => {
      const last = video.first + video.frames - 1, step = video.frames > 1 ? (times[last] - times[video.first]) / (video.frames - 1) : 0.2;
      return Math.max(0.05, (video.end ?? times[last] + step) - clipStart(video));
    });
    this.longest = Math.max(...this.lengths.slice(0, 1), 0.05);
    for (const length of this.lengths) this.longest = Math.max(this.longest, length);
    new ResizeObserver(() => this.draw()).observe(host);
    host.addEventListener("scroll", () => this.draw());
    host.addEventListener("pointermove", event => this.point(event, false));
    host.addEventListener("pointerleave", event => handlers.hover(-1, event));
    host.addEventListener("click", event => this.point(event, true));
    this.draw();
  }
  get names() { return this.host.clientWidth < 480 ? 92 : 168; }
  get perSecond() { return Math.max(1e-4, (this.host.clientWidth - this.names - 14) / this.longest) * this.zoom; }
  filter() {
    this.rows = videos.map((_, number) => number).filter(number => {
      const { first, frames } = videos[number];
      for (let i = first; i < first + frames; i++) if (shown[i]) return true;
      return false;
    });
    this.draw();
  }
  zoomBy(factor) {
    const width = this.host.clientWidth - this.names, middle = (this.host.scrollLeft + width / 2) / this.perSecond;
    this.zoom = Math.max(1, Math.min(2000, this.zoom * factor));
    this.layOut();
    this.host.scrollLeft = middle * this.perSecond - width / 2;
    this.draw();
  }
  layOut() {
    const width = this.names + this.longest * this.perSecond + 12, height = this.rows.length * this.row + 8;
    this.extent.style.width = (this.zoom > 1 ? Math.min(width, 3e7) : 1) + "px";
    this.extent.style.height = Math.max(1, height) + "px";
  }
  reveal(number) {
    const top = this.rows.indexOf(number) * this.row + 4, { scrollTop, clientHeight } = this.host;
    if (top < 0) return;
    if (top < scrollTop) this.host.scrollTop = top - 4;
    else if (top + this.row > scrollTop + clientHeight) this.host.scrollTop = top + this.row - clientHeight + 4;
  }
  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.paint(); });
  }
  paint() {
    this.layOut();
    const { host, canvas, row, names } = this, ratio = window.devicePixelRatio || 1, W = host.clientWidth, H = host.clientHeight;
    if (canvas.width !== Math.round(W * ratio) || canvas.height !== Math.round(H * ratio)) {
      canvas.width = Math.round(W * ratio);
      canvas.height = Math.round(H * ratio);
      canvas.style.width = W + "px";
      canvas.style.height = H + "px";
    }
    const context = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink"), soft = style.getPropertyValue("--soft"), card = style.getPropertyValue("--card"), wash = style.getPropertyValue("--hover");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, W, H);
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    const from = Math.max(0, Math.floor((host.scrollTop - 4) / row)), to = Math.min(this.rows.length, Math.ceil((host.scrollTop + H) / row));
    const playing = this.current >= 0 ? owner[this.current] : -1;
    for (let n = from; n < to; n++) {
      const number = this.rows[n], video = videos[number], top = 4 + n * row - host.scrollTop, x = second => names + (second - clipStart(video)) * this.perSecond - host.scrollLeft;
      if (number === playing) { context.fillStyle = wash; context.fillRect(0, top, W, row); }
      const end = clipStart(video) + this.lengths[number];
      for (let i = video.first; i < video.first + video.frames; i++) {
        const left = i === video.first ? clipStart(video) : (times[i - 1] + times[i]) / 2;
        const right = i + 1 === video.first + video.frames ? end : (times[i] + times[i + 1]) / 2;
        const a = Math.round(x(left) * ratio) / ratio, b = Math.round(x(right) * ratio) / ratio; // no seams
        if (b < names || a > W) continue;
        context.globalAlpha = shown[i] ? 1 : 0.16;
        context.fillStyle = cssOf(colours[i]);
        context.fillRect(a, top + 5, Math.max(1 / ratio, b - a), row - 10);
        if (chosen[i]) { context.globalAlpha = 1; context.fillStyle = ink; context.fillRect(a, top + row - 4, Math.max(1, b - a), 2); }
      }
      context.globalAlpha = 1;
      for (const [i, width] of [[this.hover, 1.5], [this.current, 2.5]])
        if (i >= 0 && owner[i] === number) { context.fillStyle = ink; context.fillRect(x(times[i]) - width / 2, top + 1, width, row - 2); }
      context.fillStyle = number === playing ? wash : card;
      context.fillRect(0, top, names - 6, row);
      context.fillStyle = number === playing ? ink : soft;
      context.fillText(fitted(context, video.name, names - 22), 12, top + row / 2);
    }
  }
  find(event) {
    const box = this.host.getBoundingClientRect(), y = event.clientY - box.top + this.host.scrollTop - 4, x = event.clientX - box.left;
    const number = this.rows[Math.floor(y / this.row)];
    if (number === undefined || y < 0) return -1;
    const video = videos[number], second = clipStart(video) + (x - this.names + this.host.scrollLeft) / this.perSecond;
    return frameAt(number, x < this.names ? clipStart(video) : second);
  }
  point(event, click) {
    if (event.clientX - this.host.getBoundingClientRect().left > this.host.clientWidth) return; // the scroll bar
    const i = this.find(event);
    if (click) { if (i >= 0) this.handlers.pick(i); }
    else this.handlers.hover(i, event);
  }
}

// The frame of a video that is shown at a time: the nearest one.
function frameAt(number, second) {
  const { first, frames } = videos[number];
  let low = first, high = first + frames - 1;
  while (low < high) {
    const middle = low + high >> 1;
    if ((times[middle] + times[middle + 1]) / 2 < second) low = middle + 1; else high = middle;
  }
  return low;
}

// A name cut in its middle to a width; the end of a path tells most.
const fittedNames = new Map();
function fitted(context, name, width) {
  const key = width + "\n" + name;
  if (fittedNames.has(key)) return fittedNames.get(key);
  const letters = Array.from(name.slice(0, 600).replace(/[\p{C}\s]+/gu, " "));
  let text = letters.join("");
  for (let keep = letters.length; context.measureText(text).width > width && keep > 2; keep = Math.min(keep - 1, Math.ceil(keep * 0.93)))
    text = letters.slice(0, Math.floor(keep / 3)).join("") + "…" + letters.slice(letters.length - Math.ceil(keep * 2 / 3)).join("");
  fittedNames.set(key, text);
  return text;
}
