#include "support/model.hpp"

#include <gtest/gtest.h>

#include "oracle/compare.hpp"
#include "support/temporary_pool.hpp"

namespace holdfast::test {

bool agrees(const Store& store, const Model& model) {
    const std::vector<std::string> differences = oracle::compare(store, model);
    for (const std::string& difference : differences)
        ADD_FAILURE() << "store and model differ: " << difference;
    expect_clean(store);
    return differences.empty() && !testing::Test::HasFailure();
}

}  // namespace holdfast::test
