// Work in independent pieces, shared by a few threads that live for as long as it takes.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

namespace holdfast::recovery {

// Calls `work(i)` once for each i below `count`, from up to `threads` threads, the calling one
// among them; which calls `between` after each piece that it has done itself. Returns when all is
// done.
template <typename Work>
void parallel_for(unsigned threads, std::size_t count, const Work& work,
                  const std::function<void()>& between) {
    std::atomic<std::size_t> next = 0;
    std::vector<std::jthread> helpers;
    const auto helper_count = std::min<std::size_t>(threads, count);
    for (std::size_t i = 1; i < helper_count; ++i) {
        try {
            helpers.emplace_back([&] {
                for (std::size_t at = 0; (at = next.fetch_add(1)) < count;) work(at);
            });
        } catch (const std::system_error&) {
            break;  // the machine has no more threads for us: fewer do
        }
    }
    for (std::size_t at = 0; (at = next.fetch_add(1)) < count;) {
        work(at);
        if (between) between();
    }
}

}  // namespace holdfast::recovery
