#include "support/page_touches.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <vector>

#include "tracer/page_watch.hpp"
#include "tracer/watched_pool.hpp"

namespace holdfast::test {

PageTouches::PageTouches(const std::string& path) {
    const std::uint64_t size = std::filesystem::file_size(path);
    if (const auto started = crash::PageWatch::start(path, size); !started)
        ADD_FAILURE() << started.error().message;
    std::vector<std::uint64_t> all((size + kPageSize - 1) / kPageSize);
    std::iota(all.begin(), all.end(), std::uint64_t{0});
    crash::PageWatch::begin_run(all);
}

PageTouches::~PageTouches() { crash::PageWatch::stop(); }

std::uint64_t PageTouches::count() const { return crash::PageWatch::touched().size(); }
std::uint64_t PageTouches::watched_bytes() const { return crash::WatchedPool::largest_end(); }

}  // namespace holdfast::test
