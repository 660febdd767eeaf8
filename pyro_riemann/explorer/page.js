/** The page: what a click, a key or a slider does. Everything that it shows is in `state`. */

const FRAMES = 11;
const GRAPH_NODES = 96;
const LINE_PIECES = 2000; // of the straight line's length: it may cross thin walls
const WALKERS = 300;
const TRACED = 8; // walkers with a trail and an image
const STEPS = 600; // of the motion, whatever its time
const SLIDER_STEPS = 200;
const SECONDS = 8; // that the motion takes on the screen

class Explorer {
  constructor(payload) {
    Object.assign(this, readPayload(payload), { payload });
    this.shape = payload.image_shape;
    this.seconds = SECONDS;
    this.elements = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
    const { elements } = this;
    this.view = new PlaneView(elements.field, elements.dots, elements.overlay, payload.low, payload.high);
    this.rows = {
      geodesic: new FrameRow(elements["geodesic-frames"], this.decoder, this.shape),
      line: new FrameRow(elements["line-frames"], this.decoder, this.shape),
      brownian: new FrameRow(elements["brownian-frames"], this.decoder, this.shape),
    };
    this.classes = [...new Set(this.labels)].sort((a, b) => a - b);
    this.colours = Array.from(this.labels, (label) => classColour(this.classes.indexOf(label)));
    /** What the sliders stand for: 0 at the left end, then geometrically; the time has no 0. */
    this.scales = {
      weight: { low: 0.01, high: 100, zero: true, start: 1 },
      ridge: { low: 1e-3 * payload.stiffness, high: 1e3 * payload.stiffness, zero: true, start: 0 },
      time: { low: payload.time / 30, high: payload.time * 30, zero: false, start: payload.time },
    };
    this.state = { mode: "geodesic", ends: [], curve: null, walk: null, seed: 1, paused: false, cursor: null };
    this.describe();
    this.connect();
    this.reset();
  }

  // ------------------------------------------------------------------ the parts of the page that stay

  describe() {
    const { elements, payload } = this;
    elements.classes.replaceChildren(
      ...this.classes.map((label, k) => {
        const item = document.createElement("li");
        const dot = document.createElement("i");
        dot.style.background = classColour(k);
        item.append(dot, String(label));
        return item;
      }),
    );
    elements.nearest.hidden = this.images === null;
    elements.prior.hidden = payload.prior === null;
    const error = `${(100 * payload.table_error).toPrecision(2)} %`;
    elements.footer.textContent =
      `Metric from a table of ${payload.size.join(" × ")} nodes (its mean relative error at the codes, for w = 1: ${error}). Lengths are in the units of the ` +
      `decoder's outputs, mean and standard deviation. All of it is computed on this page; nothing is loaded or sent.`;
  }

