// A pool in memory, made once and put back after each input.
#pragma once

#include <cstdint>
#include <functional>

#include "holdfast/store.hpp"
#include "judge/crash_image.hpp"

namespace holdfast::crash {

// The image of a new store of `size_bytes` after `fill`, which gets the last handle to it. An
// exception if the machine does not let us.
CrashImage make_pool_image(std::uint64_t size_bytes, const std::function<void(Store)>& fill);

Result<Store> open_image(const CrashImage& image);

}  // namespace holdfast::crash
