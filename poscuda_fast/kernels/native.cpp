// The Python module poscuda_fast.kernels._native: it picks an instruction set that runs here and calls it without
// the GIL. It keeps no state, so neither threads nor a fork can break it. kernels/__init__.py checks the arguments.

#include "patches.h"

#include <cfenv>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace nb = nanobind;
using namespace poscuda;

namespace {

using Samples = nb::ndarray<nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ReadOnlySamples = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Indexes = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Hashes = nb::ndarray<std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Fastest first; the last one runs everywhere.
constexpr const Backend *sets[] = {
#if defined(POSCUDA_HAS_AVX)
    &avx512, &avx2,
#endif
    &baseline,
};

// The set of that name, or the fastest if the name is empty; throws if it cannot run here.
const Backend &choose(const std::string &name) {
    for (const Backend *set : sets)
        if (set->runs_here() && (name.empty() || name == set->name))
            return *set;
    throw std::invalid_argument("this processor has no instruction set " + name);
}

// The caller's direction of rounding, and its flushing of subnormal numbers to zero, would change bits: while this lives
// the thread has the default, and then its own environment again.
class DefaultArithmetic {
    std::fenv_t callers;

  public:
    DefaultArithmetic() { std::fegetenv(&callers), std::fesetenv(FE_DFL_ENV); }
    ~DefaultArithmetic() { std::fesetenv(&callers); }
    DefaultArithmetic(const DefaultArithmetic &) = delete;
    DefaultArithmetic &operator=(const DefaultArithmetic &) = delete;
};

Places places(const Indexes &starts, const Indexes &sizes, std::int64_t stride) {
    return {starts.data(), sizes.data(), starts.shape(0), stride};
}

std::int64_t filter_patches(Samples samples, Indexes starts, Indexes sizes, Indexes rows, Table taps,
                            std::int64_t stride, std::optional<Flags> flags, const std::string &set) {
    const Backend &backend = choose(set);
    const Places where = places(starts, sizes, stride);
    const Filters filters{rows.data(), taps.data(), taps.shape(0), taps.shape(1)};
    std::uint8_t *found = flags.has_value() ? flags->data() : nullptr;
    std::int64_t saturated = -1;
    {
        nb::gil_scoped_release unlocked;
        const DefaultArithmetic arithmetic;
        if (samples.dtype() == nb::dtype<std::int16_t>())
            saturated = backend.int16.filter(static_cast<std::int16_t *>(samples.data()), where, filters, found);
        else if (samples.dtype() == nb::dtype<std::int32_t>())
            saturated = backend.int24.filter(static_cast<std::int32_t *>(samples.data()), where, filters, found);
        else if (samples.dtype() == nb::dtype<float>())
            saturated = backend.float32.filter(static_cast<float *>(samples.data()), where, filters, found);
        else
            throw std::invalid_argument("samples are neither int16 nor int32 nor float32");
    }
    if (saturated < 0)
        throw std::bad_alloc();
    return saturated;
}

std::int64_t add_lines(Samples samples, Indexes starts, Indexes sizes, Indexes phases, Indexes rows, Values values,
                       Indexes firsts, Indexes periods, std::int64_t stride, const std::string &set) {
    const Backend &backend = choose(set);
    const Places where = places(starts, sizes, stride);
    const Lines lines{phases.data(), rows.data(), values.data(), firsts.data(), periods.data()};
    const bool packed = samples.dtype() == nb::dtype<std::uint8_t>();
    if (values.dtype() != (packed ? nb::dtype<std::int32_t>() : samples.dtype()))
        throw std::invalid_argument("the table is not of the samples' type");
    nb::gil_scoped_release unlocked;
    const DefaultArithmetic arithmetic;
    if (samples.dtype() == nb::dtype<std::int16_t>())
        return backend.int16.add(static_cast<std::int16_t *>(samples.data()), where, lines);
    if (samples.dtype() == nb::dtype<std::int32_t>())
        return backend.int24.add(static_cast<std::int32_t *>(samples.data()), where, lines);
    if (samples.dtype() == nb::dtype<float>())
        return backend.float32.add(static_cast<float *>(samples.data()), where, lines);
    if (packed)
        return backend.add_packed24(static_cast<Packed24 *>(samples.data()), where, lines);
    throw std::invalid_argument("samples are neither int16 nor int32 nor uint8 nor float32");
}

void survey_patches(ReadOnlySamples samples, Indexes starts, Indexes sizes, std::int64_t stride, Flags flags,
                    const std::string &set) {
    const Backend &backend = choose(set);
    const Places where = places(starts, sizes, stride);
    nb::gil_scoped_release unlocked;
    const DefaultArithmetic arithmetic;
    if (samples.dtype() == nb::dtype<std::int16_t>())
        backend.int16.survey(static_cast<const std::int16_t *>(samples.data()), where, flags.data());
    else if (samples.dtype() == nb::dtype<std::int32_t>())
        backend.int24.survey(static_cast<const std::int32_t *>(samples.data()), where, flags.data());
    else if (samples.dtype() == nb::dtype<float>())
        backend.float32.survey(static_cast<const float *>(samples.data()), where, flags.data());
    else
        throw std::invalid_argument("samples are neither int16 nor int32 nor float32");
}

void measure_patches(ReadOnlySamples samples, Indexes starts, Indexes sizes, std::int64_t stride, Doubles energies,
                     Doubles peaks, const std::string &set) {
    const Backend &backend = choose(set);
    const Places where = places(starts, sizes, stride);
    nb::gil_scoped_release unlocked;
    const DefaultArithmetic arithmetic;
    if (samples.dtype() == nb::dtype<std::int16_t>())
        backend.int16.measure(static_cast<const std::int16_t *>(samples.data()), where, energies.data(), peaks.data());
    else if (samples.dtype() == nb::dtype<std::int32_t>())
        backend.int24.measure(static_cast<const std::int32_t *>(samples.data()), where, energies.data(), peaks.data());
    else if (samples.dtype() == nb::dtype<float>())
        backend.float32.measure(static_cast<const float *>(samples.data()), where, energies.data(), peaks.data());
    else
        throw std::invalid_argument("samples are neither int16 nor int32 nor float32");
}

void hash_pieces(Bytes data, Indexes starts, Indexes sizes, Words key, Hashes hashes, const std::string &set) {
    const Backend &backend = choose(set);
    const Places pieces = places(starts, sizes, 1);
    nb::gil_scoped_release unlocked;
    backend.hash(data.data(), pieces, key.data(), hashes.data());
}

// Calls `run` with the functions for the samples' type and both buffers.
template <typename Run>
void with_pieces(const Backend &backend, const ReadOnlySamples &samples, const Samples &to, const Values &values, Run run) {
    const bool packed = samples.dtype() == nb::dtype<std::uint8_t>();
    if (values.dtype() != (packed ? nb::dtype<std::int32_t>() : samples.dtype()) || to.dtype() != samples.dtype())
        throw std::invalid_argument("the table or the other buffer is not of the samples' type");
    const auto call = [&](const auto &functions, auto *out) {
        using Sample = std::remove_pointer_t<decltype(out)>;
        run(functions, static_cast<const Sample *>(samples.data()), out);
    };
    nb::gil_scoped_release unlocked;
    const DefaultArithmetic arithmetic;
    if (samples.dtype() == nb::dtype<std::int16_t>())
        call(backend.int16_pieces, static_cast<std::int16_t *>(to.data()));
    else if (samples.dtype() == nb::dtype<float>())
        call(backend.float32_pieces, static_cast<float *>(to.data()));
    else if (packed)
        call(backend.packed24_pieces, static_cast<Packed24 *>(to.data()));
    else
        throw std::invalid_argument("samples are neither int16 nor uint8 nor float32");
}

void tell_pieces(ReadOnlySamples samples, Indexes starts, Indexes sizes, Indexes phases, Indexes rows, Values values,
                 Indexes firsts, Indexes periods, Words sums, Words key, Samples dry, Flags states,
                 const std::string &set) {
    const Places pieces = places(starts, sizes, 1);
    const Lines lines{phases.data(), rows.data(), values.data(), firsts.data(), periods.data()};
    with_pieces(choose(set), samples, dry, values, [&](const auto &functions, const auto *from, auto *to) {
        functions.tell(from, pieces, lines, sums.data(), key.data(), to, states.data());
    });
}

std::int64_t mark_and_hash(ReadOnlySamples samples, Indexes starts, Indexes sizes, Indexes phases, Indexes rows,
                           Values values, Indexes firsts, Indexes periods, Words key, Samples wet, Hashes sums,
                           const std::string &set) {
    const Places pieces = places(starts, sizes, 1);
    const Lines lines{phases.data(), rows.data(), values.data(), firsts.data(), periods.data()};
    std::int64_t odd = 0;
    with_pieces(choose(set), samples, wet, values, [&](const auto &functions, const auto *from, auto *to) {
        odd = functions.mark_and_hash(from, pieces, lines, key.data(), to, sums.data());
    });
    return odd;
}

// Ask the system to read some stretches of mapped memory in the background.
void will_need(ReadOnlySamples samples, Indexes first_bytes, std::int64_t n_bytes) {
#if defined(__unix__) || defined(__APPLE__)
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto base = reinterpret_cast<std::uintptr_t>(samples.data());
    nb::gil_scoped_release unlocked;
    for (std::size_t n = 0; n < first_bytes.shape(0); ++n) {
        const std::uintptr_t begin = (base + static_cast<std::uintptr_t>(first_bytes.data()[n])) / page * page;
        const std::uintptr_t end = base + static_cast<std::uintptr_t>(first_bytes.data()[n] + n_bytes);
        madvise(reinterpret_cast<void *>(begin), end - begin, MADV_WILLNEED); // only a hint: failure is no error
    }
#endif
}

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Backend *set : sets)
        if (set->runs_here())
            names.emplace_back(set->name);
    return names;
}

} // namespace

