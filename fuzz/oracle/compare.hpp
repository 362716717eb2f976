// A store against the model, and against its own invariants.
#pragma once

#include <string>
#include <vector>

#include "holdfast/holdfast.hpp"
#include "oracle/model.hpp"

namespace holdfast::oracle {

// Compares names, every mapped page (translation, protection, first word, and that frames are
// shared exactly as in the model), the pages around each mapping, and `maps`. Returns the first
// differences, none if all is the same.
std::vector<std::string> compare(const Store& store, const Model& model);

// What `verify` finds (include/holdfast/verify.hpp names the invariants), and whether the frames
// add up; the first few, none if all is well. `report` is given what was found.
std::vector<std::string> broken_invariants(const Store& store, VerifyReport* report = nullptr);

}  // namespace holdfast::oracle
