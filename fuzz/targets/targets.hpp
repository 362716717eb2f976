// What the fuzzers run, and a test runs over the corpus. Each takes any bytes and returns what went
// wrong, in a sentence, or nothing; what goes wrong worse than that (a crash, a sanitizer's report,
// an endless loop) is the caller's to notice.
//
// Thread safety: one thread, since each keeps a pool's image from one input to the next.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace holdfast::crash {

// The bytes are places in holdfast's own structures of a pool, and what is written there. The pool
// is then opened, read, checked and changed. Where nothing passes its own check that differs from
// what was there (then it is a forgery, and not damage; one flipped bit never is), each page
// translates to the frame it had and reads as it did, or is reported as damaged; also after the
// changes.
//
// Pointers into libpmemobj's own structures are left alone wherever their record is sealed: what
// they lead to is not ours to check. A sealed region record may lay frames over libpmemobj's heap,
// so such a pool is read only.
std::string run_structures(std::span<const std::uint8_t> input);

// The bytes are calls of the API, reopenings among them, for a store and for the model
// (oracle/model.hpp), which must agree.
std::string run_operations(std::span<const std::uint8_t> input);

}  // namespace holdfast::crash
