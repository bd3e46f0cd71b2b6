// The arithmetic of FORMAT.md for one thread. Built once for each instruction set, with its own compiler flags and
// POSCUDA_SET, POSCUDA_LANES. Do not use code from the standard library here: the linker would keep only one set's
// copy of it.

#include "patches.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "hashing.h"
#include "lines.h"
#include "telling.h"

namespace poscuda {
namespace {

constexpr std::size_t width = POSCUDA_LANES; // of a register
typedef double wide __attribute__((vector_size(width * sizeof(double))));
typedef std::int64_t mask __attribute__((vector_size(width * sizeof(std::int64_t))));

inline wide get(const double *from) {
    wide values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

inline void put(wide values, double *to) { std::memcpy(to, &values, sizeof values); }

// What a tap is multiplied into at once, and how it is got. `load_from` gets the vector from x + S on, for an aligned x.
#if POSCUDA_LANES == 8 // one register: a multiply-add broadcasts the tap itself
struct vector {
    wide low;
};

inline vector load(const double *x) { return {get(x)}; }

inline void store(double *to, vector v) { put(v.low, to); }

template <std::size_t S, std::size_t... lane> inline wide between(wide a, wide b, std::index_sequence<lane...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (S + lane)...);
#else
    return __builtin_shuffle(a, b, mask{(S + lane)...});
#endif
}

template <std::size_t S> inline vector load_from(const double *x) { // most loads would cross a line of the cache
    return {between<S>(load(x).low, load(x + width).low, std::make_index_sequence<width>())};
}

inline void multiply_add(vector &sum, double tap, vector x) { sum.low += tap * x.low; }
#else // two registers: the tap is broadcast to a third, and serves both
struct vector {
    wide low, high;
};

inline vector load(const double *x) { return {get(x), get(x + width)}; }

inline void store(double *to, vector v) { put(v.low, to), put(v.high, to + width); }

template <std::size_t S> inline vector load_from(const double *x) { return load(x + S); }

inline void multiply_add(vector &sum, double tap, vector x) { sum.low += tap * x.low, sum.high += tap * x.high; }
#endif
constexpr std::size_t registers = sizeof(vector) / sizeof(wide), lanes = registers * width;

// Each group of `lanes` input samples is taken once for each of `lanes` shifts. It is multiplied into those of the N
// output vectors in registers that need it: sum[u] is the vector of outputs that began u groups ago. So every sum
// takes its inputs in ascending order, one multiply-add for each.
template <std::size_t First, std::size_t End, std::size_t S = 0, std::size_t N>
inline __attribute__((always_inline)) void add_shifts(vector (&sum)[N], const double *x, const double *f) {
    if constexpr (S < lanes) {
        const vector input = load_from<S>(x);
#pragma GCC unroll 16
        for (std::size_t u = First; u < End; ++u)
            multiply_add(sum[u], f[u * lanes + S], input);
        add_shifts<First, End, S + 1>(sum, x, f);
    }
}

template <std::size_t First, std::size_t End, std::size_t N>
inline __attribute__((always_inline)) void add_group(vector (&sum)[N], const double *x, const double *f) {
    asm volatile("" : "+r"(f)); // otherwise the compiler keeps every tap in its own register, and spills them
    add_shifts<First, End>(sum, x, f);
}

template <std::size_t N> inline __attribute__((always_inline)) void shift(vector (&sum)[N]) {
#pragma GCC unroll 16
    for (std::size_t u = N - 1; u > 0; --u)
        sum[u] = sum[u - 1];
}

// Inputs. The groups before `first`, and those from `end` on, hold only zeros, and may be left out.
struct Inputs {
    const double *x;
    std::size_t first, end;
};

// The first N - 1 groups, when only u + 1 outputs have begun.
template <std::size_t U, std::size_t N>
inline __attribute__((always_inline)) void begin(vector (&sum)[N], Inputs in, const double *f, const double *y) {
    if constexpr (U + 1 < N) {
        sum[0] = load(y + U * lanes);
        if (U >= in.first)
            add_group<0, U + 1>(sum, in.x + U * lanes, f);
        shift(sum);
        begin<U + 1>(sum, in, f, y);
    }
}

// The last N - 1 groups, when no more outputs begin: those from group n - 1 + U.
template <std::size_t U, std::size_t N>
inline __attribute__((always_inline)) void end(vector (&sum)[N], Inputs in, const double *f, double *y, std::size_t n) {
    if constexpr (U < N) {
        if (n - 1 + U < in.end)
            add_group<U, N>(sum, in.x + (n - 1 + U) * lanes, f);
        store(y + (n - N + U) * lanes, sum[N - 1]);
        shift(sum);
        end<U + 1>(sum, in, f, y, n);
    }
}

// y[j] += sum over t ascending of f[t] * x[j + t], for N * lanes taps and n >= N vectors of outputs.
template <std::size_t N> void add_taps(Inputs in, const double *f, double *y, std::size_t n) {
    vector sum[N] = {};
    begin<0>(sum, in, f, y);
    for (std::size_t m = N - 1; m < n; ++m) {
        sum[0] = load(y + m * lanes);
        add_group<0, N>(sum, in.x + m * lanes, f);
        store(y + (m - N + 1) * lanes, sum[N - 1]);
        shift(sum);
    }
    end<1>(sum, in, f, y, n);
}

std::size_t round_up(std::size_t n) { return (n + lanes - 1) / lanes * lanes; }

std::size_t less(std::size_t a, std::size_t b) { return a > b ? a - b : 0; }

constexpr std::size_t many = 10 / registers; // groups: the sums fit the registers, and 80 taps one or two passes
using AddTaps = void (*)(Inputs, const double *, double *, std::size_t);
constexpr struct {
    std::size_t groups;
    AddTaps add;
} passes[] = {{many, add_taps<many>}, {2, add_taps<2>}, {1, add_taps<1>}};

// All taps, in passes of as many groups as there are registers for, and outputs to fill them.
void convolve(Inputs in, const double *f, double *y, std::size_t n, std::size_t groups) {
    std::memset(y, 0, n * lanes * sizeof *y);
    for (const auto &pass : passes)
        for (; pass.groups <= groups && (pass.groups <= n || pass.groups == 1); groups -= pass.groups) {
            pass.add(in, f, y, n);
            in = {in.x + pass.groups * lanes, less(in.first, pass.groups), less(in.end, pass.groups)};
            f += pass.groups * lanes;
        }
}

// Write one register of sums to `to` as samples.
template <typename Sample> inline void put(wide sum, Sample *to) {
    typedef Sample narrowed __attribute__((vector_size(width * sizeof(Sample))));
    typedef std::int32_t integers __attribute__((vector_size(width * sizeof(std::int32_t))));
    narrowed samples;
    if constexpr (sizeof(Sample) < sizeof(std::int32_t)) // one step would compile to far more code
        samples = __builtin_convertvector(__builtin_convertvector(sum, integers), narrowed);
    else
        samples = __builtin_convertvector(sum, narrowed);
    std::memcpy(to, &samples, sizeof samples);
}

// Sums as samples, in the memory of the sums; returns how many were saturated.
template <typename Sample> std::int64_t narrow(double *y, Sample *to, std::size_t size, double top) {
    constexpr double round = 0x1.8p52; // adding and subtracting it rounds half to even; larger sums stay large
    const wide lowest = wide{} - top, highest = wide{} + (top - 1);
    mask over = {}; // a true comparison is -1
    for (std::size_t j = size; j < round_up(size); ++j)
        y[j] = 0; // so that it is not counted
    for (std::size_t j = 0; j < size; j += width) {
        wide sum;
        std::memcpy(&sum, y + j, sizeof sum);
        const wide rounded = sum + round - round;
        wide limited = rounded < lowest ? lowest : rounded;
        limited = limited > highest ? highest : limited;
        over -= limited != rounded;
        put(limited, to + j);
    }
    std::int64_t saturated = 0;
    for (std::size_t lane = 0; lane < width; ++lane)
        saturated += over[lane];
    return saturated;
}

std::int64_t narrow(double *y, float *to, std::size_t size, double) {
    for (std::size_t j = 0; j < size; j += width) {
        wide sum;
        std::memcpy(&sum, y + j, sizeof sum);
        put(sum, to + j);
    }
    return 0;
}

template <typename Sample>
void widen(const Sample *from, double *x, std::size_t size, std::ptrdiff_t stride) {
    for (std::size_t t = 0; t < size; ++t)
        x[t] = from[static_cast<std::ptrdiff_t>(t) * stride];
}

// Integers lie in [-top, top).
template <typename Sample> constexpr double top = 0;
template <> constexpr double top<std::int16_t> = 32768;
template <> constexpr double top<std::int32_t> = 8388608;

std::size_t longest(const Places &places) {
    std::int64_t most = 0;
    for (std::size_t n = 0; n < places.count; ++n)
        most = places.sizes[n] > most ? places.sizes[n] : most;
    return static_cast<std::size_t>(most);
}

// Prefetch a patch while those before it are worked on: each lies on another page, and the hardware does not prefetch
// across pages. Of a long patch the beginning is enough.
constexpr std::size_t ahead = 6;

template <typename Sample> void fetch(const Sample *samples, const Places &places, std::size_t n) {
    constexpr std::size_t most = 4096;
    if (n >= places.count || places.stride != 1)
        return;
    const auto bytes = static_cast<std::size_t>(places.sizes[n]) * sizeof(Sample);
    const char *line = reinterpret_cast<const char *>(samples + places.starts[n]);
    for (const char *end = line + (bytes < most ? bytes : most); line < end; line += 64) {
        __builtin_prefetch(line, 1);
        asm volatile("" : : "r"(line)); // GCC drops a loop that only prefetches
    }
}

// What one patch holds: bits of `silent` and `not_finite`.
template <typename Sample>
inline std::uint8_t look_at(const Sample *patch, std::size_t size, std::ptrdiff_t stride) {
    Sample any = 0;
    for (std::size_t t = 0; t < size; ++t)
        any |= patch[static_cast<std::ptrdiff_t>(t) * stride];
    return any == 0 ? silent : 0;
}

inline std::uint8_t look_at(const float *patch, std::size_t size, std::ptrdiff_t stride) {
    constexpr std::uint32_t exponent = 0x7f800000; // all ones in infinity and NaN
    std::uint32_t any = 0, odd = 0;
    for (std::size_t t = 0; t < size; ++t) {
        std::uint32_t bits;
        std::memcpy(&bits, patch + static_cast<std::ptrdiff_t>(t) * stride, sizeof bits);
        any |= bits << 1; // drop the sign: -0.0 is silence
        odd |= (bits & exponent) == exponent ? 1 : 0;
    }
    return static_cast<std::uint8_t>((any == 0 ? silent : 0) | (odd != 0 ? not_finite : 0));
}

template <typename Sample> std::uint8_t look(const Sample *patch, std::size_t size, std::ptrdiff_t stride) {
    return stride == 1 ? look_at(patch, size, 1) : look_at(patch, size, stride); // stride 1 is vectorised
}

double *align(void *memory) { // to a register
    constexpr std::uintptr_t size = lanes * sizeof(double);
    return reinterpret_cast<double *>((reinterpret_cast<std::uintptr_t>(memory) + size - 1) / size * size);
}

template <typename Sample>
std::int64_t filter(Sample *samples, const Places &places, const Filters &filters, std::uint8_t *flags) {
    const std::size_t n_taps = filters.n_taps, lead = n_taps - 1 - (n_taps - 1) / 2;
    const std::size_t most = longest(places), padded = round_up(n_taps), room = round_up(most) + padded + lanes;
    void *memory = std::malloc((room + round_up(most) + padded + lanes) * sizeof(double));
    if (memory == nullptr)
        return -1;
    double *x = align(memory), *y = x + room, *f = y + round_up(most);
    Sample *wet = reinterpret_cast<Sample *>(y); // safe: `narrow` writes only where it has read
    // With zeros around the patch and the filter reversed, y[j] is the plain sum of f[t] * x[j + t].
    std::memset(x, 0, room * sizeof *x);
    std::memset(f, 0, padded * sizeof *f);
    std::int64_t saturated = 0;
    for (std::size_t n = 0; n < places.count; ++n) {
        fetch(samples, places, n + ahead);
        const auto size = static_cast<std::size_t>(places.sizes[n]);
        const float *taps = filters.taps + static_cast<std::size_t>(filters.rows[n]) * n_taps;
        for (std::size_t t = 0; t < n_taps; ++t)
            f[t] = taps[n_taps - 1 - t];
        Sample *patch = samples + places.starts[n];
        if (flags != nullptr)
            flags[n] = look(patch, size, places.stride);
        if (places.stride == 1)
            widen(patch, x + lead, size, 1);
        else
            widen(patch, x + lead, size, places.stride);
        const std::size_t end = lead + size;
        std::memset(x + end, 0, (round_up(size) + padded - end) * sizeof *x);
        // Group m takes inputs from m * lanes to (m + 2) * lanes - 2.
        const Inputs in{x, less((lead + 1) / lanes, 1), round_up(end) / lanes};
        convolve(in, f, y, round_up(size) / lanes, padded / lanes);
        saturated += narrow(y, wet, size, top<Sample>);
        if (places.stride == 1)
            std::memcpy(patch, wet, size * sizeof *patch);
        else
            for (std::size_t j = 0; j < size; ++j)
                patch[static_cast<std::ptrdiff_t>(j) * places.stride] = wet[j];
    }
    std::free(memory);
    return saturated;
}

template <typename Sample> void survey(const Sample *samples, const Places &places, std::uint8_t *flags) {
    for (std::size_t n = 0; n < places.count; ++n) {
        fetch(samples, places, n + 2 * ahead); // these take less time
        flags[n] = look(samples + places.starts[n], static_cast<std::size_t>(places.sizes[n]), places.stride);
    }
}

constexpr std::size_t lanes32 = 2 * width;
typedef float floats __attribute__((vector_size(lanes32 * sizeof(float)))); // one register

template <typename Sample> inline floats get(const Sample *from) {
    typedef Sample narrowed __attribute__((vector_size(lanes32 * sizeof(Sample))));
    narrowed samples;
    std::memcpy(&samples, from, sizeof samples);
    typedef std::int32_t integers __attribute__((vector_size(lanes32 * sizeof(std::int32_t))));
    if constexpr (sizeof(Sample) < sizeof(std::int32_t)) // one step would compile to far more code
        return __builtin_convertvector(__builtin_convertvector(samples, integers), floats);
    else
        return __builtin_convertvector(samples, floats);
}

constexpr std::size_t sums = 4; // several, since each addition waits for the one before

// The sum of squares and the largest magnitude of some samples that lie side by side, a multiple of sums * lanes32:
// float32 is exact enough for a few of them.
template <typename Sample> void measure_some(const Sample *x, std::size_t n, double &energy, double &peak) {
    floats sum[sums] = {}, most[sums] = {};
    for (std::size_t t = 0; t < n; t += sums * lanes32)
#pragma GCC unroll 4
        for (std::size_t u = 0; u < sums; ++u) {
            const Sample *from = x + t + u * lanes32;
            __builtin_prefetch(from + 4096 / sizeof(Sample), 0, 2);
            const floats y = get(from), z = -y, magnitude = y > z ? y : z;
            sum[u] += y * y;
            most[u] = magnitude > most[u] ? magnitude : most[u]; // NaN is left to the energy
        }
    for (std::size_t u = 1; u < sums; ++u) {
        sum[0] += sum[u];
        most[0] = most[u] > most[0] ? most[u] : most[0];
    }
    for (std::size_t lane = 0; lane < lanes32; ++lane) {
        energy += static_cast<double>(sum[0][lane]);
        peak = static_cast<double>(most[0][lane]) > peak ? static_cast<double>(most[0][lane]) : peak;
    }
}

template <typename Sample>
void measure(const Sample *samples, const Places &places, double *energies, double *peaks) {
    constexpr std::size_t some = 4096; // a multiple of sums * lanes32
    for (std::size_t n = 0; n < places.count; ++n) {
        const Sample *patch = samples + places.starts[n];
        const auto size = static_cast<std::size_t>(places.sizes[n]);
        energies[n] = peaks[n] = 0;
        fetch(samples, places, n + 1);
        for (std::size_t done = 0; done < size;) {
            std::size_t next = size - done < some ? size - done : some;
            if (places.stride == 1 && next >= sums * lanes32) {
                next -= next % (sums * lanes32);
                measure_some(patch + done, next, energies[n], peaks[n]);
            } else {
                Sample copy[some] = {};
                for (std::size_t t = 0; t < next; ++t)
                    copy[t] = patch[static_cast<std::ptrdiff_t>(done + t) * places.stride];
                measure_some(copy, (next + sums * lanes32 - 1) / (sums * lanes32) * (sums * lanes32), energies[n], peaks[n]);
            }
            done += next;
        }
    }
}

bool runs_here() { return POSCUDA_NEEDS; }

#define STRING(name) #name
#define NAME(set) STRING(set)

} // namespace

extern const Backend POSCUDA_SET = {
    NAME(POSCUDA_SET),
    runs_here,
    {filter<std::int16_t>, add<std::int16_t, std::int16_t>, survey<std::int16_t>, measure<std::int16_t>},
    {filter<std::int32_t>, add<std::int32_t, std::int32_t>, survey<std::int32_t>, measure<std::int32_t>},
    {filter<float>, add<float, float>, survey<float>, measure<float>},
    add<Packed24, std::int32_t>,
    hash,
    {tell<std::int16_t, std::int16_t>, mark_and_hash<std::int16_t, std::int16_t>},
    {tell<Packed24, std::int32_t>, mark_and_hash<Packed24, std::int32_t>},
    {tell<float, float>, mark_and_hash<float, float>},
};

} // namespace poscuda
