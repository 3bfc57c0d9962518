// Norms, rotation and attention of one layer over stored keys and values.
#pragma once

#include "product.h"

namespace {

struct Layer {
  const float *norm_in, *norm_mlp;   // [d]
  const float *norm_q, *norm_k;      // [size] or null
  Matrix qkv, out, gate_up, down;    // gate_up: the inner widths of gate, then of up
  double eps, eps_heads, scale;
  int64_t heads, kv_heads, size, inner, width;
};

struct Store {                       // keys and values [kv_heads capacity size] of one layer
  float *keys, *values;
  int64_t capacity, heads, size;
};

struct Rows {
  int64_t count, past;               // past: slots before these rows
  const float *cos, *sin;            // [positions size]; the first half of sin is negated
  const int64_t* depths;             // [count] beyond origin is where they stand; null: past, ...
  const float* mask;                 // [count past+count-origin] additive, of the slots from
  int64_t mask_from;                 //   mask_from on; null: a chain that sees what is before it
  int64_t origin, threads;
};

void normed(const float* x, const float* weight, int64_t n, int64_t d, double eps, float* out) {
  for (int64_t r = 0; r < n; ++r) {
    const float* row = x + r * d;
    Vec squares = {};
    int64_t k = 0;
    for (; k + WIDTH <= d; k += WIDTH) squares += load(row + k) * load(row + k);
    float sum = total(squares);
    for (; k < d; ++k) sum += row[k] * row[k];
    const float by = 1.0f / std::sqrt(sum / d + static_cast<float>(eps));
    for (k = 0; k < d; ++k) out[r * d + k] = row[k] * by * weight[k];
  }
}

void turned(float* head, const float* cos, const float* sin, int64_t size, float* spare) {
  const int64_t half = size / 2;
  for (int64_t k = 0; k < half; ++k) {
    spare[k] = head[k + half];
    spare[k + half] = head[k];
  }
  for (int64_t k = 0; k < size; ++k) head[k] = head[k] * cos[k] + spare[k] * sin[k];
}

inline float dot(const float* a, const float* b, int64_t size) {
  Vec sum = {};
  int64_t k = 0;
  for (; k + WIDTH <= size; k += WIDTH) sum += load(a + k) * load(b + k);
  float value = total(sum);
  for (; k < size; ++k) value += a[k] * b[k];
  return value;
}

// Softmax over [0, length) in place; columns up to a whole register are padded with nothing.
void softmax(float* s, int64_t length) {
  const int64_t full = (length + WIDTH - 1) / WIDTH * WIDTH;
  for (int64_t j = length; j < full; ++j) s[j] = -INFINITY;
  Vec top = all(-INFINITY);
  for (int64_t j = 0; j < full; j += WIDTH) {
    Vec v = load(s + j);
    top = v > top ? v : top;
  }
  float highest = top[0];
  for (int k = 1; k < WIDTH; ++k) highest = top[k] > highest ? top[k] : highest;
  Vec sum = {};
  for (int64_t j = 0; j < full; j += WIDTH) {
    Vec x = load(s + j) - all(highest);
    Vec e = exponential(x);
    e = x < all(-87.0f) ? Vec{} : e;
    store(s + j, e);
    sum += e;
  }
  const float by = 1.0f / total(sum);
  for (int64_t j = 0; j < full; j += WIDTH) store(s + j, load(s + j) * by);
}

// Sixteen keys [LANES size] as a panel [size LANES].
inline void flip(const float* keys, int64_t size, float* panel) {
  int64_t k = 0;
  for (; k + 4 <= size; k += 4)
#pragma GCC unroll 4
    for (int lane = 0; lane < LANES; lane += 4) {
      Four a = *reinterpret_cast<const Four*>(keys + lane * size + k);
      Four b = *reinterpret_cast<const Four*>(keys + (lane + 1) * size + k);
      Four c = *reinterpret_cast<const Four*>(keys + (lane + 2) * size + k);
      Four d = *reinterpret_cast<const Four*>(keys + (lane + 3) * size + k);
      const Four ab = PICK(a, b, 0, 4, 1, 5), cd = PICK(c, d, 0, 4, 1, 5);
      const Four ab2 = PICK(a, b, 2, 6, 3, 7), cd2 = PICK(c, d, 2, 6, 3, 7);
      float* to = panel + k * LANES + lane;
      *reinterpret_cast<Four*>(to) = PICK(ab, cd, 0, 1, 4, 5);
      *reinterpret_cast<Four*>(to + LANES) = PICK(ab, cd, 2, 3, 6, 7);
      *reinterpret_cast<Four*>(to + 2 * LANES) = PICK(ab2, cd2, 0, 1, 4, 5);
      *reinterpret_cast<Four*>(to + 3 * LANES) = PICK(ab2, cd2, 2, 3, 6, 7);
    }
  for (; k < size; ++k)
    for (int lane = 0; lane < LANES; ++lane) panel[k * LANES + lane] = keys[lane * size + k];
}

// Queries [rows size] against keys [length size]: scores [rows stride].
void scores_of(const float* q, int64_t rows, const float* keys, int64_t length, int64_t size,
               float scale, float* scores, int64_t stride) {
  if (rows < 4) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < length; ++j) {
        __builtin_prefetch(keys + (j + 32) * size);
        __builtin_prefetch(keys + (j + 32) * size + 16);
        scores[r * stride + j] = dot(q + r * size, keys + j * size, size) * scale;
      }
    return;
  }
  static thread_local std::vector<float> flipped;
  flipped.resize(size * LANES);
  for (int64_t j = 0; j < length; j += LANES) {
    const int64_t lanes = length - j < LANES ? length - j : LANES;
    const float* some_keys = keys + j * size;
    if (lanes == LANES)
      flip(some_keys, size, flipped.data());
    else
      for (int64_t lane = 0; lane < lanes; ++lane)
        for (int64_t k = 0; k < size; ++k) flipped[k * LANES + lane] = some_keys[lane * size + k];
    const Ahead ahead = {reinterpret_cast<const char*>(some_keys + 2 * LANES * size), 64};
    for (int64_t row = 0; row < rows;) {
      float sums[BLOCK * LANES];
      const int some = even(rows - row, BLOCK);
      block(some, flipped.data(), LANES, q + row * size, size, size, sums, ahead);
      for (int r = 0; r < some; ++r, ++row)
        for (int k = 0; k < LANES; ++k) scores[row * stride + j + k] = sums[r * LANES + k] * scale;
    }
  }
}

