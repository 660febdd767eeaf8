/**
 * Random numbers with a seed: the same seed gives the same Brownian motion in every browser.
 *
 * Uniform numbers by xoshiro128++ (Blackman & Vigna, 2021, "Scrambled linear pseudorandom number generators"), normal
 * ones from pairs of them by Box and Muller (1958).
 */
class RandomSource {
  /** @param {number} seed a whole number */
  constructor(seed) {
    this.state = new Uint32Array(4);
    let word = seed >>> 0;
    for (let k = 0; k < 4; k++) {
      // a Weyl sequence, each term hashed: neighbouring seeds give unrelated states
      word = (word + 0x9e3779b9) >>> 0;
      let mixed = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
      mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
      this.state[k] = (mixed ^ (mixed >>> 15)) >>> 0;
    }
    this.spare = null;
  }

  /** @returns {number} uniform in (0, 1), never 0: its logarithm is taken */
  uniform() {
    const s = this.state;
    const sum = (s[0] + s[3]) | 0;
    const result = (((sum << 7) | (sum >>> 25)) + s[0]) >>> 0;
    const shifted = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = (s[3] << 11) | (s[3] >>> 21);
    return (result + 0.5) / 4294967296;
  }

  /** @returns {number} standard normal */
  normal() {
    if (this.spare !== null) {
      const kept = this.spare;
      this.spare = null;
      return kept;
    }
    const radius = Math.sqrt(-2 * Math.log(this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}
