/**
 * Geodesics between two points: the shorter of the curves found from a shortest path on a grid and from the straight line.
 *
 * Damped Newton (Levenberg, 1944; Marquardt, 1963) on the energy of a polygon. The damping is the Hessian with G held
 * constant: it costs nothing, is positive definite, and knows the walls.
 */

const COARSE_SEGMENTS = 128;
const GRADIENT_TOLERANCE = 1e-10; // Newton decrement over twice the energy: the relative decrease still possible
const LENGTH_TOLERANCE = 5e-3;

/**
 * @param {MetricTable} table
 * @param {PathGraph} graph of the same table
 * @param {number[]} start
 * @param {number[]} end
 * @returns {{points: Float64Array, length: number, converged: boolean, reason: string, from: string}} reason: why it is not
 *   converged, for the reader
 */
function geodesic(table, graph, start, end) {
  if (start[0] === end[0] && start[1] === end[1]) {
    return { points: Float64Array.of(...start, ...end), length: 0, converged: true, reason: "", from: "line" };
  }
  const starts = { path: graph.path(start, end), line: [start, end] };
  const found = Object.entries(starts).map(([from, corners]) => ({ from, ...relax(table, corners) }));
  // one that has converged is preferred to one that is hardly shorter
  const cost = (curve) => curve.length * (curve.converged ? 1 : 1 + LENGTH_TOLERANCE);
  return found.reduce((best, other) => (cost(other) < cost(best) ? other : best));
}

/**
 * Minimise the energy from a starting polygon, on N segments and then on 2 N.
 *
 * Converged: both gradients are small, both lengths agree, the curve runs at constant speed (length^2 = 2 E, which fails where
 * a chord jumps a wall), and it stays on the table.
 */
function relax(table, corners) {
  const coarse = minimise(table, resample(table, corners, COARSE_SEGMENTS));
  const fine = minimise(table, halve(coarse.points));
  const length = polygonLength(table, fine.points, 4);
  const before = polygonLength(table, coarse.points, 4);
  let reason = "";
  if (!coarse.stationary || !fine.stationary) reason = "the gradient is not small";
  else if (!(Math.abs(length - before) <= LENGTH_TOLERANCE * length)) reason = "the length depends on the discretisation";
  else if (!(Math.abs(length - Math.sqrt(2 * fine.energy)) <= LENGTH_TOLERANCE * length)) reason = "a chord jumps a wall";
  else if (!onTable(table, fine.points)) reason = "it leaves the table";
  return { points: fine.points, length, converged: reason === "", reason };
}

/**
 * Damped Newton iterations.
 * @returns {{points: Float64Array, energy: number, stationary: boolean, iterations: number}}
 */
function minimise(table, start, maxIterations = 200) {
  let points = Float64Array.from(start);
  const system = new EnergySystem(points.length / 2 - 1);
  let energy = system.assemble(table, points);
  let damping = 0.1;
  for (let iteration = 0; iteration < maxIterations; iteration++) {
    const newton = system.newtonStep(0);
    // judged without damping, where the Hessian is that of a minimum
    if (newton !== null && newton.decrement <= 2 * GRADIENT_TOLERANCE * energy) {
      return { points, energy, stationary: true, iterations: iteration };
    }
    for (let trial = 0; ; trial++) {
      if (trial > 40) return { points, energy, stationary: false, iterations: iteration };
      const solved = system.newtonStep(damping);
      if (solved !== null) {
        const moved = points.map((value, k) => value + solved.step[k]);
        const after = polygonEnergy(table, moved);
        if (after <= energy - 1e-4 * solved.decrement) {
          points = moved;
          break;
        }
      }
      damping = Math.max(4 * damping, 1e-3);
    }
    damping = damping > 1e-4 ? damping / 8 : 0;
    energy = system.assemble(table, points);
  }
  return { points, energy, stationary: false, iterations: maxIterations };
}

/** Length of a polygon by the midpoint rule with `pieces` points on each chord. */
function polygonLength(table, points, pieces) {
  return cumulativeLength(table, points, pieces).at(-1);
}

/** @returns {number[]} lengths from the first corner to the end of each piece of each chord, beginning with 0 */
function cumulativeLength(table, points, pieces) {
  const lengths = [0];
  for (let k = 0; 2 * k + 2 < points.length; k++) {
    const v0 = (points[2 * k + 2] - points[2 * k]) / pieces;
    const v1 = (points[2 * k + 3] - points[2 * k + 1]) / pieces;
    for (let piece = 0; piece < pieces; piece++) {
      const x = points[2 * k] + (piece + 0.5) * v0;
      const y = points[2 * k + 1] + (piece + 0.5) * v1;
      lengths.push(lengths.at(-1) + table.norm(x, y, v0, v1));
    }
  }
  return lengths;
}

/**
 * Points at equal Riemannian distances along a polygon: a curve at constant speed.
 * @param {number[][]} corners
 * @returns {Float64Array} segments + 1 points, flat
 */
function resample(table, corners, segments) {
  const pieces = Math.ceil((4 * segments) / (corners.length - 1));
  const flat = Float64Array.from(corners.flat());
  const lengths = cumulativeLength(table, flat, pieces);
  const result = new Float64Array(2 * (segments + 1));
  let right = 1;
  for (let k = 0; k <= segments; k++) {
    const wanted = (k / segments) * lengths.at(-1);
    while (right < lengths.length - 1 && lengths[right] < wanted) right++;
    const gap = lengths[right] - lengths[right - 1];
    const place = right - 1 + (gap > 0 ? (wanted - lengths[right - 1]) / gap : 0);
    const chord = Math.min(Math.floor(place / pieces), corners.length - 2);
    const share = place / pieces - chord;
    for (const axis of [0, 1]) {
      result[2 * k + axis] = corners[chord][axis] * (1 - share) + corners[chord + 1][axis] * share;
    }
  }
  result.set(corners[0], 0);
  result.set(corners.at(-1), 2 * segments);
  return result;
}

/** The same polygon with a point in the middle of each chord. */
function halve(points) {
  const result = new Float64Array(2 * points.length - 2);
  for (let k = 0; k < points.length / 2; k++) {
    result.set(points.subarray(2 * k, 2 * k + 2), 4 * k);
    if (2 * k + 2 < points.length) {
      result[4 * k + 2] = (points[2 * k] + points[2 * k + 2]) / 2;
      result[4 * k + 3] = (points[2 * k + 1] + points[2 * k + 3]) / 2;
    }
  }
  return result;
}

function onTable(table, points) {
  for (let k = 0; k < points.length; k += 2) if (!table.contains(points[k], points[k + 1])) return false;
  return true;
}
