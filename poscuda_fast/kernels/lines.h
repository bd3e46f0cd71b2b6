// Format 2: adds a table to samples, round and round. Included by patches.cpp, which says how it is built.
#pragma once

#include "patches.h"

#include <cstring>

namespace poscuda {
namespace {

constexpr std::size_t register_bytes = 8 * POSCUDA_LANES;

template <typename Value> struct Register {
    static constexpr std::size_t width = register_bytes / sizeof(Value);
    typedef Value type __attribute__((vector_size(register_bytes)));
    static_assert(width <= wrap, "a row must hold a whole register beyond its period");
};
template <typename Value> using vector_of = typename Register<Value>::type;

// Add values to one register of samples; `odd` gets -1 in each lane that was saturated or is not finite.
inline void add_values(vector_of<std::int16_t> &x, vector_of<std::int16_t> m, vector_of<std::int16_t> &odd) {
    typedef std::uint16_t unsigned_values __attribute__((vector_size(register_bytes)));
    const auto sum = (vector_of<std::int16_t>)((unsigned_values)x + (unsigned_values)m);
    // The sum is lost where both terms have one sign and it has the other.
    const vector_of<std::int16_t> lost = ((x ^ sum) & (m ^ sum)) >> 15, limit = (x >> 15) ^ 0x7fff;
    x = (sum & ~lost) | (limit & lost);
    odd += lost;
}

inline void add_values(vector_of<std::int32_t> &x, vector_of<std::int32_t> m, vector_of<std::int32_t> &odd) {
    constexpr std::int32_t lowest = -(1 << 23), highest = (1 << 23) - 1;
    const vector_of<std::int32_t> sum = x + m, under = sum < lowest, over = sum > highest;
    x = (sum & ~(under | over)) | (under & lowest) | (over & highest);
    odd += under | over;
}

inline void add_values(vector_of<float> &x, vector_of<float> m, vector_of<std::int32_t> &odd) {
    constexpr std::int32_t exponent = 0x7f800000; // all ones in infinity and NaN, which keep their bits
    const auto bits = (vector_of<std::int32_t>)x, sum = (vector_of<std::int32_t>)(x + m);
    const vector_of<std::int32_t> strange = (bits & exponent) == exponent;
    x = (vector_of<float>)((sum & ~strange) | (bits & strange));
    odd += strange;
}

template <typename Value> struct Counted {
    typedef Value type;
};
template <> struct Counted<float> {
    typedef std::int32_t type;
};
template <typename Value> using counts_of = vector_of<typename Counted<Value>::type>;

template <typename Value> inline std::int64_t total(counts_of<Value> odd) {
    std::int64_t found = 0;
    for (std::size_t lane = 0; lane < Register<Value>::width; ++lane)
        found -= odd[lane];
    return found;
}

// Registers that can be counted before a lane could overflow.
constexpr std::size_t most_counted = 1 << 14;

// Fewer samples than a register holds.
template <typename Value> inline std::int64_t add_few(Value *samples, std::size_t n, const Value *values) {
    counts_of<Value> odd = {};
    vector_of<Value> x = {}, m = {};
    std::memcpy(&x, samples, n * sizeof(Value));
    std::memcpy(&m, values, n * sizeof(Value));
    add_values(x, m, odd);
    std::memcpy(samples, &x, n * sizeof(Value));
    return total<Value>(odd);
}

// A patch of samples that lie side by side. The two prefetches, to the first and to the second cache, take a third off
// the time: the hardware alone does not read far enough ahead.
template <typename Value>
std::int64_t add_run(Value *samples, std::size_t size, const Value *row, std::size_t period, std::size_t phase) {
    constexpr std::size_t width = Register<Value>::width;
    std::int64_t found = 0;
    // Registers that lie across two cache lines take twice as long to write.
    std::size_t few = (0 - reinterpret_cast<std::uintptr_t>(samples)) % register_bytes / sizeof(Value);
    few = few < size ? few : size;
    if (few > 0) {
        found += add_few(samples, few, row + phase);
        samples += few, size -= few, phase += few;
        phase -= phase >= period ? period : 0;
    }
    counts_of<Value> odd = {};
    std::size_t counted = 0;
    for (std::size_t left = size / width; left > 0;) {
        // A register may begin anywhere in the period, since the row goes on beyond it.
        std::size_t n = (period - phase + width - 1) / width;
        n = n < left ? n : left;
        n = n < most_counted ? n : most_counted;
        if (counted + n > most_counted) {
            found += total<Value>(odd);
            odd = counts_of<Value>{};
            counted = 0;
        }
        counted += n;
        for (std::size_t k = 0; k < n; ++k) {
            vector_of<Value> x, m;
            __builtin_prefetch(samples + k * width + 512 / sizeof(Value), 1);
            __builtin_prefetch(samples + k * width + 8192 / sizeof(Value), 1, 2);
            std::memcpy(&x, samples + k * width, sizeof x);
            std::memcpy(&m, row + phase + k * width, sizeof m);
            add_values(x, m, odd);
            std::memcpy(samples + k * width, &x, sizeof x);
        }
        samples += n * width;
        left -= n;
        phase += n * width;
        phase -= phase >= period ? period : 0;
    }
    found += total<Value>(odd);
    return found + (size % width > 0 ? add_few(samples, size % width, row + phase) : 0);
}

constexpr std::size_t apart = 512; // samples that are unpacked, marked and packed at a time; they stay in the cache

typedef std::uint8_t bytes16 __attribute__((vector_size(16)));

// n packed samples as integers.
inline void unpack(const Packed24 *from, std::int32_t *to, std::size_t n) {
    std::size_t t = 0;
#if defined(__GNUC__) && __has_builtin(__builtin_shufflevector)
    typedef std::int32_t integers4 __attribute__((vector_size(16)));
    for (; t + 6 <= n; t += 4) { // reads 16 bytes, of which it needs 12
        bytes16 packed;
        __builtin_prefetch(from + t + 256, 1);
        std::memcpy(&packed, from + t, sizeof packed);
        // The upper three bytes of each integer are a sample; what lies below is shifted out.
        const auto wide = (integers4)__builtin_shufflevector(packed, packed, 0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9,
                                                             10, 11) >> 8;
        std::memcpy(to + t, &wide, sizeof wide);
    }
#endif
    for (; t < n; ++t) {
        const auto &b = from[t].bytes;
        to[t] = static_cast<std::int32_t>(static_cast<std::uint32_t>(b[0]) << 8 | static_cast<std::uint32_t>(b[1]) << 16 |
                                          static_cast<std::uint32_t>(b[2]) << 24) >> 8;
    }
}

inline void pack(const std::int32_t *from, Packed24 *to, std::size_t n) {
    std::size_t t = 0;
#if defined(__GNUC__) && __has_builtin(__builtin_shufflevector)
    for (; t + 4 <= n; t += 4) {
        bytes16 wide;
        std::memcpy(&wide, from + t, sizeof wide);
        const bytes16 packed =
            __builtin_shufflevector(wide, wide, 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15);
        std::memcpy(to + t, &packed, 4 * sizeof *to);
    }
#endif
    for (; t < n; ++t)
        for (std::size_t byte = 0; byte < 3; ++byte)
            to[t].bytes[byte] = static_cast<std::uint8_t>(static_cast<std::uint32_t>(from[t]) >> 8 * byte);
}

std::int64_t add_run(Packed24 *samples, std::size_t size, const std::int32_t *row, std::size_t period,
                     std::size_t phase) {
    std::int32_t wide[apart];
    std::int64_t found = 0;
    for (std::size_t done = 0; done < size; done += apart) {
        const std::size_t n = size - done < apart ? size - done : apart;
        unpack(samples + done, wide, n);
        found += add_run(wide, n, row, period, (phase + done) % period);
        pack(wide, samples + done, n);
    }
    return found;
}

// A patch of samples with a stride, by way of a copy.
template <typename Sample, typename Value>
std::int64_t add_apart(Sample *samples, std::ptrdiff_t stride, std::size_t size, const Value *row, std::size_t period,
                       std::size_t phase) {
    Sample copy[apart];
    std::int64_t found = 0;
    for (std::size_t done = 0; done < size; done += apart) {
        const std::size_t n = size - done < apart ? size - done : apart;
        Sample *from = samples + static_cast<std::ptrdiff_t>(done) * stride;
        for (std::size_t t = 0; t < n; ++t)
            copy[t] = from[static_cast<std::ptrdiff_t>(t) * stride];
        found += add_run(copy, n, row, period, (phase + done) % period);
        for (std::size_t t = 0; t < n; ++t)
            from[static_cast<std::ptrdiff_t>(t) * stride] = copy[t];
    }
    return found;
}

template <typename Sample, typename Value>
std::int64_t add(Sample *samples, const Places &places, const Lines &lines) {
    std::int64_t found = 0;
    for (std::size_t n = 0; n < places.count; ++n) {
        const std::int64_t r = lines.rows[n];
        const Value *row = static_cast<const Value *>(lines.values) + lines.firsts[r];
        const auto period = static_cast<std::size_t>(lines.periods[r]), size = static_cast<std::size_t>(places.sizes[n]);
        const std::size_t phase = static_cast<std::size_t>(lines.phases[n]) % period;
        Sample *patch = samples + places.starts[n];
        if (places.stride == 1)
            found += add_run(patch, size, row, period, phase);
        else
            found += add_apart(patch, static_cast<std::ptrdiff_t>(places.stride), size, row, period, phase);
    }
    return found;
}

} // namespace
} // namespace poscuda
