// What this machine cannot do faster: touch the samples, and multiply and add. Built by limits.py with
// -march=native, so that it has the widest registers there are.
#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__)
constexpr std::size_t lanes = 8;
#elif defined(__AVX__)
constexpr std::size_t lanes = 4;
#else
constexpr std::size_t lanes = 2;
#endif
typedef double vector __attribute__((vector_size(lanes * sizeof(double))));

extern "C" void touch_int16(std::int16_t *samples, const std::int64_t *starts, std::size_t n, std::size_t size) {
    for (std::size_t i = 0; i < n; ++i) {
        std::int16_t *patch = samples + starts[i]; // named, or the loop is not vectorised
        for (std::size_t t = 0; t < size; ++t)
            patch[t] ^= 1;
    }
}

extern "C" void touch_float32(float *samples, const std::int64_t *starts, std::size_t n, std::size_t size) {
    for (std::size_t i = 0; i < n; ++i) {
        float *patch = samples + starts[i]; // named, or the loop is not vectorised
        for (std::size_t t = 0; t < size; ++t)
            patch[t] *= -1;
    }
}

extern "C" void touch_all_int16(std::int16_t *samples, std::size_t n) {
    for (std::size_t t = 0; t < n; ++t)
        samples[t] ^= 1;
}

extern "C" void touch_all_float32(float *samples, std::size_t n) {
    for (std::size_t t = 0; t < n; ++t)
        samples[t] += 1;
}

// About n multiply-adds of float64, none waiting for another: more sums than the pipeline is deep.
extern "C" double multiply_add(std::size_t n) {
    constexpr std::size_t sums = 16;
    vector sum[sums];
    for (std::size_t i = 0; i < sums; ++i)
        sum[i] = vector{} + static_cast<double>(i);
    const vector a = vector{} + 0.99, b = vector{} + 0.01;
    for (std::size_t done = 0; done < n; done += sums * lanes) {
#pragma GCC unroll 16
        for (std::size_t i = 0; i < sums; ++i)
            sum[i] = sum[i] * a + b;
    }
    double total = 0;
    for (const vector &each : sum)
        for (std::size_t lane = 0; lane < lanes; ++lane)
            total += each[lane];
    return total;
}
