// What one build of patches.cpp offers; it is built once for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace poscuda {

// Patch n is samples[starts[n] + t * stride] for t in 0..sizes[n]-1; its filter is taps[rows[n] * n_taps + ..].
struct Places {
    const std::int64_t *starts, *sizes;
    std::size_t count;
    std::int64_t stride;
};

struct Filters {
    const std::int64_t *rows;
    const float *taps;
    std::size_t n_rows, n_taps;
};

// Patch n gets values[firsts[r] + (phases[n] + t) % periods[r]], with r = rows[n]; a row has `wrap` more values than its
// period, which are its first ones again.
struct Lines {
    const std::int64_t *phases, *rows;
    const void *values; // of the samples' type, or int32 for packed 24-bit samples
    const std::int64_t *firsts, *periods;
};
constexpr std::size_t wrap = 64;

// What a survey finds in a patch.
constexpr std::uint8_t silent = 1, not_finite = 2;

// What a piece is told to be.
constexpr std::uint8_t original = 1, marked = 2;

// 24-bit PCM in 3 bytes, little-endian.
struct Packed24 {
    std::uint8_t bytes[3];
};

// Functions for one type of sample. `filter` and `add` return how many samples were saturated, `add` for float32 how
// many are not finite; `filter` returns -1 if there is no memory, and fills `flags`, if given, as a survey before it.
template <typename Sample> struct Functions {
    std::int64_t (*filter)(Sample *samples, const Places &places, const Filters &filters, std::uint8_t *flags);
    std::int64_t (*add)(Sample *samples, const Places &places, const Lines &lines);
    void (*survey)(const Sample *samples, const Places &places, std::uint8_t *flags);
    void (*measure)(const Sample *samples, const Places &places, double *energies, double *peaks);
};

// Fills a state for each piece: bits of `original` and `marked`. `dry` gets the original of each piece that is told.
template <typename Sample>
using Tell = void (*)(const Sample *samples, const Places &pieces, const Lines &lines, const std::uint64_t *sums,
                      const std::uint64_t *key, Sample *dry, std::uint8_t *states);

// `wet` gets the samples with the mark of each piece, and `sums` the hash of each original; returns what `add` does.
template <typename Sample>
using MarkAndHash = std::int64_t (*)(const Sample *samples, const Places &pieces, const Lines &lines,
                                     const std::uint64_t *key, Sample *wet, std::uint64_t *sums);

// What is done with pieces of one type of samples.
template <typename Sample> struct PieceFunctions {
    Tell<Sample> tell;
    MarkAndHash<Sample> mark_and_hash;
};

struct Backend {
    const char *name;
    bool (*runs_here)();
    Functions<std::int16_t> int16;
    Functions<std::int32_t> int24; // 24-bit PCM in 32-bit integers
    Functions<float> float32;
    std::int64_t (*add_packed24)(Packed24 *samples, const Places &places, const Lines &lines);
    // Pieces have stride 1 and at most 512 bytes; a key has 130 words.
    void (*hash)(const std::uint8_t *data, const Places &pieces, const std::uint64_t *key, std::uint64_t *hashes);
    PieceFunctions<std::int16_t> int16_pieces;
    PieceFunctions<Packed24> packed24_pieces;
    PieceFunctions<float> float32_pieces;
};

// The compiler's default target: SSE2 on x86-64, NEON on 64-bit ARM.
extern const Backend baseline;
#if defined(__x86_64__)
extern const Backend avx2, avx512;
#endif

} // namespace poscuda
