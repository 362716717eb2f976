#include "mutants/ledger.hpp"

#include <fmt/format.h>
#include <libpmem.h>

#include <array>
#include <cstring>
#include <functional>
#include <memory>

namespace holdfast::crash {
namespace {

constexpr std::uint64_t kMagic = 0x5245'4744'454c'4648;
constexpr std::size_t kFileBytes = 64 << 10;
constexpr unsigned kRecords = 64, kJournal = 64;

constexpr std::array kNames = {"none",
                               "torn_pair",
                               "misaligned_commit",
                               "count_apart_from_bitmap",
                               "publish_before_fill",
                               "remove_before_unpublish",
                               "recovery_not_idempotent",
                               "inverted_recovery",
                               "reads_unwritten",
                               "volatile_pointer",
                               "stale_lock",
                               "unverified_checksum",
                               "log_not_reset",
                               "never_committed",
                               "creation_order"};

std::uint64_t check_of(std::uint64_t value, std::uint64_t number) {
    std::uint64_t hash = (value + 1) * 0x9e37'79b9'7f4a'7c15 ^ (number + 1) * 0xc2b2'ae3d'27d4'eb4f;
    return hash ^ hash >> 31;
}

struct Record {
    std::uint64_t key, value;
};

// Each group in lines of its own, as such programs do.
struct alignas(64) Head {
    std::uint64_t magic;
    std::uint64_t run;  // how often it was opened
};
struct alignas(64) Lock {
    std::uint64_t owner;  // the run that holds it, 0 for none
};
struct alignas(64) Published {
    std::uint64_t bitmap;
};
struct alignas(64) Count {
    std::uint64_t records;  // of the bug that believes it
};
struct alignas(64) UndoLog {
    std::uint64_t valid;
    std::uint64_t slot_of[2];
    std::uint64_t old_value[2];
    std::uint64_t amount;
};
struct alignas(64) Pointer {
    std::uint64_t records;
};
struct JournalEntry {
    std::uint64_t value, number, check, unused;
};
struct File {
    Head head;
    Lock lock;
    Published published;
    Count count;
    UndoLog log;
    Pointer pointer;
    std::array<std::byte, 128> journal_count_place;  // where the misaligned one lies over two lines
    std::array<JournalEntry, kJournal> journal;
    std::array<Record, kRecords> records;
    // Never written: nothing says what is there.
    alignas(4096) std::uint64_t spare;
};
static_assert(sizeof(File) <= kFileBytes);

class OpenLedger {
  public:
    OpenLedger(const std::string& path, bool create, LedgerBug bug) : bug_(bug) {
        file_ =
            static_cast<File*>(pmem_map_file(path.c_str(), create ? kFileBytes : 0,
                                             create ? PMEM_FILE_CREATE : 0, 0600, &size_, nullptr));
    }
    ~OpenLedger() {
        if (file_ != nullptr) pmem_unmap(file_, size_);
    }
    OpenLedger(const OpenLedger&) = delete;
    OpenLedger& operator=(const OpenLedger&) = delete;

    bool is_open() const { return file_ != nullptr && size_ >= sizeof(File); }
    bool is_made() const { return file_->head.magic == kMagic; }

    void make() {
        if (bug_ == LedgerBug::creation_order) {
            store(file_->head.magic, kMagic);
            store(file_->published.bitmap, 1);
            put_record(0, 1, 100);
            return;
        }
        // A first record, so that a half-made ledger can be told from a made one.
        put_record(0, 1, 100);
        store(file_->published.bitmap, 1);
        store(file_->count.records, 1);
        store(file_->head.magic, kMagic);  // commit point of creation
    }

