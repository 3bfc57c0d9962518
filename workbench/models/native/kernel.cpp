// The pass of plain pre-norm rotary layers over a few rows, in single precision.
//
// Weights lie in panels of 16 outputs, [outputs/16][inputs][16], so that one load serves every row.
// A matrix whose values all fit bfloat16 is kept as bfloat16 and widened in registers: the same
// numbers at half the traffic. Sums run in another order than torch's, and in no other precision.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

// A panel is 16 lanes: as many registers as the processor needs for them. BLOCK: rows whose sums stay
// in registers; fewer where widening needs some of them too.
constexpr int LANES = 16;
#if defined(__AVX512F__)
constexpr int WIDTH = 16, BLOCK = 12, NARROW_BLOCK = 12;
#elif defined(__AVX__)
constexpr int WIDTH = 8, BLOCK = 6, NARROW_BLOCK = 5;
#else
constexpr int WIDTH = 4, BLOCK = 4, NARROW_BLOCK = 4;
#endif
constexpr int PARTS = LANES / WIDTH;
typedef float Vec __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef uint16_t Half __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));

inline Vec load(const float* from) { return *reinterpret_cast<const Vec*>(from); }

// The 16 lanes of one input of a panel.
inline void lanes_of(const float* from, Vec* to) {
#pragma GCC unroll 4
  for (int k = 0; k < PARTS; ++k) to[k] = load(from + k * WIDTH);
}
// Two bfloat16 share a word, lane j its upper and lane j + 8 its lower half, so that masking and
// shifting widen them; where 16 lanes are one register, they lie in order.
inline void lanes_of(const uint16_t* from, Vec* to) {
#if defined(__AVX512F__)
  to[0] = (Vec)(__builtin_convertvector(*reinterpret_cast<const Half*>(from), Bits) << 16);
#else
#pragma GCC unroll 2
  for (int k = 0; k < PARTS / 2; ++k) {
    const Bits words = *reinterpret_cast<const Bits*>(from + 2 * k * WIDTH);
    to[k] = (Vec)(words & 0xffff0000u);
    to[k + PARTS / 2] = (Vec)(words << 16);
  }
#endif
}
// Where lane k stands among the 16 halves of an input.
inline int place_of(int lane) {
#if defined(__AVX512F__)
  return lane;
#else
  return lane < LANES / 2 ? 2 * lane + 1 : 2 * (lane - LANES / 2);
#endif
}
inline void store(float* to, Vec value) { *reinterpret_cast<Vec*>(to) = value; }
inline Vec all(float value) { return value - Vec{}; }

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
inline Four four(const Vec& value, int k) { return reinterpret_cast<const Four*>(&value)[k]; }

// Halves are added until one number is left.
inline float total(Vec value) {
  Four sum = four(value, 0);
#pragma GCC unroll 3
  for (int k = 1; k < WIDTH / 4; ++k) sum += four(value, k);
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

// exp by 2^n * 2^f with a polynomial of degree 6 for |f| <= 1/2: within 2 units in the last place.
inline Vec exponential(Vec x) {
  const Vec low = all(-87.0f), high = all(88.0f);
  x = x < low ? low : x;
  x = x > high ? high : x;
  Vec scaled = x * 1.44269504088896341f;
  Vec shifted = scaled + all(12582912.0f);  // 1.5 * 2^23 rounds to a whole number
  Vec whole = shifted - all(12582912.0f);
  Vec rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  Vec y = all(1.9875691500e-4f);
  y = y * rest + all(1.3981999507e-3f);
  y = y * rest + all(8.3334519073e-3f);
  y = y * rest + all(4.1665795894e-2f);
  y = y * rest + all(1.6666665459e-1f);
  y = y * rest + all(5.0000001201e-1f);
  y = y * rest * rest + rest + all(1.0f);
  Whole power = (__builtin_convertvector(whole, Whole) + 127) << 23;
  return y * (Vec)power;
}

struct Matrix {       // mirrored by ctypes in build.py
  const void* panels;
  const float* bias;  // [outputs] or null
  int64_t outputs, inputs, narrow;
};

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

// What is done before the first layer and after the last, where the pointer to it is not null.
struct Ends {
  const float* table;                // embeddings [v d] of the ids
  const int64_t* ids;
  int64_t vocabulary;                // v
  const float* norm;                 // [d]
  double eps;
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

// out[n outputs] (+)= x[n inputs] times the matrix; ld: floats from one row of x to the next.
template <class W>
void product(const Matrix& m, const float* x, int64_t ld, int64_t n, float* out, bool add,
             int threads) {
  const W* panels = static_cast<const W*>(m.panels);
  const int64_t count = (m.outputs + LANES - 1) / LANES;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int64_t p = 0; p < count; ++p) {
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
}

void multiply(const Matrix& m, const float* x, int64_t n, float* out, bool add, int threads) {
  if (m.narrow)
    product<uint16_t>(m, x, m.inputs, n, out, add, threads);
  else
    product<float>(m, x, m.inputs, n, out, add, threads);
}

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
      typedef int32_t Places __attribute__((vector_size(16)));
      const Places low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5},
                   last = {2, 3, 6, 7};
      Four ab = __builtin_shuffle(a, b, low), cd = __builtin_shuffle(c, d, low);
      Four ab2 = __builtin_shuffle(a, b, high), cd2 = __builtin_shuffle(c, d, high);
      float* to = panel + k * LANES + lane;
      *reinterpret_cast<Four*>(to) = __builtin_shuffle(ab, cd, first);
      *reinterpret_cast<Four*>(to + LANES) = __builtin_shuffle(ab, cd, last);
      *reinterpret_cast<Four*>(to + 2 * LANES) = __builtin_shuffle(ab2, cd2, first);
      *reinterpret_cast<Four*>(to + 3 * LANES) = __builtin_shuffle(ab2, cd2, last);
    }
  for (; k < size; ++k)
    for (int lane = 0; lane < LANES; ++lane) panel[k * LANES + lane] = keys[lane * size + k];
}

