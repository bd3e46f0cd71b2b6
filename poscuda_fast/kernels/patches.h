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

struct Sounds {
    const std::int64_t *rows;
    const float *shares; // of full scale
    std::size_t n_rows, n_frames;
};

// What a survey finds in a patch.
constexpr std::uint8_t silent = 1, not_finite = 2;

// Functions for one type of sample. `filter` and `add` return how many samples were saturated; `filter` returns -1 if
// there is no memory.
template <typename Sample> struct Functions {
    std::int64_t (*filter)(Sample *samples, const Places &places, const Filters &filters);
    std::int64_t (*add)(Sample *samples, const Places &places, const Sounds &sounds);
    void (*survey)(const Sample *samples, const Places &places, std::uint8_t *flags);
};

struct Backend {
    const char *name;
    bool (*runs_here)();
    Functions<std::int16_t> int16;
    Functions<std::int32_t> int24; // 24-bit PCM in 32-bit integers
    Functions<float> float32;
};

// The compiler's default target: SSE2 on x86-64, NEON on 64-bit ARM.
extern const Backend baseline;
#if defined(__x86_64__)
extern const Backend avx2, avx512;
#endif

} // namespace poscuda
