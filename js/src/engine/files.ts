/** Picture files, read and written by the browser. */

import type { Files } from "./answers";
import type { Pixels } from "./picture";
import { Refused } from "./plan";

/** Pictures with more pixels are refused: their pixels take four bytes each. */
const MAX_PIXELS = 80_000_000;
/** Narrower pictures are refused: resized by their shorter side they would fill the memory. */
const MAX_ASPECT_RATIO = 500;

export const browserFiles: Files = {
  async read(file) {
    if (typeof createImageBitmap === "undefined" || typeof OffscreenCanvas === "undefined") {
      throw new Refused("This browser is too old to read pictures here; try a newer one.");
    }
    let picture: ImageBitmap;
    try {
      // Colours as they stand in the file, as Python reads them; turned as the camera was held.
      picture = await createImageBitmap(new Blob([file]), {
        colorSpaceConversion: "none",
        imageOrientation: "from-image",
      });
    } catch {
      throw new Refused("This file cannot be read as a picture; try a JPEG, PNG or WebP file.");
    }
    const { width, height } = picture;
    if (width * height > MAX_PIXELS || Math.max(width, height) > MAX_ASPECT_RATIO * Math.min(width, height)) {
      throw new Refused(
        `The picture is too large or too narrow: ${width} x ${height} pixels; crop it first.`,
      );
    }
    const pen = penOf(new OffscreenCanvas(width, height));
    // Transparency is laid on white.
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.drawImage(picture, 0, 0);
    picture.close();
    return pen.getImageData(0, 0, width, height);
  },
  async write({ data, width, height }: Pixels) {
    const canvas = new OffscreenCanvas(width, height);
    const image = new ImageData(width, height);
    image.data.set(data);
    for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
    penOf(canvas).putImageData(image, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/png" });
    return new Uint8Array(await blob.arrayBuffer());
  },
};

function penOf(canvas: OffscreenCanvas): OffscreenCanvasRenderingContext2D {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  if (!pen) throw new Refused("This browser has no memory left for a picture of this size.");
  return pen;
}
