// A supervisor half that many spaces share by reference: what a kernel maps once, all of its
// processes have.
//
//     Space kernel = *store.create_space("kernel", {.is_supervisor = true});
//     Space one = *store.create_space("one", {.supervisor = "kernel"});
//     kernel.map({VirtAddr(0xffff'8000'0000'0000), 2_MiB}, protection::rw);   // and `one` has it
//
// A supervisor object is a space with an upper half only, without pages for user programs. It takes
// a table for each of the 256 slots of that half, at once (1 MiB); a space that shares it links to
// these, and so sees whatever the object maps and unmaps, whenever that is, by the same commit.
//
// Through the spaces that share it the half is read, written and faulted like any other range, but
// mapped, unmapped and protected through the object alone (permission_denied otherwise). Their
// forks and snapshots share it as well: it is never copied, and a rollback leaves it as it is.
// `maps` shows it in all of them; SpaceInfo counts it for the object only, as does the commit
// charge.
//
// Mapping or unmapping whole slots of the half (512 GiB with 4 levels) logs 512 words for each: its
// tables cannot be replaced, as others are.
//
// A supervisor object cannot be forked, and not be removed while a space or snapshot shares it
// (busy). Spaces share it if they have as many levels (invalid_argument otherwise).
#pragma once

#include <optional>

#include "holdfast/space.hpp"

namespace holdfast {

// Whether the space is such an object.
bool is_supervisor(const Space& space);
// The one that the space shares, or nothing.
std::optional<Space> supervisor_of(const Space& space);

}  // namespace holdfast