  connect() {
    const { elements } = this;
    elements.overlay.addEventListener("click", (event) => this.place(...this.pointOf(event)));
    elements.overlay.addEventListener("pointermove", (event) => this.look(...this.pointOf(event)));
    elements.overlay.addEventListener("keydown", (event) => this.key(event));
    elements.overlay.addEventListener("blur", () => this.moveCursor(null));
    for (const mode of ["geodesic", "brownian"]) {
      elements[`mode-${mode}`].addEventListener("change", () => this.setMode(mode));
    }
    for (const name of ["weight", "ridge"]) {
      elements[name].addEventListener("input", () => this.later("metric", () => this.updateMetric()));
    }
    elements.time.addEventListener("input", () => this.later("walk", () => this.updateTime()));
    elements.pause.addEventListener("click", () => this.pause(!this.state.paused));
    elements.again.addEventListener("click", () => this.walkAgain());
    elements.reset.addEventListener("click", () => this.reset());
    elements.prior.addEventListener("click", () => {
      this.setMode("brownian");
      this.place(...this.payload.prior.loc);
    });
    const redraw = () => {
      this.view.resize();
      this.drawPlane();
    };
    window.addEventListener("resize", () => this.later("resize", redraw));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  /** Do something at the next frame, once, however often it is asked for until then. */
  later(name, action) {
    this.waiting ??= new Map();
    if (!this.waiting.has(name)) {
      requestAnimationFrame(() => {
        this.waiting.delete(name);
        action();
      });
    }
    this.waiting.set(name, action);
  }

  // ------------------------------------------------------------------ sliders

  sliderValue(name) {
    const { low, high, zero } = this.scales[name];
    const position = Number(this.elements[name].value);
    return zero && position === 0 ? 0 : low * (high / low) ** (position / SLIDER_STEPS);
  }

  setSlider(name, value) {
    const { low, high } = this.scales[name];
    this.elements[name].value = value === 0 ? 0 : Math.round((SLIDER_STEPS * Math.log(value / low)) / Math.log(high / low));
  }

  showSliders() {
    for (const name of Object.keys(this.scales)) {
      const text = shortNumber(this.sliderValue(name));
      this.elements[`${name}-value`].textContent = text;
      this.elements[name].setAttribute("aria-valuetext", text);
    }
  }

  updateMetric() {
    this.showSliders();
    this.table.setParameters(this.sliderValue("weight"), this.sliderValue("ridge"));
    this.graph = null;
    this.drawPlane();
    if (this.state.ends.length === 2) this.solve();
    if (this.state.walk !== null) this.walk(this.state.walk.start);
  }

  updateTime() {
    this.showSliders();
    if (this.state.walk !== null) this.walk(this.state.walk.start);
  }

  reset() {
    for (const [name, { start }] of Object.entries(this.scales)) this.setSlider(name, start);
    Object.assign(this.state, { ends: [], curve: null, walk: null, seed: 1 });
    this.updateMetric();
    this.setMode(this.state.mode);
    this.look(...this.payload.low.map((low, axis) => (low + this.payload.high[axis]) / 2));
  }

  // ------------------------------------------------------------------ pointer and keyboard

  pointOf(event) {
    const box = this.elements.overlay.getBoundingClientRect();
    return this.view.toChart(event.clientX - box.left, event.clientY - box.top);
  }

  key(event) {
    const { low, high } = this.payload;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const at = this.state.cursor ?? low.map((value, axis) => (value + high[axis]) / 2);
    if (event.key in moves) {
      const share = event.shiftKey ? 0.05 : 0.01;
      this.moveCursor(at.map((value, axis) => {
        const moved = value + moves[event.key][axis] * share * (high[axis] - low[axis]);
        return Math.min(Math.max(moved, low[axis]), high[axis]);
      }));
      this.look(...this.state.cursor);
    } else if (event.key === "Enter" || event.key === " ") {
      this.moveCursor(at);
      this.place(...at);
    } else {
      return;
    }
    event.preventDefault();
  }

  moveCursor(place) {
    this.state.cursor = place;
    this.drawOverlay();
  }

  /** Show the decoded image of a place, and the test image nearest to it in the chart. */
  look(x, y) {
    paintImage(this.elements["pointer-image"], this.decoder.decode(x, y), this.shape);
    if (this.images === null) return;
    let nearest = 0, least = Infinity;
    for (let k = 0; k < this.labels.length; k++) {
      const distance = Math.hypot(this.codes[2 * k] - x, this.codes[2 * k + 1] - y);
      if (distance < least) [least, nearest] = [distance, k];
    }
    const size = this.shape.reduce((product, side) => product * side, 1);
    const pixels = this.images.subarray(nearest * size, (nearest + 1) * size);
    paintImage(this.elements["nearest-image"], Float32Array.from(pixels, (byte) => byte / 255), this.shape);
    this.elements["nearest-label"].textContent = `nearest test image: ${this.labels[nearest]}`;
  }

  setMode(mode) {
    const { elements } = this;
    this.state.mode = mode;
    elements[`mode-${mode}`].checked = true;
    if (mode === "geodesic") this.stop();
    elements["geodesic-result"].hidden = mode !== "geodesic" || this.state.curve === null;
    elements["brownian-result"].hidden = mode !== "brownian" || this.state.walk === null;
    this.announce();
    this.drawOverlay();
  }

  /** What to do next. */
  announce() {
    const { mode, ends, walk } = this.state;
    const { elements } = this;
    const geodesics = ["Click two points.", "Click the second point.", "Click again for another pair."];
    elements.status.textContent = mode === "geodesic" ? geodesics[ends.length] : "Click a point: Brownian motion starts there.";
    elements.overlay.parentElement.classList.toggle("walking", mode === "brownian" && walk !== null);
    if (walk === null) {
      elements.pause.disabled = elements.again.disabled = true;
      elements.pause.textContent = "Pause";
    }
  }

  /** A click, or Enter. */
  place(x, y) {
    if (this.state.mode === "brownian") {
      this.walk([x, y]);
    } else {
      this.state.ends = this.state.ends.length === 1 ? [this.state.ends[0], [x, y]] : [[x, y]];
      this.state.curve = null;
      if (this.state.ends.length === 2) this.solve();
    }
    this.setMode(this.state.mode);
  }

  // ------------------------------------------------------------------ geodesics

  solve() {
    const [start, end] = this.state.ends;
    this.graph ??= new PathGraph(this.table, GRAPH_NODES);
    const curve = geodesic(this.table, this.graph, start, end);
    const straight = Float64Array.of(...start, ...end);
    const length = polygonLength(this.table, straight, LINE_PIECES);
    this.state.curve = { ...curve, lineLength: length };
    const { elements } = this;
    elements["geodesic-length"].textContent = `length ${shortNumber(curve.length)}`;
    const ratio = curve.length > 0 ? `, ${(length / curve.length).toFixed(2)} times as long` : "";
    elements["line-length"].textContent = `length ${shortNumber(length)}${ratio}`;
    elements.converged.textContent = curve.converged ? "converged" : `not converged: ${curve.reason}`;
    elements.converged.className = `badge ${curve.converged ? "good" : "bad"}`;
    this.rows.geodesic.show(placesAlong(curve.points, FRAMES));
    this.rows.line.show(placesBetween(start, end, FRAMES));
    this.drawOverlay();
  }

  // ------------------------------------------------------------------ Brownian motion

  walk(start) {
    const time = this.sliderValue("time");
    const motion = new BrownianMotion(this.table, start, WALKERS, this.state.seed);
    const trails = Array.from({ length: TRACED }, () => [...start]);
    this.state.walk = { start, time, motion, trails, steps: 0, began: null };
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.advance(STEPS);
    } else {
      this.pause(false);
    }
    this.showWalk();
  }

