// Calls of the public API, made at random and run on a store or on the model: what crash tests let
// a child do, and what they then expect to find.
#pragma once

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "holdfast/holdfast.hpp"
#include "support/model.hpp"

namespace holdfast::test {

using Random = std::mt19937_64;

struct Call {
    enum class Verb : std::uint8_t {
        create,
        rename,
        remove,
        map,
        map_lazy,
        map_shared,
        unmap,
        protect,
        write
    };
    Verb verb{};
    std::string space, other;
    Range range, source;
    Protection protection;
    std::string name;
    std::uint64_t word = 0;

    std::string to_string() const;
};

// One call, or several that are to be one transaction.
using Calls = std::vector<Call>;

// `word` makes what is written different each time.
Calls random_calls(Random& random, std::uint64_t word);

// Runs them on the store: one directly, several in a transaction. The first error ends it.
Result<void> run(Store& store, const Calls& calls);
// Changes the model as the calls should change the store; or returns the error that the store must
// return, and leaves the model as it was.
std::optional<ErrorCode> run(Model& model, const Calls& calls);

}  // namespace holdfast::test
