// A few rows times a packed matrix.
#pragma once

#include "registers.h"
#include "threads.h"

namespace {

struct Matrix {       // mirrored by ctypes in build.py
  const void* panels;
  const float* bias;  // [outputs] or null
  int64_t outputs, inputs, narrow;
};

// Memory to fetch while a panel is multiplied: so many bytes for each of its inputs.
struct Ahead {
  const char* from;
  int64_t pace;
};

// Sums of R rows of x with one panel: out[R LANES].
template <int R, class W>
void panel(const W* w, int64_t step, const float* x, int64_t ld, int64_t inputs, float* out,
           Ahead ahead) {
  constexpr int CHAINS = R <= 2 ? 2 : 1;  // few sums: two of each hide the latency of adding
  Vec sums[CHAINS][R][PARTS] = {};
  int64_t i = 0;
  for (; i + CHAINS <= inputs; i += CHAINS)
#pragma GCC unroll 2
    for (int c = 0; c < CHAINS; ++c) {
      __builtin_prefetch(ahead.from + (i + c) * ahead.pace);
      Vec a[PARTS];
      lanes_of(w + (i + c) * step, a);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int k = 0; k < PARTS; ++k) sums[c][r][k] += a[k] * x[r * ld + i + c];
    }
  for (; i < inputs; ++i) {
    Vec a[PARTS];
    lanes_of(w + i * step, a);
    for (int r = 0; r < R; ++r)
      for (int k = 0; k < PARTS; ++k) sums[0][r][k] += a[k] * x[r * ld + i];
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int k = 0; k < PARTS; ++k)
      store(out + r * LANES + k * WIDTH,
            CHAINS == 2 ? sums[0][r][k] + sums[CHAINS - 1][r][k] : sums[0][r][k]);
}

template <class W>
void block(int rows, const W* w, int64_t step, const float* x, int64_t ld, int64_t inputs,
           float* out, Ahead ahead) {
  switch (rows) {
    case 1: return panel<1>(w, step, x, ld, inputs, out, ahead);
    case 2: return panel<2>(w, step, x, ld, inputs, out, ahead);
    case 3: return panel<3>(w, step, x, ld, inputs, out, ahead);
    case 4: return panel<4>(w, step, x, ld, inputs, out, ahead);
    case 5: return panel<5>(w, step, x, ld, inputs, out, ahead);
    case 6: return panel<6>(w, step, x, ld, inputs, out, ahead);
#ifdef __AVX512F__
    case 7: return panel<7>(w, step, x, ld, inputs, out, ahead);
    case 8: return panel<8>(w, step, x, ld, inputs, out, ahead);
    case 9: return panel<9>(w, step, x, ld, inputs, out, ahead);
    case 10: return panel<10>(w, step, x, ld, inputs, out, ahead);
    case 11: return panel<11>(w, step, x, ld, inputs, out, ahead);
    default: return panel<12>(w, step, x, ld, inputs, out, ahead);
#endif
  }
}

// Rows of the next block: 16 go 4 + 4 + 4 + 4 and not 5 + 5 + 5 + 1, which keeps the pipes full.
inline int even(int64_t left, int64_t most) {
  const int64_t blocks = (left + most - 1) / most;
  return static_cast<int>((left + blocks - 1) / blocks);
}

// Inputs that are multiplied at once: their rows and their part of a panel stay in the first cache.
constexpr int64_t STRETCH = 512;

// One panel's part of a product.
template <class W>
void panel_of(const Matrix& m, int64_t p, const float* x, int64_t ld, int64_t n, float* out,
              bool add) {
  const W* panels = static_cast<const W*>(m.panels);
  constexpr int64_t MOST = sizeof(W) == 2 ? NARROW_BLOCK : BLOCK;
  const int64_t from = p * LANES;
  const int64_t lanes = m.outputs - from < LANES ? m.outputs - from : LANES;
  float sums[BLOCK * LANES];
  const int64_t blocks = (n + MOST - 1) / MOST, pace = LANES * sizeof(W) / blocks;
  for (int64_t start = 0, some; start < m.inputs; start += some) {
    some = blocks > 1 ? even(m.inputs - start, STRETCH) : m.inputs;
    const W* w = panels + (p * m.inputs + start) * LANES;
    // Each block of rows fetches its share of what follows, so that memory never waits for sums.
    Ahead ahead = {reinterpret_cast<const char*>(w + some * LANES), pace};
    for (int64_t row = 0; row < n; ahead.from += pace * some) {
      const int rows = even(n - row, MOST);
      block(rows, w, LANES, x + row * ld + start, ld, some, sums, ahead);
      for (int r = 0; r < rows; ++r, ++row) {
        float* to = out + row * m.outputs + from;
        for (int64_t k = 0; k < lanes; ++k) {
          float value = sums[r * LANES + k] + (m.bias && !start ? m.bias[from + k] : 0.0f);
          to[k] = add || start ? to[k] + value : value;
        }
      }
    }
  }
}

// out[n outputs] (+)= x[n inputs] times the matrix; ld: floats from one row of x to the next.
template <class W>
void product(const Matrix& m, const float* x, int64_t ld, int64_t n, float* out, bool add,
             int threads) {
  const int64_t count = (m.outputs + LANES - 1) / LANES;
  shared(threads, count, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) panel_of<W>(m, p, x, ld, n, out, add);
  });
}

void multiply(const Matrix& m, const float* x, int64_t n, float* out, bool add, int threads) {
  if (m.narrow)
    product<uint16_t>(m, x, m.inputs, n, out, add, threads);
  else
    product<float>(m, x, m.inputs, n, out, add, threads);
}

}  // namespace
