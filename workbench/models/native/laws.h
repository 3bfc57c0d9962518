// Logits into laws, and laws into tokens.
#pragma once

#include "registers.h"

namespace {

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

int64_t first_of(const float* x, int64_t length, float value) {
  int64_t j = 0;
  while (j < length && x[j] != value) ++j;
  return j;
}

// The k largest of a row, k <= length, largest first and equal ones by place; NaN counts as the least.
void largest_of(const float* x, int64_t length, int64_t k, int64_t* places, float* values) {
  constexpr int64_t STRIDE = 8 * WIDTH;  // looked through at once for anything that is large enough
  int64_t found = 0;
  const auto offer = [&](int64_t place) {
    const float value = x[place] == x[place] ? x[place] : -INFINITY;
    if (found == k && !(value > values[k - 1])) return;
    int64_t at = found < k ? found++ : k - 1;
    for (; at > 0 && values[at - 1] < value; --at)
      values[at] = values[at - 1], places[at] = places[at - 1];
    values[at] = value, places[at] = place;
  };
  int64_t j = 0;
  for (; j < k; ++j) offer(j);
  for (; j + STRIDE <= length; j += STRIDE) {
    const Vec least = all(values[k - 1]);
    Whole any = {};
    for (int64_t i = 0; i < STRIDE; i += WIDTH) any |= (Whole)(load(x + j + i) > least);
    int32_t some = 0;
    for (int lane = 0; lane < WIDTH; ++lane) some |= any[lane];
    if (some)
      for (int64_t i = 0; i < STRIDE; ++i) offer(j + i);
  }
  for (; j < length; ++j) offer(j);
}

// The law of one row of logits; gives the largest of them.
float law_of(const float* x, int64_t length, float temperature, float* law, float* bits) {
  const float highest = largest(x, length);
  *bits = 0;
  if (temperature == 0) {
    std::memset(law, 0, length * sizeof(float));
    const int64_t at = first_of(x, length, highest);
    if (at < length) law[at] = 1;
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

// Entropy of a law in bits.
float entropy_of(const float* law, int64_t length) {
  constexpr int CHAINS = 8;  // fewer numbers in each sum, so less rounding
  Vec sums[CHAINS] = {};
  int64_t j = 0;
  for (int c = 0; j + WIDTH <= length; j += WIDTH, c = (c + 1) % CHAINS) {
    const Vec p = load(law + j);
    sums[c] -= p * logarithm(p);
  }
  float nats = 0;
  for (int c = 0; c < CHAINS; ++c) nats += total(sums[c]);
  for (; j < length; ++j) nats -= law[j] > 0 ? law[j] * std::log(law[j]) : 0;
  return nats * 1.44269504088896341f;
}

// The token at quantile u in [0, 1) of a law, as core/sampling.py draws it: sums in double precision.
int64_t drawn_from(const float* law, int64_t length, double u) {
  double total = 0, sum = 0;
  for (int64_t j = 0; j < length; ++j) total += law[j];
  const double below = std::nextafter(total, 0.0);
  const double level = u * total < below ? u * total : below;
  for (int64_t j = 0; j < length; ++j)
    if ((sum += law[j]) > level) return j;
  return length - 1;
}

}  // namespace
