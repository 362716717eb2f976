// A holdfast store as a subject of the crash harness: calls of the API, judged by the model.
//
// After each crash: the store opens; every space is as before or as after the call in flight,
// whatever was acknowledged is there (oracle/compare.hpp), and the boot epoch in which it was
// changed; every invariant of `verify` holds and the frames add up; then it goes on working,
// nothing that an interrupted call had reserved stays behind, and it still agrees.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "holdfast/crash.hpp"
#include "subjects/script.hpp"

namespace holdfast::crash {

class StoreWorkload final : public Subject {
  public:
    explicit StoreWorkload(Script script);
    std::string name() const override { return script_.name; }
    Result<void> set_up(const std::string& path) override;
    Result<void> run(const std::string& path, Operations& operations) override;
    std::string check(const std::string& path, const Moment& moment) override;
    bool has_recovery() const override { return true; }
    Result<void> recover(const std::string& path) override;

    const Script& script() const { return script_; }
    // Whether the store, opened after a crash at that moment, is as after the call in flight;
    // nothing if it is neither that nor as before it.
    std::optional<bool> is_after(const Store& store, const Moment& moment) const;

  private:
    Result<Store> create(const std::string& path) const;
    std::vector<oracle::Model> allowed_at(const Moment& moment) const;
    Script script_;
    std::vector<oracle::Model> models_;  // after 0, 1, … operations
    // What no space shows: how much there must be at least, after 0, 1, … operations.
    struct Least {
        std::uint64_t epochs = 0;  // boot epochs
        std::uint64_t regions = 1;
    };
    std::vector<Least> least_;
    friend class LeastCount;
};

}  // namespace holdfast::crash
