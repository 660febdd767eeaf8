/**
 * The energy of a polygon x_0, ..., x_N in the plane, its gradient and its Hessian.
 *
 *     E = N / 2 sum_k d_k^T G(m_k) d_k,    d_k = x_(k+1) - x_k,    m_k = (x_k + x_(k+1)) / 2,
 *
 * is half the integral of the squared speed, up to O(1 / N^2). Its minimum over the inner points, for fixed ends, is a
 * geodesic at constant speed. With v^T G v = r_0^2 + r_1^2, r_0 = exp(a_0) (v_0 + u v_1), r_1 = exp(a_1) v_1, all derivatives are
 * exact. The Hessian is block tridiagonal, so that Newton's step costs O(N).
 *
 * Points are flat: x_k = (points[2 k], points[2 k + 1]).
 */
class EnergySystem {
  /** @param {number} segments N */
  constructor(segments) {
    this.segments = segments;
    this.value = 0;
    this.gradient = new Float64Array(2 * (segments + 1));
    // blocks of inner and outer points alike: 00, 01, 11 of the diagonal ones, 00, 01, 10, 11 of those right of it
    this.diagonal = new Float64Array(3 * (segments + 1));
    this.beside = new Float64Array(4 * segments);
    // the same of the Hessian with G held constant, which is positive definite: the damping
    this.stiffDiagonal = new Float64Array(3 * (segments + 1));
    this.stiffBeside = new Float64Array(3 * segments);
    this.factor = { inverse: new Float64Array(3 * (segments + 1)), step: new Float64Array(2 * (segments + 1)) };
  }

  /** Energy, gradient and Hessian of a polygon. */
  assemble(table, points) {
    const n = this.segments;
    this.gradient.fill(0);
    this.diagonal.fill(0);
    this.stiffDiagonal.fill(0);
    this.value = 0;
    for (let k = 0; k < n; k++) {
      const v0 = points[2 * k + 2] - points[2 * k];
      const v1 = points[2 * k + 3] - points[2 * k + 1];
      const jet = table.evaluate((points[2 * k] + points[2 * k + 2]) / 2, (points[2 * k + 1] + points[2 * k + 3]) / 2, 2);
      const e0 = Math.exp(jet[0]), e1 = Math.exp(jet[6]), u = jet[12];
      const r0 = e0 * (v0 + u * v1), r1 = e1 * v1;
      this.value += 0.5 * n * (r0 * r0 + r1 * r1);
      // derivatives of r_0 and r_1 by the point: dr = r da + exp(a) v_1 du
      const d00 = r0 * jet[1] + e0 * v1 * jet[13], d01 = r0 * jet[2] + e0 * v1 * jet[14];
      const d10 = r1 * jet[7], d11 = r1 * jet[8];
      const p0 = r0 * d00 + r1 * d10, p1 = r0 * d01 + r1 * d11;
      const s0 = r0 * e0, s1 = r0 * e0 * u + r1 * e1;
      this.gradient[2 * k] += n * (0.5 * p0 - s0);
      this.gradient[2 * k + 1] += n * (0.5 * p1 - s1);
      this.gradient[2 * k + 2] += n * (0.5 * p0 + s0);
      this.gradient[2 * k + 3] += n * (0.5 * p1 + s1);
      // second derivatives by the point: dr dr^T + r d^2 r
      const bend = (i, j, second) => {
        const a0i = jet[1 + i], a0j = jet[1 + j], ui = jet[13 + i], uj = jet[13 + j];
        const dd0 = r0 * (a0i * a0j + jet[second]) + e0 * v1 * (a0i * uj + a0j * ui + jet[12 + second]);
        const dd1 = r1 * (jet[7 + i] * jet[7 + j] + jet[6 + second]);
        return (i ? d01 : d00) * (j ? d01 : d00) + (i ? d11 : d10) * (j ? d11 : d10) + r0 * dd0 + r1 * dd1;
      };
      const m00 = bend(0, 0, 3), m01 = bend(0, 1, 4), m11 = bend(1, 1, 5);
      // mixed: rows by the point, columns by the vector; d r_0 / dv = exp(a_0) (1, u), d r_1 / dv = exp(a_1) (0, 1)
      const x00 = e0 * (d00 + r0 * jet[1]), x10 = e0 * (d01 + r0 * jet[2]);
      const x01 = u * x00 + r0 * e0 * jet[13] + e1 * (d10 + r1 * jet[7]);
      const x11 = u * x10 + r0 * e0 * jet[14] + e1 * (d11 + r1 * jet[8]);
      const g00 = e0 * e0, g01 = u * g00, g11 = u * g01 + e1 * e1;
      const left = 3 * k, right = 3 * k + 3;
      this.diagonal[left] += n * (0.25 * m00 - x00 + g00);
      this.diagonal[left + 1] += n * (0.25 * m01 - 0.5 * (x01 + x10) + g01);
      this.diagonal[left + 2] += n * (0.25 * m11 - x11 + g11);
      this.diagonal[right] += n * (0.25 * m00 + x00 + g00);
      this.diagonal[right + 1] += n * (0.25 * m01 + 0.5 * (x01 + x10) + g01);
      this.diagonal[right + 2] += n * (0.25 * m11 + x11 + g11);
      this.beside[4 * k] = n * (0.25 * m00 - g00);
      this.beside[4 * k + 1] = n * (0.25 * m01 + 0.5 * (x01 - x10) - g01);
      this.beside[4 * k + 2] = n * (0.25 * m01 + 0.5 * (x10 - x01) - g01);
      this.beside[4 * k + 3] = n * (0.25 * m11 - g11);
      [g00, g01, g11].forEach((g, entry) => {
        this.stiffDiagonal[left + entry] += n * g;
        this.stiffDiagonal[right + entry] += n * g;
        this.stiffBeside[left + entry] = -n * g;
      });
    }
    return this.value;
  }

