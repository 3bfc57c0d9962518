// Sixteen numbers at a time in whatever registers the processor has.
#pragma once

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
// Four of the eight numbers of two registers, by their places; each compiler has its own word for it.
#if defined(__clang__)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t Places __attribute__((vector_size(16)));
#define PICK(a, b, ...) __builtin_shuffle(a, b, Places{__VA_ARGS__})
#endif

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

// Natural log of 2^e * m by a polynomial of degree 9 for sqrt(1/2) <= m < sqrt(2). Zero and what is
// too small for a whole exponent give something finite, about -88.
inline Vec logarithm(Vec x) {
  Whole bits = (Whole)x;
  const Whole exponent = (bits - 0x3f3504f3) >> 23;
  bits -= exponent << 23;
  const Vec e = __builtin_convertvector(exponent, Vec), f = (Vec)bits - all(1.0f);
  Vec y = all(7.0376836292e-2f);
  y = y * f - all(1.1514610310e-1f);
  y = y * f + all(1.1676998740e-1f);
  y = y * f - all(1.2420140846e-1f);
  y = y * f + all(1.4249322787e-1f);
  y = y * f - all(1.6668057665e-1f);
  y = y * f + all(2.0000714765e-1f);
  y = y * f - all(2.4999993993e-1f);
  y = y * f + all(3.3333331174e-1f);
  const Vec square = f * f;
  y = y * f * square + e * -2.12194440e-4f - square * 0.5f;
  return y + f + e * 0.693359375f;
}

}  // namespace
