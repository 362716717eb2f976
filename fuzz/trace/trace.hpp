// A trace in memory, and its file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "trace/event.hpp"

namespace holdfast::crash {

struct Event {
    EventKind kind{};
    std::uint16_t thread = 0;
    std::uint32_t process = 0;  // that did it, if several were traced one after the other
    std::uint64_t offset = 0;
    std::uint32_t size = 0;
    std::vector<std::byte> bytes;      // of a store
    std::vector<std::uint64_t> stack;  // return addresses, innermost first
};

struct Module {
    std::uint64_t loaded_at = 0;  // the address at which file offset 0 lies
    std::string path;
    std::uint32_t process = 0;
};

struct Trace {
    std::vector<Event> events;
    std::vector<Module> modules;
    std::uint64_t pool_bytes = 0;
    std::uint64_t tracing_ns = 0;
    bool complete = false;  // the traced program ended in order
    bool full = false;      // and this is only what there was room for

    std::uint64_t count(EventKind kind) const;
    std::uint64_t stores() const;

    // Errors: invalid_argument for bytes that are no trace, or cut short; unsupported for those of
    // another version.
    static Result<Trace> parse(std::span<const std::byte> bytes, const std::string& name);
    static Result<Trace> load(const std::string& path);
    std::vector<std::byte> serialize() const;
    Result<void> save(const std::string& path) const;
};

// "store 0x3c0550 8 bytes 0x…", without the stack.
std::string to_string(const Event& event);

// As the store log that PMDK's pmemcheck writes and pmreorder replays. `pool_path` is what it
// registers; operations become nothing (pmreorder knows markers by other names).
std::string to_pmemcheck_log(const Trace& trace, const std::string& pool_path);

}  // namespace holdfast::crash