    // What is done at each start.
    void recover() {
        UndoLog& log = file_->log;
        const bool roll_back = bug_ == LedgerBug::inverted_recovery
                                   ? log.valid == 0 && log.amount != 0
                                   : log.valid != 0;
        if (roll_back) {
            // A crash of this leaves the log valid, and the same is done again.
            if (bug_ == LedgerBug::recovery_not_idempotent) store(log.valid, 0);
            for (unsigned i = 0; i < 2; ++i)
                store(file_->records[log.slot_of[i] % kRecords].value, log.old_value[i]);
            if (bug_ != LedgerBug::log_not_reset) store(log.valid, 0);
        }
        store(file_->head.run, file_->head.run + 1);
        if (bug_ == LedgerBug::volatile_pointer && file_->pointer.records == 0)
            store(file_->pointer.records, reinterpret_cast<std::uint64_t>(&file_->records));
    }

    Ledger::State read() const {
        Ledger::State state;
        const Record* const records =
            bug_ == LedgerBug::volatile_pointer && file_->pointer.records != 0
                // The bug itself. NOLINTNEXTLINE(performance-no-int-to-ptr)
                ? reinterpret_cast<const Record*>(file_->pointer.records)
                : file_->records.data();
        std::uint64_t left = bug_ == LedgerBug::count_apart_from_bitmap ? file_->count.records
                                                                        : std::uint64_t{kRecords};
        for (unsigned i = 0; i < kRecords && left > 0; ++i) {
            if ((file_->published.bitmap >> i & 1) == 0) continue;
            state.records[records[i].key] = records[i].value;
            --left;
        }
        if (bug_ == LedgerBug::reads_unwritten && file_->spare != 0)
            state.records[file_->spare] = file_->spare;
        if (bug_ == LedgerBug::misaligned_commit) {
            for (std::uint64_t i = 0; i < journal_count() && i < kJournal; ++i)
                state.journal.push_back(file_->journal[i].value);
            if (journal_count() > kJournal) state.journal.push_back(journal_count());
        } else {
            for (std::uint64_t i = 0; i < kJournal; ++i) {
                const JournalEntry& entry = file_->journal[i];
                const bool right = bug_ == LedgerBug::unverified_checksum
                                       ? entry.number == i + 1
                                       : entry.number == i + 1 &&
                                             entry.check == check_of(entry.value, entry.number);
                if (!right) break;
                state.journal.push_back(entry.value);
            }
        }
        return state;
    }

    bool put(std::uint64_t key, std::uint64_t value) {
        const unsigned slot = free_slot();
        if (slot == kRecords) return false;
        const std::uint64_t published = file_->published.bitmap | std::uint64_t{1} << slot;
        if (bug_ == LedgerBug::publish_before_fill) {
            store(file_->published.bitmap, published);
            put_record(slot, key, value);
        } else {
            put_record(slot, key, value);  // nobody sees it before the next store is durable
            store(file_->published.bitmap, published);
        }
        store(file_->count.records, file_->count.records + 1);
        return true;
    }

    bool remove(std::uint64_t key) {
        const unsigned slot = slot_of(key);
        if (slot == kRecords) return false;
        if (bug_ == LedgerBug::remove_before_unpublish) put_record(slot, 0, 0);
        store(file_->published.bitmap, file_->published.bitmap & ~(std::uint64_t{1} << slot));
        store(file_->count.records, file_->count.records - 1);
        return true;
    }

    bool transfer(std::uint64_t from, std::uint64_t to, std::uint64_t amount) {
        UndoLog& log = file_->log;
        const std::array slots = {slot_of(from), slot_of(to)};
        if (slots[0] == kRecords || slots[1] == kRecords) return false;
        if (!take_lock()) return false;
        const bool logged = bug_ != LedgerBug::torn_pair;
        if (logged) {
            if (log.valid != 0 && bug_ != LedgerBug::never_committed) return false;
            set(log.amount, amount);
            for (unsigned i = 0; i < 2; ++i) set(log.slot_of[i], slots[i]);
            for (unsigned i = 0; i < 2; ++i) set(log.old_value[i], file_->records[slots[i]].value);
            // One line, whose stores reach the medium in order: if this one is there, all are, and
            // one flush is enough. From here on a crash rolls back.
            store(log.valid, 1);
        }
        store(file_->records[slots[0]].value, file_->records[slots[0]].value - amount);
        store(file_->records[slots[1]].value, file_->records[slots[1]].value + amount);
        if (logged && bug_ != LedgerBug::never_committed) store(log.valid, 0);  // commit point
        store(file_->lock.owner, 0);
        return true;
    }

