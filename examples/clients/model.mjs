// What a file that `rmiseg export` wrote says of itself, and the way from pixels to its input and back to colors.

/** Classes and palette of an ONNX file, given as a Uint8Array; an error if it takes anything else than RGB images. */
export function describe(bytes, name) {
  const about = metadata(bytes);
  if (!about.input) throw new Error(`${name} is no file that rmiseg export wrote`);
  if (about.normalization !== "inside" || !about.input.startsWith("RGB")) {
    throw new Error(`${name} takes ${about.input}; this program gives RGB images as they are`);
  }
  return { classes: JSON.parse(about.classes), palette: JSON.parse(about.palette) };
}

/** The bands of RGBA pixels one after the other, as the model takes them: red, green, blue. */
export function planes(rgba) {
  const size = rgba.length / 4;
  const made = new Uint8Array(3 * size);
  for (let pixel = 0; pixel < size; pixel++) {
    for (let band = 0; band < 3; band++) made[band * size + pixel] = rgba[4 * pixel + band];
  }
  return made;
}

/** The color of the class of each pixel as RGBA, and the share of each class in percent, of logits (classes x pixels). */
export function colored(logits, palette) {
  const size = logits.length / palette.length;
  const rgba = new Uint8ClampedArray(4 * size);
  const counts = palette.map(() => 0);
  for (let pixel = 0; pixel < size; pixel++) {
    let best = 0;
    for (let id = 1; id < palette.length; id++) {
      if (logits[id * size + pixel] > logits[best * size + pixel]) best = id;
    }
    counts[best]++;
    rgba.set([...palette[best], 255], 4 * pixel);
  }
  return { rgba, shares: counts.map((count) => (100 * count) / size) };
}

/** The metadata_props (field 14) of an ONNX file, a protobuf message of pairs (key 1, value 2): ONNX Runtime has no call for them here. */
function metadata(bytes) {
  const text = new TextDecoder();
  const about = {};
  for (const [field, pair] of fields(bytes)) {
    if (field !== 14) continue;
    const { 1: key, 2: value } = Object.fromEntries(fields(pair));
    about[text.decode(key)] = value ? text.decode(value) : "";
  }
  return about;
}

/** The fields of a protobuf message: numbers, and bytes of those that have a length. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (at >= bytes.length) throw new Error("the model is no ONNX file, or is cut short");
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
