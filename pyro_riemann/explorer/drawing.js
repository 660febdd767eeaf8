/** The plane as a picture: the log volume element below, codes, curves and walkers above. */

/** Colours of ten classes, apart from each other on light and on dark ground. */
const CLASS_COLOURS = [
  "#3b7dd8", "#e07b1f", "#2f9e4f", "#d43d3d", "#9161c4", "#96654a", "#d866b0", "#8a8f16", "#12a5b5", "#777f8c",
];

/** @returns {string} the colour of the k-th class; further ones are spread around the circle of hues */
function classColour(k) {
  return k < CLASS_COLOURS.length ? CLASS_COLOURS[k] : `hsl(${(k * 137.5) % 360} 65% 50%)`;
}

/** @returns {string} a colour of the style sheet: it differs between light and dark */
function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function mixColours(low, high, share) {
  const channel = (text, k) => parseInt(text.slice(1 + 2 * k, 3 + 2 * k), 16);
  return [0, 1, 2].map((k) => Math.round(channel(low, k) * (1 - share) + channel(high, k) * share));
}

/** Three canvases of one size, and the map between the chart and their pixels: z_0 to the right, z_1 up. */
class PlaneView {
  constructor(field, dots, overlay, low, high) {
    Object.assign(this, { field, dots, overlay, low, high });
    this.resize();
  }

  /** Take the width that the page gives; both axes have one scale unless the box is very long. */
  resize() {
    const box = this.field.parentElement;
    const ratio = (this.high[1] - this.low[1]) / (this.high[0] - this.low[0]);
    this.width = box.clientWidth;
    this.height = Math.round(Math.min(this.width * Math.min(Math.max(ratio, 0.5), 1.4), Math.max(320, 0.82 * window.innerHeight)));
    box.style.height = `${this.height + 2}px`;
    const density = window.devicePixelRatio || 1;
    for (const canvas of [this.field, this.dots, this.overlay]) {
      canvas.width = Math.round(this.width * density);
      canvas.height = Math.round(this.height * density);
      canvas.getContext("2d").setTransform(density, 0, 0, density, 0, 0);
    }
  }

  /** @returns {number[]} pixel of a point of the chart */
  toPixel(x, y) {
    return [
      ((x - this.low[0]) / (this.high[0] - this.low[0])) * this.width,
      ((this.high[1] - y) / (this.high[1] - this.low[1])) * this.height,
    ];
  }

  /** @returns {number[]} point of the chart at a pixel */
  toChart(left, top) {
    return [
      this.low[0] + (left / this.width) * (this.high[0] - this.low[0]),
      this.high[1] - (top / this.height) * (this.high[1] - this.low[1]),
    ];
  }

  /**
   * The log volume element, between its 1 % and 99 % quantiles.
   * @returns {number[]} these two
   */
  drawField(table) {
    const [rows, columns] = table.size;
    const sorted = Float64Array.from(table.logVolume).sort();
    const range = [0.01, 0.99].map((share) => sorted[Math.round(share * (sorted.length - 1))]);
    const low = themeColour("--field-low"), high = themeColour("--field-high");
    const shades = Array.from({ length: 256 }, (_, k) => mixColours(low, high, k / 255));
    const small = document.createElement("canvas");
    [small.width, small.height] = [rows, columns];
    const image = new ImageData(rows, columns);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        const share = (table.logVolume[i * columns + j] - range[0]) / (range[1] - range[0] || 1);
        const shade = shades[Math.round(255 * Math.min(Math.max(share, 0), 1))];
        image.data.set([...shade, 255], 4 * ((columns - 1 - j) * rows + i));
      }
    }
    small.getContext("2d").putImageData(image, 0, 0);
    const context = this.field.getContext("2d");
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    // a node is the middle of a pixel of the small image: its outer half pixels lie beyond the box
    const spread = [this.width / (rows - 1), this.height / (columns - 1)];
    context.drawImage(small, -spread[0] / 2, -spread[1] / 2, this.width + spread[0], this.height + spread[1]);
    return range;
  }

  drawCodes(codes, colours) {
    const context = this.dots.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    context.globalAlpha = 0.75;
    for (let k = 0; 2 * k < codes.length; k++) {
      const [left, top] = this.toPixel(codes[2 * k], codes[2 * k + 1]);
      context.fillStyle = colours[k];
      context.beginPath();
      context.arc(left, top, 2.6, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  clearOverlay() {
    this.overlay.getContext("2d").clearRect(0, 0, this.width, this.height);
  }

  /** A curve through flat points, on a halo of the ground's colour. */
  drawCurve(points, colour, { width = 3, dash = [], halo = true, alpha = 1 } = {}) {
    const context = this.overlay.getContext("2d");
    context.lineJoin = context.lineCap = "round";
    const stroke = (style, size, pattern) => {
      context.strokeStyle = style;
      context.lineWidth = size;
      context.setLineDash(pattern);
      context.beginPath();
      for (let k = 0; k < points.length; k += 2) context.lineTo(...this.toPixel(points[k], points[k + 1]));
      context.stroke();
    };
    context.globalAlpha = alpha;
    if (halo) stroke(themeColour("--panel"), width + 3, []);
    stroke(colour, width, dash);
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  /** A dot; with a ring around it if it is one of the ends that the user set. */
  drawDot(x, y, colour, radius = 4, ring = false) {
    const context = this.overlay.getContext("2d");
    const [left, top] = this.toPixel(x, y);
    context.beginPath();
    context.arc(left, top, radius, 0, 2 * Math.PI);
    context.fillStyle = colour;
    context.fill();
    if (ring) {
      context.lineWidth = 2;
      context.strokeStyle = themeColour("--panel");
      context.stroke();
    }
  }

  /** Where the keyboard points. */
  drawCrosshair(x, y) {
    const context = this.overlay.getContext("2d");
    const [left, top] = this.toPixel(x, y);
    for (const [style, size] of [[themeColour("--panel"), 4], [themeColour("--ink"), 1.5]]) {
      context.strokeStyle = style;
      context.lineWidth = size;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(left + 4 * dx, top + 4 * dy);
        context.lineTo(left + 13 * dx, top + 13 * dy);
      }
      context.stroke();
    }
  }
}
