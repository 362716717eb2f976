// Workloads as text: a call of the API a line.
//
//     pool 16MiB                          the pool's size; 16 MiB without this line
//     frames 2MiB                         how much of it becomes frames at first; all without it
//     lanes 1024                          of libpmemobj; 64 without this line; 0: as it is made
//     file NAME PAGES                     a file that there is before everything else
//     create SPACE [3|4|5 [SUPERVISOR]]   with the half of that object
//     supervisor SPACE [3|4|5]            such an object
//     fork SPACE TO / snapshot SPACE TO   a space or a snapshot with all that SPACE has
//     rollback SPACE SNAPSHOT
//     rename SPACE TO
//     remove SPACE
//     map SPACE ADDRESS PAGES PROT [NAME] PROT as r, rw, rwx, with u for user pages
//     lazy SPACE ADDRESS PAGES PROT       demand-zero
//     guard SPACE ADDRESS PAGES           guard pages
//     mapfile SPACE ADDRESS PAGES PROT FILE FIRSTPAGE [shared]
//     fault SPACE ADDRESS                 a first access, to read
//     sync SPACE ADDRESS PAGES            to the files that are mapped shared there
//     stack SPACE ADDRESS PAGES PROT      of at most so many; one is mapped, two are its guard
//     share SPACE ADDRESS PAGES PROT SOURCE ADDRESS PAGES
//     huge / lazy_huge SPACE ADDRESS PAGES PROT   pages of 2 MiB, and such that are demand-zero
//     promote SPACE ADDRESS PAGES         to pages of 2 MiB
//     evict SPACE PAGES                   at most so many lose their frames
//     unmap SPACE ADDRESS PAGES
//     protect SPACE ADDRESS PAGES PROT
//     write SPACE ADDRESS WORD            the first word of a page, and persists it
//     write_unpersisted SPACE ADDRESS WORD   and does not
//     device BYTES                        a device region, whose file is gone with the process
//     mapdevice SPACE ADDRESS PAGES PROT PAGE    its frames from that page on
//     handle SPACE ADDRESS PAGES          takes one, which leaves a mark
//     prefer SPACE REGION
//     grow BYTES
//     volatile BYTES                      a region, whose pages come back as zeros
//     detach REGION / attach REGION       again
//     move REGION                         to another base
//     finish_moves
//     overcommit POLICY PERCENT           as the command `overcommit` has them
//     release TABLES                      of limbo
//     begin / commit                      what is between them is one transaction
//     full CALL                           the call, or the transaction (`full` in the place of
//     begin / full                        `commit`), must find the store full and change nothing
//     repeat N STRIDE CALL                the call N times, its address raised by STRIDE each time
//     reopen                              closes the store and opens it again
//     damage KIND [SPACE [ADDRESS]]       plants it (planted_damage.hpp) and closes the store
//     repair                              closes the store and repairs it
//     operations                          what is above is set-up; what is below is crashed
//
// Without `operations` all of it is crashed, the pool's creation included. `#` begins a comment.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "oracle/calls.hpp"
#include "subjects/planted_damage.hpp"

namespace holdfast::crash {

struct Step {
    // One, or those of a transaction; none if the store is damaged, repaired or just reopened.
    oracle::Calls calls;
    std::optional<PlantedDamage> damage = {};
    bool repairs = false;
    bool finds_full = false;  // refused with no_space, and nothing is changed
    bool reopens() const { return calls.empty() && !damage && !repairs; }
};

struct Script {
    std::string name;
    std::uint64_t pool_bytes = std::uint64_t{16} << 20;
    std::uint64_t frames_bytes = 0;
    std::uint64_t lanes =
        kLanes;  // of a pool that is set up; one that is crashed in the making has all
    static constexpr std::uint64_t kLanes = 64;
    bool crashes_creation = false;
    std::vector<Step> set_up, operations;
    std::vector<std::pair<std::string, std::uint64_t>> files;  // and how many pages each has
    // As it is before the set-up.
    oracle::Model first_model() const;
    // Whether a crash leaves a store that is to be repaired before anything else.
    bool repairs() const;
    // Whether it moves a region, so that entries are to follow.
    bool moves() const;

    // Errors: invalid_argument, with the line's number and what is wrong with it.
    static Result<Script> parse(const std::string& name, const std::string& text);
    // The same again, for `parse`.
    std::string to_text() const;
};

}  // namespace holdfast::crash
