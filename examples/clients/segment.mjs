// Segment an image with a model that `rmiseg export` wrote, in Node.
//
//     npm install
//     node segment.mjs model.onnx photo.png result.png
//
// The names and colors of the classes, and what the input is, are in the file of the model.

import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { PNG } from "pngjs";
import { colored, describe, planes } from "./model.mjs";

const [model, image, result] = process.argv.slice(2);
const bytes = readFileSync(model);
const { classes, palette } = describe(bytes, model);

const { width, height, data } = PNG.sync.read(readFileSync(image)); // RGBA, pixel by pixel
const session = await ort.InferenceSession.create(bytes);
const { logits } = await session.run({ image: new ort.Tensor("uint8", planes(data), [1, 3, height, width]) });
const { rgba, shares } = colored(logits.data, palette);
const colors = new PNG({ width, height });
colors.data.set(rgba);
writeFileSync(result, PNG.sync.write(colors));
classes.forEach((name, id) => console.log(`${name}: ${shares[id].toFixed(2)} %`));
