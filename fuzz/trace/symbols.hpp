// Return addresses of a traced process as text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trace/trace.hpp"

namespace holdfast::crash {

class Symbols {
  public:
    explicit Symbols(const std::vector<Module>& modules);
    ~Symbols();
    Symbols(const Symbols&) = delete;
    Symbols& operator=(const Symbols&) = delete;

    // "function (file.cpp:42)"; what of that is known.
    std::string name(std::uint64_t address, std::uint32_t process = 0) const;
    // The innermost first; without libc's start-up code.
    std::vector<std::string> stack(const Event& event) const;
    // The innermost frame that is neither libpmem's nor libpmemobj's nor libc's: where in the
    // program it happened. Empty if there is none.
    std::string place(const Event& event) const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace holdfast::crash
