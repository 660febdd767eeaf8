/**
 * The metric of the latent plane, from a table.
 *
 * At the nodes G = J_mu^T J_mu + w J_sigma^T J_sigma + lambda I is a weighted sum of two tables. Between them
 * three fields are interpolated, not the entries of G, whose interpolation need not be positive definite where G changes
 * by orders of magnitude: with G = U diag(exp(2 a)) U^T and U = [[1, 0], [u, 1]],
 *
 *     fields = (a_0, a_1, u),    det G^(1/2) = exp(a_0 + a_1).
 *
 * Each is a C^2 tensor product of cubic B-splines, not-a-knot at the faces, as in pyro_riemann's GridMetric.
 */
class MetricTable {
  /**
   * @param {number[]} low lower corner
   * @param {number[]} high upper corner
   * @param {number[]} size nodes along each axis
   * @param {Float32Array} meanPart entries 00, 01, 11 of J_mu^T J_mu at each node, the second axis fastest
   * @param {Float32Array} stdPart the same of J_sigma^T J_sigma
   * @param {number} jitter part of the identity that is always there
   */
  constructor(low, high, size, meanPart, stdPart, jitter = 0) {
    Object.assign(this, { low, high, size, meanPart, stdPart, jitter });
    this.step = [0, 1].map((axis) => (high[axis] - low[axis]) / (size[axis] - 1));
    /** Values and derivatives of the fields at the last point: for each field f, f_0, f_1, f_00, f_01, f_11. */
    this.jet = new Float64Array(18);
    this.logVolume = new Float64Array(size[0] * size[1]);
    this.setParameters(1, 0);
  }

  /**
   * Choose w and lambda, and compute the fields anew.
   * @param {number} weight w, of the standard deviation's part
   * @param {number} ridge lambda
   */
  setParameters(weight, ridge) {
    const count = this.size[0] * this.size[1];
    const fields = [0, 1, 2].map(() => new Float64Array(count));
    for (let node = 0; node < count; node++) {
      const entry = (k) => this.meanPart[3 * node + k] + weight * this.stdPart[3 * node + k];
      const g00 = entry(0) + ridge + this.jitter;
      const g11 = entry(2) + ridge + this.jitter;
      const slope = entry(1) / g00;
      // the table has 24 bits: what is below its rounding is no number to take a logarithm of
      const rest = Math.max(g11 - slope * entry(1), 1e-7 * g11);
      fields[0][node] = 0.5 * Math.log(g00);
      fields[1][node] = 0.5 * Math.log(rest);
      fields[2][node] = slope;
      this.logVolume[node] = fields[0][node] + fields[1][node];
    }
    this.weight = weight;
    this.ridge = ridge;
    this.coefficients = fields.map((values) => splineCoefficients(values, this.size[0], this.size[1]));
  }

  /** @returns {boolean} whether the point lies in the box of the table */
  contains(x, y) {
    return x >= this.low[0] && x <= this.high[0] && y >= this.low[1] && y <= this.high[1];
  }

  /**
   * Fill `jet` at a point. Outside the box the value at the nearest face is kept.
   * @param {number} order highest derivative wanted: 0, 1 or 2
   * @returns {Float64Array} `jet`
   */
  evaluate(x, y, order) {
    const stride = this.size[1] + 2;
    const row = locate((x - this.low[0]) / this.step[0], this.size[0], ROW_WEIGHTS, order);
    const column = locate((y - this.low[1]) / this.step[1], this.size[1], COLUMN_WEIGHTS, order);
    const scale0 = 1 / this.step[0];
    const scale1 = 1 / this.step[1];
    const start = row * stride + column;
    const a = ROW_WEIGHTS;
    const b = COLUMN_WEIGHTS;
    for (let field = 0; field < 3; field++) {
      const c = this.coefficients[field];
      let f = 0, f0 = 0, f1 = 0, f00 = 0, f01 = 0, f11 = 0;
      for (let k = 0; k < 4; k++) {
        const at = start + k * stride;
        const c0 = c[at], c1 = c[at + 1], c2 = c[at + 2], c3 = c[at + 3];
        const value = b[0] * c0 + b[1] * c1 + b[2] * c2 + b[3] * c3;
        f += a[k] * value;
        if (order > 0) {
          const slope = b[4] * c0 + b[5] * c1 + b[6] * c2 + b[7] * c3;
          f0 += a[4 + k] * value;
          f1 += a[k] * slope;
          if (order > 1) {
            f00 += a[8 + k] * value;
            f01 += a[4 + k] * slope;
            f11 += a[k] * (b[8] * c0 + b[9] * c1 + b[10] * c2 + b[11] * c3);
          }
        }
      }
      const out = 6 * field;
      this.jet[out] = f;
      this.jet[out + 1] = f0 * scale0;
      this.jet[out + 2] = f1 * scale1;
      this.jet[out + 3] = f00 * scale0 * scale0;
      this.jet[out + 4] = f01 * scale0 * scale1;
      this.jet[out + 5] = f11 * scale1 * scale1;
    }
    return this.jet;
  }