float largest(const float* x, int64_t length) {
  Vec top = all(-INFINITY);
  Whole bad = {};
  int64_t j = 0;
  for (; j + WIDTH <= length; j += WIDTH) {
    Vec v = load(x + j);
    top = v > top ? v : top;
    bad |= (Whole)(v != v);
  }
  float highest = -INFINITY;
  int32_t any = 0;
  for (int k = 0; k < WIDTH; ++k) any |= bad[k], highest = top[k] > highest ? top[k] : highest;
  for (; j < length; ++j) any |= x[j] != x[j], highest = x[j] > highest ? x[j] : highest;
  return any ? NAN : highest;
}

// The law of one row of logits; gives the largest of them.
float law_of(const float* x, int64_t length, float temperature, float* law, float* bits) {
  const float highest = largest(x, length);
  *bits = 0;
  if (temperature == 0) {
    std::memset(law, 0, length * sizeof(float));
    for (int64_t j = 0; j < length; ++j)
      if (x[j] == highest) {
        law[j] = 1;
        break;
      }
    return highest;
  }
  Vec sum = {}, weighted = {};
  for (int64_t j = 0; j < length; j += WIDTH) {
    const int64_t some = length - j < WIDTH ? length - j : WIDTH;
    Vec v = all(-INFINITY);
    if (some == WIDTH)
      v = load(x + j);
    else
      for (int64_t k = 0; k < some; ++k) v[k] = x[j + k];
    v = (v - all(highest)) / all(temperature);
    Vec e = exponential(v);
    e = v < all(-87.0f) ? Vec{} : e;
    v = v < all(-87.0f) ? Vec{} : v;
    sum += e, weighted += e * v;
    if (some == WIDTH)
      store(law + j, e);
    else
      for (int64_t k = 0; k < some; ++k) law[j + k] = e[k];
  }
  const float mass = total(sum);
  for (int64_t j = 0; j < length; ++j) law[j] /= mass;
  *bits = (std::log(mass) - total(weighted) / mass) * 1.44269504088896341f;
  return highest;
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
#pragma omp parallel for num_threads(rows.threads) schedule(static) if (rows.threads > 1)
  for (int64_t h = 0; h < kv; ++h) attended(layer, rows, store, h, qkv.data(), mixed.data());
  multiply(layer.out, mixed.data(), n, stream, true, rows.threads);
}

void feed_forward(const Layer& layer, const Rows& rows, float* stream, std::vector<float>* spare) {
  const int64_t n = rows.count, d = layer.width, inner = layer.inner;
  std::vector<float>&x = spare[0], &both = spare[1], &gated = spare[2];
  x.resize(n * d), both.resize(n * 2 * inner), gated.resize(n * inner);
  normed(stream, layer.norm_mlp, n, d, layer.eps, x.data());
  multiply(layer.gate_up, x.data(), n, both.data(), false, rows.threads);
  for (int64_t r = 0; r < n; ++r) {
    const float *gate = &both[r * 2 * inner], *up = gate + inner;
    float* to = &gated[r * inner];
    int64_t k = 0;
    for (; k + WIDTH <= inner; k += WIDTH) {
      Vec g = load(gate + k);
      store(to + k, g / (all(1.0f) + exponential(-g)) * load(up + k));
    }
    for (; k < inner; ++k) to[k] = gate[k] / (1.0f + std::exp(-gate[k])) * up[k];
  }
  multiply(layer.down, gated.data(), n, stream, true, rows.threads);
}

}  // namespace