NB_MODULE(_native, module) {
    module.def("filter_patches", &filter_patches, nb::arg("samples").noconvert(), nb::arg("starts").noconvert(),
               nb::arg("sizes").noconvert(), nb::arg("rows").noconvert(), nb::arg("taps").noconvert(),
               nb::arg("stride"), nb::arg("flags").noconvert() = nb::none(), nb::arg("set") = "");
    module.def("add_lines", &add_lines, nb::arg("samples").noconvert(), nb::arg("starts").noconvert(),
               nb::arg("sizes").noconvert(), nb::arg("phases").noconvert(), nb::arg("rows").noconvert(),
               nb::arg("values").noconvert(), nb::arg("firsts").noconvert(), nb::arg("periods").noconvert(),
               nb::arg("stride"), nb::arg("set") = "");
    module.def("survey_patches", &survey_patches, nb::arg("samples").noconvert(), nb::arg("starts").noconvert(),
               nb::arg("sizes").noconvert(), nb::arg("stride"), nb::arg("flags").noconvert(), nb::arg("set") = "");
    module.def("measure_patches", &measure_patches, nb::arg("samples").noconvert(), nb::arg("starts").noconvert(),
               nb::arg("sizes").noconvert(), nb::arg("stride"), nb::arg("energies").noconvert(),
               nb::arg("peaks").noconvert(), nb::arg("set") = "");
    module.def("hash_pieces", &hash_pieces, nb::arg("data").noconvert(), nb::arg("starts").noconvert(),
               nb::arg("sizes").noconvert(), nb::arg("key").noconvert(), nb::arg("hashes").noconvert(),
               nb::arg("set") = "");
    module.def("tell_pieces", &tell_pieces, nb::arg("samples").noconvert(), nb::arg("starts").noconvert(),
               nb::arg("sizes").noconvert(), nb::arg("phases").noconvert(), nb::arg("rows").noconvert(),
               nb::arg("values").noconvert(), nb::arg("firsts").noconvert(), nb::arg("periods").noconvert(),
               nb::arg("sums").noconvert(), nb::arg("key").noconvert(), nb::arg("dry").noconvert(),
               nb::arg("states").noconvert(), nb::arg("set") = "");
    module.def("mark_and_hash", &mark_and_hash, nb::arg("samples").noconvert(), nb::arg("starts").noconvert(),
               nb::arg("sizes").noconvert(), nb::arg("phases").noconvert(), nb::arg("rows").noconvert(),
               nb::arg("values").noconvert(), nb::arg("firsts").noconvert(), nb::arg("periods").noconvert(),
               nb::arg("key").noconvert(), nb::arg("wet").noconvert(), nb::arg("sums").noconvert(),
               nb::arg("set") = "");
    module.def("will_need", &will_need, nb::arg("samples").noconvert(), nb::arg("first_bytes").noconvert(),
               nb::arg("n_bytes"));
    module.def("instruction_sets", &instruction_sets);
    module.def("built_from", [] { return POSCUDA_BUILT_FROM; });
}