  /** @returns {number[]} entries 00, 01, 11 of G */
  metric(x, y) {
    const jet = this.evaluate(x, y, 0);
    const first = Math.exp(2 * jet[0]);
    const u = jet[12];
    return [first, u * first, u * u * first + Math.exp(2 * jet[6])];
  }

  /** @returns {number} the norm (v^T G v)^(1/2) of a vector at a point */
  norm(x, y, v0, v1) {
    const jet = this.evaluate(x, y, 0);
    return Math.hypot(Math.exp(jet[0]) * (v0 + jet[12] * v1), Math.exp(jet[6]) * v1);
  }
}

const ROW_WEIGHTS = new Float64Array(12);
const COLUMN_WEIGHTS = new Float64Array(12);

/**
 * Weights of the four B-splines around a position, and of their first and second derivatives.
 * @param {number} position in units of cells
 * @param {number} size nodes along the axis
 * @param {Float64Array} weights filled: 4 values, 4 slopes, 4 curves
 * @returns {number} the cell
 */
function locate(position, size, weights, order) {
  const cell = Math.min(Math.max(Math.floor(position), 0), size - 2);
  const f = Math.min(Math.max(position - cell, 0), 1);
  const inside = position >= 0 && position <= size - 1 ? 1 : 0; // beyond a face the field is constant
  const g = 1 - f;
  weights[0] = (g * g * g) / 6;
  weights[1] = (4 + f * f * (3 * f - 6)) / 6;
  weights[2] = (4 + g * g * (3 * g - 6)) / 6;
  weights[3] = (f * f * f) / 6;
  if (order > 0) {
    weights[4] = (-inside * g * g) / 2;
    weights[5] = inside * f * (1.5 * f - 2);
    weights[6] = -inside * g * (1.5 * g - 2);
    weights[7] = (inside * f * f) / 2;
  }
  if (order > 1) {
    weights[8] = inside * g;
    weights[9] = inside * (3 * f - 2);
    weights[10] = inside * (3 * g - 2);
    weights[11] = inside * f;
  }
  return cell;
}

/**
 * Coefficients of the spline surface through values on a grid.
 * @param {Float64Array} values rows x columns, columns fastest
 * @returns {Float64Array} (rows + 2) x (columns + 2)
 */
function splineCoefficients(values, rows, columns) {
  const wide = new Float64Array(rows * (columns + 2));
  for (let i = 0; i < rows; i++) {
    wide.set(splineLine(values.subarray(i * columns, (i + 1) * columns)), i * (columns + 2));
  }
  const result = new Float64Array((rows + 2) * (columns + 2));
  const line = new Float64Array(rows);
  for (let j = 0; j < columns + 2; j++) {
    for (let i = 0; i < rows; i++) line[i] = wide[i * (columns + 2) + j];
    const solved = splineLine(line);
    for (let i = 0; i < rows + 2; i++) result[i * (columns + 2) + j] = solved[i];
  }
  return result;
}

/**
 * Coefficients c_0 ... c_(n+1) of the cubic B-spline with (c_i + 4 c_(i+1) + c_(i+2)) / 6 = f_i, i = 0 ... n - 1.
 *
 * Not-a-knot: the third derivative is continuous at the second node, so the fourth difference of c_0 ... c_4 vanishes.
 * With the equations of the first three nodes this gives c_2 = (8 f_1 - f_0 - f_2) / 6, and likewise at the other end;
 * between them the system is tridiagonal.
 */
function splineLine(f) {
  const n = f.length;
  const c = new Float64Array(n + 2);
  c[2] = (8 * f[1] - f[0] - f[2]) / 6;
  c[n - 1] = (8 * f[n - 2] - f[n - 3] - f[n - 1]) / 6;
  const pivot = new Float64Array(n + 2);
  for (let k = 3; k <= n - 2; k++) {
    let right = 6 * f[k - 1];
    if (k === 3) right -= c[2];
    if (k === n - 2) right -= c[n - 1];
    const factor = k > 3 ? 1 / pivot[k - 1] : 0;
    pivot[k] = 4 - factor;
    c[k] = right - (k > 3 ? factor * c[k - 1] : 0);
  }
  for (let k = n - 2; k >= 3; k--) c[k] = (c[k] - (k < n - 2 ? c[k + 1] : 0)) / pivot[k];
  c[1] = 6 * f[1] - 4 * c[2] - c[3];
  c[0] = 6 * f[0] - 4 * c[1] - c[2];
  c[n] = 6 * f[n - 2] - 4 * c[n - 1] - c[n - 2];
  c[n + 1] = 6 * f[n - 1] - 4 * c[n] - c[n - 1];
  return c;
}