    bool append(std::uint64_t value) {
        std::uint64_t count = 0;
        while (count < kJournal && file_->journal[count].number == count + 1 &&
               (bug_ == LedgerBug::misaligned_commit || bug_ == LedgerBug::unverified_checksum ||
                file_->journal[count].check ==
                    check_of(file_->journal[count].value, file_->journal[count].number)))
            ++count;
        if (bug_ == LedgerBug::misaligned_commit) count = journal_count();
        if (count == kJournal) return false;
        JournalEntry& entry = file_->journal[count];
        // Words in no order: a crash in between leaves an entry whose check fails, i.e. none.
        const JournalEntry whole{value, count + 1, check_of(value, count + 1), 0};
        if (bug_ == LedgerBug::misaligned_commit || bug_ == LedgerBug::unverified_checksum) {
            entry.number = whole.number;
            entry.check = whole.check;
            entry.value = whole.value;
        } else {
            entry = whole;
        }
        pmem_persist(&entry, sizeof entry);
        if (bug_ == LedgerBug::misaligned_commit) {
            // Over 255, so that both halves change.
            const std::uint64_t next = (count + 1) * 0x0001'0000'0001;
            std::memcpy(journal_count_place(), &next, sizeof next);
            pmem_persist(journal_count_place(), sizeof next);
        }
        return true;
    }

  private:
    // One word, in this place in the program.
    static void set(std::uint64_t& word, std::uint64_t value) {
        *static_cast<volatile std::uint64_t*>(&word) = value;
    }
    // One word, made durable at once.
    static void store(std::uint64_t& word, std::uint64_t value) {
        set(word, value);
        pmem_persist(&word, sizeof word);
    }

    void put_record(unsigned slot, std::uint64_t key, std::uint64_t value) {
        file_->records[slot] = {key, value};
        pmem_persist(&file_->records[slot], sizeof(Record));
    }

    std::byte* journal_count_place() const { return file_->journal_count_place.data() + 60; }
    std::uint64_t journal_count() const {
        std::uint64_t word = 0;
        std::memcpy(&word, journal_count_place(), sizeof word);
        const std::uint64_t low = word & 0xffff'ffff, high = word >> 32;
        return low * 0x1'0000 == high ? low : 1000 + low;  // torn
    }

    // A lock of an earlier run is nobody's.
    bool take_lock() {
        const bool held = bug_ == LedgerBug::stale_lock ? file_->lock.owner != 0
                                                        : file_->lock.owner == file_->head.run;
        if (held) return false;
        store(file_->lock.owner, file_->head.run);
        return true;
    }

    unsigned slot_of(std::uint64_t key) const {
        for (unsigned i = 0; i < kRecords; ++i)
            if ((file_->published.bitmap >> i & 1) != 0 && file_->records[i].key == key) return i;
        return kRecords;
    }
    unsigned free_slot() const {
        for (unsigned i = 0; i < kRecords; ++i)
            if ((file_->published.bitmap >> i & 1) == 0) return i;
        return kRecords;
    }