  walkAgain() {
    this.state.seed += 1;
    this.walk(this.state.walk.start);
  }

  /** Take steps until so many have been taken. */
  advance(steps) {
    const { walk } = this.state;
    for (; walk.steps < Math.min(steps, STEPS); walk.steps++) {
      walk.motion.step(walk.time / STEPS);
      walk.trails.forEach((trail, k) => trail.push(walk.motion.points[2 * k], walk.motion.points[2 * k + 1]));
    }
  }

  pause(paused) {
    const { state } = this;
    state.paused = paused;
    this.elements.pause.textContent = paused ? "Go on" : "Pause";
    if (state.walk !== null) state.walk.began = null;
    if (!paused) this.run();
  }

  stop() {
    this.pause(true);
  }

  /** Animate: as many steps at each frame as its time on the screen asks for. */
  run() {
    if (this.running) return;
    this.running = true;
    const frame = (now) => {
      const { walk, paused } = this.state;
      this.running = walk !== null && !paused;
      if (!this.running) return;
      walk.began ??= now - (1000 * this.seconds * walk.steps) / STEPS;
      this.advance(Math.ceil(((now - walk.began) / (1000 * this.seconds)) * STEPS));
      this.showWalk();
      this.running = walk.steps < STEPS;
      if (this.running) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  showWalk() {
    const { elements } = this;
    const { walk } = this.state;
    const done = walk.steps >= STEPS;
    elements["brownian-result"].hidden = this.state.mode !== "brownian";
    elements["brownian-time"].textContent =
      `${WALKERS} walkers, time ${shortNumber((walk.time * walk.steps) / STEPS)} of ${shortNumber(walk.time)}`;
    elements["brownian-progress"].value = walk.steps / STEPS;
    const left = walk.motion.left;
    elements["brownian-left"].textContent = left > 0 ? `${left} reached the edge of the table and stopped.` : "";
    elements.pause.disabled = done;
    elements.again.disabled = false;
    const places = walk.trails.map((trail) => trail.slice(-2));
    this.rows.brownian.show(places, places.map((_, k) => classColour(k)));
    this.drawOverlay();
  }

  // ------------------------------------------------------------------ drawing

  drawPlane() {
    const range = this.view.drawField(this.table);
    this.view.drawCodes(this.codes, this.colours);
    const { elements } = this;
    // adding 0 makes 0 of -0
    ["low", "high"].forEach((end, k) => (elements[`field-${end}`].textContent = (Math.round(10 * range[k]) / 10 + 0).toFixed(1)));
    const scale = elements["field-scale"].getContext("2d");
    const gradient = scale.createLinearGradient(0, 0, 120, 0);
    gradient.addColorStop(0, themeColour("--field-low"));
    gradient.addColorStop(1, themeColour("--field-high"));
    scale.fillStyle = gradient;
    scale.fillRect(0, 0, 120, 10);
    this.drawOverlay();
  }

  drawOverlay() {
    const { view } = this;
    const { mode, ends, curve, walk, cursor } = this.state;
    view.clearOverlay();
    const accent = themeColour("--accent"), line = themeColour("--line");
    if (mode === "geodesic") {
      if (curve !== null) {
        view.drawCurve(ends.flat(), line, { dash: [8, 7] });
        view.drawCurve(curve.points, accent);
        placesBetween(...ends, FRAMES).slice(1, -1).forEach((place) => view.drawDot(...place, line, 3.5));
        placesAlong(curve.points, FRAMES).slice(1, -1).forEach((place) => view.drawDot(...place, accent, 3.5));
      }
      ends.forEach((place) => view.drawDot(...place, accent, 6, true));
    } else if (walk !== null) {
      const { points } = walk.motion;
      const quiet = themeColour("--ink");
      for (let k = TRACED; k < WALKERS; k++) view.drawDot(points[2 * k], points[2 * k + 1], quiet, 1.6);
      walk.trails.forEach((trail, k) => view.drawCurve(trail, classColour(k), { width: 1.2, halo: false, alpha: 0.7 }));
      walk.trails.forEach((trail, k) => view.drawDot(...trail.slice(-2), classColour(k), 5, true));
      view.drawDot(...walk.start, accent, 6, true);
    }
    if (cursor !== null) view.drawCrosshair(...cursor);
  }
}

/** Points at equal shares of the straight line. */
function placesBetween(start, end, count) {
  return Array.from({ length: count }, (_, k) => {
    const share = k / (count - 1);
    return [0, 1].map((axis) => start[axis] * (1 - share) + end[axis] * share);
  });
}

/** @returns {string} a number with four digits, or three and a power of ten */
function shortNumber(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

const explorer = new Explorer(JSON.parse(document.getElementById("payload").textContent));
