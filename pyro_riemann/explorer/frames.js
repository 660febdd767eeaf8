/** Small images: decoded frames along curves, at walkers, under the pointer. */

/**
 * Paint an image on a canvas.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} pixels values in [0, 1], channel after channel: one of grey, or red, green and blue
 * @param {number[]} shape height and width, after the channels if they are given
 */
function paintImage(canvas, pixels, shape) {
  const [height, width] = shape.slice(-2);
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  const size = height * width, last = pixels.length / size - 1;
  const light = (k, channel) => 255 * Math.min(Math.max(pixels[k + size * Math.min(channel, last)], 0), 1);
  for (let k = 0; k < size; k++) image.data.set([light(k, 0), light(k, 1), light(k, 2), 255], 4 * k);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** A row of images; their canvases are kept from one drawing to the next. */
class FrameRow {
  constructor(element, decoder, shape) {
    Object.assign(this, { element, decoder, shape });
  }

  /**
   * @param {number[][]} places points of the chart
   * @param {?string[]} colours of the frames
   */
  show(places, colours = null) {
    while (this.element.children.length > places.length) this.element.lastChild.remove();
    while (this.element.children.length < places.length) this.element.append(document.createElement("canvas"));
    places.forEach(([x, y], k) => {
      const canvas = this.element.children[k];
      paintImage(canvas, this.decoder.decode(x, y), this.shape);
      if (colours !== null) canvas.style.borderColor = colours[k];
    });
  }
}

/** Points at equal shares along a curve whose points lie at equal distances. */
function placesAlong(points, count) {
  const last = points.length / 2 - 1;
  return Array.from({ length: count }, (_, k) => {
    const at = Math.round((k / (count - 1)) * last);
    return [points[2 * at], points[2 * at + 1]];
  });
}
