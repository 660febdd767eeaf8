/**
 * Brownian motion of the metric: dz = b dt + G^(-1/2) dW, whose generator is half the Laplace-Beltrami operator, with
 *
 *     b^i = 1/2 g^(-1/2) d_j (g^(1/2) g^(ij)) = 1/2 (d_j g^(ij) + g^(ij) d_j log g^(1/2)),    g = det G,
 *
 * by the Euler-Maruyama method. With G = U diag(exp(2 a)) U^T, U = [[1, 0], [u, 1]]:
 *
 *     G^-1 = [[p + u^2 q, -u q], [-u q, q]],    p = exp(-2 a_0),    q = exp(-2 a_1),    log g^(1/2) = a_0 + a_1.
 */
class BrownianMotion {
  /**
   * @param {MetricTable} table
   * @param {number[]} start
   * @param {number} count walkers
   * @param {number} seed
   */
  constructor(table, start, count, seed) {
    Object.assign(this, { table, count, time: 0 });
    this.random = new RandomSource(seed);
    this.points = new Float64Array(2 * count);
    for (let k = 0; k < count; k++) this.points.set(start, 2 * k);
    /** Walkers that reached the edge of the table, where the metric is not known, and stopped there. */
    this.stopped = new Uint8Array(count);
  }

  /** Advance every walker by the time `duration`, in one step. */
  step(duration) {
    const root = Math.sqrt(duration);
    for (let k = 0; k < this.count; k++) {
      // drawn also for those that stopped: the others' noise does not depend on it
      const w0 = root * this.random.normal();
      const w1 = root * this.random.normal();
      if (this.stopped[k]) continue;
      const [b0, b1] = brownianDrift(this.table, this.points[2 * k], this.points[2 * k + 1]);
      const jet = this.table.jet; // filled by the drift
      const s0 = Math.exp(-jet[0]), s1 = Math.exp(-jet[6]), u = jet[12];
      // in the frame of U diag(exp a), where the norm of G is the Euclidean one, the drift is held to the length of a typical
      // step: on a steep wall one step of it would overshoot
      const f0 = (duration * (b0 + u * b1)) / s0, f1 = (duration * b1) / s1;
      const size = f0 * f0 + f1 * f1;
      const share = size > 2 * duration ? Math.sqrt((2 * duration) / size) : 1;
      const v1 = s1 * (w1 + share * f1);
      const v0 = s0 * (w0 + share * f0) - u * v1;
      const x = this.points[2 * k] + v0;
      const y = this.points[2 * k + 1] + v1;
      if (this.table.contains(x, y)) {
        this.points[2 * k] = x;
        this.points[2 * k + 1] = y;
      } else {
        this.stopped[k] = 1;
      }
    }
    this.time += duration;
  }

  /** @returns {number} walkers that left the table */
  get left() {
    return this.stopped.reduce((sum, flag) => sum + flag, 0);
  }
}

/** @returns {number[]} the Ito drift b at a point; leaves the fields with their first derivatives in `table.jet` */
function brownianDrift(table, x, y) {
  const jet = table.evaluate(x, y, 1);
  const p = Math.exp(-2 * jet[0]), q = Math.exp(-2 * jet[6]), u = jet[12];
  const [a00, a01] = [jet[1], jet[2]]; // d_0 a_0, d_1 a_0
  const [a10, a11] = [jet[7], jet[8]];
  const [u0, u1] = [jet[13], jet[14]];
  const l0 = a00 + a10, l1 = a01 + a11; // d log g^(1/2)
  const d0 = -2 * p * a00 + 2 * u * q * (u0 - u * a10) - q * (u1 - 2 * u * a11); // d_j g^(0j)
  const d1 = -q * (u0 - 2 * u * a10) - 2 * q * a11; // d_j g^(1j)
  return [
    0.5 * (d0 + (p + u * u * q) * l0 - u * q * l1),
    0.5 * (d1 - u * q * l0 + q * l1),
  ];
}