    LedgerBug bug_;
    std::size_t size_ = 0;
    File* file_ = nullptr;
};

using Operation = std::function<bool(OpenLedger&)>;
struct Planned {
    Operation on_medium;
    std::function<void(Ledger::State&)> on_model;
};

const std::vector<Planned>& plan() {
    static const std::vector<Planned> all = {
        {[](OpenLedger& ledger) { return ledger.put(7, 50); },
         [](Ledger::State& state) { state.records[7] = 50; }},
        {[](OpenLedger& ledger) { return ledger.transfer(1, 7, 30); },
         [](Ledger::State& state) {
             state.records[1] -= 30;
             state.records[7] += 30;
         }},
        {[](OpenLedger& ledger) { return ledger.append(4711); },
         [](Ledger::State& state) { state.journal.push_back(4711); }},
        {[](OpenLedger& ledger) { return ledger.put(9, 5); },
         [](Ledger::State& state) { state.records[9] = 5; }},
        {[](OpenLedger& ledger) { return ledger.remove(7); },
         [](Ledger::State& state) { state.records.erase(7); }},
        {[](OpenLedger& ledger) { return ledger.append(4712); },
         [](Ledger::State& state) { state.journal.push_back(4712); }},
    };
    return all;
}

std::string text_of(const Ledger::State& state) {
    std::string text;
    for (const auto& [key, value] : state.records) text += fmt::format(" {}:{}", key, value);
    text += ", journal";
    for (const std::uint64_t value : state.journal) text += fmt::format(" {}", value);
    return text;
}

}  // namespace

const char* to_string(LedgerBug bug) { return kNames[static_cast<std::size_t>(bug)]; }

Ledger::Ledger(LedgerBug bug, bool crashes_creation)
    : bug_(bug), crashes_creation_(crashes_creation) {
    State state{.records = {{1, 100}}, .journal = {}};
    states_.push_back(state);
    if (crashes_creation) states_.push_back(state);
    for (const Planned& each : plan()) {
        each.on_model(state);
        states_.push_back(state);
    }
}

std::string Ledger::name() const {
    return fmt::format("ledger-{}{}", to_string(bug_), crashes_creation_ ? "-creation" : "");
}

Result<void> Ledger::set_up(const std::string& path) {
    if (crashes_creation_) return {};
    OpenLedger ledger(path, true, bug_);
    if (!ledger.is_open()) return fail(ErrorCode::io, "the ledger cannot be made");
    ledger.make();
    return {};
}

Result<void> Ledger::run(const std::string& path, Operations& operations) {
    std::unique_ptr<OpenLedger> ledger;
    if (crashes_creation_) {
        operations.begin();
        ledger = std::make_unique<OpenLedger>(path, true, bug_);
        if (!ledger->is_open()) return fail(ErrorCode::io, "the ledger cannot be made");
        ledger->make();
        operations.acknowledge();
    } else {
        ledger = std::make_unique<OpenLedger>(path, false, bug_);
        if (!ledger->is_open()) return fail(ErrorCode::io, "the ledger cannot be opened");
    }
    ledger->recover();
    for (const Planned& each : plan()) {
        operations.begin();
        if (!each.on_medium(*ledger)) return fail(ErrorCode::io, "an operation failed");
        operations.acknowledge();
    }
    return {};
}

std::string Ledger::check(const std::string& path, const Moment& moment) {
    OpenLedger ledger(path, false, bug_);
    const bool creating = crashes_creation_ && moment.acknowledged == 0;
    if (!ledger.is_open() || !ledger.is_made())
        return creating ? "" : "the ledger is not there any more";
    ledger.recover();
    State found = ledger.read();
    const State& before = states_[moment.acknowledged];
    const State& after = states_[moment.acknowledged + (moment.in_flight ? 1 : 0)];
    if (found != before && found != after)
        return fmt::format("holds{}, which is neither{} nor{}", text_of(found), text_of(before),
                           text_of(after));
    if (!ledger.put(20, 8)) return "after recovery: put fails";
    found.records[20] = 8;
    if (!ledger.transfer(1, 20, 1)) return "after recovery: a transfer fails";
    found.records[1] -= 1;
    found.records[20] += 1;
    if (!ledger.append(99)) return "after recovery: append fails";
    found.journal.push_back(99);
    if (ledger.read() != found)
        return fmt::format("after recovery and going on it holds{}, should{}",
                           text_of(ledger.read()), text_of(found));
    return {};
}

Result<void> Ledger::recover(const std::string& path) {
    OpenLedger ledger(path, false, bug_);
    if (ledger.is_open() && ledger.is_made()) ledger.recover();
    return {};
}

}  // namespace holdfast::crash
