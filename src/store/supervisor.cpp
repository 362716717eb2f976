#include "holdfast/supervisor.hpp"

#include "space/space_state.hpp"

namespace holdfast {

bool is_supervisor(const Space& space) { return space.state().is_supervisor(); }

std::optional<Space> supervisor_of(const Space& space) {
    if (!space.state().supervisor) return std::nullopt;
    return Space(space.state().supervisor);
}

}  // namespace holdfast
