// The pass of plain pre-norm rotary layers over a few rows, in single precision.
//
// Weights lie in panels of 16 outputs, [outputs/16][inputs][16], so that one load serves every row.
// A matrix whose values all fit bfloat16 is kept as bfloat16 and widened in registers: the same
// numbers at half the traffic. Sums run in another order than torch's, and in no other precision.

#include "attention.h"
#include "laws.h"

namespace {

// What is done before the first layer and after the last, where the pointer to it is not null.
struct Ends {
  const float* table;                // embeddings [v d] of the ids
  const int64_t* ids;
  int64_t vocabulary;                // v
  const float* norm;                 // [d]
  double eps;
};

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

// A digest of the bytes of weights, to notice a change: lanes of 32 bits, in the order of memory. An
// odd factor loses nothing, so one changed number always shows.
uint64_t wb_digest(const float* weights, int64_t count) {
  constexpr int CHAINS = 4;
  constexpr uint32_t FACTOR = 0x9E3779B1u;
  const uint32_t* bits = reinterpret_cast<const uint32_t*>(weights);
  Bits lanes[CHAINS] = {};
  int64_t k = 0;
  for (; k + CHAINS * WIDTH <= count; k += CHAINS * WIDTH)
#pragma GCC unroll 4
    for (int c = 0; c < CHAINS; ++c)
      lanes[c] = (lanes[c] ^ *reinterpret_cast<const Bits*>(bits + k + c * WIDTH)) * FACTOR + 1;
  uint64_t digest = 0;
  for (; k < count; ++k) digest = (digest ^ bits[k]) * 0x9E3779B97F4A7C15ull;
  for (int c = 0; c < CHAINS; ++c)
    for (int lane = 0; lane < WIDTH; ++lane)
      digest = (digest ^ lanes[c][lane]) * 0x9E3779B97F4A7C15ull;
  return digest;
}

// Whether the value under each key is still the given one. To be called with Python's lock held;
// lookup is PyDict_GetItem, and everything is the address of an object that lives.
int64_t wb_same(void* (*lookup)(void*, void*), void* const* dicts, void* const* keys,
                void* const* values, int64_t count) {
  for (int64_t k = 0; k < count; ++k)
    if (lookup(dicts[k], keys[k]) != values[k]) return 0;
  return 1;
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

// Entropies in bits of laws [n v].
void wb_entropies(const float* laws, int64_t n, int64_t v, float* bits) {
  for (int64_t r = 0; r < n; ++r) bits[r] = entropy_of(laws + r * v, v);
}

// Of each row of x [n v] the k largest numbers and their places, [n k].
void wb_largest(const float* x, int64_t n, int64_t v, int64_t k, int64_t* places, float* values) {
  for (int64_t r = 0; r < n; ++r) largest_of(x + r * v, v, k, places + r * k, values + r * k);
}

// Run the rows of ends->ids, a chain, then draw tokens one after the other, each from a pass over the
// one before. logits and laws [steps v], chances and tokens [steps]. At temperature 0 the likeliest
// is taken and laws are those of temperature 1. Gives the steps done, fewer where a logit is not
// finite, or -1 where an id is outside of the vocabulary.
int64_t wb_chain(const Layer* layers, int64_t count, const Store* stores, Rows* rows, Ends* ends,
                 const Matrix* head, double temperature, const double* uniforms, int64_t steps,
                 float* logits, float* laws, float* chances, int64_t* tokens) {
  static thread_local std::vector<float> stream;
  const int64_t v = head->outputs, d = layers[0].width, greedy = temperature == 0;
  stream.resize(rows->count * d);
  for (int64_t s = 0; s < steps; ++s) {
    float *x = logits + s * v, *law = laws + s * v, bits;
    if (wb_layers(layers, stores, rows, ends, 0, count, 1, 1, stream.data())) return -1;
    multiply(*head, stream.data() + (rows->count - 1) * d, 1, x, false, rows->threads);
    const float highest = law_of(x, v, greedy ? 1.0f : static_cast<float>(temperature), law, &bits);
    if (!std::isfinite(highest)) return s;
    tokens[s] = greedy ? first_of(x, v, highest) : drawn_from(law, v, uniforms[s]);
    chances[s] = law[tokens[s]];
    ends->ids = tokens + s;
    rows->past += rows->count;
    rows->count = 1;
  }
  return steps;
}

void wb_multiply(const Matrix* m, const float* x, int64_t n, int64_t threads, float* out) {
  multiply(*m, x, n, out, false, threads);
}
}
