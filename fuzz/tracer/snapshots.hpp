// libpmemobj's undo snapshots, altered: what a program would be that forgot one, or took it too
// small or too late. Works on code that calls pmemobj_tx_add_range and its variants through the
// dynamic linker, libpmemobj-cpp included.
#pragma once

#include <cstdint>

namespace holdfast::crash {

struct SnapshotBug {
    enum class Kind : std::uint8_t { none, drop, shorten, late };
    Kind kind = Kind::none;
    std::uint32_t number = 0;  // which snapshot, counted from 0 since it was planted
};

// From now on; the count begins anew.
void plant(const SnapshotBug& bug);

// How many were taken since then, or since the process began.
std::uint32_t snapshots_taken();

}  // namespace holdfast::crash
