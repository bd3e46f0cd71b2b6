// FORMAT.md, "Hash of a piece". Included by patches.cpp, which says how it is built.
#pragma once

#include "patches.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace poscuda {
namespace {

typedef std::uint64_t words __attribute__((vector_size(8 * POSCUDA_LANES)));
typedef std::uint32_t halves __attribute__((vector_size(8 * POSCUDA_LANES)));
constexpr std::size_t piece_words = 64; // of a key's two parts; a piece has no more

// lo32 * hi32 of each word. Compilers do not see that one instruction does this.
inline words multiply_halves(words x) {
#if POSCUDA_LANES == 8
    return (words)_mm512_mul_epu32((__m512i)x, (__m512i)(x >> 32));
#elif POSCUDA_LANES == 4
    return (words)_mm256_mul_epu32((__m256i)x, (__m256i)(x >> 32));
#elif defined(__x86_64__)
    return (words)_mm_mul_epu32((__m128i)x, (__m128i)(x >> 32));
#else
    return (x & 0xffffffff) * (x >> 32);
#endif
}

// NH_0 and NH_1, in lanes that are still to be summed.
struct Sums {
    words first, second;
};

inline void add_words(Sums &sums, words w, words first_key, words second_key) {
    sums.first += multiply_halves((words)((halves)w + (halves)first_key));
    sums.second += multiply_halves((words)((halves)w + (halves)second_key));
}

inline std::uint64_t finish(std::uint64_t x) { // of MurmurHash3
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccd;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53;
    return x ^ x >> 33;
}

inline std::uint64_t total(words lanes) {
    std::uint64_t sum = 0;
    for (std::size_t lane = 0; lane < POSCUDA_LANES; ++lane)
        sum += lanes[lane];
    return sum;
}

std::uint64_t finish(const Sums &sums, std::size_t size, const std::uint64_t *key) {
    const std::uint64_t a = total(sums.first) + size * 0x9e3779b97f4a7c15, b = total(sums.second);
    return finish(a ^ key[2 * piece_words]) + finish(b ^ key[2 * piece_words + 1]) * 0xd6e8feb86659fd93;
}

// The prefetch halves the time of data that are in no cache: pieces mostly lie one behind the other.
std::uint64_t hash_piece(const std::uint8_t *piece, std::size_t size, const std::uint64_t *key) {
    constexpr std::size_t bytes = sizeof(words);
    Sums sums = {};
    std::size_t done = 0;
    for (; done + bytes <= size; done += bytes) {
        words w, first, second;
        __builtin_prefetch(piece + done + 2048);
        std::memcpy(&w, piece + done, bytes);
        std::memcpy(&first, key + done / 8, bytes);
        std::memcpy(&second, key + piece_words + done / 8, bytes);
        add_words(sums, w, first, second);
    }
    if (done < size) { // less than a register; lanes of which neither words nor keys are loaded add nothing
        words w = {}, first = {}, second = {};
        const std::size_t some = (size - done + 7) / 8 * 8;
        std::memcpy(&w, piece + done, size - done);
        std::memcpy(&first, key + done / 8, some);
        std::memcpy(&second, key + piece_words + done / 8, some);
        add_words(sums, w, first, second);
    }
    return finish(sums, size, key);
}

void hash(const std::uint8_t *data, const Places &pieces, const std::uint64_t *key, std::uint64_t *hashes) {
    alignas(64) std::uint64_t aligned[2 * piece_words + 2]; // registers across two lines take twice as long to load
    std::memcpy(aligned, key, sizeof aligned);
    for (std::size_t n = 0; n < pieces.count; ++n)
        hashes[n] = hash_piece(data + pieces.starts[n], static_cast<std::size_t>(pieces.sizes[n]), aligned);
}

} // namespace
} // namespace poscuda
