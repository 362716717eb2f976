// What the caller, the medium or the machine did wrong, as a value.
//
// A `Fault` (fault.hpp) is not an error but an ordinary result of a translation. What holdfast
// itself does wrong is an assertion and ends the process before it can reach the medium.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace holdfast {

enum class ErrorCode : std::uint8_t {
    invalid_argument,   // unaligned, empty, non-canonical or wrapping range; a name that is not one
    already_exists,     // a space of this name
    not_found,          // a space of this name
    overlap,            // part of the range is mapped already
    not_mapped,         // part of the range is not mapped
    permission_denied,  // the mapping's protection, or the file's
    no_space,           // no free frames, or the file system is full
    busy,               // the pool is open elsewhere, or another transaction holds the space
    not_a_pool,         // a file that is no pool, or another program's pool
    unsupported,        // a newer format, an unknown incompatible feature, a replicated poolset
    damaged,            // a checksum, tag or cross-check failed; `verify` lists all of it
    lost,               // the page lies in a region that is out of reach; the message says which
    stale,              // a handle to something that is gone
    io,                 // the operating system said no; the message has its words
    over_quota,         // the space may not have more frames, and none of its pages can be swapped
};

// `holdfast::to_string(code)` is the code as written above.
const char* to_string(ErrorCode code);

struct Error {
    ErrorCode code;
    // One sentence for a person: what, which file or address, and what to do.
    std::string message;
};

template <typename T>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(ErrorCode code, std::string message) {
    return std::unexpected(Error{code, std::move(message)});
}

}  // namespace holdfast
