// PMem emulation on DRAM: libpmemobj asks libpmem's `pmem_is_pmem` once, while it opens a pool,
// whether flushing cache lines suffices or msync is needed. PMDK's own switch for the answer
// (PMEM_IS_PMEM_FORCE) is read when its library loads, too early for an option of ours; so this
// room answers the question itself, and asks libpmem unless emulation is on.
#pragma once

namespace holdfast::pool {

// While one of these lives, pools that this thread opens are taken for PMem if `on`.
class EmulationScope {
  public:
    explicit EmulationScope(bool on);
    ~EmulationScope();
    EmulationScope(const EmulationScope&) = delete;
    EmulationScope& operator=(const EmulationScope&) = delete;

  private:
    bool previous_;
};

}  // namespace holdfast::pool
