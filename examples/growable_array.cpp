// Appends to a persistent growable array and to a std::vector, and says how long the slowest append
// of each took: the vector's copies all that it holds, the array's gets a page.
#include "growable_array.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <vector>

using namespace holdfast;
using namespace holdfast::literals;

namespace {

struct Element {
    std::uint64_t number, square;
};

constexpr std::uint64_t kElements = 1'000'000;
constexpr VirtAddr kPlace{0x7000'0000'0000};

// Nanoseconds of the slowest call, and of the median one.
struct Times {
    double slowest = 0, median = 0;
};
template <typename Append>
Times times_of(const Append& append) {
    std::vector<double> times(kElements);
    for (std::uint64_t i = 0; i < kElements; ++i) {
        const auto start = std::chrono::steady_clock::now();
        append(i);
        times[i] =
            std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start)
                .count();
    }
    std::sort(times.begin(), times.end());
    return {times.back(), times[kElements / 2]};
}

int complain(const Error& error) {
    std::fprintf(stderr, "growable_array: %s\n", error.message.c_str());
    return 1;
}

int run(const std::string& path) {
    {
        auto store = Store::create(path, {.size_bytes = 64_MiB, .emulation = PmemEmulation::on});
        if (!store) return complain(store.error());
        auto space = store->create_space("array");
        if (!space) return complain(space.error());
        // 64 GiB of addresses; frames come as elements do.
        auto array = GrowableArray<Element>::open(*space, kPlace, 64_GiB);
        if (!array) return complain(array.error());
        Result<void> failed;
        const Times ours = times_of([&](std::uint64_t i) {
            if (auto done = array->push_back({i, i * i}); !done) failed = done;
        });
        if (!failed) return complain(failed.error());
        std::vector<Element> vector;
        const Times peer = times_of([&](std::uint64_t i) { vector.push_back({i, i * i}); });
        std::printf("%llu appends of %zu bytes\n", static_cast<unsigned long long>(kElements),
                    sizeof(Element));
        std::printf("  array, each durable: median %.0f ns, slowest %.0f ns\n", ours.median,
                    ours.slowest);
        std::printf("  std::vector:         median %.0f ns, slowest %.0f ns\n", peer.median,
                    peer.slowest);
    }
    // And after a restart everything is where it was.
    auto store = Store::open(path, {.emulation = PmemEmulation::on});
    if (!store) return complain(store.error());
    auto space = store->open_space("array");
    if (!space) return complain(space.error());
    auto array = GrowableArray<Element>::open(*space, kPlace, 64_GiB);
    if (!array) return complain(array.error());
    if (array->size() != kElements) return std::fprintf(stderr, "elements are missing\n"), 1;
    for (std::uint64_t i = 0; i < kElements; i += 1013) {
        const auto element = array->at(i);
        if (!element) return complain(element.error());
        if (element->number != i || element->square != i * i)
            return std::fprintf(stderr, "element %llu is wrong\n",
                                static_cast<unsigned long long>(i)),
                   1;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string path = argc > 1 ? argv[1] : "growable_array.pool";
    const int status = run(path);
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    return status;
}
