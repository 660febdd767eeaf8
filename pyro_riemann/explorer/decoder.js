/**
 * The mean of the decoder: linear layers with ELU between them,
 *
 *     h_0 = z,    h_(l+1) = elu(W_l h_l + b_l),    mean = W_L h_L + b_L,    elu(x) = x for x > 0, exp(x) - 1 else.
 */
class Decoder {
  /** @param {{weight: {array: Float32Array, shape: number[]}, bias: {array: Float32Array}}[]} layers */
  constructor(layers) {
    this.layers = layers;
  }

  /** @returns {Float32Array} the decoded mean of one code */
  decode(x, y) {
    let input = Float32Array.of(x, y);
    this.layers.forEach(({ weight, bias }, index) => {
      const [rows, columns] = weight.shape;
      const output = new Float32Array(rows);
      for (let i = 0; i < rows; i++) {
        let sum = bias.array[i];
        const at = i * columns;
        for (let j = 0; j < columns; j++) sum += weight.array[at + j] * input[j];
        output[i] = sum > 0 || index === this.layers.length - 1 ? sum : Math.expm1(sum);
      }
      input = output;
    });
    return input;
  }
}

const ARRAY_TYPES = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

/**
 * An array of the payload.
 * @param {{dtype: string, shape: number[], data: string}} packed base64 of little-endian numbers
 * @returns {{array: TypedArray, shape: number[]}}
 */
function unpack(packed) {
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return { array: new ARRAY_TYPES[packed.dtype](bytes.buffer), shape: packed.shape };
}

/** Read the payload: tables, decoder, codes. */
function readPayload(payload) {
  const table = new MetricTable(
    payload.low,
    payload.high,
    payload.size,
    unpack(payload.mean_metric).array,
    unpack(payload.std_metric).array,
    payload.jitter,
  );
  const layers = payload.layers.map(({ weight, bias }) => ({ weight: unpack(weight), bias: unpack(bias) }));
  return {
    table,
    decoder: new Decoder(layers),
    codes: unpack(payload.codes).array,
    labels: unpack(payload.labels).array,
    images: payload.images === null ? null : unpack(payload.images).array,
  };
}
