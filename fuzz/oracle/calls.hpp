// Calls of the public API, to be run on a store or on the model: what crash tests let a program do,
// and what they then expect to find.
#pragma once

#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "holdfast/holdfast.hpp"
#include "oracle/model.hpp"

namespace holdfast::oracle {

using Random = std::mt19937_64;

struct Call {
    enum class Verb : std::uint8_t {
        create,
        create_supervisor,
        create_sharing,  // the half of `other`
        fork,
        snapshot,
        rollback,
        rename,
        remove,
        map,
        map_lazy,
        map_guard,
        map_huge,   // pages of 2 MiB
        lazy_huge,  // demand-zero, to be pages of 2 MiB
        promote,    // to pages of 2 MiB
        map_stack,  // that has one page at first
        map_shared,
        unmap,
        protect,
        write,
        // To a page that is shared; whoever syncs it persists it.
        write_unpersisted,
        map_file,         // of the file `name`, from its page `word` on
        map_file_shared,  // the same
        map_device,       // the device region's frames from `word` on
        fault,            // a first access to read
        sync,
        evict,   // up to `word` pages
        mark,    // takes a handle of a range
        prefer,  // the region that a space's pages come from
        // What changes no space: how much is there, and where.
        grow,
        release_limbo,
        add_volatile,  // a region of so many bytes, whose pages come back as zeros
        add_device,    // the same of a device, which is gone when the store is closed
        detach,
        attach,  // again
        move,    // a region gets another base
        finish_moves,
        overcommit  // policy and ratio
    };
    Verb verb{};
    std::string space, other;
    Range range, source;
    Protection protection;
    std::string name;
    std::uint64_t word = 0;  // written; or how many bytes or tables, or which region
    Levels levels = Levels::four;

    std::string to_string() const;
    // Whether it is a store's alone: no space is different after it, and no transaction has it.
    bool is_of_store() const { return verb >= Verb::grow; }
};

// Of a stack that `map_stack` makes.
inline constexpr std::uint64_t kStackGuardPages = 2;

// `word` of a call that sets it.
constexpr std::uint64_t word_of(const Overcommit& overcommit) {
    return static_cast<std::uint64_t>(overcommit.policy) | std::uint64_t{overcommit.ratio_percent}
                                                               << 8;
}
constexpr Overcommit overcommit_of(std::uint64_t word) {
    return {static_cast<OvercommitPolicy>(word & 0xff), static_cast<std::uint32_t>(word >> 8)};
}

// One call, or several that are to be one transaction.
using Calls = std::vector<Call>;

// Any number below the given one; the same numbers make the same calls.
using Choose = std::function<std::uint64_t(std::uint64_t end)>;

// `word` makes what is written different each time.
Calls chosen_calls(const Choose& below, std::uint64_t word);
Calls random_calls(Random& random, std::uint64_t word);

// Runs them on the store: one directly, several in a transaction. The first error ends it.
Result<void> run(Store& store, const Calls& calls);
// Changes the model as the calls should change the store; or returns the error that the store must
// return, and leaves the model as it was.
std::optional<ErrorCode> run(Model& model, const Calls& calls);

// What a crash during the calls may leave: the model before, the model after, and in between what a
// call of several steps allows (the first write to a demand-zero page maps a zeroed frame first).
std::vector<Model> states_during(const Model& before, const Calls& calls);
// What is left of them: of a word that was not persisted, what it was or what it was before.
std::vector<Model> states_after_crash(const std::vector<Model>& states);

}  // namespace holdfast::oracle
