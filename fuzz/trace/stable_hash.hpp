// One hash for what must come out the same on every machine and in every build: fingerprints of
// traces, names of states, verdicts. Not for hash tables, nor against an adversary.
#pragma once

#include <cstdint>

namespace holdfast::crash {

class StableHash {
  public:
    // Order matters. The step is that of splitmix64 (Steele, Lea, Flood, OOPSLA'14).
    StableHash& add(std::uint64_t value) {
        state_ += value + 0x9e37'79b9'7f4a'7c15;
        state_ = (state_ ^ state_ >> 30) * 0xbf58'476d'1ce4'e5b9;
        state_ = (state_ ^ state_ >> 27) * 0x94d0'49bb'1331'11eb;
        state_ ^= state_ >> 31;
        return *this;
    }
    template <typename Values>
    StableHash& add_all(const Values& values) {
        for (const auto value : values) add(static_cast<std::uint64_t>(value));
        return *this;
    }
    std::uint64_t value() const { return state_; }

  private:
    std::uint64_t state_ = 0xcbf2'9ce4'8422'2325;
};

}  // namespace holdfast::crash
