// Words of a space, as tests put and get them; a failure ends the test with its message.
#pragma once

#include <cstdint>
#include <span>

#include "support/temporary_pool.hpp"

namespace holdfast::test {

inline void put(Space space, VirtAddr at, std::uint64_t word) {
    must(space.write(at, std::as_bytes(std::span(&word, 1))));
}
inline std::uint64_t get(const Space& space, VirtAddr at) {
    std::uint64_t word = ~std::uint64_t{0};
    must(space.read(at, std::as_writable_bytes(std::span(&word, 1))));
    return word;
}

}  // namespace holdfast::test
