// A holdfast store as a subject of the crash harness: calls of the API, judged by the model.
//
// After each crash: the store opens; every space is as before or as after the call in flight,
// whatever was acknowledged is there (oracle/compare.hpp), and the boot epoch in which it was
// changed; every invariant of `verify` holds and the frames add up; then it goes on working,
// nothing that an interrupted call had reserved stays behind, and it still agrees.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/crash.hpp"
#include "subjects/script.hpp"

namespace holdfast::oracle {
class ModelFileSystem;
}

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
    // The files as they are at the moment; with `power_failed`, as they may be after it.
    void put_files(const Moment& moment, bool power_failed = false) const;
    // Of a store with files: what a failure of power may leave of those is as good as the rest.
    std::string check_unsynced(const std::string& path, const Moment& moment) const;
    // After 0, 1, … operations. Each step of a sync that a crash may follow, and that the pool does
    // not see, counts as one.
    std::vector<oracle::Model> models_;
    std::vector<std::size_t> step_of_;  // the operation that is in flight after each of them
    std::shared_ptr<oracle::ModelFileSystem> files_;
    // What no space shows: how much there must be at least, after 0, 1, … operations.
    struct Least {
        std::uint64_t epochs = 0;  // boot epochs
        std::uint64_t regions = 1;
    };
    std::vector<Least> least_;
    friend class LeastCount;
};

}  // namespace holdfast::crash