extern "C" {

// Weights [outputs inputs] into panels; the last panel is padded with zeros.
void wb_pack(const float* weights, int64_t outputs, int64_t inputs, int64_t narrow, void* panels) {
  for (int64_t o = 0; o < (outputs + LANES - 1) / LANES * LANES; ++o)
    for (int64_t i = 0; i < inputs; ++i) {
      const int64_t at = ((o / LANES) * inputs + i) * LANES;
      const int lane = static_cast<int>(o % LANES);
      const float value = o < outputs ? weights[o * inputs + i] : 0.0f;
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof bits);
      if (narrow)
        static_cast<uint16_t*>(panels)[at + place_of(lane)] = static_cast<uint16_t>(bits >> 16);
      else
        static_cast<float*>(panels)[at + lane] = value;
    }
}

// Whether every value is unchanged by a trip through bfloat16.
int64_t wb_fits_narrow(const float* weights, int64_t count) {
  const uint32_t* bits = reinterpret_cast<const uint32_t*>(weights);
  uint32_t low = 0;
  for (int64_t k = 0; k < count; ++k) low |= bits[k] & 0xffffu;
  return low == 0;
}

// A digest of the bytes of weights, to notice a change; eight lanes, in the order of memory.
uint64_t wb_digest(const float* weights, int64_t count) {
  const uint32_t* bits = reinterpret_cast<const uint32_t*>(weights);
  uint64_t lanes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  int64_t k = 0;
  for (; k + 8 <= count; k += 8)
    for (int lane = 0; lane < 8; ++lane)
      lanes[lane] = (lanes[lane] ^ bits[k + lane]) * 0x9E3779B1u + (lanes[lane] >> 29);
  for (; k < count; ++k) lanes[0] = (lanes[0] ^ bits[k]) * 0x9E3779B1u + (lanes[0] >> 29);
  uint64_t digest = 0;
  for (uint64_t lane : lanes) digest = (digest ^ lane) * 0x9E3779B97F4A7C15ull;
  return digest;
}

// Run layers [first, last) over the stream [n d] in place; either half can be left out.
// Gives 0, or 1 where an id is outside of the vocabulary: then nothing was done.
int64_t wb_layers(const Layer* layers, const Store* stores, const Rows* rows, const Ends* ends,
               int64_t first, int64_t last, int64_t attend, int64_t feed, float* stream) {
  static thread_local std::vector<float> spare[3];
  const int64_t d = layers[first].width;
  if (ends->table)
    for (int64_t r = 0; r < rows->count; ++r) {
      if (ends->ids[r] < 0 || ends->ids[r] >= ends->vocabulary) return 1;
      std::memcpy(stream + r * d, ends->table + ends->ids[r] * d, d * sizeof(float));
    }
  for (int64_t k = first; k < last; ++k) {
    if (attend) attention(layers[k], *rows, stores[k], stream, spare);
    if (feed) feed_forward(layers[k], *rows, stream, spare);
  }
  if (ends->norm) normed(stream, ends->norm, rows->count, d, ends->eps, stream);
  return 0;
}

void wb_norm(const float* weight, double eps, int64_t n, int64_t d, const float* x, float* out) {
  normed(x, weight, n, d, eps, out);
}

// Copy stored rows to start, start + 1, ...; sources rise, so that none is overwritten too soon.
void wb_move(const Store* stores, int64_t layers, int64_t start, const int64_t* sources,
             int64_t count) {
  for (int64_t l = 0; l < layers; ++l)
    for (int64_t h = 0; h < stores[l].heads; ++h)
      for (float* rows : {stores[l].keys, stores[l].values}) {
        const int64_t size = stores[l].size;
        rows += h * stores[l].capacity * size;
        for (int64_t k = 0; k < count; ++k)
          if (sources[k] != start + k)
            std::memcpy(rows + (start + k) * size, rows + sources[k] * size, size * sizeof(float));
      }
}

// Laws [n v] of logits: their softmax at a temperature, or at temperature 0 all on the first of the
// largest. Also the largest logit of each row (NaN where any is NaN) and the entropy in bits.
void wb_laws(const float* logits, int64_t n, int64_t v, double temperature, float* laws,
             float* highest, float* bits) {
  for (int64_t r = 0; r < n; ++r)
    highest[r] = law_of(logits + r * v, v, static_cast<float>(temperature), laws + r * v, bits + r);
}

void wb_multiply(const Matrix* m, const float* x, int64_t n, int64_t threads, float* out) {
  multiply(*m, x, n, out, false, threads);
}
}
