/* RMI of one class and one image, as rmiseg/functional.py defines it; tests/docs/test_explore.py holds the two together.

Maps are Float64Array or plain arrays of height * width values, row by row. */
const RMI = (() => {
  const ALPHA = 5e-4;
  const OFFSET = 1e-6;

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

  /** Mean over pixels of the binary cross entropy of logits and labels. */
  function binaryCrossEntropy(logits, labels) {
    let sum = 0;
    for (let i = 0; i < logits.length; i++) sum += softplus(logits[i]) - logits[i] * labels[i];
    return sum / logits.length;
  }

  /** Means over squares of `size` pixels, with half a square of zeros around the map: functional.pool_maps, "avg". */
  function pool(map, height, width, size) {
    if (size === 1) return { map: Float64Array.from(map), height, width };
    const pad = Math.floor(size / 2);
    const rows = Math.floor((height + 2 * pad - size) / size) + 1;
    const columns = Math.floor((width + 2 * pad - size) / size) + 1;
    const out = new Float64Array(rows * columns);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        let sum = 0;
        for (let y = Math.max(0, r * size - pad); y < Math.min(height, r * size - pad + size); y++) {
          for (let x = Math.max(0, c * size - pad); x < Math.min(width, c * size - pad + size); x++) {
            sum += map[y * width + x];
          }
        }
        out[r * columns + c] = sum / (size * size);
      }
    }
    return { map: out, height: rows, width: columns };
  }

  /** The R * R values of the region whose upper left corner is (y, x). */
  function regionVector(pooled, y, x, side) {
    const vector = [];
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) vector.push(pooled.map[(y + i) * pooled.width + x + j]);
    }
    return vector;
  }

  /** The sum of (v - mean)(v - mean)^T over all regions, where v is [predicted; labels]: 2d rows of 2d values. */
  function covariance(probabilities, labels, side) {
    const d = side * side;
    const vectors = [];
    for (let y = 0; y + side <= labels.height; y++) {
      for (let x = 0; x + side <= labels.width; x++) {
        vectors.push([...regionVector(probabilities, y, x, side), ...regionVector(labels, y, x, side)]);
      }
    }
    const mean = new Float64Array(2 * d);
    for (const vector of vectors) for (let i = 0; i < 2 * d; i++) mean[i] += vector[i] / vectors.length;
    const sums = Array.from({ length: 2 * d }, () => new Float64Array(2 * d));
    for (const vector of vectors) {
      for (let i = 0; i < 2 * d; i++) {
        const centered = vector[i] - mean[i];
        if (centered === 0) continue;
        for (let j = 0; j <= i; j++) sums[i][j] += centered * (vector[j] - mean[j]);
      }
    }
    return sums; // the lower triangle, which is all that Cholesky reads
  }

  /** The lower factor L with L L^T = matrix, of which the lower triangle is read. */
  function cholesky(matrix) {
    const n = matrix.length;
    const factor = Array.from({ length: n }, () => new Float64Array(n));
    for (let j = 0; j < n; j++) {
      for (let i = j; i < n; i++) {
        let sum = matrix[i][j];
        for (let k = 0; k < j; k++) sum -= factor[i][k] * factor[j][k];
        factor[i][j] = i === j ? Math.sqrt(sum) : sum / factor[j][j];
      }
    }
    return factor;
  }

  /** functional.rmi_per_class of pooled maps, and for each cell of a region the variance of the labels that there is,
  and that the prediction leaves unexplained: sums over regions. */
  function ofPooled(labels, probabilities, side, alpha = ALPHA) {
    const d = side * side;
    const sums = covariance(probabilities, labels, side);
    const variance = [];
    for (let i = d; i < 2 * d; i++) variance.push(sums[i][i]);
    for (let i = 0; i < 2 * d; i++) sums[i][i] += alpha;
    const factor = cholesky(sums);
    let value = 0;
    const unexplained = [];
    for (let i = d; i < 2 * d; i++) {
      value += Math.log(factor[i][i]) / d;
      let rest = -alpha;
      for (let j = d; j <= i; j++) rest += factor[i][j] ** 2;
      unexplained.push(Math.max(rest, 0));
    }
    return { value, variance, unexplained };
  }

  /** Everything that the page shows of logits and labels (0 or 1); `loss` is RMILoss(1, mode="binary"). */
  function explain(logits, labels, height, width, poolSize, side, weight = 0.5) {
    const pooledLabels = pool(labels, height, width, poolSize);
    const predicted = Float64Array.from(logits, (x) => sigmoid(x) + OFFSET);
    const pooledPrediction = pool(predicted, height, width, poolSize);
    const rmi = ofPooled(pooledLabels, pooledPrediction, side);
    const perfect = ofPooled(pooledLabels, pooledLabels, side).value;
    const pixel = binaryCrossEntropy(logits, labels);
    const divided = (pixel * labels.length) / (labels.length + 1); // as the paper's code divides
    return {
      ...rmi,
      pooledLabels,
      pooledPrediction,
      perfect,
      above: rmi.value - perfect,
      pixel,
      loss: weight * divided + (1 - weight) * rmi.value,
    };
  }

  return { pool, regionVector, ofPooled, binaryCrossEntropy, explain };
})();

if (typeof module !== "undefined") module.exports = RMI;
