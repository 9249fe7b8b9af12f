/**
 * The arithmetic of a forward pass, on typed arrays: numbers are stored in single precision and added up in double precision.
 *
 * A matrix is a part of an array: where it starts, and how far its rows lie apart. That way a head's queries, keys and values
 * are read where they are, and nothing is copied.
 */

/** A matrix in an array: row r, column c is `data[at + r * step + c]`. */
export interface Matrix {
  readonly data: Float32Array;
  readonly at: number;
  readonly step: number;
}

/** A whole array as a matrix with rows of this width. */
export const matrix = (data: Float32Array, width: number, at = 0): Matrix => ({ data, at, step: width });

/**
 * `out[m, n] = sum over k of a[m, k] b[n, k]`: the product of `a` with the transpose of `b`.
 *
 * Four rows of each are read at a time, so that every number that is loaded is used four times.
 */
export function product(a: Matrix, b: Matrix, out: Matrix, M: number, N: number, K: number): void {
  const x = a.data;
  const w = b.data;
  const y = out.data;
  let m = 0;
  for (; m + 3 < M; m += 4) {
    const a0 = a.at + m * a.step;
    const a1 = a0 + a.step;
    const a2 = a1 + a.step;
    const a3 = a2 + a.step;
    let n = 0;
    for (; n + 3 < N; n += 4) {
      const b0 = b.at + n * b.step;
      const b1 = b0 + b.step;
      const b2 = b1 + b.step;
      const b3 = b2 + b.step;
      let s00 = 0;
      let s01 = 0;
      let s02 = 0;
      let s03 = 0;
      let s10 = 0;
      let s11 = 0;
      let s12 = 0;
      let s13 = 0;
      let s20 = 0;
      let s21 = 0;
      let s22 = 0;
      let s23 = 0;
      let s30 = 0;
      let s31 = 0;
      let s32 = 0;
      let s33 = 0;
      for (let k = 0; k < K; k++) {
        const x0 = x[a0 + k];
        const x1 = x[a1 + k];
        const x2 = x[a2 + k];
        const x3 = x[a3 + k];
        const w0 = w[b0 + k];
        const w1 = w[b1 + k];
        const w2 = w[b2 + k];
        const w3 = w[b3 + k];
        s00 += x0 * w0;
        s01 += x0 * w1;
        s02 += x0 * w2;
        s03 += x0 * w3;
        s10 += x1 * w0;
        s11 += x1 * w1;
        s12 += x1 * w2;
        s13 += x1 * w3;
        s20 += x2 * w0;
        s21 += x2 * w1;
        s22 += x2 * w2;
        s23 += x2 * w3;
        s30 += x3 * w0;
        s31 += x3 * w1;
        s32 += x3 * w2;
        s33 += x3 * w3;
      }
      let o = out.at + m * out.step + n;
      y[o] = s00;
      y[o + 1] = s01;
      y[o + 2] = s02;
      y[o + 3] = s03;
      o += out.step;
      y[o] = s10;
      y[o + 1] = s11;
      y[o + 2] = s12;
      y[o + 3] = s13;
      o += out.step;
      y[o] = s20;
      y[o + 1] = s21;
      y[o + 2] = s22;
      y[o + 3] = s23;
      o += out.step;
      y[o] = s30;
      y[o + 1] = s31;
      y[o + 2] = s32;
      y[o + 3] = s33;
    }
    for (let r = m; r < m + 4; r++) row(a, b, out, r, n, N, K);
  }
  for (; m < M; m++) row(a, b, out, m, 0, N, K);
}

/** The columns from `n` on of one row of a product. */
function row(a: Matrix, b: Matrix, out: Matrix, m: number, n: number, N: number, K: number): void {
  const x = a.data;
  const w = b.data;
  const own = a.at + m * a.step;
  for (; n < N; n++) {
    const other = b.at + n * b.step;
    let s = 0;
    for (let k = 0; k < K; k++) s += x[own + k] * w[other + k];
    out.data[out.at + m * out.step + n] = s;
  }
}

/** A linear map with its bias: rows [T, K] to rows [T, N] by a weight [N, K]. */
export function linear(
  x: Float32Array,
  weight: Float32Array,
  bias: Float32Array | undefined,
  T: number,
): Float32Array {
  const K = x.length / T;
  const N = weight.length / K;
  const out = new Float32Array(T * N);
  product(matrix(x, K), matrix(weight, K), matrix(out, N), T, N, K);
  for (let at = 0; bias && at < out.length; at += N) for (let n = 0; n < N; n++) out[at + n] += bias[n];
  return out;
}

/** The mean of a row of `D` numbers, and the scale that LayerNorm divides by. */
export function moments(x: Float32Array, at: number, D: number, eps: number): readonly [number, number] {
  let sum = 0;
  for (let d = 0; d < D; d++) sum += x[at + d];
  const mean = sum / D;
  let square = 0;
  for (let d = 0; d < D; d++) square += (x[at + d] - mean) ** 2;
  return [mean, Math.sqrt(square / D + eps)];
}

/** LayerNorm of every row. */
export function layerNorm(
  x: Float32Array,
  weight: Float32Array,
  bias: Float32Array | undefined,
  eps: number,
): Float32Array {
  const D = weight.length;
  const out = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += D) {
    const [mean, scale] = moments(x, at, D, eps);
    for (let d = 0; d < D; d++) out[at + d] = ((x[at + d] - mean) / scale) * weight[d] + (bias?.[d] ?? 0);
  }
  return out;
}

/** The softmax of `count` numbers, in place. */
export function softmax(x: Float32Array, at: number, count: number): void {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = at; i < at + count; i++) if (x[i] > max) max = x[i];
  let sum = 0;
  for (let i = at; i < at + count; i++) {
    const e = Math.exp(x[i] - max);
    x[i] = e;
    sum += e;
  }
  for (let i = at; i < at + count; i++) x[i] /= sum;
}

/** GELU in place, by the error function: Abramowitz and Stegun 7.1.26, which is right to 1.5e-7. */
export function gelu(x: Float32Array): void {
  for (let i = 0; i < x.length; i++) {
    const v = x[i];
    const z = Math.abs(v) * Math.SQRT1_2;
    const t = 1 / (1 + 0.3275911 * z);
    const tail =
      ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) *
      t *
      Math.exp(-z * z);
    x[i] = v > 0 ? v - 0.5 * v * tail : 0.5 * v * tail;
  }
}

/** `x += y`. */
export function add(x: Float32Array, y: Float32Array): void {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
}

/** Multiply the columns of every row. */
export function scaleColumns(x: Float32Array, by: Float32Array | undefined): void {
  const D = by?.length ?? x.length;
  for (let at = 0; by && at < x.length; at += D) for (let d = 0; d < D; d++) x[at + d] *= by[d];
}

/** Columns `from`.. of rows [T, width], turned: [count, T]. */
export function turned(x: Float32Array, width: number, from: number, count: number, T: number): Float32Array {
  const out = new Float32Array(count * T);
  for (let t = 0; t < T; t++) for (let c = 0; c < count; c++) out[c * T + t] = x[t * width + from + c];
  return out;
}