// Weighted sums of values [length size] by weights [rows stride]: out[rows size].
void mixed_of(const float* weights, int64_t rows, int64_t stride, const float* values,
              int64_t length, int64_t size, float* out) {
  int64_t from = 0;
  for (; from + LANES <= size; from += LANES) {
    const Ahead ahead = {reinterpret_cast<const char*>(values + 32 * size + from),
                         static_cast<int64_t>(size * sizeof(float))};
    for (int64_t row = 0; row < rows;) {
      float sums[BLOCK * LANES];
      const int some = even(rows - row, BLOCK);
      block(some, values + from, size, weights + row * stride, stride, length, sums, ahead);
      for (int r = 0; r < some; ++r, ++row)
        std::memcpy(out + row * size + from, sums + r * LANES, LANES * sizeof(float));
    }
  }
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t k = from; k < size; ++k) {
      float sum = 0;
      for (int64_t j = 0; j < length; ++j) sum += weights[row * stride + j] * values[j * size + k];
      out[row * size + k] = sum;
    }
}

// Attention of one key head: its query heads folded into rows, row r of head g at r * groups + g.
void attended(const Layer& layer, const Rows& rows, const Store& store, int64_t head,
              const float* qkv, float* mixed) {
  const int64_t size = layer.size, groups = layer.heads / layer.kv_heads, n = rows.count;
  const int64_t wide = (layer.heads + 2 * layer.kv_heads) * size, folded = n * groups;
  const int64_t length = rows.past + n, stride = (length + LANES - 1) / LANES * LANES;
  const float* keys = store.keys + head * store.capacity * size;
  const float* values = store.values + head * store.capacity * size;
  static thread_local std::vector<float> q, scores, sums;
  q.resize(folded * size), scores.resize(folded * stride), sums.resize(folded * size);
  for (int64_t r = 0; r < n; ++r)
    std::memcpy(&q[r * groups * size], qkv + r * wide + head * groups * size,
                groups * size * sizeof(float));
  scores_of(q.data(), folded, keys, length, size, static_cast<float>(layer.scale), scores.data(),
            stride);
  for (int64_t f = 0; f < folded; ++f) {
    const int64_t r = f / groups;
    float* s = &scores[f * stride];
    const int64_t masked = length - rows.mask_from;
    if (rows.mask)
      for (int64_t j = 0; j < masked; ++j) s[rows.mask_from + j] += rows.mask[r * masked + j];
    const int64_t seen = rows.mask ? length : rows.past + r + 1;
    softmax(s, seen);
    for (int64_t j = seen; j < length; ++j) s[j] = 0;
  }
  mixed_of(scores.data(), folded, stride, values, length, size, sums.data());
  for (int64_t r = 0; r < n; ++r)
    std::memcpy(mixed + (r * layer.heads + head * groups) * size, &sums[r * groups * size],
                groups * size * sizeof(float));
}

void attention(const Layer& layer, const Rows& rows, const Store& store, float* stream,
               std::vector<float>* spare) {
  const int64_t n = rows.count, d = layer.width, size = layer.size;
  const int64_t heads = layer.heads, kv = layer.kv_heads, wide = (heads + 2 * kv) * size;
  std::vector<float>&x = spare[0], &qkv = spare[1], &mixed = spare[2];
  x.resize(n * d), qkv.resize(n * wide), mixed.resize(n * heads * size);
  normed(stream, layer.norm_in, n, d, layer.eps, x.data());
  multiply(layer.qkv, x.data(), n, qkv.data(), false, rows.threads);
  std::vector<float> turn(size);
  for (int64_t r = 0; r < n; ++r) {
    float* row = &qkv[r * wide];
    const int64_t place = (rows.depths ? rows.origin + rows.depths[r] : rows.past + r) * size;
    for (int64_t h = 0; h < heads + kv; ++h) {
      const float* weight = h < heads ? layer.norm_q : layer.norm_k;
      if (weight) normed(row + h * size, weight, 1, size, layer.eps_heads, row + h * size);
      turned(row + h * size, rows.cos + place, rows.sin + place, size, turn.data());
    }
    for (int64_t h = 0; h < kv; ++h) {
      const int64_t at = (h * store.capacity + rows.past + r) * size;
      std::memcpy(store.keys + at, row + (heads + h) * size, size * sizeof(float));
      std::memcpy(store.values + at, row + (heads + kv + h) * size, size * sizeof(float));
    }
  }
  shared(rows.threads, kv, [&](int64_t first, int64_t last) {
    for (int64_t h = first; h < last; ++h)
      attended(layer, rows, store, h, qkv.data(), mixed.data());
  });
  multiply(layer.out, mixed.data(), n, stream, true, rows.threads);
}

}  // namespace
