// A small persistent program to plant bugs in, with the habits of many: records that a bitmap
// publishes, a transfer between two of them by an undo log of its own, a journal whose entries
// carry checksums, a lock that must not outlive its owner, and recovery. It uses libpmem and
// nothing of holdfast's. Without a bug it gives no report.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "holdfast/crash.hpp"

namespace holdfast::crash {

enum class LedgerBug : std::uint8_t {
    none,
    torn_pair,                // a transfer without its log
    misaligned_commit,        // the journal's count lies over two lines
    count_apart_from_bitmap,  // a count that is believed, stored beside the bitmap
    publish_before_fill,      // the bit is set before the record is there
    remove_before_unpublish,  // a record is wiped before its bit is cleared
    recovery_not_idempotent,  // rolls back by difference
    inverted_recovery,        // rolls back what is committed, and not what is not
    reads_unwritten,          // scans for a record of zeros where nothing was ever written
    volatile_pointer,         // keeps an address of this run
    stale_lock,               // a lock of an earlier run is believed
    unverified_checksum,      // journal entries are taken as they are
    log_not_reset,            // recovery leaves the log in use: the next transfer fails
    never_committed,          // a transfer leaves its log valid
    creation_order,           // the magic before what it promises
};
const char* to_string(LedgerBug bug);

class Ledger final : public Subject {
  public:
    explicit Ledger(LedgerBug bug = LedgerBug::none, bool crashes_creation = false);
    std::string name() const override;
    Result<void> set_up(const std::string& path) override;
    Result<void> run(const std::string& path, Operations& operations) override;
    std::string check(const std::string& path, const Moment& moment) override;
    bool has_recovery() const override { return true; }
    Result<void> recover(const std::string& path) override;

    struct State {
        std::map<std::uint64_t, std::uint64_t> records;
        std::vector<std::uint64_t> journal;
        bool operator==(const State&) const = default;
    };

  private:
    LedgerBug bug_;
    bool crashes_creation_;
    std::vector<State> states_;  // after 0, 1, … operations
};

}  // namespace holdfast::crash
