// Tells marked pieces from original ones (FORMAT.md, "Pieces"). Included by patches.cpp, which says how it is built.
#pragma once

#include "hashing.h"
#include "lines.h"

namespace poscuda {
namespace {

// The values of a row from one phase on, a register at a time.
template <typename Value> struct Mark {
    const Value *row;
    std::size_t period, phase;

    vector_of<Value> next(std::size_t n = Register<Value>::width) { // lanes from n on are zero
        vector_of<Value> values = {};
        if (n == Register<Value>::width)
            std::memcpy(&values, row + phase, sizeof values);
        else
            std::memcpy(&values, row + phase, n * sizeof(Value));
        phase += Register<Value>::width;
        phase -= phase >= period ? period : 0;
        return values;
    }
};

template <typename Value> Mark<Value> mark_of(const Lines &lines, std::size_t n) {
    const std::int64_t r = lines.rows[n];
    const auto period = static_cast<std::size_t>(lines.periods[r]);
    return {static_cast<const Value *>(lines.values) + lines.firsts[r], period,
            static_cast<std::size_t>(lines.phases[n]) % period};
}

// Which bits of some samples changed, in any lane.
template <typename Value> inline counts_of<Value> changed(vector_of<Value> one, vector_of<Value> other) {
    return (counts_of<Value>)one ^ (counts_of<Value>)other;
}

inline bool any(words lanes) {
    std::uint64_t bits = 0;
    for (std::size_t lane = 0; lane < POSCUDA_LANES; ++lane)
        bits |= lanes[lane];
    return bits != 0;
}

// What is left of samples without a mark: its hash, which bits the mark does not bring back, and which it had changed.
template <typename Value> struct Subtraction {
    Sums sums = {};
    counts_of<Value> lost = {}, moved = {};

    vector_of<Value> subtract(vector_of<Value> y, vector_of<Value> m) {
        counts_of<Value> odd = {};
        vector_of<Value> x = y;
        add_values(x, -m, odd);
        vector_of<Value> again = x;
        add_values(again, m, odd);
        lost |= changed<Value>(again, y);
        moved |= changed<Value>(x, y);
        return x;
    }
};

// `dry` gets the samples without the mark; returns what `state_of` makes of that.
template <typename Value>
std::uint8_t unmark_piece(const Value *wet, Value *dry, std::size_t size, Mark<Value> mark, std::uint64_t recorded,
                          const std::uint64_t *key) {
    constexpr std::size_t width = Register<Value>::width;
    Subtraction<Value> found;
    std::size_t done = 0;
    const auto add = [&](vector_of<Value> x, std::size_t bytes) {
        words first = {}, second = {};
        const std::uint64_t *part = key + done * sizeof(Value) / 8;
        std::memcpy(&first, part, bytes);
        std::memcpy(&second, part + piece_words, bytes);
        add_words(found.sums, (words)x, first, second);
    };
    for (; done + width <= size; done += width) {
        vector_of<Value> y;
        __builtin_prefetch(wet + done + 2048 / sizeof(Value));
        __builtin_prefetch(dry + done + 1024 / sizeof(Value), 1);
        std::memcpy(&y, wet + done, sizeof y);
        const vector_of<Value> x = found.subtract(y, mark.next());
        std::memcpy(dry + done, &x, sizeof x);
        add(x, sizeof(words));
    }
    if (done < size) { // less than a register; the other lanes are zero and add nothing
        const std::size_t few = size - done;
        vector_of<Value> y = {};
        std::memcpy(&y, wet + done, few * sizeof(Value));
        const vector_of<Value> x = found.subtract(y, mark.next(few));
        std::memcpy(dry + done, &x, few * sizeof(Value));
        add(x, (few * sizeof(Value) + 7) / 8 * 8);
    }
    if (finish(found.sums, size * sizeof(Value), key) != recorded || any((words)found.lost))
        return 0;
    return any((words)found.moved) ? marked : original | marked;
}

// Whether adding the mark changes nothing.
template <typename Value> bool is_steady(const Value *samples, std::size_t size, Mark<Value> mark) {
    constexpr std::size_t width = Register<Value>::width;
    counts_of<Value> moved = {}, odd = {};
    std::size_t done = 0;
    const auto add = [&](vector_of<Value> x, vector_of<Value> m) {
        vector_of<Value> y = x;
        add_values(y, m, odd);
        moved |= changed<Value>(x, y);
    };
    for (; done + width <= size; done += width) {
        vector_of<Value> x;
        std::memcpy(&x, samples + done, sizeof x);
        add(x, mark.next());
    }
    if (done < size) {
        vector_of<Value> x = {};
        std::memcpy(&x, samples + done, (size - done) * sizeof x[0]);
        add(x, mark.next(size - done));
    }
    return !any((words)moved);
}

constexpr std::size_t most24 = 8 * piece_words / sizeof(Packed24); // samples in a piece

std::uint8_t unmark_piece(const Packed24 *wet, Packed24 *dry, std::size_t size, Mark<std::int32_t> mark,
                          std::uint64_t recorded, const std::uint64_t *key) {
    constexpr std::size_t width = Register<std::int32_t>::width;
    alignas(64) std::int32_t wide[(most24 + width - 1) / width * width];
    Subtraction<std::int32_t> found;
    unpack(wet, wide, size);
    for (std::size_t done = 0; done < size; done += width) {
        const std::size_t n = size - done < width ? size - done : width;
        vector_of<std::int32_t> y = {};
        if (n == width)
            std::memcpy(&y, wide + done, sizeof y);
        else
            std::memcpy(&y, wide + done, n * sizeof *wide);
        const vector_of<std::int32_t> x = found.subtract(y, mark.next(n));
        std::memcpy(wide + done, &x, sizeof x);
    }
    pack(wide, dry, size);
    const auto *bytes = reinterpret_cast<const std::uint8_t *>(dry);
    if (hash_piece(bytes, size * sizeof *dry, key) != recorded || any((words)found.lost))
        return 0;
    return any((words)found.moved) ? marked : original | marked;
}

bool is_steady(const Packed24 *samples, std::size_t size, Mark<std::int32_t> mark) {
    std::int32_t wide[most24];
    unpack(samples, wide, size);
    return is_steady(wide, size, mark);
}

// `wet` gets the samples with the mark; returns the hash of those without it. `odd` counts as `add` does.
template <typename Value>
std::uint64_t mark_piece(const Value *dry, Value *wet, std::size_t size, Mark<Value> mark, const std::uint64_t *key,
                         std::int64_t &odd) {
    constexpr std::size_t width = Register<Value>::width;
    Sums sums = {};
    counts_of<Value> found = {};
    std::size_t done = 0;
    for (; done + width <= size; done += width) {
        vector_of<Value> x;
        words first, second;
        const std::uint64_t *part = key + done * sizeof(Value) / 8;
        __builtin_prefetch(dry + done + 2048 / sizeof(Value));
        __builtin_prefetch(wet + done + 1024 / sizeof(Value), 1);
        std::memcpy(&x, dry + done, sizeof x);
        std::memcpy(&first, part, sizeof first);
        std::memcpy(&second, part + piece_words, sizeof second);
        add_words(sums, (words)x, first, second);
        add_values(x, mark.next(), found);
        std::memcpy(wet + done, &x, sizeof x);
    }
    if (done < size) {
        const std::size_t few = size - done, some = (few * sizeof(Value) + 7) / 8 * 8;
        vector_of<Value> x = {};
        words first = {}, second = {};
        const std::uint64_t *part = key + done * sizeof(Value) / 8;
        std::memcpy(&x, dry + done, few * sizeof(Value));
        std::memcpy(&first, part, some);
        std::memcpy(&second, part + piece_words, some);
        add_words(sums, (words)x, first, second);
        add_values(x, mark.next(few), found);
        std::memcpy(wet + done, &x, few * sizeof(Value));
    }
    if (any((words)found))
        odd += total<Value>(found);
    return finish(sums, size * sizeof(Value), key);
}

std::uint64_t mark_piece(const Packed24 *dry, Packed24 *wet, std::size_t size, Mark<std::int32_t> mark,
                         const std::uint64_t *key, std::int64_t &odd) {
    std::memcpy(wet, dry, size * sizeof *dry);
    odd += add_run(wet, size, mark.row, mark.period, mark.phase);
    return hash_piece(reinterpret_cast<const std::uint8_t *>(dry), size * sizeof *dry, key);
}

template <typename Sample, typename Value>
std::int64_t mark_and_hash(const Sample *samples, const Places &pieces, const Lines &lines, const std::uint64_t *key,
                           Sample *wet, std::uint64_t *sums) {
    alignas(64) std::uint64_t aligned[2 * piece_words + 2];
    std::memcpy(aligned, key, sizeof aligned);
    std::int64_t odd = 0;
    for (std::size_t n = 0; n < pieces.count; ++n)
        sums[n] = mark_piece(samples + pieces.starts[n], wet + pieces.starts[n],
                             static_cast<std::size_t>(pieces.sizes[n]), mark_of<Value>(lines, n), aligned, odd);
    return odd;
}

template <typename Sample, typename Value>
void tell(const Sample *samples, const Places &pieces, const Lines &lines, const std::uint64_t *sums,
          const std::uint64_t *key, Sample *dry, std::uint8_t *states) {
    alignas(64) std::uint64_t aligned[2 * piece_words + 2];
    std::memcpy(aligned, key, sizeof aligned);
    for (std::size_t n = 0; n < pieces.count; ++n) {
        const auto size = static_cast<std::size_t>(pieces.sizes[n]);
        const Mark<Value> mark = mark_of<Value>(lines, n);
        const Sample *now = samples + pieces.starts[n];
        Sample *before = dry + pieces.starts[n];
        states[n] = unmark_piece(now, before, size, mark, sums[n], aligned);
        if (states[n] != 0)
            continue;
        const std::size_t bytes = size * sizeof *now;
        if (hash_piece(reinterpret_cast<const std::uint8_t *>(now), bytes, aligned) != sums[n])
            continue;
        std::memcpy(before, now, bytes);
        states[n] = is_steady(now, size, mark) ? original | marked : original;
    }
}

} // namespace
} // namespace poscuda
