/**
 * Shortest paths on a grid: rough geodesics that see the whole plane, and so start the search on the right side of a wall.
 *
 * Nodes of a square grid are joined to 16 neighbours (a king's and a knight's moves). The length of an edge is that of the
 * straight segment, by Simpson's rule; all the points it needs lie on a grid of half the step.
 */
class PathGraph {
  /**
   * @param {MetricTable} table
   * @param {number} count nodes along each axis
   */
  constructor(table, count) {
    this.table = table;
    this.count = count;
    this.step = [0, 1].map((axis) => (table.high[axis] - table.low[axis]) / (count - 1));
    const fine = 2 * count - 1;
    const tensors = new Float64Array(3 * fine * fine);
    for (let i = 0; i < fine; i++) {
      for (let j = 0; j < fine; j++) {
        const metric = table.metric(table.low[0] + (i * this.step[0]) / 2, table.low[1] + (j * this.step[1]) / 2);
        tensors.set(metric, 3 * (i * fine + j));
      }
    }
    this.lengths = EDGES.map(([di, dj]) => {
      const v0 = di * this.step[0];
      const v1 = dj * this.step[1];
      const norm = (i, j) => {
        const at = 3 * (i * fine + j);
        return Math.sqrt(tensors[at] * v0 * v0 + 2 * tensors[at + 1] * v0 * v1 + tensors[at + 2] * v1 * v1);
      };
      const lengths = new Float64Array(count * count).fill(Infinity);
      for (let i = 0; i < count - di; i++) {
        for (let j = Math.max(0, -dj); j < count - Math.max(0, dj); j++) {
          const middle = norm(2 * i + di, 2 * j + dj);
          lengths[i * count + j] = (norm(2 * i, 2 * j) + 4 * middle + norm(2 * (i + di), 2 * (j + dj))) / 6;
        }
      }
      return lengths;
    });
  }

  /** @returns {number} the node nearest to a point */
  node(x, y) {
    const index = [x, y].map((value, axis) => {
      const place = Math.round((value - this.table.low[axis]) / this.step[axis]);
      return Math.min(Math.max(place, 0), this.count - 1);
    });
    return index[0] * this.count + index[1];
  }

  /**
   * Dijkstra's algorithm from one point to another.
   * @returns {number[][]} points from `start` to `end`
   */
  path(start, end) {
    const { count } = this;
    const source = this.node(start[0], start[1]);
    const target = this.node(end[0], end[1]);
    const distance = new Float64Array(count * count).fill(Infinity);
    const previous = new Int32Array(count * count).fill(-1);
    const queue = new MinHeap();
    distance[source] = 0;
    queue.push(0, source);
    while (queue.size > 0) {
      const [near, node] = queue.pop();
      if (node === target) break;
      if (near > distance[node]) continue; // an old entry: a shorter way was found since
      const i = Math.floor(node / count);
      const j = node % count;
      EDGES.forEach(([di, dj], k) => {
        for (const sign of [1, -1]) {
          const ni = i + sign * di;
          const nj = j + sign * dj;
          if (ni < 0 || nj < 0 || ni >= count || nj >= count) continue;
          const other = ni * count + nj;
          const through = near + this.lengths[k][sign > 0 ? node : other];
          if (through < distance[other]) {
            distance[other] = through;
            previous[other] = node;
            queue.push(through, other);
          }
        }
      });
    }
    const nodes = [];
    for (let node = target; node >= 0; node = previous[node]) nodes.push(node);
    const inner = nodes.reverse().slice(1, -1);
    const place = (node) => [
      this.table.low[0] + Math.floor(node / count) * this.step[0],
      this.table.low[1] + (node % count) * this.step[1],
    ];
    return [start, ...inner.map(place), end];
  }
}

/** Half of the 16 neighbours; the others are their opposites. */
const EDGES = [[0, 1], [1, 0], [1, 1], [1, -1], [1, 2], [2, 1], [1, -2], [2, -1]];

/** A binary heap of numbered keys, least first. */
class MinHeap {
  constructor() {
    this.keys = [];
    this.values = [];
  }

  get size() {
    return this.keys.length;
  }

  push(key, value) {
    let k = this.keys.length;
    while (k > 0) {
      const parent = (k - 1) >> 1;
      if (this.keys[parent] <= key) break;
      this.keys[k] = this.keys[parent];
      this.values[k] = this.values[parent];
      k = parent;
    }
    this.keys[k] = key;
    this.values[k] = value;
  }

  pop() {
    const result = [this.keys[0], this.values[0]];
    const key = this.keys.pop();
    const value = this.values.pop();
    const size = this.keys.length;
    if (size === 0) return result;
    let k = 0;
    for (let child = 1; child < size; child = 2 * k + 1) {
      if (child + 1 < size && this.keys[child + 1] < this.keys[child]) child++;
      if (this.keys[child] >= key) break;
      this.keys[k] = this.keys[child];
      this.values[k] = this.values[child];
      k = child;
    }
    this.keys[k] = key;
    this.values[k] = value;
    return result;
  }
}
