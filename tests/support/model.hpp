// The oracle's model (fuzz/oracle), for GoogleTest.
#pragma once

#include "oracle/model.hpp"

namespace holdfast::test {

using oracle::Model;
using oracle::ModelPage;
using oracle::ModelSpace;

// Compares store and model (oracle/compare.hpp) and verifies the store. The first differences fail
// the running test; returns whether all is the same.
bool agrees(const Store& store, const Model& model);

}  // namespace holdfast::test
