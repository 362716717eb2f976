// A peer: libpmemobj-cpp's radix tree from page number to frame, in a pool of its own.
#pragma once

#include <cstdint>
#include <memory>

namespace holdfast::bench {

class RadixMap {
  public:
    explicit RadixMap(std::uint64_t pool_bytes);
    ~RadixMap();
    RadixMap(const RadixMap&) = delete;
    RadixMap& operator=(const RadixMap&) = delete;

    // One durable insertion.
    void put(std::uint64_t key, std::uint64_t value);
    // Keys 0 to `count` - 1, many in one transaction.
    void fill(std::uint64_t count);
    std::uint64_t get(std::uint64_t key) const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace holdfast::bench
