// Track holds the surprise of all bases, one record after the other, and draws it.
"use strict";

class Track {
  constructor(canvas) {
    this.canvas = canvas;
    this.clear();
  }

  clear() {
    this.length = 0; // bases that have been read
    this.total = 1; // bases of the records that have begun
    this.records = []; // {name, from, bases}
    this.letters = new Uint8Array(1 << 16);
    this.bits = new Float32Array(1 << 16);
    // Sums and counts of all bits before a base, so that any stretch has its mean at once.
    this.sums = new Float64Array((1 << 16) + 1);
    this.counts = new Uint32Array((1 << 16) + 1);
    this.showAll();
  }

  begin(name, bases) {
    const from = this.length;
    this.records.push({ name, from, bases });
    this.total = Math.max(1, from + bases);
    this.draw();
  }

  add(letters, bits) {
    const need = this.length + letters.length;
    if (need > this.letters.length) {
      const room = Math.max(need, 2 * this.letters.length);
      const grow = (a, n) => { const b = new a.constructor(n); b.set(a); return b; };
      this.letters = grow(this.letters, room);
      this.bits = grow(this.bits, room);
      this.sums = grow(this.sums, room + 1);
      this.counts = grow(this.counts, room + 1);
    }
    this.letters.set(letters, this.length);
    this.bits.set(bits, this.length);
    for (let i = 0; i < bits.length; i++) {
      const at = this.length + i, known = bits[i] === bits[i];
      this.sums[at + 1] = this.sums[at] + (known ? bits[i] : 0);
      this.counts[at + 1] = this.counts[at] + (known ? 1 : 0);
    }
    this.length = need;
    this.draw();
  }

  // mean returns the bits per base of a stretch, NaN where none is known.
  mean(from, to) {
    return (this.sums[to] - this.sums[from]) / (this.counts[to] - this.counts[from]);
  }

  showAll() {
    this.view = null;
    this.draw();
  }

  span() { return this.view || [0, this.total]; }

  // zoom makes the stretch in view larger by a factor about a place from 0 to 1 of it.
  zoom(factor, place) {
    const [from, to] = this.span(), middle = from + place * (to - from);
    const size = Math.min(this.total, Math.max(20, factor * (to - from)));
    this.look(middle - place * size, size);
  }

  look(from, size) {
    from = Math.min(Math.max(0, from), this.total - size);
    this.view = size >= this.total ? null : [from, from + size];
    this.draw();
  }

  move(part) {
    const [from, to] = this.span();
    this.look(from + part * (to - from), to - from);
  }

  draw() { // at most once for a picture of the screen
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  paint() {
    const scale = window.devicePixelRatio || 1, c = this.canvas;
    const w = c.width = Math.round(c.clientWidth * scale), h = c.height = Math.round(c.clientHeight * scale);
    const g = c.getContext("2d"), margin = 42 * scale, most = 3;
    const [from, to] = this.span(), step = (to - from) / (w - margin);
    const y = (bits) => h - 18 * scale - (h - 26 * scale) * Math.min(bits, most) / most;
    g.font = 12 * scale + "px system-ui, sans-serif";
    g.fillStyle = "#555";
    g.strokeStyle = "#ddd";
    for (let bits = 0; bits <= most; bits++) {
      g.textAlign = "right";
      g.fillText(bits + (bits === most ? " bits" : ""), margin - 4 * scale, y(bits) + 4 * scale);
      g.beginPath(); g.moveTo(margin, y(bits)); g.lineTo(w, y(bits)); g.stroke();
    }
    g.textAlign = "left";
    g.fillText(Math.floor(from + 1).toLocaleString("en"), margin, h - 4 * scale);
    g.textAlign = "right";
    g.fillText(Math.floor(to).toLocaleString("en"), w - 2 * scale, h - 4 * scale);
    for (const r of this.records) { // where records begin
      if (r.from <= from || r.from >= to) continue;
      const x = margin + (r.from - from) / step;
      g.strokeStyle = "#aaa";
      g.beginPath(); g.moveTo(x, y(most)); g.lineTo(x, y(0)); g.stroke();
    }
    // Each pixel the mean of what it shows, about it a wider one.
    for (const [wide, colour, line] of [[1, "#9bc4e8", 1], [12, "#0b4f8a", 1.5]]) {
      g.strokeStyle = colour;
      g.lineWidth = line * scale;
      g.beginPath();
      let pen = false;
      for (let x = 0; x < w - margin; x++) {
        const middle = from + (x + 0.5) * step, half = Math.max(wide * step * scale, 1) / 2;
        const a = Math.max(0, Math.floor(middle - half)), b = Math.min(this.length, Math.ceil(middle + half));
        const value = b > a && middle < this.length ? this.mean(a, b) : NaN;
        if (value === value) g[pen ? "lineTo" : "moveTo"](margin + x, y(value));
        pen = value === value;
      }
      g.stroke();
    }
  }

  // at returns the base at a horizontal place of the canvas, in CSS pixels, or -1.
  at(x) {
    const [from, to] = this.span(), place = (x - 42) / (this.canvas.clientWidth - 42);
    const base = Math.floor(from + place * (to - from));
    return place >= 0 && base >= 0 && base < this.length ? base : -1;
  }

  // describe tells a base, its record and its neighbours.
  describe(base) {
    const record = this.records.findLast((r) => r.from <= base && base < r.from + r.bases);
    if (!record) return "";
    const text = (a, b) => String.fromCharCode(...this.letters.subarray(Math.max(record.from, a), Math.min(this.length, record.from + record.bases, b)));
    const bits = this.bits[base];
    return `${record.name || "(no name)"}:${(base - record.from + 1).toLocaleString("en")}  ${text(base - 15, base)}[${text(base, base + 1)}]${text(base + 1, base + 16)}  ` +
      (bits === bits ? bits.toFixed(2) + " bits" : "not predicted");
  }
}