  /**
   * Newton's step of the inner points, by block elimination of (H + damping * L) step = -gradient.
   * @param {number} damping 0 for Newton's own step
   * @returns {?{step: Float64Array, decrement: number}} null where the matrix is not positive definite;
   *   decrement = -gradient^T step, twice the decrease that the quadratic model promises
   */
  newtonStep(damping) {
    const n = this.segments;
    const { inverse, step } = this.factor;
    step.fill(0);
    for (let k = 1; k < n; k++) {
      let d00 = this.diagonal[3 * k] + damping * this.stiffDiagonal[3 * k];
      let d01 = this.diagonal[3 * k + 1] + damping * this.stiffDiagonal[3 * k + 1];
      let d11 = this.diagonal[3 * k + 2] + damping * this.stiffDiagonal[3 * k + 2];
      let b0 = -this.gradient[2 * k], b1 = -this.gradient[2 * k + 1];
      const size = d00 + d11;
      if (k > 1) {
        const [o00, o01, o10, o11] = this.besideWith(damping, k - 1);
        const i00 = inverse[3 * k - 3], i01 = inverse[3 * k - 2], i11 = inverse[3 * k - 1];
        // W = S^-1 O for the block O between the two points; then D - O^T W and b - W^T b'
        const w00 = i00 * o00 + i01 * o10, w01 = i00 * o01 + i01 * o11;
        const w10 = i01 * o00 + i11 * o10, w11 = i01 * o01 + i11 * o11;
        d00 -= o00 * w00 + o10 * w10;
        d01 -= o00 * w01 + o10 * w11;
        d11 -= o01 * w01 + o11 * w11;
        b0 -= w00 * step[2 * k - 2] + w10 * step[2 * k - 1];
        b1 -= w01 * step[2 * k - 2] + w11 * step[2 * k - 1];
      }
      const determinant = d00 * d11 - d01 * d01;
      if (!(d00 > 1e-13 * size && determinant > 1e-13 * size * d00)) return null;
      inverse[3 * k] = d11 / determinant;
      inverse[3 * k + 1] = -d01 / determinant;
      inverse[3 * k + 2] = d00 / determinant;
      step[2 * k] = b0;
      step[2 * k + 1] = b1;
    }
    let decrement = 0;
    for (let k = n - 1; k >= 1; k--) {
      let b0 = step[2 * k], b1 = step[2 * k + 1];
      if (k < n - 1) {
        const [o00, o01, o10, o11] = this.besideWith(damping, k);
        b0 -= o00 * step[2 * k + 2] + o01 * step[2 * k + 3];
        b1 -= o10 * step[2 * k + 2] + o11 * step[2 * k + 3];
      }
      step[2 * k] = inverse[3 * k] * b0 + inverse[3 * k + 1] * b1;
      step[2 * k + 1] = inverse[3 * k + 1] * b0 + inverse[3 * k + 2] * b1;
      decrement -= this.gradient[2 * k] * step[2 * k] + this.gradient[2 * k + 1] * step[2 * k + 1];
    }
    return { step, decrement };
  }

  /** Block of the damped Hessian between the points k and k + 1. */
  besideWith(damping, k) {
    const middle = damping * this.stiffBeside[3 * k + 1];
    return [
      this.beside[4 * k] + damping * this.stiffBeside[3 * k],
      this.beside[4 * k + 1] + middle,
      this.beside[4 * k + 2] + middle,
      this.beside[4 * k + 3] + damping * this.stiffBeside[3 * k + 2],
    ];
  }
}

/** @returns {number} the energy of a polygon, alone */
function polygonEnergy(table, points) {
  const n = points.length / 2 - 1;
  let sum = 0;
  for (let k = 0; k < n; k++) {
    const speed = table.norm(
      (points[2 * k] + points[2 * k + 2]) / 2,
      (points[2 * k + 1] + points[2 * k + 3]) / 2,
      points[2 * k + 2] - points[2 * k],
      points[2 * k + 3] - points[2 * k + 1],
    );
    sum += speed * speed;
  }
  return 0.5 * n * sum;
}
