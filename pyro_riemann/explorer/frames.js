/** Small images: decoded frames along curves, at walkers, under the pointer. */

/** Paint an image of grey values in [0, 1] on a canvas. */
function paintImage(canvas, pixels, shape) {
  const [height, width] = shape;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  for (let k = 0; k < pixels.length; k++) {
    const grey = 255 * Math.min(Math.max(pixels[k], 0), 1);
    image.data.set([grey, grey, grey, 255], 4 * k);
  }
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
