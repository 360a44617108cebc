// Segment an image with a model that `rmiseg export` wrote, in Node.
//
//     npm install
//     node segment.mjs model.onnx photo.png result.png
//
// The names and colors of the classes, and what the input is, are in the file of the model.

import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { PNG } from "pngjs";

/** The metadata_props (field 14) of an ONNX file, a protobuf message of pairs (key 1, value 2): ONNX Runtime for Node has no call for them. */
function metadata(bytes) {
  const about = {};
  for (const [field, pair] of fields(bytes)) {
    if (field !== 14) continue;
    const { 1: key, 2: value } = Object.fromEntries(fields(pair));
    about[key.toString()] = value?.toString() ?? "";
  }
  return about;
}

/** The fields of a protobuf message: numbers, and bytes of those that have a length. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag & 7;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else {
      const size = varint();
      yield [Math.floor(tag / 8), bytes.subarray(at, at + size)];
      at += size;
    }
  }
}

const [model, image, result] = process.argv.slice(2);
const bytes = readFileSync(model);
const about = metadata(bytes);
if (about.normalization !== "inside" || !about.input.startsWith("RGB")) {
  throw new Error(`${model} takes ${about.input}; this program gives RGB images as they are`);
}
const classes = JSON.parse(about.classes);
const palette = JSON.parse(about.palette);

const { width, height, data } = PNG.sync.read(readFileSync(image)); // RGBA, pixel by pixel
const size = width * height;
const planes = new Uint8Array(3 * size);
for (let pixel = 0; pixel < size; pixel++) {
  for (let band = 0; band < 3; band++) planes[band * size + pixel] = data[4 * pixel + band];
}

const session = await ort.InferenceSession.create(bytes);
const { logits } = await session.run({ image: new ort.Tensor("uint8", planes, [1, 3, height, width]) });
const colors = new PNG({ width, height });
const counts = new Array(classes.length).fill(0);
for (let pixel = 0; pixel < size; pixel++) {
  let best = 0;
  for (let id = 1; id < classes.length; id++) {
    if (logits.data[id * size + pixel] > logits.data[best * size + pixel]) best = id;
  }
  counts[best]++;
  colors.data.set([...palette[best], 255], 4 * pixel);
}
writeFileSync(result, PNG.sync.write(colors));
classes.forEach((name, id) => console.log(`${name}: ${((100 * counts[id]) / size).toFixed(2)} %`));
