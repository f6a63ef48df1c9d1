// The map: points drawn into the pixels of a canvas (no GPU needed), and what moves on a second canvas above.

class Scatter {
  constructor(host, map, handlers) {
    Object.assign(this, { map, points: map.points, handlers, lassoing: false, withPictures: false });
    this.host = document.createElement("div");
    this.host.className = "map";
    this.base = document.createElement("canvas");
    this.over = document.createElement("canvas");
    this.over.className = "over";
    this.over.tabIndex = 0;
    this.over.setAttribute("role", "application");
    this.over.setAttribute("aria-label", `Map of ${N.toLocaleString("en")} frames, ${map.name}. Arrow keys step through a video and choose the next one, Enter plays, plus and minus zoom.`);
    const name = document.createElement("p");
    name.className = "name";
    name.dir = "auto";
    name.textContent = map.name;
    name.hidden = maps.length < 2;
    this.host.append(this.base, this.over, name);
    host.append(this.host);
    this.zoom = 1;
    this.measure();
    this.hover = this.current = -1;
    this.path = [0, 0];
    this.index();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.host);
    this.resize();
  }

  // The middle of the map and its size, so that it fills its place.
  measure() {
    const low = [1, 1], high = [0, 0];
    for (let n = 0; n < 2 * N; n++) {
      low[n & 1] = Math.min(low[n & 1], this.points[n]);
      high[n & 1] = Math.max(high[n & 1], this.points[n]);
    }
    this.middle = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
    this.size = [Math.max(0.05, high[0] - low[0]), Math.max(0.05, high[1] - low[1])];
    [this.x, this.y] = this.middle;
  }
  // A grid over the map, so that the point under the pointer is found without looking at all of them.
  index() {
    const side = this.side = Math.max(1, Math.min(512, Math.round(Math.sqrt(N / 2))));
    const starts = this.starts = new Int32Array(side * side + 1), cells = new Int32Array(N);
    for (let i = 0; i < N; i++) starts[(cells[i] = this.cell(this.points[2 * i], this.points[2 * i + 1])) + 1]++;
    for (let c = 0; c < side * side; c++) starts[c + 1] += starts[c];
    const fill = starts.slice();
    this.order = new Int32Array(N);
    for (let i = 0; i < N; i++) this.order[fill[cells[i]]++] = i;
  }
  cell(x, y) {
    const at = value => Math.max(0, Math.min(this.side - 1, Math.floor(value * this.side)));
    return at(y) * this.side + at(x);
  }
  nearest(px, py, reach) {
    const [x, y] = this.toMap(px, py), far = reach / this.scale, s = this.side;
    const at = value => Math.max(0, Math.min(s - 1, Math.floor(value * s)));
    let best = -1, least = far * far;
    for (let row = at(y - far); row <= at(y + far); row++)
      for (let n = this.starts[row * s + at(x - far)]; n < this.starts[row * s + at(x + far) + 1]; n++) {
        const i = this.order[n], dx = this.points[2 * i] - x, dy = this.points[2 * i + 1] - y, d = dx * dx + dy * dy;
        if (d <= least && shown[i]) { least = d; best = i; }
      }
    return best;
  }

  get scale() { return Math.min(Math.max(40, this.width - 56) / this.size[0], Math.max(40, this.height - 56) / this.size[1]) * this.zoom; } // CSS pixels a unit of the map
  toScreen(i) {
    return [(this.points[2 * i] - this.x) * this.scale + this.width / 2, (this.points[2 * i + 1] - this.y) * this.scale + this.height / 2];
  }
  toMap(px, py) { return [(px - this.width / 2) / this.scale + this.x, (py - this.height / 2) / this.scale + this.y]; }

  resize() {
    const box = this.host.getBoundingClientRect(), ratio = this.ratio = window.devicePixelRatio || 1;
    this.width = Math.max(1, this.host.clientWidth || box.width);
    this.height = Math.max(1, this.host.clientHeight || box.height);
    for (const canvas of [this.base, this.over]) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(this.height * ratio);
    }
    this.image = null;
    this.draw();
  }
  fit() { [this.x, this.y] = this.middle; this.zoom = 1; this.draw(); }
  zoomBy(factor, px = this.width / 2, py = this.height / 2) {
    const [x, y] = this.toMap(px, py);
    this.zoom = Math.max(0.5, Math.min(400, this.zoom * factor));
    this.x = x - (px - this.width / 2) / this.scale;
    this.y = y - (py - this.height / 2) / this.scale;
    this.draw();
  }
  reveal(i) { // moves the map only where the point lies outside
    const [px, py] = this.toScreen(i), edge = 24;
    if (px > edge && py > edge && px < this.width - edge && py < this.height - edge) return;
    this.x = this.points[2 * i];
    this.y = this.points[2 * i + 1];
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.paint(); this.paintOver(); });
  }
  drawOver() {
    if (this.waiting || this.waitingOver) return;
    this.waitingOver = requestAnimationFrame(() => { this.waitingOver = 0; if (!this.waiting) this.paintOver(); });
  }

  radius() {
    const size = N < 400 ? 5.2 : N < 3000 ? 4 : N < 20000 ? 2.8 : 1.6;
    return Math.min(9, size * Math.min(1.15, Math.max(0.75, Math.min(this.width, this.height) / 560)) * Math.pow(Math.max(1, this.zoom), 0.28)) * this.ratio;
  }
  // The pixels of a dot: where they lie beside its middle, and how much of each is covered, 0 to 255.
  stamp(radius) {
    const reach = Math.ceil(radius + 0.5), at = [], cover = [];
    for (let dy = -reach; dy <= reach; dy++)
      for (let dx = -reach; dx <= reach; dx++) {
        const part = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
        if (part > 0.04) { at.push([dx, dy]); cover.push(Math.round(part * 255)); }
      }
    return { reach, dx: Int32Array.from(at, p => p[0]), dy: Int32Array.from(at, p => p[1]), cover: Uint8Array.from(cover) };
  }
  paint() {
    const W = this.base.width, H = this.base.height, context = this.base.getContext("2d");
    this.base.style.opacity = this.withPictures ? 0.4 : 1;
    if (!this.image) {
      this.image = context.createImageData(W, H);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.pixels.fill(0);
    const radius = this.radius(), dim = isDark() ? 0xff3a332d : 0xffe6e0dc;
    if (hiddenCount) this.dots(this.stamp(Math.max(1, radius * 0.7)), i => !shown[i], () => dim);
    this.dots(this.stamp(radius), i => shown[i] && !chosen[i], i => colours[i]);
    if (selection.length) {
      const ring = isDark() ? 0xffffffff : 0xff271f1b;
      this.dots(this.stamp(radius + 1.8 * this.ratio), i => chosen[i] && shown[i], () => ring);
      this.dots(this.stamp(radius), i => chosen[i] && shown[i], i => colours[i]);
    }
    context.putImageData(this.image, 0, 0);
  }
  dots(stamp, wanted, colour) {
    const W = this.base.width, H = this.base.height, k = this.scale * this.ratio, { points, pixels } = this;
    const left = W / 2 - this.x * k, top = H / 2 - this.y * k, { reach, dx, dy, cover } = stamp, count = dx.length;
    const jumps = Int32Array.from(dx, (x, n) => dy[n] * W + x);
    for (let i = 0; i < N; i++) {
      if (!wanted(i)) continue;
      const px = Math.round(points[2 * i] * k + left), py = Math.round(points[2 * i + 1] * k + top);
      if (px < -reach || py < -reach || px >= W + reach || py >= H + reach) continue;
      const whole = px >= reach && py >= reach && px < W - reach && py < H - reach, ink = colour(i), at = py * W + px;
      for (let n = 0; n < count; n++) {
        if (!whole && (px + dx[n] < 0 || px + dx[n] >= W || py + dy[n] < 0 || py + dy[n] >= H)) continue;
        const place = at + jumps[n], a = cover[n], under = pixels[place];
        if (a === 255 || under === 0) { if (a === 255 || under === 0) pixels[place] = a === 255 ? ink : (ink & 0xffffff | a << 24) >>> 0; continue; }
        const b = 255 - a, alpha = a + ((under >>> 24) * b / 255 | 0);
        pixels[place] = ((((ink & 0xff) * a + (under & 0xff) * b) / 255 | 0) | (((ink >> 8 & 0xff) * a + (under >> 8 & 0xff) * b) / 255 | 0) << 8 | (((ink >> 16 & 0xff) * a + (under >> 16 & 0xff) * b) / 255 | 0) << 16 | alpha << 24) >>> 0;
      }
    }
  }

  paintOver() {
    const context = this.over.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    if (this.withPictures) this.paintPictures(context);
    this.paintPath(context);
    const ink = isDark() ? "#fff" : "#14171d", radius = this.radius() / this.ratio;
    for (const [i, more, width] of [[this.current, 5, 3], [this.hover, 3.5, 2]]) {
      if (i < 0) continue;
      const [x, y] = this.toScreen(i);
      context.beginPath();
      context.arc(x, y, radius + more, 0, 2 * Math.PI);
      context.lineWidth = width;
      context.strokeStyle = ink;
      context.stroke();
      context.beginPath();
      context.arc(x, y, radius + 0.5, 0, 2 * Math.PI);
      context.fillStyle = cssOf(colours[i]);
      context.fill();
    }
    if (this.outline && this.outline.length > 1) {
      context.beginPath();
      this.outline.forEach(([x, y], n) => n ? context.lineTo(x, y) : context.moveTo(x, y));
      context.closePath();
      context.fillStyle = isDark() ? "#7fb0ff26" : "#1f5fbf1f";
      context.fill();
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.strokeStyle = isDark() ? "#7fb0ff" : "#1f5fbf";
      context.stroke();
      context.setLineDash([]);
    }
  }
  // The way of the chosen video over the map; jumps between far places are thinner.
  paintPath(context) {
    const [first, stop] = this.path;
    if (stop - first < 2) return;
    context.lineJoin = context.lineCap = "round";
    for (const [width, ink] of [[4.5, isDark() ? "#15181ecc" : "#fdfdfecc"], [1.6, isDark() ? "#ffffffd0" : "#14171dc0"]]) {
      context.beginPath();
      for (let i = first; i < stop; i++) {
        const [x, y] = this.toScreen(i);
        if (i > first) context.lineTo(x, y); else context.moveTo(x, y);
      }
      context.lineWidth = width;
      context.strokeStyle = ink;
      context.stroke();
    }
    const radius = this.radius() / this.ratio;
    for (let i = first; i < stop; i++) {
      const [x, y] = this.toScreen(i);
      context.beginPath();
      context.arc(x, y, Math.max(2, radius * 0.9), 0, 2 * Math.PI);
      context.fillStyle = cssOf(colours[i]);
      context.fill();
      context.lineWidth = 1.2;
      context.strokeStyle = isDark() ? "#fff" : "#14171d";
      context.stroke();
    }
  }
  // In each cell of the screen the picture of the point next to its middle.
  paintPictures(context) {
    const size = this.width < 420 ? 44 : 58, gap = size + 8, best = new Map();
    for (let i = 0; i < N; i++) {
      if (!shown[i] || !hasPicture(i)) continue;
      const [x, y] = this.toScreen(i);
      if (x < 0 || y < 0 || x > this.width || y > this.height) continue;
      const column = Math.floor(x / gap), row = Math.floor(y / gap), key = row * 4096 + column;
      const far = Math.hypot(x - (column + 0.5) * gap, y - (row + 0.5) * gap);
      if (!best.has(key) || best.get(key)[1] > far) best.set(key, [i, far, (column + 0.5) * gap, (row + 0.5) * gap]);
    }
    const again = () => this.drawOver();
    for (const [i, , x, y] of best.values()) {
      const [w, h] = videos[owner[i]].size, scale = size / Math.max(w, h), width = w * scale, height = h * scale;
      const place = [x - width / 2, y - height / 2, width, height];
      context.fillStyle = cssOf(colours[i]);
      context.beginPath();
      context.roundRect(place[0] - 2.5, place[1] - 2.5, width + 5, height + 5, 6);
      context.fill();
      context.save();
      context.beginPath();
      context.roundRect(...place, 4);
      context.clip();
      drawPicture(context, i, ...place, again);
      context.restore();
    }
    this.shownPictures = best;
  }
  pictureAt(px, py) {
    if (!this.withPictures || !this.shownPictures) return -1;
    const gap = (this.width < 420 ? 44 : 58) + 8;
    const found = this.shownPictures.get(Math.floor(py / gap) * 4096 + Math.floor(px / gap));
    return found ? found[0] : -1;
  }

  at(event) {
    const box = this.over.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }
  pointAt(px, py, reach) {
    const picture = this.pictureAt(px, py);
    return picture >= 0 ? picture : this.nearest(px, py, reach);
  }
  listen() {
    const over = this.over, pointers = new Map();
    let moved = 0, pinch = 0;
    over.addEventListener("pointerdown", event => {
      if (event.button !== 0) return;
      over.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, this.at(event));
      moved = pinch = 0;
      if (pointers.size === 1 && (this.lassoing || event.shiftKey)) this.outline = [this.at(event)];
      else this.outline = null;
    });
    over.addEventListener("pointermove", event => {
      const [px, py] = this.at(event), before = pointers.get(event.pointerId);
      if (!before) {
        if (event.pointerType !== "touch") this.handlers.hover(this.pointAt(px, py, 14), event, this);
        return;
      }
      moved += Math.hypot(px - before[0], py - before[1]);
      pointers.set(event.pointerId, [px, py]);
      if (pointers.size === 2) {
        const [a, b] = [...pointers.values()], apart = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (pinch) this.zoomBy(apart / pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
        pinch = apart;
      } else if (this.outline) {
        this.outline.push([px, py]);
        this.drawOver();
      } else if (moved > 4) {
        over.classList.add("panning");
        this.x -= (px - before[0]) / this.scale;
        this.y -= (py - before[1]) / this.scale;
        this.handlers.hover(-1, event, this);
        this.draw();
      }
    });
    const up = event => {
      if (!pointers.delete(event.pointerId)) return;
      over.classList.remove("panning");
      const outline = this.outline;
      if (outline && event.type === "pointerup" && moved > 4) this.handlers.select(this.inside(outline));
      else if (moved <= 4 && event.type === "pointerup") this.handlers.pick(this.pointAt(...this.at(event), event.pointerType === "touch" ? 24 : 14), this);
      this.outline = null;
      this.drawOver();
    };
    over.addEventListener("pointerup", up);
    over.addEventListener("pointercancel", up);
    over.addEventListener("pointerleave", event => this.handlers.hover(-1, event, this));
    over.addEventListener("wheel", event => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      this.zoomBy(Math.exp(-Math.max(-120, Math.min(120, event.deltaY * lines)) * 0.0022), ...this.at(event));
    }, { passive: false });
    over.addEventListener("dblclick", event => this.zoomBy(2, ...this.at(event)));
  }
  // The shown points inside an outline on the screen: rays to the right cross its edges an odd number of times.
  inside(outline) {
    const out = [];
    for (let i = 0; i < N; i++) {
      if (!shown[i]) continue;
      const [x, y] = this.toScreen(i);
      let odd = false;
      for (let n = 0, m = outline.length - 1; n < outline.length; m = n++) {
        const [ax, ay] = outline[n], [bx, by] = outline[m];
        if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
      }
      if (odd) out.push(i);
    }
    return out;
  }
}
